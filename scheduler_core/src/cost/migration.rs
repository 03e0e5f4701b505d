//! What a move of a task costs, spread over the hours that the platform expects it to stay.

use crate::wire::mumian_core::v1 as border;

/// The part of one hour, rounded down.
pub fn microcny_per_hour(policy: &border::Policy) -> u64 {
    policy.migration_microcny / policy.migration_horizon_h.max(1)
}
