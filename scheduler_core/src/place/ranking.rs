//! The blocks that would do for one demand, cheapest first. The cheapest with room has the best
//! node; blocks without are passed over by bit until something is freed there, and then only what was
//! freed is looked at. So a decision looks at the few nodes that changed and are cheap enough to matter.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use super::bits::Bits;
use super::blocks::{Block, Blocks};
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
    /// For each of them, what was found when it was last looked at.
    seen: Vec<Seen>,
    /// Positions of those that may have room.
    open: Bits,
    /// Position of each shelf, or UNRANKED. By itself, since it is all that a decision asks of most freed nodes, and
    /// memory that was not asked for long is what takes its time.
    position_of: Vec<u32>,
    /// How many changes of facts, and of freed nodes, have been noted.
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

const UNRANKED: u32 = u32::MAX;

/// What was found in a block when it was at that version.
#[derive(Clone, Copy, Default)]
struct Seen {
    version: u64,
    /// The nodes that had room, as a set of indexes.
    roomy: u64,
    /// The best of them, with what the task leaves over there.
    best: Option<(u64, At)>,
}

impl Seen {
    /// The nodes that may have room now.
    fn maybe_roomy(&self, block: &Block) -> u64 {
        if block.freed > self.version {
            u64::MAX
        } else {
            self.roomy
        }
    }

    /// Looks at a block that has changed.
    fn follow(&mut self, block: &Block, model: Option<usize>, ask: &Ask) {
        let among = self.maybe_roomy(block);
        *self = Self { version: block.version, roomy: 0, best: None };
        for (index, left_over, at) in block.roomy(model, ask, among) {
            self.roomy |= 1 << index;
            let one = (left_over, at);
            self.best = Some(self.best.map_or(one, |other| one.min(other)));
        }
    }
}

impl Order for Blocks {
    /// A ranking, once the demand was asked.
    type Candidates = Option<Ranking>;
    /// 80 bytes each.
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

    fn refresh(&self, kept: &mut Option<Ranking>, cluster: Option<&Cluster>, demand: &Demand, scorer: &Scorer) {
        let Some(ranking) = kept else { return };
        match cluster {
            Some(cluster) => ranking.follow(self, cluster, demand, scorer),
            None if ranking.facts == self.facts() => ranking.read_freed(self),
            None => return, // it has no position for blocks that are new
        }
        ranking.best(self);
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
            open: Bits::default(),
            position_of: Vec::new(),
            facts: 0,
            freed: 0,
        }
    }

    /// Takes note of all that has changed since it was asked last.
    fn follow(&mut self, blocks: &Blocks, cluster: &Cluster, demand: &Demand, scorer: &Scorer) {
        if self.facts == 0 {
            self.freed = blocks.freed.count(); // it is about to look at all blocks
        }
        if self.facts != blocks.facts() {
            self.rank(blocks, cluster, demand, scorer);
        }
        self.read_freed(blocks);
    }

    /// Notes where there may be room again.
    fn read_freed(&mut self, blocks: &Blocks) {
        if let Some(freed) = blocks.freed.after(self.freed) {
            for freed in freed.filter(|freed| freed.room.admits(&self.ask)) {
                let position = self.position_of[freed.shelf as usize];
                if position != UNRANKED {
                    self.open.insert(position as usize);
                }
            }
        } else {
            self.forget();
        }
        self.freed = blocks.freed.count();
    }

    /// Every block is to be looked at anew.
    fn forget(&mut self) {
        self.seen = vec![Seen::default(); self.ranked.len()];
        self.open = Bits::all(self.ranked.len());
    }

    /// Asks the filters and the cost about each block with new facts.
    fn rank(&mut self, blocks: &Blocks, cluster: &Cluster, demand: &Demand, scorer: &Scorer) {
        let changed: Vec<u32> = blocks.facts_changed_after(self.facts).collect();
        let mut fresh = Vec::new();
        for &block in &changed {
            let Some(&at) = blocks.block(block).nodes.first() else { continue };
            let (site, node) = (cluster.site(at), cluster.node(at));
            for model in models(node, demand) {
                let c = Candidate { at, site, node, demand, model, context: None };
                if filter::admits_fixed(&c) {
                    fresh.push(Ranked { fixed: scorer.fixed(&c), block, model });
                }
            }
        }
        self.position_of.resize(blocks.shelves(), UNRANKED);
        let before = if self.ranked.is_empty() { None } else { self.as_before(blocks, &changed, &fresh) };
        if let Some(positions) = before {
            positions.into_iter().for_each(|position| self.open.insert(position));
        } else {
            self.reorder(blocks, &changed, fresh);
        }
        self.facts = blocks.facts();
    }

    /// The positions of the changed blocks, where they are those that they had: most changes of a round trip are none
    /// to most demands.
    fn as_before(&self, blocks: &Blocks, changed: &[u32], fresh: &[Ranked]) -> Option<Vec<usize>> {
        let shelves = changed.iter().flat_map(|&block| blocks.block(block).shelves());
        let positions = shelves.map(|shelf| self.position_of[shelf]).filter(|position| *position != UNRANKED);
        let positions: Vec<usize> = positions.map(|position| position as usize).collect();
        let is_there = |r: &Ranked| {
            let position = self.position_of[blocks.block(r.block).shelf(r.model)];
            self.ranked.get(position as usize) == Some(r)
        };
        (positions.len() == fresh.len() && fresh.iter().all(is_there)).then_some(positions)
    }

    /// Puts the changed blocks where they belong now; what was found in the others is kept.
    fn reorder(&mut self, blocks: &Blocks, changed: &[u32], mut fresh: Vec<Ranked>) {
        fresh.sort_unstable();
        if self.ranked.is_empty() {
            self.ranked = fresh;
            self.forget();
        } else {
            self.merge(changed, fresh);
        }
        self.position_of.fill(UNRANKED);
        for (position, r) in (0..).zip(&self.ranked) {
            self.position_of[blocks.block(r.block).shelf(r.model)] = position;
        }
    }

    fn merge(&mut self, changed: &[u32], fresh: Vec<Ranked>) {
        let open = std::mem::take(&mut self.open);
        let all = (0..).zip(std::mem::take(&mut self.ranked)).zip(std::mem::take(&mut self.seen));
        let kept = all.filter(|((_, r), _)| changed.binary_search(&r.block).is_err());
        let kept = kept.map(|((position, r), seen)| (r, seen, open.contains(position)));
        let fresh = fresh.into_iter().map(|r| (r, Seen::default(), true));
        let mut entries: Vec<(Ranked, Seen, bool)> = kept.chain(fresh).collect();
        entries.sort_by_key(|(r, ..)| *r); // two runs in order, which this sort merges
        self.open = Bits::all(entries.len());
        for (position, (r, seen, is_open)) in entries.into_iter().enumerate() {
            self.ranked.push(r);
            self.seen.push(seen);
            if !is_open {
                self.open.remove(position);
            }
        }
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
                seen.follow(block, model, &self.ask);
            }
            match seen.best {
                Some((left_over, at)) => {
                    let one = (fixed, left_over, Found { at, model });
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
                let block = blocks.block(block);
                let roomy = block.roomy(model, &self.ask, self.seen[position].maybe_roomy(block));
                let roomy = roomy.filter(|(_, _, at)| !refused_sites.contains(&at.site));
                candidates.extend(roomy.map(|(_, left_over, at)| Reverse((fixed, left_over, Found { at, model }))));
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
