//! New work goes only to a ready node of a ready site.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;

pub struct Health;

impl Filter for Health {
    fn kind(&self) -> api::Filter {
        api::Filter::Health
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        let ready = api::Health::Ready as i32;
        c.site.site.health == ready && c.node.node.health == ready
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let (part, health) = if c.site.site.health == api::Health::Ready as i32 {
            ("node", c.node.node.health())
        } else {
            ("site", c.site.site.health())
        };
        let name = health.as_str_name();
        format!("{part} is {}", name.strip_prefix("HEALTH_").unwrap_or(name).to_lowercase())
    }
}
