//! The indexes that a state shares with its snapshots. They only remember: an answer is the same
//! with a warm index, a cold one or none.

use std::fmt;
use std::sync::{Arc, Mutex, TryLockError};

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
pub struct Memo(Arc<Mutex<Indexes>>);

impl Memo {
    /// Runs with the shared index, or with a new one while another request holds the shared one
    /// or has taken it past this snapshot.
    pub fn with<T>(&self, cluster: &Cluster, scorer: &Scorer, work: impl FnOnce(&mut dyn Search) -> T) -> T {
        let locked = match self.0.try_lock() {
            Ok(indexes) => Some(indexes),
            Err(TryLockError::Poisoned(poisoned)) => {
                // A request panicked half-way: what it left is of no use.
                self.0.clear_poison();
                let mut indexes = poisoned.into_inner();
                *indexes = Indexes::default();
                Some(indexes)
            }
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(mut indexes) = locked {
            if let Some(search) = indexes.search(cluster, scorer) {
                return work(search);
            }
        }
        let mut own = Indexes::default();
        work(own.search(cluster, scorer).expect("a new index is not ahead"))
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
