//! Changes of what couples a group with others, whichever of them asks for it.

use std::collections::BTreeSet;

use super::{change, figure, parts, Change, Changes, VALUES_MAX};
use crate::coupling::UNCOUPLED;
use crate::topology;
use crate::trial::Trial;
use crate::wire::mumian::api::v1 as api;
use crate::words::{mbps, ms, plural};

pub fn changes(trial: &Trial<'_>, spec: &api::JobSpec, group: usize) -> Vec<Changes> {
    let mut all = Vec::new();
    let this = &spec.task_groups[group];
    all.push(wider(spec, group));
    all.extend((0..this.spreads.len()).map(|i| spread(spec, group, i)));
    all.extend((0..this.zone_traffic.len()).map(|i| bandwidth(trial, spec, group, i)));
    for (g, other) in spec.task_groups.iter().enumerate() {
        let is_about_this = |named: &String| g == group || *named == this.name;
        let apart = other.apart_from.iter().enumerate().filter(|(_, apart)| is_about_this(&apart.task_group));
        all.push(apart.map(|(i, _)| together(spec, g, i)).collect());
        let near = other.group_latencies.iter().enumerate().filter(|(_, near)| is_about_this(&near.task_group));
        all.extend(near.map(|(i, _)| budget(trial, spec, g, i)));
    }
    all
}

fn spread(spec: &api::JobSpec, group: usize, i: usize) -> Changes {
    let of_group = &spec.task_groups[group];
    let most = of_group.spreads[i].max_tasks;
    let field = format!("task_groups[{group}].spreads[{i}].max_tasks");
    let more = (most.saturating_add(1)..=of_group.count).take(VALUES_MAX).map(|to| {
        let set = |s: &mut api::JobSpec| s.task_groups[group].spreads[i].max_tasks = to;
        let show = |tasks| plural(tasks as usize, "task");
        figure(api::Filter::Spread, field.clone(), (most.into(), to.into()), show, spec, &set)
    });
    more.collect()
}

/// A wider domain for tasks that must be together, narrowest first; the last is none.
fn wider(spec: &api::JobSpec, group: usize) -> Changes {
    use api::Topology as T;
    let asked = spec.task_groups[group].together();
    let all = [T::Node, T::Switch, T::Rack, T::Site, T::Operator, T::Unspecified];
    let Some(position) = all.iter().position(|t| *t == asked).filter(|_| asked != T::Unspecified) else {
        return Changes::new();
    };
    let told = |t: T| if t == T::Unspecified { String::new() } else { topology::word(t).into() };
    let wider = all[position + 1..].iter().map(|&to| {
        let set = |s: &mut api::JobSpec| {
            // What it is together with stays so.
            let with_it = s.task_groups.iter_mut().filter(|other| other.together() == asked);
            with_it.for_each(|other| other.together = to.into());
        };
        let field = format!("task_groups[{group}].together");
        change(api::Filter::Together, field, (told(asked), told(to)), spec, &set)
    });
    wider.collect()
}

/// What is left of each link, shared out among tasks.
fn bandwidth(trial: &Trial<'_>, spec: &api::JobSpec, group: usize, i: usize) -> Changes {
    let traffic = &spec.task_groups[group].zone_traffic[i];
    let asked = traffic.bandwidth_kbps;
    let context = trial.context(&UNCOUPLED);
    let mut values = BTreeSet::new();
    for (s, site) in trial.cluster.sites.iter().enumerate() {
        let limit = site.links.get(&traffic.zone_id).map_or(0, |link| link.bandwidth_kbps);
        values.extend(parts(limit.saturating_sub(context.used_kbps(s as u32, &traffic.zone_id)), asked));
    }
    let field = format!("task_groups[{group}].zone_traffic[{i}].bandwidth_kbps");
    let less = values.into_iter().rev().take(VALUES_MAX).map(|to| {
        let set = |s: &mut api::JobSpec| s.task_groups[group].zone_traffic[i].bandwidth_kbps = to;
        let show = |kbps| format!("{} Mbit/s", mbps(kbps));
        figure(api::Filter::LinkBandwidth, field.clone(), (asked, to), show, spec, &set)
    });
    less.collect()
}

/// Without one anti-affinity.
fn together(spec: &api::JobSpec, group: usize, i: usize) -> Change {
    let set = |s: &mut api::JobSpec| {
        s.task_groups[group].apart_from.remove(i);
    };
    let field = format!("task_groups[{group}].apart_from[{i}]");
    let from = spec.task_groups[group].apart_from[i].task_group.clone();
    change(api::Filter::AntiAffinity, field, (from, String::new()), spec, &set)
}

/// The budgets that would span two sites, or one, at some compute time of the group that has it.
fn budget(trial: &Trial<'_>, spec: &api::JobSpec, group: usize, i: usize) -> Changes {
    let of_group = &spec.task_groups[group];
    let budget_us = of_group.group_latencies[i].budget_us;
    let times = of_group.compute_time.clone().unwrap_or_default();
    let mut compute_us = BTreeSet::from([times.default_us]);
    compute_us.extend(times.by_accelerator_model_us.into_values().chain(times.by_arch_us.into_values()));
    let cluster = trial.cluster;
    let mut rtt_us = BTreeSet::from([0]);
    for (s, site) in cluster.sites.iter().enumerate() {
        let peers = site.links.keys().filter_map(|from| cluster.find(from).ok());
        rtt_us.extend(peers.filter_map(|peer| cluster.rtt_p99_us(peer as u32, s as u32, false)));
    }
    let totals = rtt_us.iter().flat_map(|rtt| compute_us.iter().map(move |compute| rtt.saturating_add(*compute)));
    let longer: BTreeSet<u64> = totals.filter(|total| *total > budget_us).collect();
    let field = format!("task_groups[{group}].group_latencies[{i}].budget_us");
    let longer = longer.into_iter().take(VALUES_MAX).map(|to| {
        let set = |s: &mut api::JobSpec| s.task_groups[group].group_latencies[i].budget_us = to;
        let show = |us| format!("{} ms", ms(us));
        figure(api::Filter::GroupLatency, field.clone(), (budget_us, to), show, spec, &set)
    });
    longer.collect()
}
