//! The price of the accelerators that a task makes useless for the workload that is expected.
//! A task that leaves less stranded than there was costs nothing by this; it earns nothing either.

use crate::fragmentation::Mix;
use crate::model::{Candidate, WHOLE_DEVICE_MILLI};
use crate::wire::mumian_core::v1 as border;

/// Price of the devices stranded by the task, as its node is now. 0 where it finds no room.
pub fn microcny_per_hour(c: &Candidate<'_>, policy: &border::Policy, mix: &Mix) -> u64 {
    let price = policy.fragmentation_microcny_per_device_hour;
    if price == 0 || !c.devices_fit() {
        return 0;
    }
    let cost = u128::from(price) * u128::from(mix.stranded_milli(c)) / u128::from(WHOLE_DEVICE_MILLI);
    u64::try_from(cost).unwrap_or(u64::MAX)
}
