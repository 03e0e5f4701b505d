//! A task that needs an accelerator needs one of a model that it takes.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;

pub struct AcceleratorModel;

impl Filter for AcceleratorModel {
    fn kind(&self) -> api::Filter {
        api::Filter::AcceleratorModel
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.demand.accelerators.is_none() || c.model.is_some()
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let wanted = c.demand.accelerators.as_ref().map_or(String::new(), |a| a.models.join(" or "));
        let wanted = if wanted.is_empty() { "accelerator".into() } else { wanted };
        format!("no {wanted} on this node")
    }
}
