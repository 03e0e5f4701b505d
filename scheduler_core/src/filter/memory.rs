//! Free memory of the node covers the task.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;

pub struct Memory;

impl Filter for Memory {
    fn kind(&self) -> api::Filter {
        api::Filter::Memory
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.demand.memory_mib <= c.node.free_memory_mib()
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        format!("memory: {} MiB free < {} MiB asked", c.node.free_memory_mib(), c.demand.memory_mib)
    }

    fn curable_by_preemption(&self) -> bool {
        true
    }
}
