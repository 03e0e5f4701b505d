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

/// Gains up to so much are added up exactly in an f32, of which a processor compares several at once.
const NARROW: i64 = 1 << 24;

/// The tables, which are used again and again.
#[derive(Default)]
pub struct Knapsack {
    narrow: Tables<f32>,
    wide: Tables<i64>,
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
        if all < NARROW {
            self.narrow.best(capacity, items, taken)
        } else {
            self.wide.best(capacity, items, taken)
        }
    }

    /// What some of the items gain together at most where this one of them has to be taken, and where it must not
    /// be: for each item. All weights must be within the capacity; gains may be below 0 here.
    pub fn with_and_without(&mut self, capacity: usize, items: &[Item]) -> Vec<[i64; 2]> {
        let paying: Vec<Item> = items.iter().filter(|item| item.gain > 0).copied().collect();
        self.cells += 3 * paying.len() as u64 * (capacity as u64 + 1);
        if paying.iter().map(|item| item.gain).sum::<i64>() < NARROW {
            self.narrow.with_and_without(capacity, items, &paying)
        } else {
            self.wide.with_and_without(capacity, items, &paying)
        }
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

trait Number: Copy + Default + PartialOrd + Add<Output = Self> {
    fn of(gain: i64) -> Self;
    fn whole(self) -> i64;
}

impl Number for f32 {
    fn of(gain: i64) -> Self {
        gain as f32
    }

    fn whole(self) -> i64 {
        self as i64
    }
}

impl Number for i64 {
    fn of(gain: i64) -> Self {
        gain
    }

    fn whole(self) -> i64 {
        self
    }
}

/// Rows of what some of the items gain at most.
#[derive(Default)]
struct Tables<T> {
    /// Of the first ones, by the capacity that they have.
    forward: Vec<T>,
    /// Of the last ones, by the capacity that they do not have.
    backward: Vec<T>,
}

impl<T: Number> Tables<T> {
    fn best(&mut self, capacity: usize, items: &[Item], taken: &mut Vec<u32>) -> i64 {
        self.fill_forward(capacity, items);
        let (rows, width) = (&self.forward, capacity + 1);
        let mut left = capacity;
        for (i, item) in items.iter().enumerate().rev() {
            if rows[(i + 1) * width + left] > rows[i * width + left] {
                left -= item.weight;
                taken.push(item.task);
            }
        }
        rows[items.len() * width + capacity].whole()
    }

    fn with_and_without(&mut self, capacity: usize, items: &[Item], paying: &[Item]) -> Vec<[i64; 2]> {
        self.fill_forward(capacity, paying);
        self.fill_backward(capacity, paying);
        let (width, count) = (capacity + 1, paying.len());
        let all = &self.forward[count * width..][..width];
        let mut before = self.forward.chunks_exact(width);
        let mut after = self.backward[..count * width].chunks_exact(width).rev();
        let of_item = |item: &Item| {
            if item.gain <= 0 {
                return [item.gain + all[capacity - item.weight].whole(), all[capacity].whole()];
            }
            let (before, after) = (before.next().unwrap_or_default(), after.next().unwrap_or_default());
            let with = most_of_sums(&before[..width - item.weight], &after[item.weight..]);
            [item.gain + with.whole(), most_of_sums(before, after).whole()]
        };
        items.iter().map(of_item).collect()
    }

    /// Row i becomes what the first i items gain at most within each capacity.
    fn fill_forward(&mut self, capacity: usize, items: &[Item]) {
        let width = capacity + 1;
        make_rows(&mut self.forward, items.len() + 1, width);
        for (item, i) in items.iter().zip(1..) {
            let (before, row) = rows(&mut self.forward, i, width);
            let weight = item.weight.min(width);
            row[..weight].copy_from_slice(&before[..weight]);
            take_better(&mut row[weight..], before, &before[weight..], T::of(item.gain));
        }
    }

    /// Row i becomes what the last i items gain at most where so much of the capacity is gone.
    fn fill_backward(&mut self, capacity: usize, items: &[Item]) {
        let width = capacity + 1;
        make_rows(&mut self.backward, items.len() + 1, width);
        for (item, i) in items.iter().rev().zip(1..) {
            let (before, row) = rows(&mut self.backward, i, width);
            let fits = width.saturating_sub(item.weight);
            row[fits..].copy_from_slice(&before[fits..]);
            take_better(&mut row[..fits], &before[width - fits..], before, T::of(item.gain));
        }
    }
}

fn make_rows<T: Number>(rows: &mut Vec<T>, count: usize, width: usize) {
    if rows.len() < count * width {
        rows.resize(count * width, T::default());
    }
    rows[..width].fill(T::default());
}

/// Row i and the one before it.
fn rows<T>(rows: &mut [T], i: usize, width: usize) -> (&[T], &mut [T]) {
    let (before, row) = rows.split_at_mut(i * width);
    (&before[(i - 1) * width..], &mut row[..width])
}

fn take_better<T: Number>(best: &mut [T], rest: &[T], without: &[T], gain: T) {
    for ((best, &rest), &without) in best.iter_mut().zip(rest).zip(without) {
        let with = rest + gain;
        *best = if with > without { with } else { without };
    }
}

/// The most that two entries in the same place add up to; no entry is below 0. Several at once.
fn most_of_sums<T: Number>(a: &[T], b: &[T]) -> T {
    const LANES: usize = 8;
    let mut most = [T::default(); LANES];
    let raise = |most: &mut T, sum: T| *most = if sum > *most { sum } else { *most };
    let (of_a, of_b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = of_a.remainder().iter().zip(of_b.remainder());
    for (a, b) in of_a.zip(of_b) {
        (0..LANES).for_each(|i| raise(&mut most[i], a[i] + b[i]));
    }
    let mut top = T::default();
    most.into_iter().for_each(|sum| raise(&mut top, sum));
    rest.for_each(|(&a, &b)| raise(&mut top, a + b));
    top
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
