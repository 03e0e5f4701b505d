//! The blocks that would do for one demand, cheapest first. The cheapest with room has the best
//! node; blocks without are passed over by bit until something is freed there. So a decision
//! looks at the few blocks that changed and are cheap enough to matter.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::bits::Bits;
use super::blocks::{Blocks, Freed};
use super::index::Order;
use super::Found;
use crate::cluster::{At, Cluster, NodeState};
use crate::filter::{self, Beside};
use crate::model::{models, Candidate, Demand};
use crate::room::Ask;
use crate::score::Scorer;
use crate::trial::Trial;

pub struct Ranking {
    ask: Ask,
    /// In order.
    ranked: Vec<Ranked>,
    /// For each of them, its best node when it was last looked at.
    seen: Vec<Seen>,
    /// Positions in `ranked` by block, and where those of each block begin.
    positions: Vec<u32>,
    firsts: Vec<u32>,
    /// Positions of blocks that may have room.
    open: Bits,
    /// How many changes of facts, and of freed blocks, have been noted.
    facts: u64,
    freed: u64,
}

/// One block and model that the filters about facts admit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Ranked {
    /// The first part of the score, equal for all its nodes.
    fixed: u64,
    block: u32,
    model: Option<usize>,
}

/// The best node of a block with what it leaves over, when the block was at that version.
#[derive(Clone, Copy, Default)]
struct Seen {
    version: u64,
    best: Option<(u64, Found)>,
}

impl Order for Blocks {
    /// A ranking, once the demand was asked.
    type Candidates = Option<Ranking>;
    /// 88 bytes each.
    const ENTRIES_MAX: usize = 4_000_000;

    fn of(cluster: &Cluster) -> Self {
        Self::of(cluster)
    }

    fn load_changed(&mut self, at: At, node: &NodeState) {
        self.load_changed(at, node);
    }

    fn node_changed(&mut self, at: At, node: &NodeState) {
        self.node_changed(at, node);
    }

    fn site_changed(&mut self, _cluster: &Cluster, site: u32) {
        self.site_changed(site);
    }

    fn follow(&self, kept: &mut Option<Ranking>, trial: &Trial<'_>, demand: &Demand, scorer: &Scorer) -> usize {
        let ranking = kept.get_or_insert_with(|| Ranking::new(demand));
        ranking.follow(self, trial.cluster, demand, scorer);
        ranking.ranked.len()
    }

    fn best(&self, kept: &mut Option<Ranking>, admits: Option<&dyn Fn(Found) -> Beside>) -> Option<Found> {
        let ranking = kept.as_mut()?;
        match admits {
            None => ranking.best(self),
            Some(admits) => ranking.best_admitted(self, admits),
        }
    }
}

impl Ranking {
    fn new(demand: &Demand) -> Self {
        Self {
            ask: Ask::of(demand),
            ranked: Vec::new(),
            seen: Vec::new(),
            positions: Vec::new(),
            firsts: Vec::new(),
            open: Bits::default(),
            facts: 0,
            freed: 0,
        }
    }

    /// Takes note of all that has changed since it was asked last.
    fn follow(&mut self, blocks: &Blocks, cluster: &Cluster, demand: &Demand, scorer: &Scorer) {
        if self.facts != blocks.facts() {
            self.rank(blocks, cluster, demand, scorer);
        } else if let Some(freed) = blocks.freed.after(self.freed) {
            for &Freed { block, .. } in freed.filter(|freed| freed.room.fits(&self.ask)) {
                let range = self.firsts[block as usize] as usize..self.firsts[block as usize + 1] as usize;
                self.positions[range].iter().for_each(|position| self.open.insert(*position as usize));
            }
        } else {
            self.open = Bits::all(self.ranked.len());
        }
        self.freed = blocks.freed.count();
    }

    /// Asks the filters and the cost about each block with new facts.
    fn rank(&mut self, blocks: &Blocks, cluster: &Cluster, demand: &Demand, scorer: &Scorer) {
        let changed: Vec<u32> = blocks.facts_changed_after(self.facts).collect();
        self.ranked.retain(|r| changed.binary_search(&r.block).is_err());
        for block in changed {
            let Some(&at) = blocks.block(block).nodes.first() else { continue };
            let (site, node) = (cluster.site(at), cluster.node(at));
            for model in models(node, demand) {
                let c = Candidate { at, site, node, demand, model, context: None };
                if filter::admits_fixed(&c) {
                    self.ranked.push(Ranked { fixed: scorer.fixed(&c), block, model });
                }
            }
        }
        self.ranked.sort_unstable();
        self.seen = vec![Seen::default(); self.ranked.len()];
        self.positions = (0..self.ranked.len() as u32).collect();
        self.positions.sort_unstable_by_key(|position| self.ranked[*position as usize].block);
        self.firsts = vec![0; blocks.len() + 1];
        self.ranked.iter().for_each(|r| self.firsts[r.block as usize + 1] += 1);
        (0..blocks.len()).for_each(|block| self.firsts[block + 1] += self.firsts[block]);
        self.open = Bits::all(self.ranked.len());
        self.facts = blocks.facts();
    }

    /// The candidate with the best score: the cheapest, and of equally cheap ones the best fit.
    fn best(&mut self, blocks: &Blocks) -> Option<Found> {
        let mut best: Option<(u64, u64, Found)> = None;
        let mut from = 0;
        while let Some(position) = self.open.next(from) {
            let Ranked { fixed, block, model } = self.ranked[position];
            if best.is_some_and(|(least, ..)| fixed > least) {
                break;
            }
            let (block, seen) = (blocks.block(block), &mut self.seen[position]);
            if seen.version != block.version {
                *seen = Seen { version: block.version, best: block.roomy(model, &self.ask).min() };
            }
            match seen.best {
                Some((left_over, found)) => {
                    let one = (fixed, left_over, found);
                    best = Some(best.map_or(one, |other| other.min(one)));
                }
                None => self.open.remove(position),
            }
            from = position + 1;
        }
        best.map(|(_, _, found)| found)
    }

    /// The best candidate that is admitted: walks them from the best on, but for those of sites
    /// that were refused as a whole.
    fn best_admitted(&mut self, blocks: &Blocks, admits: &dyn Fn(Found) -> Beside) -> Option<Found> {
        let mut candidates: BinaryHeap<Reverse<(u64, u64, Found)>> = BinaryHeap::new();
        let mut refused_sites = BTreeSet::new();
        let mut next = self.open.next(0);
        loop {
            // Blocks that could hold a better one than the best so far come first.
            while let Some(position) = next {
                let Ranked { fixed, block, model } = self.ranked[position];
                if candidates.peek().is_some_and(|Reverse((least, ..))| *least < fixed) {
                    break;
                }
                let roomy = blocks.block(block).roomy(model, &self.ask);
                let roomy = roomy.filter(|(_, found)| !refused_sites.contains(&found.at.site));
                candidates.extend(roomy.map(|(left_over, found)| Reverse((fixed, left_over, found))));
                next = self.open.next(position + 1);
            }
            let Reverse((_, _, found)) = candidates.pop()?;
            if refused_sites.contains(&found.at.site) {
                continue;
            }
            match admits(found) {
                Beside::Admitted => return Some(found),
                Beside::Refused => {}
                Beside::SiteRefused => {
                    refused_sites.insert(found.at.site);
                }
            }
        }
    }
}
