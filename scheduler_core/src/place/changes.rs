//! For objectives that score each node by its load: a tournament for each demand, and the nodes
//! that changed, so that it plays only those again.

use std::collections::VecDeque;

use super::classes::Classes;
use super::index::Order;
use super::tournament::Tournament;
use super::Found;
use crate::cluster::{At, Cluster, NodeState};
use crate::filter::Beside;
use crate::model::Demand;
use crate::score::Scorer;
use crate::trial::Trial;

/// The nodes that changed, oldest first. Only as many are kept as there are nodes: a tournament
/// that missed more is as well held anew.
pub struct Changes {
    /// Number of the oldest entry.
    first: u64,
    /// Positions of nodes, counted over all sites.
    entries: VecDeque<u32>,
    /// Position of each site's first node.
    offsets: Vec<usize>,
    /// For each node 1 + the number of its newest entry, and of the newest that is about its facts.
    newest: Vec<u64>,
    newest_facts: Vec<u64>,
    classes: Classes,
    /// Of each node.
    class_of: Vec<u32>,
}

/// A tournament, once it was held, and how many of the changes it has seen.
#[derive(Default)]
pub struct Kept {
    tournament: Option<Tournament>,
    seen: u64,
}

impl Order for Changes {
    type Candidates = Kept;
    /// 48 bytes each.
    const ENTRIES_MAX: usize = 8_000_000;

    fn of(cluster: &Cluster) -> Self {
        let mut nodes = 0;
        let offsets = cluster.sites.iter().map(|site| {
            nodes += site.nodes.len();
            nodes - site.nodes.len()
        });
        let offsets = offsets.collect();
        let mut classes = Classes::default();
        let class_of = cluster.nodes().map(|at| classes.number(at.site, cluster.node(at))).collect();
        Self {
            first: 0,
            entries: VecDeque::new(),
            offsets,
            newest: vec![0; nodes],
            newest_facts: vec![0; nodes],
            classes,
            class_of,
        }
    }

    fn load_changed(&mut self, at: At, _node: &NodeState) {
        self.push(at, false);
    }

    fn node_changed(&mut self, at: At, node: &NodeState) {
        let position = self.position(at);
        self.class_of[position] = self.classes.number(at.site, node);
        self.push(at, true);
    }

    fn site_changed(&mut self, cluster: &Cluster, site: u32) {
        let nodes = cluster.sites[site as usize].nodes.len();
        (0..nodes as u32).for_each(|node| self.push(At { site, node }, true));
    }

    fn follow(&self, kept: &mut Kept, trial: &Trial<'_>, demand: &Demand, scorer: &Scorer) -> usize {
        match kept.tournament.as_mut().filter(|_| kept.seen >= self.first) {
            Some(tournament) => {
                for (node, facts) in self.after(kept.seen) {
                    tournament.refresh(node, facts, trial, demand, scorer);
                }
            }
            None => kept.tournament = Some(Tournament::new(trial, demand, scorer, &self.class_of)),
        }
        kept.seen = self.end();
        kept.tournament.as_ref().map_or(0, Tournament::len)
    }

    fn best(&self, kept: &mut Kept, admits: Option<&dyn Fn(Found) -> Beside>) -> Option<Found> {
        let tournament = kept.tournament.as_ref()?;
        match admits {
            None => tournament.best(),
            Some(admits) => tournament.best_admitted(admits),
        }
    }
}

impl Changes {
    fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// Of a node among those of all sites.
    fn position(&self, at: At) -> usize {
        self.offsets[at.site as usize] + at.node as usize
    }

    fn push(&mut self, at: At, facts: bool) {
        if self.entries.len() > self.newest.len() {
            self.entries.pop_front();
            self.first += 1;
        }
        let position = self.position(at);
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
}
