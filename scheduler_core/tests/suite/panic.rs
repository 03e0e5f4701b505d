//! A defect that panics in the midst of a decision, as in a filter, ends that decision and nothing else.

use std::panic::{catch_unwind, AssertUnwindSafe};

use crate::common;
use proptest::prelude::*;
use scheduler_core::optimize::optimize;
use scheduler_core::optimize::stop::{Progress, Reason};
use scheduler_core::place::{place, place_by_scan};
use scheduler_core::state::State;
use scheduler_core::wire::mumian_core::v1 as border;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// The placer asks the stop between its jobs, with its bookings made and the shared index in its hands.
    #[test]
    fn after_a_panic_in_the_midst_of_placing_the_state_and_its_index_answer_as_before(
        fleet in common::fleet(3, 4),
        placing in common::request(5, 2, 4),
        asks in 0_u32..8,
    ) {
        let mut state = State::default();
        state.apply(fleet).expect("the fleet speaks of its own sites only");
        let before = state.snapshot();
        let request = border::OptimizeRequest { jobs: placing.jobs.clone(), policy: placing.policy.clone(), ..Default::default() };
        let mut left = asks;
        let mut stop = |_: &Progress| -> Option<Reason> {
            assert!(left > 0, "a defect");
            left -= 1;
            None
        };
        let outcome = catch_unwind(AssertUnwindSafe(|| optimize(&state, &request, 1, &mut stop)));
        prop_assert!(outcome.is_err());
        prop_assert!(state.snapshot() == before);
        prop_assert_eq!(place(&state.snapshot(), &placing), place_by_scan(&before, &placing));
    }
}
