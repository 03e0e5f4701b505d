//! Remembers the candidates of each demand seen lately, in order. What is remembered catches up
//! with what changed since, so a decision costs what changed and not what there is; and it does so
//! a little with every delta, so that a demand that is rarely asked has not missed much.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Found, Search};
use crate::cluster::{At, Cluster, NodeState};
use crate::filter::Beside;
use crate::model::Demand;
use crate::score::Scorer;
use crate::trial::Trial;

/// Most demands that are kept.
const DEMANDS_MAX: usize = 1024;

/// A way to keep candidates in order.
pub trait Order {
    /// The candidates of one demand.
    type Candidates: Default;
    /// Most entries of all demands together that are kept.
    const ENTRIES_MAX: usize;

    fn of(cluster: &Cluster) -> Self;
    fn load_changed(&mut self, at: At, node: &NodeState);
    /// The facts of the node have changed, and maybe its load.
    fn node_changed(&mut self, at: At, node: &NodeState);
    /// The facts of the site or the links that lead to it have changed.
    fn site_changed(&mut self, cluster: &Cluster, site: u32);
    /// Lets the candidates catch up; how many entries they are then.
    fn follow(&self, kept: &mut Self::Candidates, trial: &Trial<'_>, demand: &Demand, scorer: &Scorer) -> usize;
    /// Lets candidates that will be asked some time catch up, as far as that takes microseconds. `cluster` is unset
    /// where it is not the one that the order is of.
    fn refresh(&self, _kept: &mut Self::Candidates, _cluster: Option<&Cluster>, _demand: &Demand, _scorer: &Scorer) {}
    /// The best of them that is admitted.
    fn best(&self, kept: &mut Self::Candidates, admits: Option<&dyn Fn(Found) -> Beside>) -> Option<Found>;
}

/// The candidates of many demands in one order.
pub struct Index<O: Order> {
    generation: u64,
    structure: u64,
    scorer: Option<Scorer>,
    order: Option<O>,
    slots: Vec<Slot<O::Candidates>>,
    slot_of: HashMap<Arc<Demand>, usize>,
    entries: usize,
    asked: u64,
    /// The slot that was refreshed last.
    refreshed: usize,
}

struct Slot<C> {
    demand: Arc<Demand>,
    candidates: C,
    entries: usize,
    last_asked: u64,
}

impl<O: Order> Default for Index<O> {
    fn default() -> Self {
        Self {
            generation: 0,
            structure: 0,
            scorer: None,
            order: None,
            slots: Vec::new(),
            slot_of: HashMap::new(),
            entries: 0,
            asked: 0,
            refreshed: 0,
        }
    }
}

impl<O: Order> Index<O> {
    /// Catches up with a cluster. False when the index is ahead of it.
    pub fn follow(&mut self, cluster: &Cluster, scorer: &Scorer) -> bool {
        if self.generation > cluster.generation {
            return false;
        }
        match &mut self.order {
            Some(order) if self.structure == cluster.structure && self.scorer.as_ref() == Some(scorer) => {
                catch_up(order, self.generation, cluster);
            }
            _ => {
                *self = Self { order: Some(O::of(cluster)), scorer: Some(scorer.clone()), ..Self::default() };
                self.structure = cluster.structure;
            }
        }
        self.generation = cluster.generation;
        true
    }

    /// After a delta: follows it, and refreshes the next demand, so that none is ever more deltas behind than
    /// there are demands.
    ///
    /// `unseen` is the generation before the delta, where no snapshot of it is out: an index that was there may
    /// go on without getting ahead of anybody whom it was not ahead of already.
    pub fn after_delta(&mut self, cluster: &Cluster, unseen: Option<u64>) {
        let (Some(order), Some(scorer)) = (&mut self.order, &self.scorer) else { return };
        if unseen == Some(self.generation) && self.structure == cluster.structure {
            catch_up(order, self.generation, cluster);
            self.generation = cluster.generation;
        }
        self.refreshed = (self.refreshed + 1) % self.slots.len().max(1);
        if let Some(slot) = self.slots.get_mut(self.refreshed) {
            let cluster = (self.generation == cluster.generation).then_some(cluster);
            order.refresh(&mut slot.candidates, cluster, &slot.demand, scorer);
        }
    }

    /// A slot for a new demand: that of the one not asked for longest when there are too many.
    fn vacant(&mut self, demand: &Demand) -> usize {
        let demand = Arc::new(demand.clone());
        let slot = Slot { demand: demand.clone(), candidates: O::Candidates::default(), entries: 0, last_asked: 0 };
        let is_full = self.slots.len() >= DEMANDS_MAX || self.entries > O::ENTRIES_MAX;
        // Ticks of `asked` are distinct, so there is one oldest.
        let oldest = (0..self.slots.len()).filter(|_| is_full).min_by_key(|s| self.slots[*s].last_asked);
        let number = oldest.unwrap_or(self.slots.len());
        if let Some(old) = self.slots.get_mut(number) {
            let old = std::mem::replace(old, slot);
            self.slot_of.remove(&old.demand);
            self.entries -= old.entries;
        } else {
            self.slots.push(slot);
        }
        self.slot_of.insert(demand, number);
        number
    }
}

/// Tells the order what deltas changed after a generation.
fn catch_up<O: Order>(order: &mut O, generation: u64, cluster: &Cluster) {
    for s in cluster.changed_after(generation) {
        let site = &cluster.sites[s as usize];
        if site.facts_changed_at > generation {
            order.site_changed(cluster, s);
        }
        for n in site.changed_after(generation) {
            let (at, node) = (At { site: s, node: n }, &site.nodes[n as usize]);
            if node.facts_changed_at > generation {
                order.node_changed(at, node);
            } else {
                order.load_changed(at, node);
            }
        }
    }
}

impl<O: Order> Search for Index<O> {
    fn intern(&mut self, demand: &Demand) -> usize {
        self.asked += 1;
        let slot = self.slot_of.get(demand).copied().unwrap_or_else(|| self.vacant(demand));
        self.slots[slot].last_asked = self.asked;
        slot
    }

    fn best(
        &mut self,
        demand: usize,
        trial: &Trial<'_>,
        scorer: &Scorer,
        _draw: u64,
        admits: Option<&dyn Fn(Found) -> Beside>,
    ) -> Option<Found> {
        let order = self.order.as_ref()?;
        let slot = &mut self.slots[demand];
        self.entries -= slot.entries;
        slot.entries = order.follow(&mut slot.candidates, trial, &slot.demand, scorer);
        self.entries += slot.entries;
        order.best(&mut slot.candidates, admits)
    }

    fn touched(&mut self, trial: &Trial<'_>, at: At) {
        if let Some(order) = &mut self.order {
            order.load_changed(at, trial.node(at));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Index, Order};
    use crate::cluster::{At, Cluster, NodeState};
    use crate::filter::Beside;
    use crate::model::Demand;
    use crate::place::{Found, Search};
    use crate::score::Scorer;
    use crate::trial::Trial;
    use crate::wire::mumian::api::v1 as api;
    use crate::wire::mumian_core::v1 as border;

    /// Counts how often each demand is refreshed.
    struct Counted;

    impl Order for Counted {
        type Candidates = u32;
        const ENTRIES_MAX: usize = 100;

        fn of(_cluster: &Cluster) -> Self {
            Self
        }

        fn load_changed(&mut self, _at: At, _node: &NodeState) {}
        fn node_changed(&mut self, _at: At, _node: &NodeState) {}
        fn site_changed(&mut self, _cluster: &Cluster, _site: u32) {}

        fn follow(&self, _kept: &mut u32, _trial: &Trial<'_>, _demand: &Demand, _scorer: &Scorer) -> usize {
            0
        }

        fn refresh(&self, kept: &mut u32, _cluster: Option<&Cluster>, _demand: &Demand, _scorer: &Scorer) {
            *kept += 1;
        }

        fn best(&self, _kept: &mut u32, _admits: Option<&dyn Fn(Found) -> Beside>) -> Option<Found> {
            None
        }
    }

    fn at(generation: u64) -> Cluster {
        Cluster { generation, ..Default::default() }
    }

    /// An index of three demands at generation 1.
    fn index() -> Index<Counted> {
        let mut index = Index::default();
        assert!(index.follow(&at(1), &Scorer::new(&at(1), &border::PlaceRequest::default())));
        for cpu_milli in 0..3 {
            let resources = Some(api::Resources { cpu_milli, ..Default::default() });
            index.intern(&Demand::of(&api::JobSpec::default(), &api::TaskGroup { resources, ..Default::default() }));
        }
        index
    }

    #[test]
    fn each_delta_refreshes_one_demand_and_all_have_their_turn() {
        let mut index = index();
        for times in 1..4 {
            (0..3).for_each(|_| index.after_delta(&at(2), None));
            assert!(index.slots.iter().all(|slot| slot.candidates == times));
        }
    }

    #[test]
    fn a_delta_is_followed_at_once_where_no_snapshot_is_left_behind() {
        let mut index = index();
        index.after_delta(&at(2), Some(1));
        assert_eq!(index.generation, 2);
        index.after_delta(&at(3), None);
        assert_eq!(index.generation, 2);
        index.after_delta(&at(4), Some(3)); // there may be one of generation 2
        assert_eq!(index.generation, 2);
    }
}
