//! Which devices of a node a task gets: one rule for all that seat tasks, so that what one finds
//! another can take.

use super::problem::WHOLE;

/// Devices of one node as bits, by position: for a share the fullest of the model that has room,
/// for whole devices the first free ones. A task that comes home gets the very devices that it
/// held, `held`, or none; it could not be started on others without being stopped.
pub fn choose(
    devices: impl Iterator<Item = (u32, u16)> + Clone,
    model: u32,
    milli: i64,
    held: Option<u64>,
) -> Option<u64> {
    if milli == 0 {
        return Some(0);
    }
    let each = milli.min(WHOLE);
    let roomy = (0_u32..).zip(devices).filter(|(_, (of, free))| *of == model && i64::from(*free) >= each);
    if let Some(held) = held {
        let free = roomy.fold(0_u64, |free, (position, _)| free | 1 << position);
        return (free & held == held).then_some(held);
    }
    if milli < WHOLE {
        return roomy.min_by_key(|(position, (_, free))| (*free, *position)).map(|(position, _)| 1 << position);
    }
    let count = (milli / WHOLE) as usize;
    let chosen = roomy.take(count).fold(0_u64, |chosen, (position, _)| chosen | 1 << position);
    (chosen.count_ones() as usize == count).then_some(chosen)
}
