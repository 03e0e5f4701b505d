//! What runs: allocations as they were booked. Kept once; a node and a job only have sets of them.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use imbl::shared_ptr::DefaultSharedPtr;
use imbl::{GenericHashMap, OrdSet};

use crate::cluster::{At, Holding};
use crate::wire::mumian::api::v1 as api;

/// By id. Hashed without entropy: where the keys lie, and so what a delta costs, is the same in every run.
pub(crate) type ById<V> = GenericHashMap<Arc<str>, V, BuildHasherDefault<DefaultHasher>, DefaultSharedPtr>;

/// A running allocation.
#[derive(Debug, PartialEq)]
pub struct Allocation {
    pub id: Arc<str>,
    pub place: Arc<Place>,
    pub priority: u32,
    /// Unset when the job is not known.
    pub job_id: Option<Arc<str>>,
    pub task_group: String,
    /// All allocations of its job fall with it.
    pub is_of_gang: bool,
    pub held: Holding,
    pub zone_traffic: Vec<api::ZoneTraffic>,
}

/// A node by its ids.
#[derive(Debug, PartialEq)]
pub struct Place {
    pub site_id: String,
    pub node_id: String,
    /// Where it was when this was written. Nodes that come and go move others, so it is where to look first.
    pub(crate) was_at: At,
}

/// Some allocations, in order of id.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Allocations(OrdSet<InOrder>);

impl Allocations {
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Allocation>> + '_ {
        self.0.iter().map(|InOrder(allocation)| allocation)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, allocation: Arc<Allocation>) {
        self.0.insert(InOrder(allocation));
    }

    pub(crate) fn remove(&mut self, allocation_id: &str) {
        self.0.remove(allocation_id);
    }
}

/// Compared by id.
#[derive(Debug, Clone)]
struct InOrder(Arc<Allocation>);

impl Borrow<str> for InOrder {
    fn borrow(&self) -> &str {
        &self.0.id
    }
}

impl Ord for InOrder {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.id.cmp(&other.0.id)
    }
}

impl PartialOrd for InOrder {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for InOrder {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for InOrder {}
