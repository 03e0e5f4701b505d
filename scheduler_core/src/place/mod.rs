//! The online placer: pending tasks onto the nodes that score best, each task seeing those
//! before it. Nothing is committed: the caller gets a plan.

mod bits;
mod blocks;
mod changes;
mod classes;
mod defer;
mod freed;
mod gang;
mod index;
pub(crate) mod memo;
mod preempt;
mod ranking;
mod relaxation;
mod scan;
mod together;
mod tournament;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::cluster::{At, Cluster};
use crate::error::CoreError;
use crate::explain::{self, Shortfall, Survey};
use crate::filter::{self, Beside};
use crate::model::{Demand, Task};
use crate::place::defer::Horizon;
use crate::place::preempt::Evicted;
use crate::score::Scorer;
use crate::seed::{mixed, seed};
use crate::trial::{Booking, Trial};
use crate::validate;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// Looks at nodes that one request may spend on relaxations: some hundred milliseconds. Jobs
/// after that are explained without one.
const RELAX_LOOKS_MAX: usize = 4_000_000;
/// Looks at candidates that one request may spend on seating whole jobs.
const SEAT_LOOKS_MAX: usize = 4_000_000;
/// The same for the later starts of jobs that may wait. Jobs after that start now.
const DEFER_LOOKS_MAX: usize = 4_000_000;
/// The same for victims of higher priorities. Jobs after that wait for room.
const PREEMPT_LOOKS_MAX: usize = 4_000_000;
/// Tasks of one job that are placed between two questions whether to go on.
const TASKS_PER_ASK: usize = 1024;
/// Placements that memory is reserved for before the first is made: some tens of megabytes.
const PLACEMENTS_RESERVED_MAX: usize = 1 << 17;

/// Where one task goes: the node, and which of its models serves it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Found {
    pub at: At,
    pub model: Option<usize>,
}

/// A way to find the best candidate for one task.
pub(crate) trait Search {
    /// A number for the demand, good until the next demand is interned.
    fn intern(&mut self, demand: &Demand) -> usize;
    /// `draw` is what RANDOM goes by. `admits` is asked about candidates that the node itself
    /// admits, from the best on; it says what depends on more than the node. Unset: nothing does.
    fn best(
        &mut self,
        demand: usize,
        trial: &Trial<'_>,
        scorer: &Scorer,
        draw: u64,
        admits: Option<&dyn Fn(Found) -> Beside>,
    ) -> Option<Found>;
    /// A booking on this node was made or taken back.
    fn touched(&mut self, trial: &Trial<'_>, at: At);
}

/// The tasks of one group that are to be placed.
struct Pending<'a> {
    group: &'a api::TaskGroup,
    task: Task,
    task_indexes: Vec<u32>,
}

/// Places all jobs of the request, by priority and then in the order given. A gang is placed
/// whole or not at all.
pub fn place(cluster: &Cluster, request: &border::PlaceRequest) -> Result<border::Plan, CoreError> {
    place_while(cluster, request, &mut || true)
}

/// The same while `proceed` says yes, which is asked before every job and often within one of many tasks. What
/// comes after that is left out.
pub(crate) fn place_while(
    cluster: &Cluster,
    request: &border::PlaceRequest,
    proceed: &mut dyn FnMut() -> bool,
) -> Result<border::Plan, CoreError> {
    let tasks = validate::request(request)?;
    let scorer = Scorer::new(cluster, request);
    cluster.memo.with(cluster, &scorer, |search| place_by(search, cluster, request, &scorer, tasks, proceed))
}

/// The same by asking every node for every task: slow, and the oracle for the fast way.
pub fn place_by_scan(cluster: &Cluster, request: &border::PlaceRequest) -> Result<border::Plan, CoreError> {
    let tasks = validate::request(request)?;
    place_by(&mut scan::Scan::default(), cluster, request, &Scorer::new(cluster, request), tasks, &mut || true)
}

fn place_by(
    search: &mut dyn Search,
    cluster: &Cluster,
    request: &border::PlaceRequest,
    scorer: &Scorer,
    tasks: u64,
    proceed: &mut dyn FnMut() -> bool,
) -> Result<border::Plan, CoreError> {
    let mut order: Vec<&border::PendingJob> = request.jobs.iter().collect();
    order.sort_by_key(|job| std::cmp::Reverse(job.spec.as_ref().map_or(0, |spec| spec.priority)));
    let mut placer = Placer {
        search,
        trial: Trial::new(cluster),
        scorer,
        seed: seed(&request.evaluation_id, cluster.generation),
        draws: 0,
        looks_left: RELAX_LOOKS_MAX,
        seat_looks_left: SEAT_LOOKS_MAX,
        defer_looks_left: DEFER_LOOKS_MAX,
        preempt_looks_left: PREEMPT_LOOKS_MAX,
        may_preempt: request.policy.as_ref().is_some_and(|p| p.preempt),
        proceed,
        goes_on: true,
        evicted: Vec::new(),
        evicted_ids: BTreeSet::new(),
        now_unix_s: request.now_unix_s,
        plan: border::Plan {
            evaluation_id: request.evaluation_id.clone(),
            base_generation: cluster.generation,
            placements: Vec::with_capacity((tasks as usize).min(PLACEMENTS_RESERVED_MAX)),
            ..Default::default()
        },
    };
    let outcome =
        order.into_iter().try_for_each(|job| if placer.goes_on() { placer.job(job) } else { placer.pass_over(job) });
    placer.settle_evictions();
    for at in placer.trial.clear() {
        placer.search.touched(&placer.trial, at); // it goes on from the cluster as it is
    }
    outcome.map(|()| placer.plan)
}

struct Placer<'c, 'p> {
    search: &'p mut dyn Search,
    trial: Trial<'c>,
    scorer: &'p Scorer,
    seed: u64,
    draws: u64,
    /// Looks at nodes that may still be spent on relaxations.
    looks_left: usize,
    /// Looks at candidates that may still be spent on seating whole jobs.
    seat_looks_left: usize,
    defer_looks_left: usize,
    preempt_looks_left: usize,
    /// The time of the decision; 0: not known.
    now_unix_s: i64,
    may_preempt: bool,
    proceed: &'p mut dyn FnMut() -> bool,
    /// What `proceed` has said last; it is not asked again after a no.
    goes_on: bool,
    evicted: Vec<Evicted>,
    evicted_ids: BTreeSet<Arc<str>>,
    plan: border::Plan,
}

/// What was planned for a job and taken back.
struct TakenBack {
    bookings: Vec<Booking>,
    placements: Vec<border::Placement>,
    unplaced: Vec<border::UnplacedTask>,
    deferred: Vec<border::DeferredTask>,
}

/// What a placement says of one task on one node.
struct Figures {
    cost: api::CostBreakdown,
    latency: Option<api::LatencyBreakdown>,
}

/// What became of the groups of a job, as far as the plan does not say it.
struct Outcome {
    /// For each group, where asked for.
    surveys: Vec<Option<Survey>>,
    shortfall: Shortfall,
}

/// Where the plan and the trial stood before a job.
struct Start {
    mark: usize,
    placements: usize,
    unplaced: usize,
    deferred: usize,
    evicted: usize,
}

impl Placer<'_, '_> {
    fn job(&mut self, job: &border::PendingJob) -> Result<(), CoreError> {
        let spec = spec_of(job)?;
        let mut groups = pending_groups(job, spec, self.start_unix_s())?;
        self.trial.enter(&job.job_id, spec);
        let horizon = self.horizon(job, spec);
        let is_gang = spec.kind() == api::JobKind::Gang;
        let start = self.start();
        let waits = horizon.as_ref().filter(|_| !is_gang);
        let sets = together::sets(&self.trial, &groups);
        let Outcome { surveys, shortfall } = if sets.is_empty() {
            self.groups(job, &groups, &start, waits)
        } else {
            self.together(job, &mut groups, &sets, &start, waits)
        };
        if let Some(horizon) = horizon.as_ref().filter(|_| is_gang) {
            self.defer_together(job, &groups, horizon, &start);
        }
        for (pending, survey) in groups.iter().zip(surveys) {
            let Some(survey) = survey else { continue };
            let placed = self.plan.placements[start.placements..].iter();
            let placed: Vec<_> = placed.filter(|p| p.task_group == pending.group.name).collect();
            let tasks = pending.task_indexes.len();
            let deferred = self.plan.deferred[start.deferred..].iter();
            let deferred: Vec<_> = deferred.filter(|d| d.task_group == pending.group.name).collect();
            let is_settled = placed.len() + deferred.len() == tasks;
            let mut explanation = survey.explanation(&pending.group.name, tasks, &placed, &shortfall);
            explanation.generation = self.plan.base_generation;
            defer::explain(&mut explanation, &deferred, horizon.as_ref());
            explanation.relaxation = if is_settled { None } else { self.relaxation(job, spec, pending, &start) };
            let explanation = Some(explanation);
            self.plan.explanations.push(border::JobExplanation { job_id: job.job_id.clone(), explanation });
        }
        Ok(())
    }

    /// Places the groups of one job one after the other, and all together where that leaves tasks out.
    fn groups(
        &mut self,
        job: &border::PendingJob,
        groups: &[Pending<'_>],
        start: &Start,
        waits: Option<&Horizon>,
    ) -> Outcome {
        let is_gang = job.spec.as_ref().is_some_and(|spec| spec.kind() == api::JobKind::Gang);
        // Tasks that are coupled may be put where the others cannot follow, so they are looked at
        // together before anybody is evicted for them.
        let is_as_one = is_gang || groups.iter().any(|pending| pending.task.coupling.is_some());
        let mut surveys: Vec<_> = groups.iter().map(|pending| self.group(job, pending, waits, !is_as_one)).collect();
        let missing = self.plan.unplaced.len() - start.unplaced;
        let mut shortfall = Shortfall::None;
        // Where the time was over in the midst of it, a gang has no place, and other jobs keep what they have.
        if missing > 0 && !self.goes_on && is_gang {
            self.take_back(start);
            self.leave_all(job, groups);
        } else if missing > 0 && self.goes_on && is_as_one {
            let greedy = self.take_back(start);
            if let Some(seats) = gang::seats(&mut self.trial, groups, self.scorer, &mut self.seat_looks_left) {
                surveys = groups.iter().map(|pending| self.survey(job, pending)).collect();
                for seat in seats {
                    let pending = &groups[seat.group];
                    let figures = self.figures(pending, seat.found);
                    self.take(job, pending, seat.task_index, seat.found, Some(seat.devices), &figures);
                }
            } else if let Some(by_eviction) = self.by_eviction(job, groups, start, waits) {
                surveys = by_eviction;
            } else if is_gang {
                shortfall = Shortfall::Gang(missing);
                self.leave_all(job, groups);
            } else {
                self.put_back(greedy);
            }
        }
        Outcome { surveys, shortfall }
    }

    fn pass_over(&mut self, job: &border::PendingJob) -> Result<(), CoreError> {
        let groups = pending_groups(job, spec_of(job)?, self.start_unix_s())?;
        self.leave_all(job, &groups);
        Ok(())
    }

    fn goes_on(&mut self) -> bool {
        self.goes_on = self.goes_on && (self.proceed)();
        self.goes_on
    }

    fn start(&self) -> Start {
        Start {
            mark: self.trial.mark(),
            placements: self.plan.placements.len(),
            unplaced: self.plan.unplaced.len(),
            deferred: self.plan.deferred.len(),
            evicted: self.evicted.len(),
        }
    }

    fn back_to(&mut self, start: &Start) {
        self.take_back(start);
        self.forget_evictions(start.evicted);
    }

    fn take_back(&mut self, start: &Start) -> TakenBack {
        let bookings = self.trial.lift(start.mark);
        bookings.iter().for_each(|booking| self.search.touched(&self.trial, booking.at));
        let placements = self.plan.placements.split_off(start.placements);
        let unplaced = self.plan.unplaced.split_off(start.unplaced);
        let deferred = self.plan.deferred.split_off(start.deferred);
        TakenBack { bookings, placements, unplaced, deferred }
    }

    fn put_back(&mut self, taken: TakenBack) {
        self.put_back_bookings(taken.bookings);
        self.plan.placements.extend(taken.placements);
        self.plan.unplaced.extend(taken.unplaced);
        self.plan.deferred.extend(taken.deferred);
    }

    fn put_back_bookings(&mut self, bookings: Vec<Booking>) {
        let places: Vec<At> = bookings.iter().map(|booking| booking.at).collect();
        self.trial.put_back(bookings);
        places.into_iter().for_each(|at| self.search.touched(&self.trial, at));
    }

    fn survey(&self, job: &border::PendingJob, pending: &Pending<'_>) -> Option<Survey> {
        job.explain.then(|| explain::survey(&self.trial, &pending.task, self.scorer))
    }

    /// Places the tasks of one group, or lets them wait where a horizon is given and that is
    /// cheaper; when asked to explain, with a look at all nodes as the
    /// first task without a place saw them, or else as the first task did.
    fn group(
        &mut self,
        job: &border::PendingJob,
        pending: &Pending<'_>,
        horizon: Option<&Horizon>,
        may_evict: bool,
    ) -> Option<Survey> {
        let mut survey = self.survey(job, pending);
        let is_coupled = self.trial.is_coupled(&pending.task);
        let demand = self.search.intern(&pending.task.demand);
        let mut all_placed = true;
        let mut later = defer::Memo::default();
        let mut last: Option<(Found, Figures)> = None;
        for (at, &task_index) in pending.task_indexes.iter().enumerate() {
            if !self.goes_on || (at % TASKS_PER_ASK == TASKS_PER_ASK - 1 && !self.goes_on()) {
                self.leave(job, pending, task_index);
                continue;
            }
            self.draws += 1;
            let (trial, task) = (&self.trial, &pending.task);
            let admits = |f: Found| filter::beside(&trial.candidate_of(f.at, task, f.model));
            let admits: Option<&dyn Fn(Found) -> Beside> = if is_coupled { Some(&admits) } else { None };
            let draw = mixed(self.seed, self.draws);
            let found = self.search.best(demand, trial, self.scorer, draw, admits);
            if let Some(found) = found {
                if horizon.is_some_and(|h| self.defers(h, job, (pending, task_index), found, &mut later)) {
                    continue;
                }
                // Tasks that follow one another mostly share a node, and its figures where no booking changes them.
                let known = last.take().filter(|(of, _)| *of == found && !self.scorer.prices_fragmentation());
                let figures = known.map_or_else(|| self.figures(pending, found), |(_, figures)| figures);
                self.take(job, pending, task_index, found, None, &figures);
                last = Some((found, figures));
                continue;
            }
            // What no eviction helps, none helps the next task of the group either.
            let found = if may_evict && all_placed { self.preempt(job, pending, task_index) } else { None };
            if let Some(found) = found {
                let figures = self.figures(pending, found);
                self.take(job, pending, task_index, found, None, &figures);
                continue;
            }
            if all_placed {
                survey = self.survey(job, pending);
            }
            all_placed = false;
            self.leave(job, pending, task_index);
        }
        survey
    }

    /// What one task costs on the node as it is now, and how long it takes there.
    fn figures(&self, pending: &Pending<'_>, found: Found) -> Figures {
        let c = self.trial.candidate(found.at, &pending.task.demand, found.model);
        Figures { cost: self.scorer.cost(&c), latency: c.latency() }
    }

    /// Books one task and puts it into the plan; on the best devices unless they are given.
    fn take(
        &mut self,
        job: &border::PendingJob,
        pending: &Pending<'_>,
        task_index: u32,
        found: Found,
        devices: Option<Vec<api::DeviceShare>>,
        figures: &Figures,
    ) {
        let best = || self.scorer.devices(&self.trial.candidate(found.at, &pending.task.demand, found.model));
        let devices = devices.unwrap_or_else(best);
        self.trial.book(found.at, &pending.task, found.model, &devices);
        self.search.touched(&self.trial, found.at);
        self.plan.placements.push(border::Placement {
            job_id: job.job_id.clone(),
            task_group: pending.group.name.clone(),
            task_index,
            site_id: self.trial.cluster.site(found.at).site.id.clone(),
            node_id: self.trial.cluster.node(found.at).node.id.clone(),
            devices,
            cost: Some(figures.cost),
            latency: figures.latency.clone(),
        });
    }

    fn leave(&mut self, job: &border::PendingJob, pending: &Pending<'_>, task_index: u32) {
        let (job_id, task_group) = (job.job_id.clone(), pending.group.name.clone());
        self.plan.unplaced.push(border::UnplacedTask { job_id, task_group, task_index });
    }

    fn leave_all(&mut self, job: &border::PendingJob, groups: &[Pending<'_>]) {
        let all = groups.iter().flat_map(|pending| pending.task_indexes.iter().map(move |i| (pending, *i)));
        all.for_each(|(pending, task_index)| self.leave(job, pending, task_index));
    }

    fn undo_to(&mut self, mark: usize) {
        while let Some(at) = self.trial.undo_one(mark) {
            self.search.touched(&self.trial, at);
        }
    }
}

fn spec_of(job: &border::PendingJob) -> Result<&api::JobSpec, CoreError> {
    job.spec.as_ref().ok_or_else(|| CoreError::InvalidField {
        field: "jobs.spec".into(),
        detail: format!("of job {} is missing; send its normalised spec", job.job_id),
    })
}

/// What is to be placed of a job; no list means all tasks of all groups.
fn pending_groups<'a>(
    job: &border::PendingJob,
    spec: &'a api::JobSpec,
    start_unix_s: i64,
) -> Result<Vec<Pending<'a>>, CoreError> {
    let pending = |group, task_indexes| {
        let Task { demand, coupling } = Task::of(&job.job_id, spec, group);
        Pending { group, task: Task { demand: demand.starting(start_unix_s), coupling }, task_indexes }
    };
    if job.pending.is_empty() {
        return Ok(spec.task_groups.iter().map(|group| pending(group, (0..group.count).collect())).collect());
    }
    let named = job.pending.iter().map(|named| {
        let group = spec.task_groups.iter().find(|g| g.name == named.task_group);
        let group = group.ok_or_else(|| CoreError::InvalidField {
            field: "jobs.pending.task_group".into(),
            detail: format!("({}) is no group of job {}", named.task_group, job.job_id),
        })?;
        Ok(pending(group, named.task_indexes.clone()))
    });
    named.collect()
}
