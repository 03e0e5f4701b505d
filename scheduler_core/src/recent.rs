//! The newest changes of many things, so that nobody who saw the ones before need look at all.

use std::collections::VecDeque;

/// Changes that are remembered one by one.
const CHANGES_MAX: usize = 32;

/// Which of many things changed at which generation.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Recent {
    /// Generation and position, oldest first. All changes after `complete_after` are here.
    changes: VecDeque<(u64, u32)>,
    complete_after: u64,
}

impl Recent {
    /// Notes that the thing at this position has changed.
    pub fn note(&mut self, position: usize, generation: u64) {
        let change = (generation, position as u32);
        if self.changes.back() == Some(&change) {
            return;
        }
        if self.changes.len() == CHANGES_MAX {
            self.complete_after = self.changes.pop_front().map_or(0, |(generation, _)| generation);
        }
        self.changes.push_back(change);
    }

    /// What changed after a generation, each once, as long as no position has moved since. None
    /// when that is longer ago than is remembered.
    pub fn after(&self, generation: u64) -> Option<Vec<u32>> {
        if generation < self.complete_after {
            return None;
        }
        let newer = self.changes.iter().rev().take_while(|(at, _)| *at > generation);
        let mut positions: Vec<u32> = newer.map(|(_, position)| *position).collect();
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
