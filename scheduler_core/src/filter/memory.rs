//! Free memory of the node covers the task.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;
use crate::words::memory_pair;

pub struct Memory;

impl Filter for Memory {
    fn kind(&self) -> api::Filter {
        api::Filter::Memory
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.demand.memory_mib <= c.node.free_memory_mib()
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let (free, asked) = memory_pair(c.node.free_memory_mib(), c.demand.memory_mib);
        format!("memory: {free} free < {asked} asked")
    }

    fn curable_by_preemption(&self) -> bool {
        true
    }
}
