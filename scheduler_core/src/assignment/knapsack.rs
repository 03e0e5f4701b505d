//! What pays best on one node with one resource: the knapsack, solved exactly by dynamic programming
//! over the capacity.

use std::ops::Add;

/// One task that may be taken, with what it gains.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    pub task: u32,
    pub weight: usize,
    pub gain: i64,
}

/// The tables, which are used again and again.
#[derive(Default)]
pub struct Knapsack {
    narrow: Vec<i32>,
    wide: Vec<i64>,
    /// As `wide`, of the items from the last one on.
    backward: Vec<i64>,
    /// Entries of tables that have been filled so far: what it took.
    pub cells: u64,
}

impl Knapsack {
    /// The most that some of the items gain together within the capacity. `taken` becomes their tasks. All
    /// gains must be above 0, and their sum must fit an i64.
    pub fn fill(&mut self, capacity: usize, items: &[Item], taken: &mut Vec<u32>) -> i64 {
        taken.clear();
        let all: i64 = items.iter().map(|item| item.gain).sum();
        if items.iter().map(|item| item.weight).sum::<usize>() <= capacity {
            taken.extend(items.iter().map(|item| item.task));
            return all;
        }
        self.cells += items.len() as u64 * (capacity as u64 + 1);
        if i32::try_from(all).is_ok() {
            i64::from(best(&mut self.narrow, capacity, items, |gain| gain as i32, taken))
        } else {
            best(&mut self.wide, capacity, items, |gain| gain, taken)
        }
    }

    /// What some of the items gain together at most where this one of them has to be taken, and where it must not
    /// be: for each item. All weights must be within the capacity; gains may be below 0 here.
    pub fn with_and_without(&mut self, capacity: usize, items: &[Item]) -> Vec<[i64; 2]> {
        self.cells += 3 * items.len() as u64 * (capacity as u64 + 1);
        fill_rows(&mut self.wide, capacity, items.iter(), |gain| gain);
        fill_rows(&mut self.backward, capacity, items.iter().rev(), |gain| gain);
        let width = capacity + 1;
        let of = |i: usize, item: &Item| {
            let before = &self.wide[i * width..][..width];
            let after = &self.backward[(items.len() - 1 - i) * width..][..width];
            let most = |capacity: usize| {
                let rest = after[..=capacity].iter().rev();
                before[..=capacity].iter().zip(rest).fold(i64::MIN, |most, (a, b)| most.max(a + b))
            };
            [item.gain + most(capacity - item.weight), most(capacity)]
        };
        items.iter().enumerate().map(|(i, item)| of(i, item)).collect()
    }

    /// Nearly the most, in less time where there are many items: of what gains most for its weight, all but the
    /// last `doubtful` that fit are taken as they come, and only they and as many after them are chosen among
    /// (the core of Balas and Zemel, "An algorithm for large zero-one knapsack problems", 1980). Less than
    /// the gain of one item is missed. The items are put into that order.
    pub fn fill_nearly(&mut self, capacity: usize, items: &mut [Item], doubtful: usize, taken: &mut Vec<u32>) -> i64 {
        if items.len() <= 2 * doubtful {
            return self.fill(capacity, items, taken);
        }
        let density = |item: &Item| item.gain as f64 / item.weight.max(1) as f64;
        items.sort_unstable_by(|a, b| density(b).total_cmp(&density(a)).then(a.task.cmp(&b.task)));
        let mut left = capacity;
        let fits = |item: &&Item| {
            left.checked_sub(item.weight).is_some_and(|less| {
                left = less;
                true
            })
        };
        let fitting = items.iter().take_while(fits).count();
        let (sure, others) = items.split_at(fitting.saturating_sub(doubtful));
        let left = capacity - sure.iter().map(|item| item.weight).sum::<usize>();
        let core = &others[..others.len().min(2 * doubtful)];
        let gain = self.fill(left, core, taken);
        taken.extend(sure.iter().map(|item| item.task));
        gain + sure.iter().map(|item| item.gain).sum::<i64>()
    }
}

fn best<T>(rows: &mut Vec<T>, capacity: usize, items: &[Item], of: impl Fn(i64) -> T, taken: &mut Vec<u32>) -> T
where
    T: Copy + Default + PartialOrd + Add<Output = T>,
{
    fill_rows(rows, capacity, items.iter(), of);
    let width = capacity + 1;
    let mut left = capacity;
    for (i, item) in items.iter().enumerate().rev() {
        if rows[(i + 1) * width + left] > rows[i * width + left] {
            left -= item.weight;
            taken.push(item.task);
        }
    }
    rows[items.len() * width + capacity]
}

/// Row i becomes what the first i items gain at most within each capacity.
fn fill_rows<'i, T>(
    rows: &mut Vec<T>,
    capacity: usize,
    items: impl ExactSizeIterator<Item = &'i Item>,
    of: impl Fn(i64) -> T,
) where
    T: Copy + Default + PartialOrd + Add<Output = T>,
{
    let width = capacity + 1;
    if rows.len() < (items.len() + 1) * width {
        rows.resize((items.len() + 1) * width, T::default());
    }
    rows[..width].fill(T::default());
    for (item, i) in items.zip(1..) {
        let (before, row) = rows.split_at_mut(i * width);
        let (before, row) = (&before[(i - 1) * width..], &mut row[..width]);
        let weight = item.weight.min(width);
        let gain = of(item.gain);
        row[..weight].copy_from_slice(&before[..weight]);
        for ((best, &rest), &without) in row[weight..].iter_mut().zip(before).zip(&before[weight..]) {
            let with = rest + gain;
            *best = if with > without { with } else { without };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_that_fits_gains_more(
            sizes in prop::collection::vec((0_usize..12, 1_i64..30), 0..9),
            capacity in 0_usize..40,
            scale in prop::sample::select(vec![1_i64, 1 << 30]),
        ) {
            let mut items: Vec<Item> = (0..).zip(&sizes).map(|(task, &(weight, gain))| Item { task, weight, gain: gain * scale }).collect();
            let mut taken = Vec::new();
            let gain = Knapsack::default().fill(capacity, &items, &mut taken);
            let chosen = |set: u32| items.iter().filter(move |item| set >> item.task & 1 == 1);
            let weight = |set: u32| chosen(set).map(|item| item.weight).sum::<usize>();
            let gained = |set: u32| chosen(set).map(|item| item.gain).sum::<i64>();
            let all = (0..1_u32 << items.len()).filter(|&set| weight(set) <= capacity);
            prop_assert_eq!(gain, all.map(gained).max().unwrap_or(0));
            let set = taken.iter().fold(0, |set, task| set | 1 << task);
            prop_assert!(weight(set) <= capacity);
            prop_assert_eq!(gained(set), gain);
            let fitting: Vec<Item> = items.iter().filter(|item| item.weight <= capacity).copied().collect();
            let mixed: Vec<Item> = fitting.iter().map(|item| Item { gain: item.gain - 9 * scale, ..*item }).collect();
            let gained_mixed = |set: u32| chosen(set).map(|item| item.gain - 9 * scale).sum::<i64>();
            let both = Knapsack::default().with_and_without(capacity, &mixed);
            for (item, [with, without]) in mixed.iter().zip(both) {
                let all = (0..1_u32 << items.len()).filter(|&set| weight(set) <= capacity);
                let (yes, no): (Vec<u32>, Vec<u32>) = all.partition(|set| set >> item.task & 1 == 1);
                prop_assert_eq!(with, yes.into_iter().map(gained_mixed).max().unwrap());
                prop_assert_eq!(without, no.into_iter().map(gained_mixed).max().unwrap());
            }
            let unsorted = items.clone();
            let nearly = Knapsack::default().fill_nearly(capacity, &mut items, 2, &mut taken);
            let set = taken.iter().fold(0, |set, task| set | 1 << task);
            let chosen = || unsorted.iter().filter(|item| set >> item.task & 1 == 1);
            prop_assert_eq!(chosen().map(|item| item.gain).sum::<i64>(), nearly);
            prop_assert!(chosen().map(|item| item.weight).sum::<usize>() <= capacity);
            let largest = unsorted.iter().map(|item| item.gain).max().unwrap_or(1);
            prop_assert!(nearly <= gain && gain - nearly < largest, "{} of {}", nearly, gain);
        }
    }
}
