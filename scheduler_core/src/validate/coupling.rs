//! What a group may ask of where other tasks are.

use std::fmt;

use super::{at_most, list, refuse, QUANTITY_MAX};
use crate::error::CoreError;
use crate::wire::mumian::api::v1 as api;

/// Refuses constraints that name no topology or group of the job, count nothing, or are there twice.
pub fn group(at: fmt::Arguments<'_>, spec: &api::JobSpec, group: &api::TaskGroup) -> Result<(), CoreError> {
    list(format_args!("{at}.spreads"), group.spreads.len())?;
    list(format_args!("{at}.apart_from"), group.apart_from.len())?;
    list(format_args!("{at}.group_latencies"), group.group_latencies.len())?;
    for (i, spread) in group.spreads.iter().enumerate() {
        let at = format_args!("{at}.spreads[{i}]");
        topology(format_args!("{at}.topology"), spread.topology)?;
        positive(format_args!("{at}.max_tasks"), spread.max_tasks.into())?;
        if group.spreads[..i].iter().any(|other| other.topology == spread.topology) {
            return refuse(format!("{at}.topology"), "is there twice; keep one limit for each topology".into());
        }
    }
    for (i, apart) in group.apart_from.iter().enumerate() {
        let at = format_args!("{at}.apart_from[{i}]");
        topology(format_args!("{at}.topology"), apart.topology)?;
        other_group(at, spec, &apart.task_group)?;
        if apart.task_group == group.name {
            let detail = format!("({}) is the group itself; use spreads with max_tasks 1", group.name);
            return refuse(format!("{at}.task_group"), detail);
        }
    }
    for (i, latency) in group.group_latencies.iter().enumerate() {
        let at = format_args!("{at}.group_latencies[{i}]");
        other_group(at, spec, &latency.task_group)?;
        positive(format_args!("{at}.budget_us"), latency.budget_us)?;
    }
    if group.together != 0 {
        topology(format_args!("{at}.together"), group.together)?;
    }
    traffic(at, &group.zone_traffic)
}

/// The traffic of one task or allocation.
pub fn traffic(at: fmt::Arguments<'_>, traffic: &[api::ZoneTraffic]) -> Result<(), CoreError> {
    list(format_args!("{at}.zone_traffic"), traffic.len())?;
    for (i, one) in traffic.iter().enumerate() {
        let at = format_args!("{at}.zone_traffic[{i}]");
        positive(format_args!("{at}.bandwidth_kbps"), one.bandwidth_kbps)?;
        at_most(format_args!("{at}.bandwidth_kbps"), one.bandwidth_kbps, QUANTITY_MAX)?;
        if traffic[..i].iter().any(|other| other.zone_id == one.zone_id) {
            return refuse(format!("{at}.zone_id"), format!("({}) is there twice; add the two up", one.zone_id));
        }
    }
    Ok(())
}

fn topology(field: fmt::Arguments<'_>, value: i32) -> Result<(), CoreError> {
    if value == 0 || api::Topology::try_from(value).is_err() {
        let detail = format!("({value}) must be 1 (node), 2 (site), 3 (operator), 4 (switch) or 5 (rack)");
        return refuse(field.to_string(), detail);
    }
    Ok(())
}

fn other_group(at: fmt::Arguments<'_>, spec: &api::JobSpec, name: &str) -> Result<(), CoreError> {
    if spec.task_groups.iter().any(|g| g.name == name) {
        return Ok(());
    }
    refuse(format!("{at}.task_group"), format!("({name}) is no group of the job"))
}

fn positive(field: fmt::Arguments<'_>, value: u64) -> Result<(), CoreError> {
    if value == 0 {
        return refuse(field.to_string(), "(0) must be positive; leave the constraint out for none".into());
    }
    Ok(())
}
