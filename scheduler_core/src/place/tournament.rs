//! The candidates of one demand in a tournament tree: the best is at the root, and a node that
//! changed is played again against log2(n) others.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};
use std::ops::Range;

use crate::cluster::{At, NodeState};
use crate::filter::{self, Beside};
use crate::model::{models, Candidate, Demand};
use crate::place::Found;
use crate::room::{Ask, Room};
use crate::score::{Score, Scorer, NO_SCORE};
use crate::trial::Trial;

/// One node and model with what no booking changes of its score; unset when a filter about
/// fixed facts refuses it.
#[derive(Clone, Copy)]
struct Leaf {
    found: Found,
    fixed: Option<u64>,
}

impl Leaf {
    /// Asks about what no booking changes.
    fn of(found: Found, trial: &Trial<'_>, demand: &Demand, scorer: &Scorer) -> Self {
        let candidate = trial.candidate(found.at, demand, found.model);
        let fixed = filter::admits_fixed(&candidate).then(|| scorer.fixed(&candidate));
        Self { found, fixed }
    }

    /// The same for another node of the class.
    fn on(&self, at: At) -> Self {
        Self { found: Found { at, ..self.found }, ..*self }
    }

    /// As its node is now.
    fn score(&self, node: &NodeState, trial: &Trial<'_>, demand: &Demand, scorer: &Scorer) -> Score {
        let Some(fixed) = self.fixed else { return NO_SCORE };
        let (ask, Found { at, model }) = (Ask::of(demand), self.found);
        if node.free_cpu_milli() < ask.cpu_milli || !Room::of(node, model).fits(&ask) {
            return NO_SCORE;
        }
        let candidate = Candidate { at, site: trial.cluster.site(at), node, demand, model, context: None };
        scorer.score(&candidate, fixed, 0)
    }
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
    /// Asks about every node once. `class_of` has the class of each: what its facts say is asked
    /// once a class, and a score once for neighbours of a class that are loaded alike.
    pub fn new(trial: &Trial<'_>, demand: &Demand, scorer: &Scorer, class_of: &[u32]) -> Self {
        let classes = class_of.iter().max().map_or(0, |class| *class as usize + 1);
        // The last node of each class, and its leaves.
        let mut last: Vec<Option<(&NodeState, Range<usize>)>> = vec![None; classes];
        let mut leaves: Vec<Leaf> = Vec::with_capacity(class_of.len());
        let mut scores: Vec<Score> = Vec::with_capacity(class_of.len());
        let mut firsts = Vec::with_capacity(class_of.len() + 1);
        firsts.push(0);
        for (at, class) in trial.cluster.nodes().zip(class_of) {
            let (node, first, last) = (trial.node(at), leaves.len(), &mut last[*class as usize]);
            if let Some((other, of_other)) = last {
                let is_alike = node.has_room_of(other);
                for position in of_other.clone() {
                    let leaf = leaves[position].on(at);
                    scores.push(if is_alike { scores[position] } else { leaf.score(node, trial, demand, scorer) });
                    leaves.push(leaf);
                }
            } else {
                for model in models(node, demand) {
                    let leaf = Leaf::of(Found { at, model }, trial, demand, scorer);
                    scores.push(leaf.score(node, trial, demand, scorer));
                    leaves.push(leaf);
                }
            }
            *last = Some((node, first..leaves.len()));
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
        let mut tournament =
            Self { leaves, firsts, scores, winners: (0..2 * count).map(|k| (k % count) as u32).collect(), sites };
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
        if facts {
            *leaf = Leaf::of(leaf.found, trial, demand, scorer);
        }
        let score = leaf.score(trial.node(leaf.found.at), trial, demand, scorer);
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
