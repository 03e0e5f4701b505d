//! The indexes that a state shares with its snapshots. They only remember: an answer is the same
//! with a warm index, a cold one or none.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use super::blocks::Blocks;
use super::changes::Changes;
use super::index::Index;
use super::scan::Scan;
use super::Search;
use crate::cluster::Cluster;
use crate::score::{Basis, Scorer};

/// An index for each kind of objective.
#[derive(Default)]
pub struct Indexes {
    by_cost: Index<Blocks>,
    by_load: Index<Changes>,
    scan: Scan,
}

impl Indexes {
    /// The search for an objective, as of a cluster; none when its index is ahead of that.
    pub fn search(&mut self, cluster: &Cluster, scorer: &Scorer) -> Option<&mut dyn Search> {
        match scorer.basis() {
            Basis::Facts => self.by_cost.follow(cluster, scorer).then_some(&mut self.by_cost as _),
            Basis::Load => self.by_load.follow(cluster, scorer).then_some(&mut self.by_load as _),
            Basis::Draw => Some(&mut self.scan),
        }
    }
}

/// Equal to any other, since it holds no state of its own.
#[derive(Clone, Default)]
pub struct Memo(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Held by the request that places: others do not wait for it, it may take long.
    turn: Mutex<()>,
    /// Held by that request too, or else by a delta, for microseconds.
    indexes: Mutex<Indexes>,
}

impl Memo {
    /// Runs with the shared index, or with a new one while another request holds the shared one
    /// or has taken it past this snapshot.
    pub fn with<T>(&self, cluster: &Cluster, scorer: &Scorer, work: impl FnOnce(&mut dyn Search) -> T) -> T {
        if let Some(_turn) = self.0.turn() {
            if let Some(search) = self.0.indexes().search(cluster, scorer) {
                return work(search);
            }
        }
        let mut own = Indexes::default();
        work(own.search(cluster, scorer).expect("a new index is not ahead"))
    }

    /// Lets the indexes catch up with a delta, unless a request holds them. `unseen` is the generation before it,
    /// where no snapshot of it is out.
    pub fn after_delta(&self, cluster: &Cluster, unseen: Option<u64>) {
        if let Ok(mut indexes) = self.0.indexes.try_lock() {
            indexes.by_cost.after_delta(cluster, unseen);
            indexes.by_load.after_delta(cluster, unseen);
        }
    }
}

impl Shared {
    fn turn(&self) -> Option<MutexGuard<'_, ()>> {
        match self.turn.try_lock() {
            Ok(turn) => Some(turn),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn indexes(&self) -> MutexGuard<'_, Indexes> {
        self.indexes.lock().unwrap_or_else(|poisoned| {
            // Somebody panicked half-way: what was left is of no use.
            self.indexes.clear_poison();
            let mut indexes = poisoned.into_inner();
            *indexes = Indexes::default();
            indexes
        })
    }
}

impl fmt::Debug for Memo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memo")
    }
}

impl PartialEq for Memo {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{catch_unwind, AssertUnwindSafe};
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use proptest::prelude::*;

    use crate::cluster::Cluster;
    use crate::model::Demand;
    use crate::place::Search;
    use crate::score::Scorer;
    use crate::state::State;
    use crate::wire::mumian::api::v1 as api;
    use crate::wire::mumian_core::v1 as border;

    const NODES: u32 = 3;

    /// A few nodes, asked about one demand.
    fn asked() -> State {
        let node = |n: u32| api::Node { id: format!("n{n}"), site_id: "s".into(), ..Default::default() };
        let sites = vec![api::Site { id: "s".into(), ..Default::default() }];
        let fleet = border::Delta { reset: true, sites, nodes: (0..NODES).map(node).collect(), ..Default::default() };
        let mut state = State::default();
        state.apply(fleet).expect("it is in range");
        with(&state.snapshot(), |search| search.intern(&demand(1)));
        state
    }

    fn demand(cpu_milli: u64) -> Demand {
        let resources = Some(api::Resources { cpu_milli, ..Default::default() });
        Demand::of(&api::JobSpec::default(), &api::TaskGroup { resources, ..Default::default() })
    }

    fn with<T>(cluster: &Cluster, work: impl FnOnce(&mut dyn Search) -> T) -> T {
        cluster.memo.with(cluster, &Scorer::new(cluster, &border::PlaceRequest::default()), work)
    }

    /// Whether a request on that snapshot goes on from the demand that was asked about first.
    fn is_warm(cluster: &Cluster) -> bool {
        with(cluster, |search| search.intern(&demand(2)) > 0)
    }

    /// Takes something of a node, or gives it back.
    fn change(state: &mut State, node: u32, is_taken: bool) {
        let (allocation_id, node_id) = (format!("a{node}"), format!("n{node}"));
        let mut delta = border::Delta { base_generation: state.generation(), ..Default::default() };
        if is_taken {
            delta.allocations.push(border::UsedResources { allocation_id, node_id, ..Default::default() });
        } else {
            delta.removed_allocation_ids.push(allocation_id);
        }
        state.apply(delta).expect("it speaks of what is there");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Change(u32, bool),
        Hold,
        LetGo(usize),
        Ask(usize),
        AskNewest,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..NODES, any::<bool>()).prop_map(|(node, is_taken)| Step::Change(node, is_taken)),
            2 => Just(Step::Hold),
            1 => (0_usize..3).prop_map(Step::LetGo),
            1 => (0_usize..3).prop_map(Step::Ask),
            1 => Just(Step::AskNewest),
        ]
    }

    proptest! {
        #[test]
        fn only_requests_on_newer_snapshots_leave_one_without_the_shared_index(
            steps in prop::collection::vec(step(), 0..40),
        ) {
            let (mut state, mut held) = (asked(), Vec::<Cluster>::new());
            let mut newest_asked = state.generation();
            for step in steps {
                let cluster = match step {
                    Step::Change(node, is_taken) => {
                        change(&mut state, node, is_taken);
                        continue;
                    }
                    Step::Hold => {
                        held.push(state.snapshot());
                        continue;
                    }
                    Step::LetGo(number) => {
                        if number < held.len() {
                            held.remove(number);
                        }
                        continue;
                    }
                    Step::Ask(number) => held.get(number).cloned(),
                    Step::AskNewest => Some(state.snapshot()),
                };
                let Some(cluster) = cluster else { continue };
                prop_assert_eq!(is_warm(&cluster), cluster.generation >= newest_asked);
                newest_asked = newest_asked.max(cluster.generation);
            }
        }
    }

    #[test]
    fn a_request_waits_for_a_delta() {
        let cluster = asked().snapshot();
        let held_by_delta = cluster.memo.0.indexes();
        thread::scope(|scope| {
            let (begins, begun) = mpsc::channel();
            let cluster = &cluster;
            let request = scope.spawn(move || {
                begins.send(()).expect("the test listens");
                is_warm(cluster)
            });
            begun.recv().expect("it begins");
            thread::sleep(Duration::from_millis(20)); // it stands there; were it late, the test would only see less
            drop(held_by_delta);
            assert!(request.join().expect("it does not panic"));
        });
    }

    #[test]
    fn neither_a_request_nor_a_delta_waits_for_a_request() {
        let mut state = asked();
        let cluster = state.snapshot();
        with(&cluster, |_| {
            assert!(!is_warm(&cluster));
            change(&mut state, 0, true);
        });
        assert!(is_warm(&state.snapshot()));
    }

    #[test]
    fn a_request_that_panics_leaves_nothing_behind() {
        let cluster = asked().snapshot();
        let panics = || with(&cluster, |_| panic!("half-way"));
        assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
        assert!(!is_warm(&cluster));
        with(&cluster, |search| assert_eq!(search.intern(&demand(3)), 1, "they share an index again"));
    }
}
