//! The task may run on some architectures only.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;

pub struct Arch;

impl Filter for Arch {
    fn kind(&self) -> api::Filter {
        api::Filter::Arch
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.demand.archs.is_empty() || c.demand.archs.contains(&c.node.node.arch)
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        format!("arch {} is not {}", c.node.node.arch, c.demand.archs.join(" or "))
    }
}
