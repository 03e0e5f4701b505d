//! The candidates of one demand in a tournament tree: the best is at the root, and a node that
//! changed is played again against log2(n) others.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use crate::filter::{self, Beside};
use crate::model::{models, Demand};
use crate::place::Found;
use crate::score::{Score, Scorer, NO_SCORE};
use crate::trial::Trial;

/// One node and model with what no booking changes of its score; unset when a filter about
/// fixed facts refuses it.
struct Leaf {
    found: Found,
    fixed: Option<u64>,
}

pub struct Tournament {
    /// In order of node and model, so that the lower position wins a tie.
    leaves: Vec<Leaf>,
    /// The first leaf of each node, and their count at the end.
    firsts: Vec<u32>,
    scores: Vec<Score>,
    /// Leaf positions; entry 1 is the root, entry k plays 2k against 2k + 1, the leaves come last.
    winners: Vec<u32>,
    /// For each entry of `winners` the site of all leaves below it, or MIXED.
    sites: Vec<u32>,
}

const MIXED: u32 = u32::MAX;

impl Tournament {
    /// Asks every node once.
    pub fn new(trial: &Trial<'_>, demand: &Demand, scorer: &Scorer) -> Self {
        let mut leaves = Vec::new();
        let mut firsts = vec![0];
        for at in trial.cluster.nodes() {
            for model in models(trial.node(at), demand) {
                leaves.push(Leaf { found: Found { at, model }, fixed: None });
            }
            firsts.push(leaves.len() as u32);
        }
        let count = leaves.len();
        let mut sites = vec![MIXED; 2 * count];
        for (position, leaf) in leaves.iter().enumerate() {
            sites[count + position] = leaf.found.at.site;
        }
        for k in (1..count).rev() {
            sites[k] = if sites[2 * k] == sites[2 * k + 1] { sites[2 * k] } else { MIXED };
        }
        let mut tournament = Self {
            leaves,
            firsts,
            scores: vec![NO_SCORE; count],
            winners: (0..2 * count).map(|k| (k % count) as u32).collect(),
            sites,
        };
        for position in 0..count {
            tournament.rate(position, trial, demand, scorer, true);
        }
        for k in (1..count).rev() {
            tournament.winners[k] = tournament.winner(k);
        }
        tournament
    }

    pub fn len(&self) -> usize {
        self.leaves.len()
    }

    pub fn best(&self) -> Option<Found> {
        let position = *self.winners.get(1)? as usize;
        (self.scores[position] != NO_SCORE).then(|| self.leaves[position].found)
    }

    /// The best leaf that is admitted. Walks the leaves from the best on: a subtree whose winner
    /// is refused gives way to the subtrees beside the winner's path, which are as many as the
    /// tree is deep. Subtrees of a refused site are passed over whole.
    pub fn best_admitted(&self, admits: &dyn Fn(Found) -> Beside) -> Option<Found> {
        let count = self.leaves.len();
        let entry = |k: usize| Reverse((self.scores[self.winners[k] as usize], self.winners[k], k));
        let mut open = BinaryHeap::new();
        let mut refused_sites = BTreeSet::new();
        if count > 0 {
            open.push(entry(1));
        }
        while let Some(Reverse((score, winner, mut k))) = open.pop() {
            let found = self.leaves[winner as usize].found;
            if score == NO_SCORE {
                return None;
            }
            if !refused_sites.contains(&found.at.site) {
                match admits(found) {
                    Beside::Admitted => return Some(found),
                    Beside::Refused => {}
                    Beside::SiteRefused => {
                        refused_sites.insert(found.at.site);
                    }
                }
            }
            while k < count && !refused_sites.contains(&self.sites[k]) {
                let is_left = self.winners[2 * k] == winner;
                let beside = 2 * k + usize::from(is_left);
                if !refused_sites.contains(&self.sites[beside]) {
                    open.push(entry(beside));
                }
                k = 2 * k + usize::from(!is_left);
            }
        }
        None
    }

    /// Looks again at the node at this position of all nodes; at its facts too when they have changed.
    pub fn refresh(&mut self, node: usize, facts: bool, trial: &Trial<'_>, demand: &Demand, scorer: &Scorer) {
        for leaf in self.firsts[node] as usize..self.firsts[node + 1] as usize {
            if self.rate(leaf, trial, demand, scorer, facts) {
                self.replay(leaf);
            }
        }
    }

    /// Scores one leaf and says whether that changed anything.
    fn rate(&mut self, position: usize, trial: &Trial<'_>, demand: &Demand, scorer: &Scorer, facts: bool) -> bool {
        let leaf = &mut self.leaves[position];
        let candidate = trial.candidate(leaf.found.at, demand, leaf.found.model);
        if facts {
            leaf.fixed = filter::admits_fixed(&candidate).then(|| scorer.fixed(&candidate));
        }
        let score = match leaf.fixed {
            Some(fixed) if filter::admits_now(&candidate) => scorer.score(&candidate, fixed, 0),
            _ => NO_SCORE,
        };
        std::mem::replace(&mut self.scores[position], score) != score
    }

    fn replay(&mut self, position: usize) {
        let mut k = (position + self.leaves.len()) / 2;
        while k > 0 {
            let winner = self.winner(k);
            if self.winners[k] == winner && winner as usize != position {
                return; // nothing above depends on this leaf
            }
            self.winners[k] = winner;
            k /= 2;
        }
    }

    fn winner(&self, k: usize) -> u32 {
        let (a, b) = (self.winners[2 * k], self.winners[2 * k + 1]);
        let rank = |position: u32| (self.scores[position as usize], position);
        if rank(a) <= rank(b) {
            a
        } else {
            b
        }
    }
}
