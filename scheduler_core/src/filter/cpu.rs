//! Free CPU of the node covers the task.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;
use crate::words::cpu;

pub struct Cpu;

impl Filter for Cpu {
    fn kind(&self) -> api::Filter {
        api::Filter::Cpu
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.demand.cpu_milli <= c.node.free_cpu_milli()
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        format!("{} free < {} asked", cpu(c.node.free_cpu_milli()), cpu(c.demand.cpu_milli))
    }

    fn curable_by_preemption(&self) -> bool {
        true
    }
}
