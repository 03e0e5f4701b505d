//! Jobs of a state, placed jointly. The online placer makes the start; tasks that are coupled
//! with others, or with links, stay where it puts them, and the rest is arranged around them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::instance::{is_seat, Home, InPlay, Instance};
use super::search::{solve, Found, Settings};
use super::stop::{has_time, over, Progress, Reason, Stop};
use super::unsearched::unsearched;
use crate::assignment::problem::NONE;
use crate::assignment::solution::Solution;
use crate::cluster::Cluster;
use crate::cost;
use crate::error::CoreError;
use crate::model::Task;
use crate::place::place_while;
use crate::score::Scorer;
use crate::seed::seed;
use crate::state::{Standing, State};
use crate::threads::shared;
use crate::validate;
use crate::verify::verify;
use crate::wire::mumian_core::v1 as border;

/// What moving a running task counts as at the least, so that nothing moves for nothing.
const MOVE_MICROCNY: i64 = 1;
/// Tasks whose placements one thread writes in a row.
const TASKS_PER_PART: usize = 1 << 12;
/// How often refused placements are taken out before the start is the answer.
const REPAIRS_MAX: usize = 4;

/// Places the pending tasks of the request, and moves running ones where that pays. Nothing is
/// committed. The plan passes the verifier on the state without the allocations that move.
///
/// # Errors
/// `InvalidField` for what `place` refuses too, and for running tasks that the state does not
/// know, that are named twice or that are of no job of the request.
pub fn optimize(
    state: &State,
    request: &border::OptimizeRequest,
    threads: usize,
    stop: &mut dyn Stop,
) -> Result<border::OptimizeResponse, CoreError> {
    validate::policy(request.policy.as_ref())?;
    validate::jobs(&request.jobs)?;
    let jobs: HashMap<&str, &border::PendingJob> = request.jobs.iter().map(|j| (j.job_id.as_str(), j)).collect();
    let running = running(state, request, &jobs)?;
    let pending = pending(request);
    let mut proceed = || has_time(Progress::default(), stop);
    let placing = border::PlaceRequest {
        evaluation_id: request.evaluation_id.clone(),
        jobs: pending,
        // What runs is moved here, never evicted.
        policy: request.policy.clone().map(|policy| border::Policy { preempt: false, ..policy }),
        ..Default::default()
    };
    let scorer = Scorer::new(&state.snapshot(), &placing);
    let online = place_while(&state.snapshot(), &placing, &mut proceed)?;
    let mut case = Case { state, request, jobs, lifted: state.fork(), pinned: Vec::new(), scorer, threads };
    let (mut in_play, seats) = case.in_play(&placing.jobs, &online);
    in_play.extend(running);
    case.lift(&in_play)?;
    let cluster = case.lifted.snapshot();
    let policy = request.policy.clone().unwrap_or_default();
    let move_microcny = MOVE_MICROCNY.max(cost::migration_microcny_per_hour(&policy));
    let instance = match Instance::new(&cluster, &policy, in_play, move_microcny, threads, &mut proceed) {
        Ok(instance) => instance,
        Err(in_play) => {
            let reason = over(Progress::default(), stop).unwrap_or(Reason::Time);
            return Ok(unsearched(&cluster, &policy, &in_play, online, reason));
        }
    };
    let start = start(&instance, &cluster, &seats);
    drop(online);
    // Writing the answer takes about as long as reading the question did.
    stop.reserve(stop.elapsed_ms());
    let settings = Settings {
        seed: seed(&request.evaluation_id, state.generation()),
        threads,
        moves_max: request.moves_max.unwrap_or(u32::MAX),
    };
    let mut found = solve(start.clone(), settings, stop);
    let solution = std::mem::replace(&mut found.solution, Solution::new(&instance.problem));
    let repaired = case.repaired(&instance, &cluster, &policy, solution);
    let of_start = || case.plan(&instance, &cluster, &policy, &start);
    let at_start = case.scorer.prices_fragmentation().then(of_start);
    let most = start.total_microcny() + at_start.as_ref().map_or(0, |planned| planned.stranded_microcny);
    let repaired = repaired.filter(|(best, planned)| best.total_microcny() + planned.stranded_microcny <= most);
    let stranded_at_start = at_start.as_ref().map_or(0, |planned| planned.stranded_microcny);
    let (best, planned) = repaired.unwrap_or_else(|| (start.clone(), at_start.unwrap_or_else(of_start)));
    Ok(border::OptimizeResponse {
        start: Some(account(&start, stranded_at_start)),
        found: Some(account(&best, planned.stranded_microcny)),
        prices: instance.prices(&cluster, &found),
        ..answer(planned, &found)
    })
}

/// A plan, which allocations move in it, and what its placements strand, which is no part of the solution's cost.
struct Planned {
    plan: border::Plan,
    moves: Vec<border::Move>,
    stranded_microcny: i128,
}

fn running<'a>(
    state: &State,
    request: &'a border::OptimizeRequest,
    jobs: &HashMap<&str, &'a border::PendingJob>,
) -> Result<Vec<InPlay<'a>>, CoreError> {
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
        if coupling.is_some() {
            continue; // it stays where it is
        }
        let demand = demand.starting(request.now_unix_s);
        let home = Home { allocation_id: id, at, devices: held.devices.clone() };
        let stays = is_seat(&cluster, &demand, &home);
        running.push(InPlay {
            job,
            spec,
            group,
            demand: Arc::new(demand),
            index: task.task_index,
            home: Some(home),
            stays,
        });
    }
    Ok(running)
}

/// The jobs with their pending tasks: all tasks where none are named, but those that run.
fn pending(request: &border::OptimizeRequest) -> Vec<border::PendingJob> {
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

struct Case<'a> {
    state: &'a State,
    request: &'a border::OptimizeRequest,
    jobs: HashMap<&'a str, &'a border::PendingJob>,
    /// The state with the pinned placements, and without what is in play.
    lifted: State,
    /// Placements of the start that nothing changes.
    pinned: Vec<border::Placement>,
    scorer: Scorer,
    threads: usize,
}

impl<'a> Case<'a> {
    /// The pending tasks that may go anywhere, with where the start puts them. The others are pinned.
    fn in_play<'o>(
        &mut self,
        pending: &[border::PendingJob],
        online: &'o border::Plan,
    ) -> (Vec<InPlay<'a>>, Vec<Option<&'o border::Placement>>) {
        type Id<'s> = (&'s str, &'s str, u32);
        let placed: HashMap<Id<'_>, &border::Placement> =
            online.placements.iter().map(|p| ((p.job_id.as_str(), p.task_group.as_str(), p.task_index), p)).collect();
        let (mut in_play, mut seats) = (Vec::new(), Vec::new());
        for waiting in pending {
            let job = self.jobs[waiting.job_id.as_str()];
            let Some(spec) = &job.spec else { continue };
            for group in &spec.task_groups {
                let named = waiting.pending.iter().filter(|p| p.task_group == group.name);
                let indexes: Vec<u32> = if waiting.pending.is_empty() {
                    (0..group.count).collect()
                } else {
                    named.flat_map(|p| p.task_indexes.iter().copied()).collect()
                };
                let Task { demand, coupling } = Task::of(&job.job_id, spec, group);
                let demand = Arc::new(demand.starting(self.request.now_unix_s));
                for index in indexes {
                    let seat = placed.get(&(job.job_id.as_str(), group.name.as_str(), index)).copied();
                    if coupling.is_some() {
                        self.pinned.extend(seat.cloned());
                        continue;
                    }
                    let demand = demand.clone();
                    in_play.push(InPlay { job, spec, group, demand, index, home: None, stays: false });
                    seats.push(seat);
                }
            }
        }
        (in_play, seats)
    }

    /// Pins what is pinned, and frees what the tasks in play hold.
    fn lift(&mut self, in_play: &[InPlay<'a>]) -> Result<(), CoreError> {
        let used = |p: &border::Placement| {
            let group = self.jobs.get(p.job_id.as_str()).and_then(|job| job.spec.as_ref());
            let group = group.and_then(|spec| spec.task_groups.iter().find(|g| g.name == p.task_group))?;
            Some(border::UsedResources {
                allocation_id: format!("{}.{}.{}", p.job_id, p.task_group, p.task_index),
                node_id: p.node_id.clone(),
                resources: group.resources.clone(),
                devices: p.devices.clone(),
                job_id: p.job_id.clone(),
                task_group: p.task_group.clone(),
                task_index: p.task_index,
                zone_traffic: group.zone_traffic.clone(),
                ..Default::default()
            })
        };
        let homes = in_play.iter().filter(|task| task.stays).filter_map(|task| task.home.as_ref());
        let delta = border::Delta {
            base_generation: self.lifted.generation(),
            allocations: self.pinned.iter().filter_map(used).collect(),
            removed_allocation_ids: homes.map(|home| home.allocation_id.to_string()).collect(),
            ..Default::default()
        };
        self.lifted.apply(delta).map(|_| ())
    }

    /// The placements of a solution, which allocations move, and what it strands.
    fn plan(
        &self,
        instance: &Instance<'_>,
        cluster: &Cluster,
        policy: &border::Policy,
        solution: &Solution<'_>,
    ) -> Planned {
        let tasks = instance.tasks.len();
        let part = |i: usize| {
            let (mut plan, mut moves) = (border::Plan::default(), Vec::new());
            for t in i * TASKS_PER_PART..tasks.min((i + 1) * TASKS_PER_PART) {
                let (task, seat) = (&instance.tasks[t], solution.seat(t as u32));
                if seat.node == NONE {
                    if task.home.is_none() {
                        let (job_id, task_group) = (task.job.job_id.clone(), task.group.name.clone());
                        plan.unplaced.push(border::UnplacedTask { job_id, task_group, task_index: task.index });
                    }
                    continue;
                }
                if solution.problem.tasks[t].home == seat.node {
                    continue;
                }
                let placement = instance.placement(cluster, policy, t, seat);
                moves.extend(task.home.as_ref().map(|home| border::Move {
                    allocation_id: home.allocation_id.to_string(),
                    to_node_id: placement.node_id.clone(),
                }));
                plan.placements.push(placement);
            }
            (plan, moves)
        };
        let mut plan = border::Plan {
            evaluation_id: self.request.evaluation_id.clone(),
            base_generation: self.state.generation(),
            placements: self.pinned.clone(),
            ..Default::default()
        };
        let mut moves = Vec::new();
        for (part, moved) in shared(self.threads, tasks.div_ceil(TASKS_PER_PART), part) {
            plan.placements.extend(part.placements);
            plan.unplaced.extend(part.unplaced);
            moves.extend(moved);
        }
        let placements = &mut plan.placements[self.pinned.len()..];
        let stranded_microcny = if self.scorer.prices_fragmentation() {
            instance.strand(cluster, &self.scorer, solution, placements)
        } else {
            0
        };
        Planned { plan, moves, stranded_microcny }
    }

    /// The solution without the placements that the verifier refuses, and its plan: what couples tasks
    /// with power or links is no part of the problem. None when that does not come to an end.
    fn repaired<'p>(
        &self,
        instance: &Instance<'_>,
        cluster: &Cluster,
        policy: &border::Policy,
        mut solution: Solution<'p>,
    ) -> Option<(Solution<'p>, Planned)> {
        for _ in 0..REPAIRS_MAX {
            let Planned { plan, moves, stranded_microcny } = self.plan(instance, cluster, policy, &solution);
            let mut state = self.state.fork();
            let delta = border::Delta {
                base_generation: state.generation(),
                removed_allocation_ids: moves.iter().map(|m| m.allocation_id.clone()).collect(),
                ..Default::default()
            };
            state.apply(delta).ok()?;
            let (plan, refused) = refused(&state.snapshot(), plan, &self.request.jobs);
            if refused.is_empty() {
                return Some((solution, Planned { plan, moves, stranded_microcny }));
            }
            let of_task = |t: &InPlay<'_>| (t.job.job_id.clone(), t.group.name.clone(), t.index);
            for (t, task) in (0..).zip(&instance.tasks) {
                if !refused.contains(&of_task(task)) || !solution.is_placed(t) {
                    continue;
                }
                solution.lift(t);
                if task.stays {
                    let home = task.home.as_ref()?;
                    let seat = instance.seat(cluster, t as usize, home.at, &home.devices)?;
                    if !solution.put(t, seat.node, seat.column) {
                        return None;
                    }
                }
            }
        }
        None
    }
}

/// The plan back, and the tasks whose placement the verifier refuses. Each job is asked about what the
/// plan says of it.
fn refused(
    cluster: &Cluster,
    plan: border::Plan,
    jobs: &[border::PendingJob],
) -> (border::Plan, HashSet<(String, String, u32)>) {
    let mut of_job: HashMap<&str, Vec<border::PendingTasks>> = HashMap::new();
    for p in &plan.placements {
        let groups = of_job.entry(&p.job_id).or_default();
        match groups.iter_mut().find(|group| group.task_group == p.task_group) {
            Some(group) => group.task_indexes.push(p.task_index),
            None => {
                groups.push(border::PendingTasks { task_group: p.task_group.clone(), task_indexes: vec![p.task_index] })
            }
        }
    }
    let asked = jobs.iter().filter_map(|job| {
        let pending = of_job.remove(job.job_id.as_str())?;
        Some(border::PendingJob { pending, ..job.clone() })
    });
    let jobs = asked.collect();
    let request = border::VerifyRequest { jobs, plan: Some(plan) };
    let verdicts = verify(cluster, &request).verdicts;
    let plan = request.plan.unwrap_or_default();
    let refused = plan.placements.iter().zip(verdicts).filter(|(_, verdict)| !verdict.accepted);
    let refused = refused.map(|(p, _)| (p.job_id.clone(), p.task_group.clone(), p.task_index)).collect();
    (plan, refused)
}

/// Running tasks at home, pending ones where the online placer put them.
fn start<'p>(instance: &'p Instance<'_>, cluster: &Cluster, seats: &[Option<&border::Placement>]) -> Solution<'p> {
    let mut solution = Solution::new(&instance.problem);
    for (t, task) in instance.tasks.iter().enumerate() {
        let seat = match (&task.home, seats.get(t)) {
            (Some(home), _) if task.stays => instance.seat(cluster, t, home.at, &home.devices),
            (None, Some(Some(p))) => {
                cluster.at(&p.site_id, &p.node_id).and_then(|at| instance.seat(cluster, t, at, &p.devices))
            }
            _ => None,
        };
        if let Some(seat) = seat {
            solution.put_back(t as u32, seat);
        }
    }
    solution
}

fn answer(planned: Planned, found: &Found<'_>) -> border::OptimizeResponse {
    border::OptimizeResponse {
        plan: Some(planned.plan),
        moves: planned.moves,
        bound_microcny_per_hour: narrow(found.bound.microcny),
        rounds: found.rounds,
        stop_reason: reason(found.reason).into(),
        progress: found.progress.iter().map(progress).collect(),
        ..Default::default()
    }
}

fn account(solution: &Solution<'_>, stranded_microcny: i128) -> border::Account {
    let count = solution.problem.tasks.len() as u32;
    let placed = (0..count).filter(|&t| solution.is_placed(t));
    let cost: i128 = placed.clone().map(|t| i128::from(solution.cost_now(t))).sum();
    let placed_task_count = placed.count() as u32;
    border::Account {
        cost_microcny_per_hour: narrow(cost + stranded_microcny),
        placed_task_count,
        unplaced_task_count: count - placed_task_count,
        moved_task_count: solution.moved(),
        objective_microcny_per_hour: narrow(solution.total_microcny() + stranded_microcny),
    }
}

pub(super) fn progress(progress: &Progress) -> border::Progress {
    border::Progress {
        round: progress.round,
        elapsed_ms: progress.elapsed_ms,
        objective_microcny_per_hour: narrow(progress.objective_microcny),
        bound_microcny_per_hour: narrow(progress.bound_microcny),
        unplaced_task_count: progress.unplaced,
    }
}

pub(super) fn narrow(microcny: i128) -> i64 {
    microcny.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

pub(super) fn reason(reason: Reason) -> border::StopReason {
    match reason {
        Reason::Time => border::StopReason::Time,
        Reason::Rounds => border::StopReason::Rounds,
        Reason::Gap => border::StopReason::Gap,
        Reason::Optimal => border::StopReason::Optimal,
        Reason::Cancelled => border::StopReason::Cancelled,
        Reason::NoImprovement => border::StopReason::NoImprovement,
    }
}
