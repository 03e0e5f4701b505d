//! Jobs of a state, placed jointly. The online placer makes the start; tasks that are coupled
//! with others, or with links, stay where it puts them, and the rest is arranged around them.

use std::collections::{HashMap, HashSet};

use super::in_play::{pending_jobs, running, InPlay, Pending};
use super::instance::Instance;
use super::search::{solve, Found, Settings};
use super::stop::{has_time, over, Progress, Reason, Stop};
use super::unsearched::unsearched;
use crate::assignment::problem::NONE;
use crate::assignment::solution::Solution;
use crate::cluster::Cluster;
use crate::cost;
use crate::error::CoreError;
use crate::place::place_while;
use crate::score::Scorer;
use crate::seed::seed;
use crate::state::State;
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
    validate::now(request.now_unix_s)?;
    validate::jobs(&request.jobs)?;
    let jobs: HashMap<&str, &border::PendingJob> = request.jobs.iter().map(|j| (j.job_id.as_str(), j)).collect();
    let (running, moves_max) = running(state, request, &jobs)?;
    let mut proceed = || has_time(Progress::default(), stop);
    let placing = border::PlaceRequest {
        evaluation_id: request.evaluation_id.clone(),
        jobs: pending_jobs(request),
        // What runs is moved here, never evicted.
        policy: request.policy.clone().map(|policy| border::Policy { preempt: false, ..policy }),
        now_unix_s: request.now_unix_s,
    };
    let scorer = Scorer::new(&state.snapshot(), &placing);
    let online = place_while(&state.snapshot(), &placing, &mut proceed)?;
    let Pending { mut in_play, seats, pinned, left_out } =
        Pending::of(&placing.jobs, &jobs, &online, request.now_unix_s);
    in_play.extend(running);
    let fixed = border::Plan {
        evaluation_id: request.evaluation_id.clone(),
        base_generation: state.generation(),
        placements: pinned,
        unplaced: left_out,
        deferred: online.deferred.clone(),
        ..Default::default()
    };
    let case = Case { state, request, jobs, fixed, scorer, threads };
    let cluster = case.lifted(&in_play)?.snapshot();
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
    let settings = Settings { seed: seed(&request.evaluation_id, state.generation()), threads, moves_max };
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
        start: Some(account(&start, 0, stranded_at_start)),
        found: Some(account(&best, planned.moves.len(), planned.stranded_microcny)),
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

struct Case<'a> {
    state: &'a State,
    request: &'a border::OptimizeRequest,
    jobs: HashMap<&'a str, &'a border::PendingJob>,
    /// What nothing changes: placements that are pinned, tasks that wait and tasks that are left out.
    fixed: border::Plan,
    scorer: Scorer,
    threads: usize,
}

impl<'a> Case<'a> {
    /// The state with what is pinned, and without what the tasks in play hold.
    fn lifted(&self, in_play: &[InPlay<'a>]) -> Result<State, CoreError> {
        let used = |(number, p): (usize, &border::Placement)| {
            let group = self.jobs.get(p.job_id.as_str()).and_then(|job| job.spec.as_ref());
            let group = group.and_then(|spec| spec.task_groups.iter().find(|g| g.name == p.task_group))?;
            Some(border::UsedResources {
                // No allocation of the state has such an id.
                allocation_id: format!("\0{number}"),
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
        let mut lifted = self.state.fork();
        let delta = border::Delta {
            base_generation: lifted.generation(),
            allocations: self.fixed.placements.iter().enumerate().filter_map(used).collect(),
            removed_allocation_ids: homes.map(|home| home.allocation_id.to_string()).collect(),
            ..Default::default()
        };
        lifted.apply(delta).map(|_| lifted)
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
        let mut plan = self.fixed.clone();
        let mut moves = Vec::new();
        for (part, moved) in shared(self.threads, tasks.div_ceil(TASKS_PER_PART), part) {
            plan.placements.extend(part.placements);
            plan.unplaced.extend(part.unplaced);
            moves.extend(moved);
        }
        let placements = &mut plan.placements[self.fixed.placements.len()..];
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

fn account(solution: &Solution<'_>, moves: usize, stranded_microcny: i128) -> border::Account {
    let count = solution.problem.tasks.len() as u32;
    let placed = (0..count).filter(|&t| solution.is_placed(t));
    let cost: i128 = placed.clone().map(|t| i128::from(solution.cost_now(t))).sum();
    let placed_task_count = placed.count() as u32;
    border::Account {
        cost_microcny_per_hour: narrow(cost + stranded_microcny),
        placed_task_count,
        unplaced_task_count: count - placed_task_count,
        moved_task_count: moves as u32,
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
