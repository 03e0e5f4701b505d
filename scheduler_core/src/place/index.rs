//! One ranking for each demand seen lately. A ranking catches up with the nodes that changed
//! since it was asked last, so a decision costs what changed and not what there is.

use std::collections::{HashMap, VecDeque};

use super::ranking::Ranking;
use super::{scan, Found, Search};
use crate::cluster::{At, Cluster};
use crate::filter::Beside;
use crate::model::Demand;
use crate::score::Scorer;
use crate::trial::Trial;

/// Most demands, and most candidates of all demands together (48 bytes each), that are kept.
const DEMANDS_MAX: usize = 1024;
const CANDIDATES_MAX: usize = 8_000_000;

#[derive(Default)]
pub struct Index {
    generation: u64,
    structure: u64,
    scorer: Option<Scorer>,
    changes: Changes,
    rankings: HashMap<Demand, Kept>,
    candidates: usize,
    asked: u64,
}

struct Kept {
    ranking: Ranking,
    /// How many of the changes the ranking has seen.
    seen: u64,
    last_asked: u64,
}

impl Index {
    /// Catches up with a cluster. False when the index is ahead of it.
    pub fn follow(&mut self, cluster: &Cluster, scorer: &Scorer) -> bool {
        if self.generation > cluster.generation {
            return false;
        }
        if self.structure != cluster.structure || self.scorer.as_ref() != Some(scorer) {
            self.forget();
            self.structure = cluster.structure;
            self.scorer = Some(scorer.clone());
            self.changes = Changes::of(cluster);
        } else {
            self.changes.since(self.generation, cluster);
        }
        self.generation = cluster.generation;
        true
    }

    fn forget(&mut self) {
        self.rankings.clear();
        self.candidates = 0;
    }

    fn make_room(&mut self, candidates: usize) {
        while self.rankings.len() >= DEMANDS_MAX || self.candidates + candidates > CANDIDATES_MAX {
            // Ticks of `asked` are distinct, so the order of the map does not matter.
            let oldest = self.rankings.iter().min_by_key(|(_, kept)| kept.last_asked).map(|(demand, _)| demand.clone());
            let Some(kept) = oldest.and_then(|demand| self.rankings.remove(&demand)) else { return };
            self.candidates -= kept.ranking.len();
        }
    }
}

impl Search for Index {
    fn best(
        &mut self,
        trial: &Trial<'_>,
        demand: &Demand,
        scorer: &Scorer,
        seed: u64,
        admits: Option<&dyn Fn(Found) -> Beside>,
    ) -> Option<Found> {
        if scorer.is_random() {
            return scan::best(trial, demand, scorer, seed, admits);
        }
        let best = |ranking: &Ranking| match admits {
            None => ranking.best(),
            Some(admits) => ranking.best_admitted(admits),
        };
        self.asked += 1;
        if let Some(kept) = self.rankings.get_mut(demand).filter(|kept| kept.seen >= self.changes.first) {
            for (node, facts) in self.changes.after(kept.seen) {
                kept.ranking.refresh(node, facts, trial, demand, scorer);
            }
            kept.seen = self.changes.end();
            kept.last_asked = self.asked;
            return best(&kept.ranking);
        }
        if let Some(stale) = self.rankings.remove(demand) {
            self.candidates -= stale.ranking.len();
        }
        let ranking = Ranking::new(trial, demand, scorer);
        let best = best(&ranking);
        self.make_room(ranking.len());
        self.candidates += ranking.len();
        let kept = Kept { ranking, seen: self.changes.end(), last_asked: self.asked };
        self.rankings.insert(demand.clone(), kept);
        best
    }

    fn touched(&mut self, at: At) {
        self.changes.push(at, false);
    }
}

/// The nodes that changed, oldest first. Only as many are kept as there are nodes: a ranking
/// that missed more is as well made anew.
#[derive(Default)]
struct Changes {
    /// Number of the oldest entry.
    first: u64,
    /// Positions of nodes, counted over all sites.
    entries: VecDeque<u32>,
    /// Position of each site's first node.
    offsets: Vec<usize>,
    /// For each node 1 + the number of its newest entry, and of the newest that is about its facts.
    newest: Vec<u64>,
    newest_facts: Vec<u64>,
}

impl Changes {
    fn of(cluster: &Cluster) -> Self {
        let mut nodes = 0;
        let offsets = cluster.sites.iter().map(|site| {
            nodes += site.nodes.len();
            nodes - site.nodes.len()
        });
        let offsets = offsets.collect();
        Self { offsets, newest: vec![0; nodes], newest_facts: vec![0; nodes], ..Self::default() }
    }

    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    fn push(&mut self, at: At, facts: bool) {
        if self.entries.len() > self.newest.len() {
            self.entries.pop_front();
            self.first += 1;
        }
        let position = self.offsets[at.site as usize] + at.node as usize;
        self.entries.push_back(position as u32);
        let end = self.end();
        self.newest[position] = end;
        if facts {
            self.newest_facts[position] = end;
        }
    }

    /// Each node that changed after the first `seen` changes, once, and whether its facts did.
    fn after(&self, seen: u64) -> impl Iterator<Item = (usize, bool)> + '_ {
        let unseen = self.entries.range((seen - self.first) as usize..).zip(seen + 1..);
        unseen.filter_map(move |(&position, number)| {
            let position = position as usize;
            (self.newest[position] == number).then(|| (position, self.newest_facts[position] > seen))
        })
    }

    /// Adds what deltas changed after a generation.
    fn since(&mut self, generation: u64, cluster: &Cluster) {
        if generation == cluster.generation {
            return;
        }
        for (s, site) in cluster.sites.iter().enumerate().filter(|(_, site)| site.changed_at > generation) {
            for (n, node) in site.nodes.iter().enumerate() {
                let facts = site.facts_changed_at > generation || node.facts_changed_at > generation;
                if facts || node.changed_at > generation {
                    self.push(At { site: s as u32, node: n as u32 }, facts);
                }
            }
        }
    }
}
