//! The job may say what the rent of one task is to be at most, at the site's prices as they are posted. What part of
//! them an hour takes is left to the cost: whatever the time of a decision, placer, verifier and optimiser agree.

use super::Filter;
use crate::cost;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;
use crate::words::{self, cny};

pub struct RentCeiling;

impl Filter for RentCeiling {
    fn kind(&self) -> api::Filter {
        api::Filter::RentCeiling
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        let ceiling = c.demand.rent_max_microcny_per_hour;
        ceiling == 0 || cost::posted_rent_microcny_per_hour(c) <= ceiling
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let rent = words::rent(cost::posted_rent_microcny_per_hour(c));
        format!("rent {rent} > {}", cny(c.demand.rent_max_microcny_per_hour))
    }
}
