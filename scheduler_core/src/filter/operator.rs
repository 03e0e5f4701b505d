//! The tenant may name operators that may, and that may not, hold its work.

use super::Filter;
use crate::model::Candidate;
use crate::wire::mumian::api::v1 as api;

pub struct Operator;

impl Filter for Operator {
    fn kind(&self) -> api::Filter {
        api::Filter::Operator
    }

    fn admits(&self, c: &Candidate<'_>) -> bool {
        let operator = &c.site.site.operator_id;
        !c.demand.operators_denied.contains(operator)
            && (c.demand.operators_allowed.is_empty() || c.demand.operators_allowed.contains(operator))
    }

    fn reason(&self, c: &Candidate<'_>) -> String {
        let operator = &c.site.site.operator_id;
        if c.demand.operators_denied.contains(operator) {
            format!("operator {operator} is denied by the job")
        } else {
            format!("operator {operator} is not among those allowed ({})", c.demand.operators_allowed.join(", "))
        }
    }
}
