//! What couples a task with others: constraints that depend on what else is placed, and not
//! only on the node. All of them are monotone: what is refused now is refused too when more
//! is placed.

use crate::cluster::At;
use crate::wire::mumian::api::v1 as api;

/// The coupling constraints of one task group. What groups ask of one another is seen from
/// both sides, so it holds whichever is placed first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Coupling {
    pub job_id: String,
    pub task_group: String,
    pub spreads: Vec<api::Spread>,
    pub apart_from: Vec<api::AntiAffinity>,
    pub latencies: Vec<Latency>,
    pub zone_traffic: Vec<api::ZoneTraffic>,
    pub together: Option<Together>,
}

/// One domain for all tasks of some groups.
#[derive(Debug, Clone, PartialEq)]
pub struct Together {
    pub topology: api::Topology,
    /// With this group itself.
    pub task_groups: Vec<String>,
    /// A node of the domain, where the placer has chosen one; otherwise the first task does.
    pub anchor: Option<At>,
}

/// A latency promise between this group and another.
#[derive(Debug, Clone, PartialEq)]
pub struct Latency {
    /// The other group.
    pub task_group: String,
    pub budget_us: u64,
    /// Whose compute time counts: that of the group which made the promise.
    pub is_own_promise: bool,
    /// Of the group which made it: no estimate of a round trip counts.
    pub measured_only: bool,
}

/// Of a task that nothing couples with others.
pub static UNCOUPLED: Coupling = Coupling {
    job_id: String::new(),
    task_group: String::new(),
    spreads: Vec::new(),
    apart_from: Vec::new(),
    latencies: Vec::new(),
    zone_traffic: Vec::new(),
    together: None,
};

impl Coupling {
    /// None when nothing couples the group's tasks with others.
    pub fn of(job_id: &str, job: &api::JobSpec, group: &api::TaskGroup) -> Option<Self> {
        if group.zone_traffic.is_empty() && !counts_tasks(job) {
            return None;
        }
        let others = || job.task_groups.iter().filter(|other| other.name != group.name);
        let apart = others().flat_map(|other| {
            let names_me = other.apart_from.iter().filter(|apart| apart.task_group == group.name);
            names_me.map(|apart| api::AntiAffinity { topology: apart.topology, task_group: other.name.clone() })
        });
        let promised = job.task_groups.iter().flat_map(|other| {
            let names_me = other.group_latencies.iter().filter(|latency| latency.task_group == group.name);
            names_me.map(|l| Latency {
                task_group: other.name.clone(),
                budget_us: l.budget_us,
                is_own_promise: false,
                measured_only: measured_only(other),
            })
        });
        let own = group.group_latencies.iter().map(|l| Latency {
            task_group: l.task_group.clone(),
            budget_us: l.budget_us,
            is_own_promise: true,
            measured_only: measured_only(group),
        });
        let coupling = Self {
            job_id: job_id.into(),
            task_group: group.name.clone(),
            spreads: group.spreads.clone(),
            apart_from: group.apart_from.iter().cloned().chain(apart).collect(),
            latencies: own.chain(promised).collect(),
            zone_traffic: group.zone_traffic.clone(),
            together: together(job, group),
        };
        (coupling.counts_tasks() || !coupling.zone_traffic.is_empty()).then_some(coupling)
    }

    /// Whether it matters where the tasks of this group are.
    pub fn counts_tasks(&self) -> bool {
        !(self.spreads.is_empty() && self.apart_from.is_empty() && self.latencies.is_empty() && self.together.is_none())
    }
}

/// A group is together with itself, and with the groups that name the same topology.
fn together(job: &api::JobSpec, group: &api::TaskGroup) -> Option<Together> {
    let topology = group.together();
    let of_it = job.task_groups.iter().filter(|other| other.together() == topology);
    let task_groups = || of_it.map(|other| other.name.clone()).collect();
    let is_asked = topology != api::Topology::Unspecified;
    is_asked.then(|| Together { topology, task_groups: task_groups(), anchor: None })
}

fn measured_only(group: &api::TaskGroup) -> bool {
    group.latency_slo.as_ref().is_some_and(|slo| slo.measured_only)
}

/// Whether it matters for some constraint of the job where its tasks are.
pub fn counts_tasks(job: &api::JobSpec) -> bool {
    let counts = |g: &api::TaskGroup| {
        let is_free = g.spreads.is_empty() && g.apart_from.is_empty() && g.group_latencies.is_empty();
        !is_free || g.together != 0
    };
    job.task_groups.iter().any(counts)
}
