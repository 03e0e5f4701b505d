//! What the engine reasons about: one candidate node for one task, and the figures of both.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::{At, Device, NodeState, SiteState};
use crate::coupling::Coupling;
use crate::occupancy::Context;
use crate::room::{Ask, Room};
use crate::wire::mumian::api::v1 as api;

/// Whole devices are multiples of this many milli.
pub const WHOLE_DEVICE_MILLI: u64 = 1000;

/// A task of some group as the engine sees it.
#[derive(Debug, Clone)]
pub struct Task {
    pub demand: Demand,
    /// Unset when nothing couples it with others.
    pub coupling: Option<Arc<Coupling>>,
}

impl Task {
    pub fn of(job_id: &str, job: &api::JobSpec, group: &api::TaskGroup) -> Self {
        Self { demand: Demand::of(job, group), coupling: Coupling::of(job_id, job, group).map(Arc::new) }
    }
}

/// When a task runs, as far as its cost depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Run {
    /// 0: no time is known, and the flat figures of every site hold.
    pub start_unix_s: i64,
    /// 0: nobody knows how long; it costs what the hour costs in which it starts.
    pub seconds: u64,
}

/// All that decides which nodes would do for a task, whatever else is placed, and what it costs
/// there. Tasks of equal demand share their candidates.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Demand {
    pub jurisdictions: Vec<String>,
    pub pue_max_permille: u32,
    pub rent_max_microcny_per_hour: u64,
    pub operators_allowed: Vec<String>,
    pub operators_denied: Vec<String>,
    /// In thousandths of a core; an absent message asks for nothing.
    pub cpu_milli: u64,
    pub memory_mib: u64,
    /// Unset when the task asks for none.
    pub accelerators: Option<api::AcceleratorRequest>,
    pub archs: Vec<String>,
    /// It runs in the node's container engine.
    pub is_container: bool,
    pub labels: BTreeMap<String, String>,
    pub latency_slo: Option<api::LatencySlo>,
    pub compute_us: u64,
    pub compute_us_by_model: BTreeMap<String, u64>,
    pub compute_us_by_arch: BTreeMap<String, u64>,
    /// Towards zones, all of them together.
    pub egress_kbps: u64,
    pub run: Run,
}

impl Demand {
    /// At no known time. Names every field of both messages, so that a new one cannot be forgotten here.
    pub fn of(job: &api::JobSpec, group: &api::TaskGroup) -> Self {
        let api::JobSpec {
            jurisdictions,
            pue_max_permille,
            rent_max_microcny_per_hour,
            operators_allowed,
            operators_denied,
            deferral,
            name: _,
            kind: _,
            priority: _,
            task_groups: _,
            on_disconnect: _, // the coordinator follows silent sites, and places what is lost anew
            at_most_once: _,
            update: _,
            pinned: _,   // asked by whoever moves what runs
            project: _,  // the coordinator keeps quotas
            contract: _, // vouchers ask for it
        } = job;
        let api::TaskGroup {
            resources,
            archs,
            labels,
            latency_slo,
            compute_time,
            name: _,
            count: _,
            command,
            max_restarts: _,
            time_limit_ms: _,
            ports: _,
            health_check: _,
            restart_delay_ms: _,
            restart_delay_max_ms: _,
            outputs: _,
            zone_traffic,
            spreads: _, // these four are the coupling's alone
            apart_from: _,
            group_latencies: _,
            together: _,
        } = group;
        let resources = resources.clone().unwrap_or_default();
        let compute = compute_time.clone().unwrap_or_default();
        Self {
            jurisdictions: jurisdictions.clone(),
            pue_max_permille: *pue_max_permille,
            rent_max_microcny_per_hour: *rent_max_microcny_per_hour,
            operators_allowed: operators_allowed.clone(),
            operators_denied: operators_denied.clone(),
            cpu_milli: resources.cpu_milli,
            memory_mib: resources.memory_mib,
            accelerators: resources.accelerators.filter(|a| a.milli > 0),
            archs: archs.clone(),
            is_container: command.as_ref().is_some_and(|command| !command.image.is_empty()),
            labels: labels.clone(),
            latency_slo: latency_slo.clone(),
            compute_us: compute.default_us,
            compute_us_by_model: compute.by_accelerator_model_us,
            compute_us_by_arch: compute.by_arch_us,
            egress_kbps: zone_traffic.iter().map(|traffic| traffic.bandwidth_kbps).fold(0, u64::saturating_add),
            run: Run { start_unix_s: 0, seconds: deferral.as_ref().map_or(0, |d| d.run_time_s) },
        }
    }

    /// The same task started at that time.
    pub fn starting(mut self, unix_s: i64) -> Self {
        // Where only the hour counts, only the hour is kept, so that tasks of one hour are alike.
        self.run.start_unix_s =
            if self.run.seconds == 0 { unix_s.div_euclid(3600).saturating_mul(3600) } else { unix_s };
        self
    }

    /// In thousandths of a device.
    pub fn accelerator_milli(&self) -> u64 {
        self.accelerators.as_ref().map_or(0, |a| a.milli)
    }
}

/// One task, asked about one node of one site and, where it asks for accelerators, about one
/// model of device: all devices of a task are of one model.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    pub at: At,
    pub site: &'a SiteState,
    pub node: &'a NodeState,
    pub demand: &'a Demand,
    /// Position in the node's accelerators; unset when none is asked for or none accepted.
    pub model: Option<usize>,
    /// Unset where coupling constraints are not asked.
    pub context: Option<Context<'a>>,
}

/// The models of the node that could serve the demand; one unset entry when none is asked for
/// or none is accepted.
pub fn models<'a>(node: &'a NodeState, demand: &'a Demand) -> impl Iterator<Item = Option<usize>> + 'a {
    let accepted = move |model: &usize| {
        demand.accelerators.as_ref().is_some_and(|a| accepts_model(a, &node.node.accelerators[*model].model))
    };
    let mut accepted = node.models().filter(accepted).map(Some).peekable();
    let none = if accepted.peek().is_none() { Some(None) } else { None };
    accepted.chain(none)
}

impl<'a> Candidate<'a> {
    /// The node's accelerators of the model in question.
    pub fn accelerator(&self) -> Option<&'a api::Accelerator> {
        self.model.map(|m| &self.node.node.accelerators[m])
    }

    /// The devices of the model that have so many milli free, with their indexes.
    fn roomy(&self, milli: u64) -> impl Iterator<Item = (usize, &'a Device)> + use<'a> {
        let model = self.model;
        self.node.devices.iter().enumerate().filter(move |(_, d)| Some(d.model) == model && d.free_milli() >= milli)
    }

    /// Every device that could hold a share, with its index.
    pub fn share_devices(&self) -> impl Iterator<Item = (usize, &'a Device)> + use<'a> {
        self.roomy(self.demand.accelerator_milli())
    }

    /// What is free on the node for this model.
    pub(crate) fn room(&self) -> Room {
        Room::of(self.node, self.model)
    }

    /// Whether the devices that the task asks for are free.
    pub fn devices_fit(&self) -> bool {
        self.room().devices_fit(&Ask::of(self.demand))
    }

    /// The fullest device that has room for the task's share.
    pub fn fullest_device(&self) -> Option<(usize, &'a Device)> {
        self.share_devices().min_by_key(|(index, d)| (d.free_milli(), *index))
    }

    /// The devices that the task would get: for a share `shared`, or else the fullest device
    /// that has room; for whole devices the first free ones. Asked only where they fit.
    pub fn devices(&self, shared: Option<usize>) -> Vec<api::DeviceShare> {
        let share = |index: usize, milli: u64| api::DeviceShare { device_index: index as u32, milli: milli as u32 };
        let milli = self.demand.accelerator_milli();
        if milli < WHOLE_DEVICE_MILLI {
            let index = if milli == 0 { None } else { shared.or_else(|| self.fullest_device().map(|(i, _)| i)) };
            return index.map(|i| share(i, milli)).into_iter().collect();
        }
        let count = (milli / WHOLE_DEVICE_MILLI) as usize;
        self.roomy(WHOLE_DEVICE_MILLI).take(count).map(|(i, _)| share(i, WHOLE_DEVICE_MILLI)).collect()
    }

    /// IT power of the task under full load, in microwatt: exact, so that sums stay so.
    pub fn it_power_uw(&self) -> u128 {
        let device_power_mw = self.accelerator().map_or(0, |a| a.active_power_mw);
        u128::from(self.demand.cpu_milli) * u128::from(self.node.node.core_active_power_mw)
            + u128::from(self.demand.accelerator_milli()) * u128::from(device_power_mw)
    }

    /// Compute time of one request here, in microseconds: accelerator model, then arch, then default.
    pub fn compute_us(&self) -> u64 {
        let by_model = self.accelerator().and_then(|a| self.demand.compute_us_by_model.get(&a.model));
        let by_arch = || self.demand.compute_us_by_arch.get(&self.node.node.arch);
        *by_model.or_else(by_arch).unwrap_or(&self.demand.compute_us)
    }

    /// The users that the SLO is about, by zone, nearest first; an unmeasured link is farther
    /// than any other. Of the last zone only so many count as make up the share. Empty when the
    /// group has no SLO.
    pub fn reaches(&self) -> Vec<Reach<'a>> {
        let Some(slo) = &self.demand.latency_slo else { return Vec::new() };
        let mut reaches: Vec<_> = self.zones(slo).collect();
        reaches.sort_by_key(|r| (!r.link_known, r.total_us));
        let mut left = users_total(slo) * users_permille(slo);
        reaches.retain_mut(|r| {
            r.users_milli = r.users_milli.min(left);
            left -= r.users_milli;
            r.users_milli > 0
        });
        reaches
    }

    /// Every zone of the SLO, with all its users.
    fn zones(&self, slo: &'a api::LatencySlo) -> impl Iterator<Item = Reach<'a>> + use<'a, '_> {
        let here_us = self.compute_us().saturating_add(slo.client_us);
        slo.zone_ids.iter().map(move |zone_id| {
            let link = self.site.links.get(zone_id);
            let link_known = link.is_some_and(|l| counts(l, slo.measured_only));
            let (rtt_p99_us, rtt_error_us) = link.map_or((0, 0), |l| (l.rtt_p99_us, l.rtt_error_us));
            let users_milli = users_of(slo, zone_id) * 1000;
            let total_us = rtt_p99_us.saturating_add(here_us);
            Reach { zone_id, users_milli, rtt_p99_us, rtt_error_us, total_us, link_known }
        })
    }

    /// The farthest zone among the users that the SLO is about. None when the group has no SLO.
    pub fn latency(&self) -> Option<api::LatencyBreakdown> {
        let slo = self.demand.latency_slo.as_ref()?;
        let worst = self.reaches().pop()?;
        let within = self.zones(slo).filter(|reach| reach.link_known && reach.total_us <= slo.budget_us);
        let within_milli: u64 = within.map(|reach| reach.users_milli).sum();
        Some(api::LatencyBreakdown {
            zone_id: worst.zone_id.into(),
            rtt_p99_us: worst.rtt_p99_us,
            compute_us: self.compute_us(),
            client_us: slo.client_us,
            total_us: worst.total_us,
            budget_us: slo.budget_us,
            link_known: worst.link_known,
            rtt_error_us: worst.rtt_error_us,
            users_within_permille: within_milli.checked_div(users_total(slo)).unwrap_or(0) as u32,
        })
    }
}

/// How far the users of one zone are from a candidate.
#[derive(Debug, Clone, Copy)]
pub struct Reach<'a> {
    pub zone_id: &'a str,
    /// In thousandths of the unit that the SLO counts users in.
    pub users_milli: u64,
    pub rtt_p99_us: u64,
    /// How much of it is the error of an estimate.
    pub rtt_error_us: u64,
    /// Network, compute and client time.
    pub total_us: u64,
    pub link_known: bool,
}

/// Whether a link's round trip counts for a promise.
pub fn counts(link: &api::Link, measured_only: bool) -> bool {
    !measured_only || link.source() != api::FigureSource::Modelled
}

/// The users of one zone of an SLO; a zone that is not named weighs 1.
fn users_of(slo: &api::LatencySlo, zone_id: &str) -> u64 {
    slo.users.get(zone_id).map_or(1, |users| u64::from(*users))
}

/// The users of all zones of an SLO.
pub fn users_total(slo: &api::LatencySlo) -> u64 {
    slo.zone_ids.iter().map(|zone_id| users_of(slo, zone_id)).sum()
}

/// The share of users that an SLO is about.
fn users_permille(slo: &api::LatencySlo) -> u64 {
    match slo.users_permille {
        0 => 1000,
        permille => u64::from(permille),
    }
}

/// Whether the request takes this model; an empty list takes any.
pub fn accepts_model(request: &api::AcceleratorRequest, model: &str) -> bool {
    request.models.is_empty() || request.models.iter().any(|m| m == model)
}
