//! Which tasks of a request are in play, and which stay where they are: those that are coupled with others or
//! with links, that wait for a better hour, whose devices no seat can name, or whose move the churn budget forbids.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::instance::{bits, candidate};
use crate::cluster::{At, Cluster};
use crate::error::CoreError;
use crate::filter;
use crate::model::{models, Candidate, Demand, Task};
use crate::state::{Standing, State};
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// One task in play.
pub struct InPlay<'a> {
    pub job: &'a border::PendingJob,
    pub spec: &'a api::JobSpec,
    pub group: &'a api::TaskGroup,
    pub demand: Arc<Demand>,
    pub index: u32,
    /// Where it runs now.
    pub home: Option<Home<'a>>,
    /// Whether it may stay there. Otherwise it keeps what it holds until it has moved.
    pub stays: bool,
}

/// Where a running task is.
#[derive(Clone)]
pub struct Home<'a> {
    pub allocation_id: &'a str,
    pub at: At,
    pub devices: Vec<api::DeviceShare>,
}

/// The pending tasks of a request, by what the online placer says of them.
#[derive(Default)]
pub struct Pending<'a, 'o> {
    pub in_play: Vec<InPlay<'a>>,
    /// For each task in play, where the online placer puts it.
    pub seats: Vec<Option<&'o border::Placement>>,
    /// They stay where the online placer puts them.
    pub pinned: Vec<border::Placement>,
    /// For these it has no place, and nobody looks for another.
    pub left_out: Vec<border::UnplacedTask>,
}

/// The running tasks that may move. Those that may not stay where they are come first in the budget, the most
/// important of them first; what that leaves of it is returned as well.
///
/// # Errors
/// `InvalidField` for tasks that the state does not know, that are named twice or that are of no job of the request.
pub fn running<'a>(
    state: &State,
    request: &'a border::OptimizeRequest,
    jobs: &HashMap<&str, &'a border::PendingJob>,
) -> Result<(Vec<InPlay<'a>>, u32), CoreError> {
    let cluster = state.snapshot();
    let mut seen = HashSet::new();
    let mut running = Vec::with_capacity(request.running.len());
    for (i, task) in request.running.iter().enumerate() {
        let refuse = |field: &str, detail: String| {
            Err(CoreError::InvalidField { field: format!("running[{i}].{field}"), detail })
        };
        let id = task.allocation_id.as_str();
        if !seen.insert(id) {
            return refuse("allocation_id", format!("({id}) is sent twice; send it once"));
        }
        let Some(Standing { at, held, .. }) = state.allocation(id) else {
            return refuse("allocation_id", format!("({id}) is not in the state; send what the state holds"));
        };
        let job = jobs.get(task.job_id.as_str());
        let Some((job, spec)) = job.and_then(|job| Some((*job, job.spec.as_ref()?))) else {
            return refuse("job_id", format!("({}) is not among the jobs; send the job as well", task.job_id));
        };
        let Some(group) = spec.task_groups.iter().find(|g| g.name == task.task_group) else {
            return refuse("task_group", format!("({}) is no group of job {}", task.task_group, task.job_id));
        };
        let Task { demand, coupling } = Task::of(&job.job_id, spec, group);
        let demand = Arc::new(demand.starting(request.now_unix_s));
        let home = Home { allocation_id: id, at, devices: held.devices.clone() };
        let stays = may_stay(&cluster, &demand, &home);
        if coupling.is_some() || (stays && bits(&home.devices).is_none()) {
            continue;
        }
        running.push(InPlay { job, spec, group, demand, index: task.task_index, home: Some(home), stays });
    }
    let budget = request.moves_max.unwrap_or(u32::MAX);
    let mut leaving: Vec<usize> = (0..running.len()).filter(|&t| !running[t].stays).collect();
    leaving.sort_by_key(|&t| Reverse(running[t].spec.priority)); // stable: the first named of equal ones
    let held_back: HashSet<usize> = leaving.iter().skip(budget as usize).copied().collect();
    let left = budget - (leaving.len() - held_back.len()) as u32;
    let mut position = 0..;
    running.retain(|_| position.next().is_some_and(|t| !held_back.contains(&t)));
    Ok((running, left))
}

/// The jobs with their pending tasks: all tasks where none are named, but those that run.
pub fn pending_jobs(request: &border::OptimizeRequest) -> Vec<border::PendingJob> {
    let mut running: HashSet<(&str, &str, u32)> = HashSet::new();
    running.extend(request.running.iter().map(|r| (r.job_id.as_str(), r.task_group.as_str(), r.task_index)));
    let jobs_that_run: HashSet<&str> = request.running.iter().map(|r| r.job_id.as_str()).collect();
    let of_job = |job: &border::PendingJob| {
        // What the start is explained by is no part of the answer.
        let job = &border::PendingJob { explain: false, ..job.clone() };
        if !jobs_that_run.contains(job.job_id.as_str()) {
            return Some(job.clone());
        }
        let groups = job.spec.iter().flat_map(|spec| &spec.task_groups);
        let all =
            groups.map(|g| border::PendingTasks { task_group: g.name.clone(), task_indexes: (0..g.count).collect() });
        let mut pending = if job.pending.is_empty() { all.collect() } else { job.pending.clone() };
        for tasks in &mut pending {
            let group = tasks.task_group.clone();
            tasks.task_indexes.retain(|&i| !running.contains(&(job.job_id.as_str(), group.as_str(), i)));
        }
        pending.retain(|tasks| !tasks.task_indexes.is_empty());
        (!pending.is_empty()).then(|| border::PendingJob { pending, ..job.clone() })
    };
    request.jobs.iter().filter_map(of_job).collect()
}

impl<'a, 'o> Pending<'a, 'o> {
    /// Those that the online placer lets wait for a better hour are in none of the lists.
    pub fn of(
        pending: &[border::PendingJob],
        jobs: &HashMap<&str, &'a border::PendingJob>,
        online: &'o border::Plan,
        now_unix_s: i64,
    ) -> Self {
        type Id<'s> = (&'s str, &'s str, u32);
        let placed: HashMap<Id<'_>, &border::Placement> =
            online.placements.iter().map(|p| ((p.job_id.as_str(), p.task_group.as_str(), p.task_index), p)).collect();
        let deferred: HashSet<Id<'_>> =
            online.deferred.iter().map(|d| (d.job_id.as_str(), d.task_group.as_str(), d.task_index)).collect();
        let mut all = Self::default();
        for waiting in pending {
            let job = jobs[waiting.job_id.as_str()];
            let Some(spec) = &job.spec else { continue };
            let is_gang = spec.kind() == api::JobKind::Gang;
            let mut of_job = Vec::new();
            for group in &spec.task_groups {
                let named = waiting.pending.iter().filter(|p| p.task_group == group.name);
                let indexes: Vec<u32> = if waiting.pending.is_empty() {
                    (0..group.count).collect()
                } else {
                    named.flat_map(|p| p.task_indexes.iter().copied()).collect()
                };
                let Task { demand, coupling } = Task::of(&job.job_id, spec, group);
                let demand = Arc::new(demand.starting(now_unix_s));
                for index in indexes {
                    let id = (job.job_id.as_str(), group.name.as_str(), index);
                    if deferred.contains(&id) {
                        continue;
                    }
                    let seat = placed.get(&id).copied();
                    let is_pinned = coupling.is_some() || seat.is_some_and(|seat| bits(&seat.devices).is_none());
                    let demand = demand.clone();
                    let task = InPlay { job, spec, group, demand, index, home: None, stays: false };
                    of_job.push((task, seat, is_pinned));
                }
            }
            // A gang stands or waits as a whole, so it is pinned as a whole.
            let is_whole_pinned = is_gang && of_job.iter().any(|(.., is_pinned)| *is_pinned);
            for (task, seat, is_pinned) in of_job {
                all.add(task, seat, is_pinned || is_whole_pinned);
            }
        }
        all
    }

    fn add(&mut self, task: InPlay<'a>, seat: Option<&'o border::Placement>, is_pinned: bool) {
        match seat {
            _ if !is_pinned => {
                self.in_play.push(task);
                self.seats.push(seat);
            }
            Some(seat) => self.pinned.push(seat.clone()),
            None => {
                let (job_id, task_group) = (task.job.job_id.clone(), task.group.name.clone());
                self.left_out.push(border::UnplacedTask { job_id, task_group, task_index: task.index });
            }
        }
    }
}

/// Whether a running task may stay where it is: no constraint has come to forbid it.
fn may_stay(cluster: &Cluster, demand: &Demand, home: &Home<'_>) -> bool {
    let at_home = at_home(cluster, demand, home);
    models(cluster.node(home.at), demand).any(|model| model == at_home.model) && filter::admits_fixed(&at_home)
}

/// The task where it runs.
pub fn at_home<'a>(cluster: &'a Cluster, demand: &'a Demand, home: &Home<'_>) -> Candidate<'a> {
    let first = home.devices.first().and_then(|share| cluster.node(home.at).devices.get(share.device_index as usize));
    candidate(cluster, home.at, demand, first.map(|device| device.model))
}
