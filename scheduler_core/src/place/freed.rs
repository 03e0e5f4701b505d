//! The nodes that were freed, in order, so that a ranking that passes over full blocks learns where there is room again.

use std::collections::VecDeque;

use crate::room::Glance;

/// Entries that are kept: to read them all is cheaper than to look at all blocks, which they must who missed some.
const FREED_MAX: usize = 16_384;

/// A node that had more room for one model of device than before. Every demand reads all of them, so four share
/// a line of cache.
#[derive(Clone, Copy)]
pub struct Freed {
    pub shelf: u32,
    /// What is free there now; nothing where a newer entry tells that.
    pub room: Glance,
}

/// The newest of those, oldest first. What is free there is kept up to date, so that the many that were
/// taken again are passed over without a look at their blocks.
#[derive(Default)]
pub struct FreedLog {
    entries: VecDeque<Freed>,
    /// How many there were before those.
    forgotten: u64,
}

impl FreedLog {
    /// How many there were in all.
    pub fn count(&self) -> u64 {
        self.forgotten + self.entries.len() as u64
    }

    /// All but the first so many; none when some of them are forgotten.
    pub fn after(&self, count: u64) -> Option<impl Iterator<Item = &Freed> + '_> {
        let first = count.checked_sub(self.forgotten)?;
        Some(self.entries.range(first as usize..))
    }

    /// Notes a node; the number of the entry is put into `logged`, where that of the one before it is.
    pub fn push(&mut self, logged: &mut u64, freed: Freed) {
        self.correct(*logged, Glance::default());
        if self.entries.len() == FREED_MAX {
            self.entries.pop_front();
            self.forgotten += 1;
        }
        self.entries.push_back(freed);
        *logged = self.count();
    }

    /// Corrects what is free according to the entry of that number, as long as it is not forgotten.
    pub fn correct(&mut self, number: u64, room: Glance) {
        let position = number.checked_sub(self.forgotten + 1);
        if let Some(entry) = position.and_then(|position| self.entries.get_mut(position as usize)) {
            entry.room = room;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Freed, FreedLog, FREED_MAX};
    use crate::cluster::NodeState;
    use crate::room::{Glance, Room};
    use crate::wire::mumian::api::v1 as api;

    /// With so much free, and nothing of all else.
    fn room(cpu_milli: u64) -> Glance {
        Room::of(&NodeState::new(api::Node { cpu_milli, ..Default::default() }, 0), None).at_a_glance()
    }

    /// The shelves after the first so many entries that have room now.
    fn with_room(log: &FreedLog, after: u64) -> Option<Vec<u32>> {
        Some(log.after(after)?.filter(|freed| freed.room != Glance::default()).map(|freed| freed.shelf).collect())
    }

    #[test]
    fn tells_each_freed_node_once_as_it_is_now_until_it_has_forgotten_some() {
        let freed = |shelf, cpu_milli| Freed { shelf, room: room(cpu_milli) };
        let (mut log, mut logged) = (FreedLog::default(), [0; 3]);
        log.push(&mut logged[0], freed(0, 1));
        log.push(&mut logged[1], freed(1, 1));
        log.push(&mut logged[0], freed(0, 2));
        assert_eq!(with_room(&log, 0), Some(vec![1, 0]));
        assert_eq!(with_room(&log, 2), Some(vec![0]));
        log.correct(logged[0], Glance::default()); // taken again
        assert_eq!(with_room(&log, 0), Some(vec![1]));
        (0..FREED_MAX).for_each(|_| log.push(&mut logged[2], freed(2, 1)));
        assert_eq!(with_room(&log, 2), None);
        assert_eq!(with_room(&log, 3), Some(vec![2]));
        log.correct(logged[1], room(5)); // of an entry that is forgotten
        assert_eq!(with_room(&log, 3), Some(vec![2]));
    }
}
