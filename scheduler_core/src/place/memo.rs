//! The index that a state shares with its snapshots. It only remembers: an answer is the same
//! with a warm index, a cold one or none.

use std::fmt;
use std::sync::{Arc, Mutex, TryLockError};

use super::index::Index;
use crate::cluster::Cluster;
use crate::score::Scorer;

/// Equal to any other, since it holds no state of its own.
#[derive(Clone, Default)]
pub struct Memo(Arc<Mutex<Index>>);

impl Memo {
    /// Runs with the shared index, or with a new one while another request holds the shared one
    /// or has taken it past this snapshot.
    pub fn with<T>(&self, cluster: &Cluster, scorer: &Scorer, work: impl FnOnce(&mut Index) -> T) -> T {
        let locked = match self.0.try_lock() {
            Ok(index) => Some(index),
            Err(TryLockError::Poisoned(poisoned)) => {
                // A request panicked half-way: what it left is of no use.
                self.0.clear_poison();
                let mut index = poisoned.into_inner();
                *index = Index::default();
                Some(index)
            }
            Err(TryLockError::WouldBlock) => None,
        };
        if let Some(mut index) = locked {
            if index.follow(cluster, scorer) {
                return work(&mut index);
            }
        }
        let mut own = Index::default();
        own.follow(cluster, scorer);
        work(&mut own)
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
