//! Every label that the task asks for must be there with exactly its value.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;

pub struct Labels;

impl Filter for Labels {
    fn kind(&self) -> api::Filter {
        api::Filter::Labels
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.demand.labels.iter().all(|(key, value)| c.node.node.labels.get(key) == Some(value))
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let wrong = c.demand.labels.iter().find(|(key, value)| c.node.node.labels.get(*key) != Some(*value));
        wrong.map_or_else(String::new, |(key, value)| {
            let found = c.node.node.labels.get(key).map_or("not set", String::as_str);
            format!("label {key} is {found}, not {value}")
        })
    }
}
