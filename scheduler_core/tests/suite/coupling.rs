//! Constraints that couple tasks, counted anew from the definitions: no plan breaks one, also
//! beside tasks that run already.

use crate::common;
use proptest::prelude::*;
use scheduler_core::place::place;
use scheduler_core::state::State;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

/// One task with where it is.
struct Task<'a> {
    job_id: &'a str,
    /// Unset when the group is not of the spec that is placed now.
    group: Option<&'a api::TaskGroup>,
    node: &'a api::Node,
    site: &'a api::Site,
    cpu_milli: u64,
    devices: &'a [api::DeviceShare],
    zone_traffic: &'a [api::ZoneTraffic],
    is_new: bool,
}

impl Task<'_> {
    fn model(&self) -> Option<&api::Accelerator> {
        let models = self.node.accelerators.iter().flat_map(|a| (0..a.count).map(move |_| a));
        self.devices.first().and_then(|share| models.clone().nth(share.device_index as usize))
    }

    fn compute_us(&self) -> u64 {
        let times = self.group.and_then(|g| g.compute_time.clone()).unwrap_or_default();
        let by_model = self.model().and_then(|a| times.by_accelerator_model_us.get(&a.model));
        *by_model.or_else(|| times.by_arch_us.get(&self.node.arch)).unwrap_or(&times.default_us)
    }

    /// Cores and devices under full load, at the meter, in milliwatt times 10^6.
    fn power(&self) -> u128 {
        let device_power_mw = self.model().map_or(0, |a| a.active_power_mw);
        let devices_milli: u64 = self.devices.iter().map(|share| u64::from(share.milli)).sum();
        let it = self.cpu_milli * self.node.core_active_power_mw + devices_milli * device_power_mw;
        u128::from(it) * u128::from(self.site.pue.as_ref().map_or(1000, |pue| pue.marginal_permille))
    }

    fn is_of(&self, job_id: &str, group: &str) -> bool {
        self.job_id == job_id && self.group.is_some_and(|g| g.name == group)
    }

    /// None: nobody says it.
    fn shares(&self, other: &Self, topology: api::Topology) -> Option<bool> {
        let within = |name: fn(&api::Node) -> &String| {
            let (one, other_one) = (name(self.node), name(other.node));
            if self.site.id != other.site.id {
                Some(false)
            } else if self.node.id == other.node.id {
                Some(true)
            } else {
                (!one.is_empty() && !other_one.is_empty()).then(|| one == other_one)
            }
        };
        match topology {
            api::Topology::Node => Some(self.node.id == other.node.id),
            api::Topology::Site => Some(self.site.id == other.site.id),
            api::Topology::Operator => Some(self.site.operator_id == other.site.operator_id),
            api::Topology::Switch => within(|node| &node.switch_id),
            api::Topology::Rack => within(|node| &node.rack_id),
            api::Topology::Unspecified => unreachable!("never made"),
        }
    }
}

/// The worse of the directions that are known; the newest link between two ends counts, but no estimate where
/// only measured ones do.
fn rtt_us(fleet: &border::Delta, a: &str, b: &str, measured_only: bool) -> Option<u64> {
    let newest = |from: &str, to: &str| fleet.links.iter().rev().find(|l| l.from_id == from && l.to_site_id == to);
    let counted = |link: &&api::Link| !(measured_only && link.source() == api::FigureSource::Modelled);
    let known = [newest(a, b), newest(b, a)].into_iter().flatten().filter(counted);
    let known = known.map(|link| link.rtt_p99_us).max();
    if a == b {
        Some(0)
    } else {
        known
    }
}

/// What the new tasks break, in words.
fn broken(fleet: &border::Delta, tasks: &[Task<'_>]) -> Vec<String> {
    let mut broken = Vec::new();
    for task in tasks {
        let group = task.group.cloned().unwrap_or_default();
        for spread in &group.spreads {
            let peers = tasks
                .iter()
                .filter(|t| t.is_of(task.job_id, &group.name) && t.shares(task, spread.topology()) != Some(false));
            if task.is_new && peers.count() > spread.max_tasks as usize {
                broken.push(format!("{spread:?} of {}", group.name));
            }
        }
        for apart in &group.apart_from {
            let others = tasks.iter().filter(|t| t.is_of(task.job_id, &apart.task_group));
            let mut others = others.filter(|t| t.is_new || task.is_new);
            if others.any(|t| t.shares(task, apart.topology()) != Some(false)) {
                broken.push(format!("{apart:?} of {}", group.name));
            }
        }
        let peers =
            tasks.iter().filter(|t| group.together != 0 && t.job_id == task.job_id && (t.is_new || task.is_new));
        for peer in peers {
            let is_same = peer.group.is_some_and(|g| g.together == group.together);
            if is_same && peer.shares(task, group.together()) != Some(true) {
                broken.push(format!("{} together by {:?}", group.name, group.together()));
            }
        }
        for latency in &group.group_latencies {
            let others = tasks.iter().filter(|t| t.is_of(task.job_id, &latency.task_group));
            let mut others = others.filter(|t| (t.is_new || task.is_new) && !std::ptr::eq(*t, task));
            let measured_only = group.latency_slo.as_ref().is_some_and(|slo| slo.measured_only);
            let rtt_us = |t: &Task<'_>| rtt_us(fleet, &t.site.id, &task.site.id, measured_only);
            let total = |t: &Task<'_>| rtt_us(t).map(|rtt| rtt + task.compute_us());
            if others.any(|t| total(t).is_none_or(|total_us| total_us > latency.budget_us)) {
                broken.push(format!("{latency:?} of {}", group.name));
            }
        }
        for traffic in task.zone_traffic.iter().filter(|_| task.is_new) {
            let to_site = |l: &&api::Link| l.from_id == traffic.zone_id && l.to_site_id == task.site.id;
            let limit = fleet.links.iter().rev().find(to_site).map_or(0, |link| link.bandwidth_kbps);
            let at_site = tasks.iter().filter(|t| t.site.id == task.site.id);
            let of_zone = at_site.flat_map(|t| t.zone_traffic).filter(|t| t.zone_id == traffic.zone_id);
            if limit > 0 && of_zone.map(|t| t.bandwidth_kbps).sum::<u64>() > limit {
                broken.push(format!("{traffic:?} at {}", task.site.id));
            }
        }
        let at_site = tasks.iter().filter(|t| t.site.id == task.site.id);
        let cap = u128::from(task.site.power_cap_mw) * 1_000_000;
        if task.is_new && cap > 0 && at_site.map(Task::power).sum::<u128>() > cap {
            broken.push(format!("the power cap of {}", task.site.id));
        }
    }
    broken
}

fn group_of<'a>(request: &'a border::PlaceRequest, job_id: &str, group: &str) -> Option<&'a api::TaskGroup> {
    let job = request.jobs.iter().find(|j| j.job_id == job_id)?;
    job.spec.as_ref()?.task_groups.iter().find(|g| g.name == group)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_breaks_a_constraint_that_couples_tasks(
        fleet in common::fleet(3, 4),
        earlier in common::request(3, 3, 4),
        request in common::request(3, 3, 4),
    ) {
        let mut state = State::default();
        state.apply(fleet.clone()).expect("the fleet speaks of its own sites only");
        let before = place(&state.snapshot(), &earlier).expect("the request is in range");
        let running: Vec<_> = before.placements.iter().map(|p| {
            let group = group_of(&earlier, &p.job_id, &p.task_group).expect("of this request");
            border::UsedResources {
                allocation_id: format!("{}.{}.{}", p.job_id, p.task_group, p.task_index),
                node_id: p.node_id.clone(),
                resources: group.resources.clone(),
                devices: p.devices.clone(),
                job_id: p.job_id.clone(),
                task_group: p.task_group.clone(),
                task_index: p.task_index,
                zone_traffic: group.zone_traffic.clone(),
 ..Default::default()
}
        }).collect();
        state.apply(border::Delta { base_generation: 1, allocations: running.clone(), ..Default::default() }).expect("they fit");
        let plan = place(&state.snapshot(), &request).expect("the request is in range");
        let node = |id: &str| fleet.nodes.iter().find(|n| n.id == id).expect("of this fleet");
        let site = |id: &str| fleet.sites.iter().find(|s| s.id == id).expect("of this fleet");
        let held = running.iter().map(|used| Task {
            job_id: &used.job_id,
            group: group_of(&request, &used.job_id, &used.task_group),
            node: node(&used.node_id),
            site: site(&node(&used.node_id).site_id),
            cpu_milli: used.resources.as_ref().map_or(0, |r| r.cpu_milli),
            devices: &used.devices,
            zone_traffic: &used.zone_traffic,
            is_new: false,
        });
        let placed = plan.placements.iter().map(|p| {
            let group = group_of(&request, &p.job_id, &p.task_group).expect("of this request");
            Task {
                job_id: &p.job_id,
                group: Some(group),
                node: node(&p.node_id),
                site: site(&p.site_id),
                cpu_milli: group.resources.as_ref().map_or(0, |r| r.cpu_milli),
                devices: &p.devices,
                zone_traffic: &group.zone_traffic,
                is_new: true,
            }
        });
        let tasks: Vec<_> = held.chain(placed).collect();
        prop_assert_eq!(broken(&fleet, &tasks), Vec::<String>::new());
    }
}
