//! What would help a task that waits: each relaxation is tried by placing the job with it, alone, as it would be
//! placed now. Only whether it had better wait for another hour is not asked.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::preempt::Evicted;
use super::{Pending, Placer, Search, Start};
use crate::relax;
use crate::score::Scorer;
use crate::trial::Trial;
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// Looks at candidates that one try of a relaxation may spend on seating the whole job.
const SEAT_LOOKS_MAX: usize = 10_000;

impl Placer<'_, '_> {
    /// The smallest change of the job that would place one more task of the group, or the whole
    /// of a gang.
    pub(super) fn relaxation(
        &mut self,
        job: &border::PendingJob,
        spec: &api::JobSpec,
        pending: &Pending<'_>,
        start: &Start,
    ) -> Option<api::Relaxation> {
        let group = spec.task_groups.iter().position(|g| g.name == pending.group.name)?;
        let is_mine = |p: &&border::Placement| p.task_group == pending.group.name;
        let placed = &self.plan.placements[start.placements..];
        let is_gang = spec.kind() == api::JobKind::Gang;
        let lifted = self.trial.lift(start.mark);
        lifted.iter().for_each(|booking| self.search.touched(&self.trial, booking.at));
        let cluster = self.trial.cluster;
        let mut trial = std::mem::replace(&mut self.trial, Trial::new(cluster));
        let looks = cluster.nodes().count().max(1);
        let mut looks_left = self.looks_left;
        let rules = Rules {
            may_preempt: self.may_preempt,
            // What falls for this job stands again; what falls for those before it does not.
            evicted_ids: self.evicted[..start.evicted].iter().flat_map(Evicted::ids).collect(),
            now_unix_s: self.now_unix_s,
        };
        let found = relax::smallest(&mut trial, spec, group, |trial, changed| {
            looks_left = looks_left.checked_sub(looks)?;
            let changed = border::PendingJob { spec: Some(changed.clone()), explain: false, ..job.clone() };
            let (plan, left) = alone(self.search, trial, self.scorer, &changed, &rules, looks_left);
            looks_left = left;
            let mine = |placements: &[border::Placement], site_id: Option<&str>| {
                placements.iter().filter(is_mine).filter(|p| site_id.is_none_or(|id| p.site_id == id)).count()
            };
            let more = mine(&plan.placements, None) > mine(placed, None) && plan.placements.len() > placed.len();
            if !more || (is_gang && !plan.unplaced.is_empty()) {
                return None;
            }
            let gains =
                |p: &&border::Placement| mine(&plan.placements, Some(&p.site_id)) > mine(placed, Some(&p.site_id));
            plan.placements.iter().filter(is_mine).find(gains).map(|p| p.site_id.clone())
        });
        self.looks_left = looks_left;
        self.trial = trial;
        self.put_back_bookings(lifted);
        found
    }
}

/// What the changed job is placed by as well.
struct Rules {
    may_preempt: bool,
    evicted_ids: BTreeSet<Arc<str>>,
    now_unix_s: i64,
}

/// Places one job on a trial, which is left as it was. Says too how many looks are left of so many.
fn alone(
    search: &mut dyn Search,
    trial: &mut Trial<'_>,
    scorer: &Scorer,
    job: &border::PendingJob,
    rules: &Rules,
    looks: usize,
) -> (border::Plan, usize) {
    let mark = trial.mark();
    let cluster = trial.cluster;
    let mut placer = Placer {
        search,
        trial: std::mem::replace(trial, Trial::new(cluster)),
        scorer,
        seed: 0,
        draws: 0,
        looks_left: 0,
        seat_looks_left: SEAT_LOOKS_MAX,
        defer_looks_left: 0, // so it starts now
        preempt_looks_left: looks,
        may_preempt: rules.may_preempt,
        proceed: &mut || true,
        goes_on: true,
        evicted: Vec::new(),
        evicted_ids: rules.evicted_ids.clone(),
        now_unix_s: rules.now_unix_s,
        plan: border::Plan::default(),
    };
    let _ = placer.job(job); // a job that was refused has placed nothing
    placer.undo_to(mark);
    *trial = placer.trial;
    (placer.plan, placer.preempt_looks_left.saturating_sub(SEAT_LOOKS_MAX - placer.seat_looks_left))
}
