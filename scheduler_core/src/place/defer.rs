//! Jobs that may wait: whether to start later is cheaper than to start now. What is free later is
//! not known, so it is taken to be what is free now. Nothing is reserved: at that time the job
//! is to be asked about again.

use std::collections::BTreeSet;

use super::{scan, Found, Pending, Placer, Start};
use crate::cluster::Cluster;
use crate::cost::rates::Rates;
use crate::model::{Run, Task};
use crate::score::Scorer;
use crate::trial::Trial;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;
use crate::words::{cny, duration, plural, utc};

const HOUR_S: i64 = 3600;

/// A start with what a task or a gang costs an hour from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Later {
    pub cost_microcny_per_hour: u64,
    pub start_unix_s: i64,
}

/// The starts that one job may choose from.
pub struct Horizon {
    run_time_s: u64,
    starts: BTreeSet<i64>,
    /// For each site the starts that may pay, with its rates: none costs there as much as an earlier one.
    by_site: Vec<Vec<(i64, Rates)>>,
    /// How long after its deadline the job ends though it starts now.
    pub late_s: u64,
}

impl Horizon {
    /// Times are in unix seconds; a job made at 0 is made now.
    pub fn new(cluster: &Cluster, deferral: &api::Deferral, created: i64, now: i64) -> Self {
        let run_time_s = deferral.run_time_s as i64; // in range: validated
        let created = if created == 0 { now } else { created };
        let latest = created + deferral.finish_within_s as i64 - run_time_s;
        let starts = starts(cluster, run_time_s, now, latest);
        let by_site = cluster.sites.iter().map(|site| {
            let mut kept: Vec<(i64, Rates)> = Vec::new();
            for start in std::iter::once(now).chain(starts.iter().copied()) {
                let rates = Rates::over(&site.site, Run { start_unix_s: start, seconds: deferral.run_time_s });
                if !kept.iter().any(|(_, earlier)| earlier.beats(&rates)) {
                    kept.push((start, rates));
                }
            }
            kept.retain(|(start, _)| *start > now);
            kept
        });
        let (by_site, late_s) = (by_site.collect(), (now - latest).max(0) as u64);
        Self { run_time_s: deferral.run_time_s, starts, by_site, late_s }
    }

    /// Whether no start but now may pay.
    pub fn is_empty(&self) -> bool {
        self.by_site.iter().all(Vec::is_empty)
    }

    /// What is saved over the whole run, in micro-CNY.
    pub fn saves_microcny(&self, now_microcny_per_hour: u64, later: Later) -> u64 {
        let per_hour = u128::from(now_microcny_per_hour.saturating_sub(later.cost_microcny_per_hour));
        u64::try_from(per_hour * u128::from(self.run_time_s) / HOUR_S as u128).unwrap_or(u64::MAX)
    }

    /// The cheapest later start of one task and node, by asking every node.
    pub fn best(&self, trial: &Trial<'_>, task: &Task, scorer: &Scorer) -> Option<Later> {
        let admitted = scan::admitted(trial, task);
        let offers = admitted.flat_map(|(found, c)| {
            self.by_site[found.at.site as usize].iter().map(move |(start, rates)| Later {
                cost_microcny_per_hour: scorer.cost_at(&c, rates).total_microcny_per_hour,
                start_unix_s: *start,
            })
        });
        offers.min()
    }

    /// The cheapest later start of several tasks together, each where it then costs least beside
    /// those before it. `looks` is how many looks at a node may be spent. The trial is left as it was.
    pub fn best_together(
        &self,
        trial: &mut Trial<'_>,
        tasks: &[&Task],
        scorer: &Scorer,
        looks: &mut usize,
    ) -> Option<Later> {
        let nodes = trial.cluster.nodes().count();
        let mut best: Option<Later> = None;
        for &start_unix_s in &self.starts {
            let Some(left) = looks.checked_sub(nodes * tasks.len()) else { break };
            *looks = left;
            let most = best.map_or(u64::MAX, |b| b.cost_microcny_per_hour);
            if let Some(cost_microcny_per_hour) = self.together_at(start_unix_s, trial, tasks, scorer, most) {
                best = Some(Later { cost_microcny_per_hour, start_unix_s });
            }
        }
        best
    }

    /// The cost of all tasks at this start, when they find places for less than `most`.
    fn together_at(
        &self,
        start_unix_s: i64,
        trial: &mut Trial<'_>,
        tasks: &[&Task],
        scorer: &Scorer,
        most: u64,
    ) -> Option<u64> {
        let run = Run { start_unix_s, seconds: self.run_time_s };
        let rates: Vec<Rates> = trial.cluster.sites.iter().map(|site| Rates::over(&site.site, run)).collect();
        let mark = trial.mark();
        let mut sum = Some(0_u64);
        for task in tasks {
            let offers = scan::admitted(trial, task).map(|(found, c)| {
                (scorer.cost_at(&c, &rates[found.at.site as usize]).total_microcny_per_hour, found.at, found.model)
            });
            let place = offers.min();
            sum = place.zip(sum).map(|((cost, ..), sum)| sum.saturating_add(cost)).filter(|sum| *sum < most);
            let Some((_, at, model)) = place.filter(|_| sum.is_some()) else { break };
            let devices = scorer.devices(&trial.candidate(at, &task.demand, model));
            trial.book(at, task, model, &devices);
        }
        while trial.undo_one(mark).is_some() {}
        sum
    }
}

/// What the cheapest later start was while the trial stood there: it is the same for the next task.
#[derive(Default)]
pub struct Memo(Option<(usize, Option<Later>)>);

impl Placer<'_, '_> {
    /// The time that costs go by: none where no figure depends on it, so that tasks of all times are alike.
    pub(super) fn start_unix_s(&self) -> i64 {
        let is_forecast = self.trial.cluster.sites.iter().any(|site| site.site.forecast.is_some());
        if is_forecast {
            self.now_unix_s
        } else {
            0
        }
    }

    /// The starts that the job may choose from; none when it may not wait.
    pub(super) fn horizon(&self, job: &border::PendingJob, spec: &api::JobSpec) -> Option<Horizon> {
        let may_wait = matches!(spec.kind(), api::JobKind::Batch | api::JobKind::Gang | api::JobKind::Unspecified);
        let deferral = spec.deferral.as_ref().filter(|_| may_wait && self.now_unix_s > 0 && self.scorer.is_by_cost());
        deferral.map(|d| Horizon::new(self.trial.cluster, d, job.created_unix_s, self.now_unix_s))
    }

    /// Whether a task that could go here now waits instead.
    pub(super) fn defers(
        &mut self,
        horizon: &Horizon,
        job: &border::PendingJob,
        (pending, task_index): (&Pending<'_>, u32),
        found: Found,
        memo: &mut Memo,
    ) -> bool {
        if horizon.is_empty() {
            return false;
        }
        let mark = self.trial.mark();
        let known = memo.0.filter(|(at, _)| *at == mark).map(|(_, later)| later);
        let later = known.unwrap_or_else(|| {
            self.defer_looks_left = self.defer_looks_left.checked_sub(self.trial.cluster.nodes().count())?;
            horizon.best(&self.trial, &pending.task, self.scorer)
        });
        memo.0 = Some((mark, later));
        let c = self.trial.candidate(found.at, &pending.task.demand, found.model);
        let now = self.scorer.cost(&c).total_microcny_per_hour;
        let saves = later.map(|later| (later, horizon.saves_microcny(now, later))).filter(|(_, saves)| *saves > 0);
        if let Some((later, saves_microcny)) = saves {
            self.plan.deferred.push(border::DeferredTask {
                job_id: job.job_id.clone(),
                task_group: pending.group.name.clone(),
                task_index,
                start_unix_s: later.start_unix_s,
                saves_microcny,
            });
        }
        saves.is_some()
    }

    /// Lets a gang that has been placed wait as a whole, when that is cheaper.
    pub(super) fn defer_together(
        &mut self,
        job: &border::PendingJob,
        groups: &[Pending<'_>],
        horizon: &Horizon,
        start: &Start,
    ) {
        let placed = &self.plan.placements[start.placements..];
        if placed.is_empty() || horizon.is_empty() {
            return;
        }
        let costs: Vec<u64> = placed.iter().filter_map(|p| p.cost).map(|c| c.total_microcny_per_hour).collect();
        let now = costs.iter().copied().fold(0, u64::saturating_add);
        let lifted = self.trial.lift(start.mark);
        let tasks: Vec<&Task> = groups.iter().flat_map(|g| g.task_indexes.iter().map(|_| &g.task)).collect();
        let later = horizon.best_together(&mut self.trial, &tasks, self.scorer, &mut self.defer_looks_left);
        self.trial.put_back(lifted);
        let Some(later) = later.filter(|later| horizon.saves_microcny(now, *later) > 0) else { return };
        let saves_microcny = horizon.saves_microcny(now, later);
        let waiting = self.plan.placements[start.placements..].iter().enumerate().map(|(i, p)| border::DeferredTask {
            job_id: job.job_id.clone(),
            task_group: p.task_group.clone(),
            task_index: p.task_index,
            start_unix_s: later.start_unix_s,
            saves_microcny: part(saves_microcny, costs.len(), i),
        });
        let waiting: Vec<_> = waiting.collect();
        self.back_to(start);
        self.plan.deferred.extend(waiting);
    }
}

/// The share of one of so many that adds up to the whole.
fn part(whole: u64, count: usize, i: usize) -> u64 {
    let (count, i) = (count as u64, i as u64);
    whole / count + u64::from(i < whole % count)
}

/// Adds to an explanation which tasks wait, until when and what for, and whether all comes too late.
pub fn explain(explanation: &mut api::Explanation, deferred: &[&border::DeferredTask], horizon: Option<&Horizon>) {
    if let Some(first) = deferred.iter().map(|d| d.start_unix_s).min() {
        let saves = deferred.iter().map(|d| d.saves_microcny).fold(0, u64::saturating_add);
        explanation.deferred_task_count = deferred.len() as u32;
        explanation.deferred_to_unix_s = first;
        explanation.deferral_saves_microcny = saves;
        let told = format!("{} deferred to {}, saves CNY {}", plural(deferred.len(), "task"), utc(first), cny(saves));
        let is_all = deferred.len() == explanation.task_count as usize;
        explanation.summary = if is_all { told } else { format!("{}; {told}", explanation.summary) };
    }
    if let Some(late_s) = horizon.map(|h| h.late_s).filter(|late_s| *late_s > 0) {
        explanation.summary += &format!("; it ends {} after its deadline though it starts now", duration(late_s));
    }
}

/// What a run costs is piecewise linear in its start, and the least of several such costs is least
/// at a corner of one: at the best start the run begins or ends on an hour of a forecast, unless
/// it is the first or the last start possible. Those after now, ascending.
fn starts(cluster: &Cluster, run_time_s: i64, now: i64, latest: i64) -> BTreeSet<i64> {
    let mut starts = BTreeSet::from([latest]);
    for forecast in cluster.sites.iter().filter_map(|site| site.site.forecast.as_ref()) {
        // Only hours that a run may touch: forecasts may be long.
        let number = |unix_s: i64| (unix_s - forecast.first_hour_unix_s).div_euclid(HOUR_S);
        let (first, last) = (number(now).max(0), number(latest + run_time_s).min(forecast.hours.len() as i64));
        let hours = (first..=last).map(|i| forecast.first_hour_unix_s + i * HOUR_S);
        starts.extend(hours.flat_map(|hour| [hour, hour - run_time_s]));
    }
    starts.retain(|start| (now + 1..=latest).contains(start));
    starts
}
