//! What may cross the border. Refused here, a bad number can neither wrap a sum nor allocate
//! memory without bound further in, so the code behind needs no checks of its own.

mod coupling;

use std::collections::{BTreeSet, HashSet};
use std::fmt;

use prost::Message;

use crate::error::CoreError;
use crate::model::{users_total, WHOLE_DEVICE_MILLI};
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// Largest amount of one resource: 2^24 of them still add up in 64 bits.
pub const QUANTITY_MAX: u64 = 1 << 40;
/// Largest time, in unix seconds, and span of time.
pub const TIME_S_MAX: i64 = 1 << 40;
/// Most hours of one forecast: a year.
pub const FORECAST_HOURS_MAX: usize = 8784;
/// Most devices of one node, all models together.
pub const NODE_DEVICES_MAX: u64 = 1024;
/// Most tasks of one task group.
pub const GROUP_TASKS_MAX: u32 = 100_000;
/// Most tasks of one request, all jobs together.
pub const REQUEST_TASKS_MAX: u64 = 4_000_000;
/// Longest id or name: each placement repeats four of them.
pub const NAME_BYTES_MAX: usize = 512;
/// Most entries of a list that a job or a node has: each is compared with all others.
pub const LIST_MAX: usize = 1024;
/// Largest spec of a job that is to be explained: each change that is tried is a copy of it. The coordinator takes
/// none that is larger.
pub const EXPLAINED_SPEC_BYTES_MAX: usize = 1 << 18;

/// Refuses a delta with amounts out of range. Whether its ids are known is the state's question.
pub fn delta(delta: &border::Delta) -> Result<(), CoreError> {
    for (i, site) in delta.sites.iter().enumerate() {
        name(format_args!("sites[{i}].id"), &site.id)?;
        if let Some(forecast) = &site.forecast {
            self::forecast(format_args!("sites[{i}].forecast"), forecast)?;
        }
    }
    for (i, node) in delta.nodes.iter().enumerate() {
        self::node(format_args!("nodes[{i}]"), node)?;
    }
    for (i, link) in delta.links.iter().enumerate() {
        name(format_args!("links[{i}].from_id"), &link.from_id)?;
    }
    for (i, used) in delta.allocations.iter().enumerate() {
        let at = format_args!("allocations[{i}]");
        name(format_args!("{at}.allocation_id"), &used.allocation_id)?;
        if let Some(resources) = &used.resources {
            amounts(format_args!("{at}.resources"), resources)?;
        }
        for (j, share) in used.devices.iter().enumerate() {
            if u64::from(share.milli) > WHOLE_DEVICE_MILLI {
                let detail = format!("({}) must be at most 1000, one whole device", share.milli);
                return refuse(format!("{at}.devices[{j}].milli"), detail);
            }
        }
        coupling::traffic(at, &used.zone_traffic)?;
    }
    Ok(())
}

fn forecast(at: fmt::Arguments<'_>, forecast: &api::Forecast) -> Result<(), CoreError> {
    let first = format_args!("{at}.first_hour_unix_s");
    time(first, forecast.first_hour_unix_s)?;
    if forecast.first_hour_unix_s % 3600 != 0 {
        let down = forecast.first_hour_unix_s / 3600 * 3600;
        let detail = format!("({}) must be the start of an hour; use {down}", forecast.first_hour_unix_s);
        return refuse(first.to_string(), detail);
    }
    at_most(format_args!("{at}.hours, counted,"), forecast.hours.len() as u64, FORECAST_HOURS_MAX as u64)
}

fn node(at: fmt::Arguments<'_>, node: &api::Node) -> Result<(), CoreError> {
    name(format_args!("{at}.id"), &node.id)?;
    list(format_args!("{at}.accelerators"), node.accelerators.len())?;
    at_most(format_args!("{at}.cpu_milli"), node.cpu_milli, QUANTITY_MAX)?;
    at_most(format_args!("{at}.memory_mib"), node.memory_mib, QUANTITY_MAX)?;
    at_most(format_args!("{at}.core_active_power_mw"), node.core_active_power_mw, QUANTITY_MAX)?;
    let mut devices = 0;
    for (i, accelerator) in node.accelerators.iter().enumerate() {
        at_most(format_args!("{at}.accelerators[{i}].active_power_mw"), accelerator.active_power_mw, QUANTITY_MAX)?;
        devices += u64::from(accelerator.count);
        if devices > NODE_DEVICES_MAX {
            let detail = format!("brings node {} to {devices} devices; a node has at most {NODE_DEVICES_MAX}", node.id);
            return refuse(format!("{at}.accelerators[{i}].count"), detail);
        }
    }
    Ok(())
}

/// Refuses a request with amounts out of range, or jobs, groups or tasks named twice; counts
/// its tasks.
pub fn request(request: &border::PlaceRequest) -> Result<u64, CoreError> {
    policy(request.policy.as_ref())?;
    now(request.now_unix_s)?;
    jobs(&request.jobs)
}

/// Refuses a time of the decision that is out of range.
pub fn now(unix_s: i64) -> Result<(), CoreError> {
    time(format_args!("now_unix_s"), unix_s)
}

/// Refuses a policy with amounts out of range.
pub fn policy(policy: Option<&border::Policy>) -> Result<(), CoreError> {
    let Some(policy) = policy else { return Ok(()) };
    if border::Objective::try_from(policy.objective).is_err() {
        return refuse(
            "policy.objective".into(),
            format!("({}) is none that is known; leave it out", policy.objective),
        );
    }
    let mut weight = 0;
    for (i, task) in policy.typical_tasks.iter().enumerate() {
        let at = format_args!("policy.typical_tasks[{i}]");
        if let Some(resources) = &task.resources {
            amounts(format_args!("{at}.resources"), resources)?;
        }
        weight += u64::from(task.weight);
        at_most(format_args!("{at}.weight, added up,"), weight, QUANTITY_MAX)?;
    }
    at_most(format_args!("policy.migration_microcny"), policy.migration_microcny, QUANTITY_MAX)?;
    let price = policy.fragmentation_microcny_per_device_hour;
    at_most(format_args!("policy.fragmentation_microcny_per_device_hour"), price, QUANTITY_MAX)
}

/// Refuses jobs out of range, or that are named twice; counts their tasks.
pub fn jobs(jobs: &[border::PendingJob]) -> Result<u64, CoreError> {
    let mut tasks = 0;
    let mut ids = HashSet::with_capacity(jobs.len());
    for (i, job) in jobs.iter().enumerate() {
        if !ids.insert(job.job_id.as_str()) {
            return refuse(format!("jobs[{i}].job_id"), format!("({}) is sent twice; send it once", job.job_id));
        }
        tasks += self::job(format_args!("jobs[{i}]"), job)?;
        if tasks > REQUEST_TASKS_MAX {
            let detail = format!("bring the request to {tasks} tasks; send at most {REQUEST_TASKS_MAX} at once");
            return refuse(format!("jobs[{i}].pending"), detail);
        }
    }
    Ok(tasks)
}

/// Checks one job and counts its pending tasks.
fn job(at: fmt::Arguments<'_>, job: &border::PendingJob) -> Result<u64, CoreError> {
    let Some(spec) = &job.spec else {
        let detail = format!("of job {} is missing; send its normalised spec", job.job_id);
        return refuse(format!("{at}.spec"), detail);
    };
    name(format_args!("{at}.job_id"), &job.job_id)?;
    time(format_args!("{at}.created_unix_s"), job.created_unix_s)?;
    self::spec(format_args!("{at}.spec"), spec)?;
    if job.explain && spec.encoded_len() > EXPLAINED_SPEC_BYTES_MAX {
        let detail = format!("({} bytes) must be at most {EXPLAINED_SPEC_BYTES_MAX} to explain", spec.encoded_len());
        return refuse(format!("{at}.spec"), detail);
    }
    if job.pending.is_empty() {
        return Ok(spec.task_groups.iter().map(|g| u64::from(g.count)).sum());
    }
    let mut seen = BTreeSet::new();
    for (i, pending) in job.pending.iter().enumerate() {
        let at = format_args!("{at}.pending[{i}]");
        let Some(group) = spec.task_groups.iter().find(|g| g.name == pending.task_group) else {
            let detail = format!("({}) is no group of job {}", pending.task_group, job.job_id);
            return refuse(format!("{at}.task_group"), detail);
        };
        for (j, &index) in pending.task_indexes.iter().enumerate() {
            let field = || format!("{at}.task_indexes[{j}]");
            if index >= group.count {
                let detail = format!("({index}) is not below the count ({}) of group {}", group.count, group.name);
                return refuse(field(), detail);
            }
            if !seen.insert((&group.name, index)) {
                return refuse(field(), format!("({index}) of group {} is named twice; send it once", group.name));
            }
        }
    }
    Ok(seen.len() as u64)
}

fn spec(at: fmt::Arguments<'_>, spec: &api::JobSpec) -> Result<(), CoreError> {
    if api::JobKind::try_from(spec.kind).is_err() {
        return refuse(format!("{at}.kind"), format!("({}) is none that is known; leave it out", spec.kind));
    }
    at_most(format_args!("{at}.rent_max_microcny_per_hour"), spec.rent_max_microcny_per_hour, QUANTITY_MAX)?;
    list(format_args!("{at}.task_groups"), spec.task_groups.len())?;
    if let Some(deferral) = &spec.deferral {
        at_most(format_args!("{at}.deferral.finish_within_s"), deferral.finish_within_s, TIME_S_MAX as u64)?;
        at_most(format_args!("{at}.deferral.run_time_s"), deferral.run_time_s, TIME_S_MAX as u64)?;
    }
    for (i, group) in spec.task_groups.iter().enumerate() {
        let at = format_args!("{at}.task_groups[{i}]");
        name(format_args!("{at}.name"), &group.name)?;
        if spec.task_groups[..i].iter().any(|other| other.name == group.name) {
            return refuse(format!("{at}.name"), format!("({}) is the name of two groups; rename one", group.name));
        }
        at_most(format_args!("{at}.count"), u64::from(group.count), u64::from(GROUP_TASKS_MAX))?;
        if let Some(resources) = &group.resources {
            amounts(format_args!("{at}.resources"), resources)?;
        }
        coupling::group(at, spec, group)?;
        if let Some(slo) = &group.latency_slo {
            self::slo(format_args!("{at}.latency_slo"), slo)?;
        }
    }
    Ok(())
}

fn slo(at: fmt::Arguments<'_>, slo: &api::LatencySlo) -> Result<(), CoreError> {
    list(format_args!("{at}.zone_ids"), slo.zone_ids.len())?;
    if let Some(i) = (1..slo.zone_ids.len()).find(|&i| slo.zone_ids[..i].contains(&slo.zone_ids[i])) {
        return refuse(format!("{at}.zone_ids[{i}]"), format!("({}) is there twice; name it once", slo.zone_ids[i]));
    }
    at_most(format_args!("{at}.users_permille"), u64::from(slo.users_permille), 1000)?;
    at_most(format_args!("{at}.soft_microcny_per_ms_hour"), slo.soft_microcny_per_ms_hour, QUANTITY_MAX)?;
    if users_total(slo) == 0 && !slo.zone_ids.is_empty() {
        return refuse(format!("{at}.users"), "has no user in any zone of the SLO; give one zone some".into());
    }
    Ok(())
}

/// The resources of one task or allocation.
fn amounts(at: fmt::Arguments<'_>, resources: &api::Resources) -> Result<(), CoreError> {
    at_most(format_args!("{at}.cpu_milli"), resources.cpu_milli, QUANTITY_MAX)?;
    at_most(format_args!("{at}.memory_mib"), resources.memory_mib, QUANTITY_MAX)?;
    let Some(request) = &resources.accelerators else { return Ok(()) };
    let field = format_args!("{at}.accelerators.milli");
    at_most(field, request.milli, QUANTITY_MAX)?;
    if request.milli > WHOLE_DEVICE_MILLI && request.milli % WHOLE_DEVICE_MILLI != 0 {
        let up = request.milli.next_multiple_of(WHOLE_DEVICE_MILLI);
        let detail = format!(
            "({}) must be below 1000, a share of one device, or a multiple of 1000, whole devices; use {} or {up}",
            request.milli,
            up - WHOLE_DEVICE_MILLI,
        );
        return refuse(field.to_string(), detail);
    }
    Ok(())
}

fn time(field: fmt::Arguments<'_>, unix_s: i64) -> Result<(), CoreError> {
    if !(0..=TIME_S_MAX).contains(&unix_s) {
        return refuse(field.to_string(), format!("({unix_s}) must be from 0 to {TIME_S_MAX}"));
    }
    Ok(())
}

fn name(field: fmt::Arguments<'_>, value: &str) -> Result<(), CoreError> {
    if value.is_empty() {
        return refuse(field.to_string(), "must not be empty".into());
    }
    if value.len() > NAME_BYTES_MAX {
        let detail = format!("({} bytes) must be at most {NAME_BYTES_MAX} bytes", value.len());
        return refuse(field.to_string(), detail);
    }
    Ok(())
}

fn list(field: fmt::Arguments<'_>, length: usize) -> Result<(), CoreError> {
    at_most(format_args!("{field}, counted,"), length as u64, LIST_MAX as u64)
}

fn at_most(field: fmt::Arguments<'_>, value: u64, most: u64) -> Result<(), CoreError> {
    if value > most {
        return refuse(field.to_string(), format!("({value}) must be at most {most}"));
    }
    Ok(())
}

fn refuse<T>(field: String, detail: String) -> Result<T, CoreError> {
    Err(CoreError::InvalidField { field, detail })
}
