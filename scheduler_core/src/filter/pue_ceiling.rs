//! The job may ask for sites whose average PUE is at most so much; an unknown PUE is too high.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;
use crate::words::thousandths;

pub struct PueCeiling;

impl Filter for PueCeiling {
    fn kind(&self) -> api::Filter {
        api::Filter::PueCeiling
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        let pue = c.site.site.pue.as_ref().map_or(0, |p| p.average_permille);
        c.demand.pue_max_permille == 0 || (pue > 0 && pue <= c.demand.pue_max_permille)
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        match c.site.site.pue.as_ref().map_or(0, |p| p.average_permille) {
            0 => "PUE is not known".into(),
            pue => format!("PUE {} > {}", thousandths(pue.into()), thousandths(c.demand.pue_max_permille.into())),
        }
    }
}
