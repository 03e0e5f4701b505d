//! What tasks occupy beside their nodes: domains that constraints count, bandwidth of links and
//! power of sites. The cluster's own part is frozen; this is that, plus the bookings of a trial.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::{At, Cluster};
use crate::coupling::{self, Coupling};
use crate::model::{Candidate, Demand};
use crate::topology;
use crate::wire::mumian::api::v1 as api;

/// Where the tasks of one group are.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GroupTasks {
    by_node: BTreeMap<At, u32>,
    /// By site and by the compute time of the task there, in microseconds.
    by_site: BTreeMap<(u32, u64), u32>,
}

impl GroupTasks {
    fn add(&mut self, at: At, compute_us: u64) {
        *self.by_node.entry(at).or_default() += 1;
        *self.by_site.entry((at.site, compute_us)).or_default() += 1;
    }

    fn remove(&mut self, at: At, compute_us: u64) {
        decrease(&mut self.by_node, &at);
        decrease(&mut self.by_site, &(at.site, compute_us));
    }

    /// Each site that has tasks of the group, with their distinct compute times.
    pub fn sites(&self) -> impl Iterator<Item = (u32, u64)> + '_ {
        self.by_site.keys().copied()
    }

    /// Each node that has tasks of the group.
    pub fn nodes(&self) -> impl Iterator<Item = At> + '_ {
        self.by_node.keys().copied()
    }

    /// How many tasks there are in the domain of a node, with those of which that is not known.
    pub fn count(&self, cluster: &Cluster, at: At, topology: api::Topology) -> u32 {
        let operator = |site: u32| &cluster.sites[site as usize].site.operator_id;
        match topology {
            api::Topology::Node | api::Topology::Unspecified => self.by_node.get(&at).copied().unwrap_or(0),
            api::Topology::Switch | api::Topology::Rack => {
                let at_site = self.by_node.range(At { site: at.site, node: 0 }..=At { site: at.site, node: u32::MAX });
                let may_share =
                    |(other, _): &(&At, &u32)| topology::shares(cluster, at, **other, topology) != Some(false);
                at_site.filter(may_share).map(|(_, n)| n).sum()
            }
            api::Topology::Site => self.by_site.range((at.site, 0)..=(at.site, u64::MAX)).map(|(_, n)| n).sum(),
            api::Topology::Operator => {
                let same = self.by_site.iter().filter(|((site, _), _)| operator(*site) == operator(at.site));
                same.map(|(_, n)| n).sum()
            }
        }
    }
}

fn decrease<K: Ord>(counts: &mut BTreeMap<K, u32>, key: &K) {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => *count -= 1,
        _ => {
            counts.remove(key);
        }
    }
}

/// What one booked task occupies.
#[derive(Debug, Clone)]
pub struct Load {
    /// Unset when nothing couples the task with others.
    coupling: Option<Arc<Coupling>>,
    compute_us: u64,
    it_power_uw: u128,
}

impl Load {
    pub fn of(coupling: Option<&Arc<Coupling>>, candidate: &Candidate<'_>) -> Self {
        Self { coupling: coupling.cloned(), compute_us: candidate.compute_us(), it_power_uw: candidate.it_power_uw() }
    }

    /// What a running task occupies, which need not be what its job asks for now.
    pub fn of_running(coupling: Option<Arc<Coupling>>, compute_us: u64, it_power_uw: u128) -> Self {
        Self { coupling, compute_us, it_power_uw }
    }
}

/// The tasks of the jobs in question, and what is booked on top of a cluster.
#[derive(Debug, Default)]
pub struct Occupancy {
    jobs: BTreeMap<String, BTreeMap<String, GroupTasks>>,
    /// This and the power are below 0 where more of what runs was freed than is booked.
    booked_kbps: BTreeMap<u32, BTreeMap<String, i64>>,
    booked_it_uw: BTreeMap<u32, i128>,
}

impl Occupancy {
    /// Counts what already runs of a job that has coupling constraints; a job that is counted
    /// already stays as it is.
    pub fn enter(&mut self, cluster: &Cluster, job_id: &str, job: &api::JobSpec) {
        if self.jobs.contains_key(job_id) || !coupling::counts_tasks(job) {
            return;
        }
        let groups = self.jobs.entry(job_id.into()).or_default();
        let demands: BTreeMap<&str, Demand> =
            job.task_groups.iter().map(|g| (g.name.as_str(), Demand::of(job, g))).collect();
        for task in cluster.tasks_of(job_id) {
            let (Some(at), Some(demand)) = (cluster.find_place(&task.place), demands.get(task.task_group.as_str()))
            else {
                continue;
            };
            let (site, node) = (cluster.site(at), cluster.node(at));
            let model = task.held.model_on(node);
            let candidate = Candidate { at, site, node, demand, model, context: None };
            groups.entry(task.task_group.clone()).or_default().add(at, candidate.compute_us());
        }
    }

    pub fn add(&mut self, at: At, load: &Load) {
        *self.booked_it_uw.entry(at.site).or_default() += load.it_power_uw as i128;
        let Some(coupling) = &load.coupling else { return };
        if coupling.counts_tasks() {
            let groups = self.jobs.entry(coupling.job_id.clone()).or_default();
            groups.entry(coupling.task_group.clone()).or_default().add(at, load.compute_us);
        }
        for traffic in &coupling.zone_traffic {
            let of_site = self.booked_kbps.entry(at.site).or_default();
            *of_site.entry(traffic.zone_id.clone()).or_default() += traffic.bandwidth_kbps as i64;
        }
    }

    pub fn remove(&mut self, at: At, load: &Load) {
        *self.booked_it_uw.entry(at.site).or_default() -= load.it_power_uw as i128;
        let Some(coupling) = &load.coupling else { return };
        if coupling.counts_tasks() {
            let group = self.jobs.get_mut(&coupling.job_id).and_then(|groups| groups.get_mut(&coupling.task_group));
            group.into_iter().for_each(|tasks| tasks.remove(at, load.compute_us));
        }
        for traffic in &coupling.zone_traffic {
            let of_site = self.booked_kbps.entry(at.site).or_default();
            *of_site.entry(traffic.zone_id.clone()).or_default() -= traffic.bandwidth_kbps as i64;
        }
    }

    fn tasks(&self, job_id: &str, task_group: &str) -> Option<&GroupTasks> {
        self.jobs.get(job_id)?.get(task_group)
    }
}

/// What the coupling constraints of one task are asked about.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    pub cluster: &'a Cluster,
    pub occupancy: &'a Occupancy,
    pub coupling: &'a Coupling,
}

impl<'a> Context<'a> {
    /// The tasks of a group of this job, if there are any.
    pub fn tasks(&self, task_group: &str) -> Option<&'a GroupTasks> {
        self.occupancy.tasks(&self.coupling.job_id, task_group)
    }

    /// What is reserved of the link from a zone to a site.
    pub fn used_kbps(&self, site: u32, zone_id: &str) -> u64 {
        let held = self.cluster.sites[site as usize].used_kbps.get(zone_id).copied().unwrap_or(0);
        let booked = self.occupancy.booked_kbps.get(&site).and_then(|zones| zones.get(zone_id)).copied().unwrap_or(0);
        held.saturating_add_signed(booked)
    }

    /// Modelled IT power of all that is held at a site, under full load, in microwatt.
    pub fn it_power_uw(&self, site: u32) -> u128 {
        let booked_uw = self.occupancy.booked_it_uw.get(&site).copied().unwrap_or(0);
        self.cluster.sites[site as usize].it_power_uw.saturating_add_signed(booked_uw)
    }
}
