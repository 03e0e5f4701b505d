//! The newest changes of many things, so that nobody who saw the ones before need look at all.

/// Changes that are remembered one by one.
const CHANGES_MAX: usize = 32;

/// Which of many things changed at which generation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recent {
    /// Generation and position, in a ring: a vector, since every snapshot copies it. All changes after
    /// `complete_after` are here.
    changes: Vec<(u64, u32)>,
    /// Where the ring starts.
    oldest: usize,
    complete_after: u64,
}

impl Recent {
    /// Notes that the thing at this position has changed.
    pub fn note(&mut self, position: usize, generation: u64) {
        let change = (generation, position as u32);
        if self.newest_first().next() == Some(change) {
            return;
        }
        if self.changes.len() < CHANGES_MAX {
            self.changes.push(change);
        } else {
            let (forgotten, _) = std::mem::replace(&mut self.changes[self.oldest], change);
            self.complete_after = forgotten;
            self.oldest = (self.oldest + 1) % CHANGES_MAX;
        }
    }

    fn newest_first(&self) -> impl Iterator<Item = (u64, u32)> + '_ {
        let (newer, older) = self.changes.split_at(self.oldest);
        newer.iter().rev().chain(older.iter().rev()).copied()
    }

    /// What changed after a generation, each once, as long as no position has moved since. None
    /// when that is longer ago than is remembered.
    pub fn after(&self, generation: u64) -> Option<Vec<u32>> {
        if generation < self.complete_after {
            return None;
        }
        let newer = self.newest_first().take_while(|(at, _)| *at > generation);
        let mut positions: Vec<u32> = newer.map(|(_, position)| position).collect();
        positions.sort_unstable();
        positions.dedup();
        Some(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::{Recent, CHANGES_MAX};

    #[test]
    fn tells_each_change_once_until_it_has_forgotten_some() {
        let mut recent = Recent::default();
        (0..CHANGES_MAX as u64).for_each(|generation| recent.note(generation as usize % 2, generation + 1));
        assert_eq!(recent.after(0), Some(vec![0, 1]));
        assert_eq!(recent.after(CHANGES_MAX as u64 - 1), Some(vec![1]));
        assert_eq!(recent.after(CHANGES_MAX as u64), Some(vec![]));
        recent.note(7, 1000);
        assert_eq!(recent.after(0), None);
        assert_eq!(recent.after(1), Some(vec![0, 1, 7]));
    }
}
