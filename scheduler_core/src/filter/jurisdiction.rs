//! Data may have to stay in a jurisdiction; a wider one covers those inside it.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;

pub struct Jurisdiction;

impl Filter for Jurisdiction {
    fn kind(&self) -> api::Filter {
        api::Filter::Jurisdiction
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        c.demand.jurisdictions.is_empty()
            || c.demand.jurisdictions.iter().any(|wide| covers(wide, &c.site.site.jurisdiction))
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        format!("jurisdiction {} is not within {}", c.site.site.jurisdiction, c.demand.jurisdictions.join(", "))
    }
}

/// "CN-GD" covers "CN-GD" and "CN-GD-GZ", not "CN-GDX".
fn covers(wide: &str, narrow: &str) -> bool {
    narrow.strip_prefix(wide).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}
