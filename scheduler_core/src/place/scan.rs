//! The plain search: asks every node. The index must find the same; tests compare the two.

use super::{Found, Search};
use crate::cluster::At;
use crate::filter::{self, Beside};
use crate::model::{models, Candidate, Demand, Task};
use crate::score::{Score, Scorer};
use crate::seed::mixed;
use crate::trial::Trial;

#[derive(Default)]
pub struct Scan {
    demand: Option<Demand>,
}

impl Search for Scan {
    fn intern(&mut self, demand: &Demand) -> usize {
        self.demand = Some(demand.clone());
        0
    }

    fn best(
        &mut self,
        _demand: usize,
        trial: &Trial<'_>,
        scorer: &Scorer,
        draw: u64,
        admits: Option<&dyn Fn(Found) -> Beside>,
    ) -> Option<Found> {
        let demand = self.demand.as_ref()?;
        let mut best: Option<(Score, Found)> = None;
        let mut ordinal = 0;
        for at in trial.cluster.nodes() {
            for model in models(trial.node(at), demand) {
                ordinal += 1;
                let candidate = trial.candidate(at, demand, model);
                let found = Found { at, model };
                let is_admitted = filter::admits_fixed(&candidate) && filter::admits_now(&candidate);
                if !is_admitted || admits.is_some_and(|admits| admits(found) != Beside::Admitted) {
                    continue;
                }
                let score = scorer.score(&candidate, scorer.fixed(&candidate), mixed(draw, ordinal));
                if best.as_ref().is_none_or(|(least, _)| score < *least) {
                    best = Some((score, found));
                }
            }
        }
        best.map(|(_, found)| found)
    }

    fn touched(&mut self, _trial: &Trial<'_>, _at: At) {}
}

/// Every candidate that admits the task.
pub fn admitted<'t>(trial: &'t Trial<'_>, task: &'t Task) -> impl Iterator<Item = (Found, Candidate<'t>)> {
    let of_node = move |at: At| {
        models(trial.node(at), &task.demand)
            .map(move |model| (Found { at, model }, trial.candidate_of(at, task, model)))
    };
    trial
        .cluster
        .nodes()
        .flat_map(of_node)
        .filter(|(_, c)| filter::admits_fixed(c) && filter::admits_now(c) && filter::beside(c) == Beside::Admitted)
}
