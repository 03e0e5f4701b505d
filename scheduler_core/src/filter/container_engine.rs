//! A task that is a container needs an engine on its node.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;

pub struct ContainerEngine;

impl Filter for ContainerEngine {
    fn kind(&self) -> api::Filter {
        api::Filter::ContainerEngine
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        !c.demand.is_container || !c.node.node.container_engine.is_empty()
    }

    fn reason(&self, _c: &Candidate<'_>) -> String {
        "no container engine".into()
    }
}
