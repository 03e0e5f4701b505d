//! Prices that are nearly right, fast: the least over a kind's columns is smoothed (each column gets
//! a share by the exponential of what it costs more than the least, Nesterov, "Smooth minimization of
//! non-smooth functions", Mathematical Programming 103, 2005), the smooth function is climbed by
//! accelerated gradient steps with a diagonal preconditioner and gradient restarts (O'Donoghue and
//! Candes, "Adaptive restart for accelerated gradient schemes", 2015), and the smoothing is
//! lowered in stages. Nothing here need be exact: prices are valued exactly afterwards.

use std::ops::Range;

use super::relaxation::{Relaxation, TERMS};
use crate::assignment::problem::{Weights, DIMS, NONE, REFUSED};
use crate::threads::shared;

/// Steps of one stage.
const STEPS: usize = 60;
/// Smoothing of the stages, as a share of a kind's mean cost, and their steps where there are many pairs: at first
/// all columns get shares, so a step is dear, and the prices need not be right yet.
const STAGES: [(f64, usize); 7] =
    [(0.3, 20), (0.1, 30), (0.03, 40), (0.01, STEPS), (0.003, STEPS), (0.001, STEPS), (0.0003, STEPS)];
/// More pairs than this are many.
const PAIRS_FEW: usize = 1 << 20;
/// How much shorter a step is than the curvature by itself allows; prices of one node pull together.
const CAUTION: f64 = 2.5;
/// After so many steps it is asked anew which columns can get a share at all.
const STEPS_PER_FOCUS: usize = 20;
/// A column that costs so many times the smoothing more than the least gets none: where pairs are few, and many.
const FAR: [f64; 2] = [30.0, 16.0];
/// Fewer pairs are not worth a thread; more parts than this are not worth their sums.
const PAIRS_PER_PART: usize = 1 << 16;
const PARTS_MAX: usize = 16;

/// Climbs with each smoothing in turn. `proceed` is asked after every step, and is shown the prices,
/// class by class, where a stage ends, be it early. The same on any number of threads.
pub fn climb(relaxation: &Relaxation<'_>, threads: usize, mut proceed: impl FnMut(Option<&[f64]>) -> bool) {
    let mut smooth = Smooth::new(relaxation, threads);
    for (share, steps) in STAGES {
        let steps = if smooth.is_large { steps } else { STEPS };
        let is_whole = smooth.stage(share, steps, || proceed(None));
        if !proceed(Some(&smooth.point)) || !is_whole {
            return;
        }
    }
}

/// A column that is open to a kind.
#[derive(Clone, Copy)]
struct Open {
    column: u32,
    cost: f32,
    /// What the kind's weight counts as here: all of it, but where weights belong to pairs.
    scale: f32,
}

struct Kind {
    count: f64,
    unplaced: f64,
    mean: f64,
    weight: [f64; TERMS],
    open: Vec<Open>,
    /// So many columns at the front can get a share; the others are far.
    near: usize,
}

impl Kind {
    #[inline]
    fn reduced(&self, open: Open, charged: &[[f64; TERMS]]) -> f64 {
        let [a, b, c] = self.weight;
        let [p, q, r] = charged[open.column as usize];
        f64::from(open.cost) + f64::from(open.scale) * (a * p + b * q + c * r)
    }

    /// Brings the columns that are not far to the front.
    fn focus(&mut self, charged: &[[f64; TERMS]], share: f64, far: f64) {
        let least = self.open.iter().map(|&open| self.reduced(open, charged)).fold(self.unplaced, f64::min);
        let most = least + far * share * self.mean;
        self.near = 0;
        for i in 0..self.open.len() {
            if self.reduced(self.open[i], charged) <= most {
                self.open.swap(i, self.near);
                self.near += 1;
            }
        }
    }
}

/// What the shares of a column take of what it is charged for, and how fast that changes with the price.
#[derive(Clone, Copy, Default)]
struct Taken {
    load: [f64; TERMS],
    curvature: [f64; TERMS],
}

struct Smooth {
    threads: usize,
    is_large: bool,
    kinds: Vec<Kind>,
    /// Of about as many pairs each; their sums are added up in order, whoever made them.
    parts: Vec<Range<usize>>,
    /// Where each column finds its prices.
    slots: Vec<[u32; TERMS]>,
    free: Vec<f64>,
    /// Curvature that a resource counts as at the least, times the smoothing.
    floor: Vec<f64>,
    point: Vec<f64>,
}

impl Smooth {
    /// Starts at prices of 0.
    fn new(relaxation: &Relaxation<'_>, threads: usize) -> Self {
        let problem = relaxation.problem;
        let free: Vec<f64> = relaxation.free.iter().flatten().map(|&x| x as f64).collect();
        let mut kinds = Vec::new();
        let (mut squares, mut sums) = ([0.0; DIMS], [0.0; DIMS]);
        for kind in 0..problem.kinds.len() as u32 {
            let groups = relaxation.groups_of(kind);
            let open = (0..problem.columns.len() as u32)
                .filter(|&c| problem.cost(kind, c) != REFUSED && relaxation.fits(kind, c));
            let (weight, pairs) = match problem.weights {
                Weights::OfKind => (relaxation.kind_weight(kind), None),
                Weights::OfPair(_) => ([1, 0, 0], Some(relaxation.pair_weights(kind))),
            };
            let scale = |column: u32| pairs.map_or(1.0, |weights| weights[column as usize] as f32);
            let open: Vec<Open> =
                open.map(|c| Open { column: c, cost: problem.cost(kind, c) as f32, scale: scale(c) }).collect();
            if groups.is_empty() || open.is_empty() {
                continue;
            }
            let weight = weight.map(|w| w as f64);
            let count = groups.iter().map(|g| g.count as f64).sum();
            let mean = (open.iter().map(|o| f64::from(o.cost)).sum::<f64>() / open.len() as f64).max(1.0);
            for (t, weight) in weight.iter().map(|w| w * f64::from(open[0].scale)).enumerate() {
                let dims = if t < TERMS - 1 { t..t + 1 } else { t..DIMS };
                dims.for_each(|d| {
                    squares[d] += count * weight * weight / mean;
                    sums[d] += count * weight;
                });
            }
            let unplaced = groups.iter().map(|g| g.unplaced_microcny as f64).fold(f64::INFINITY, f64::min);
            kinds.push(Kind { count, unplaced, mean, weight, near: open.len(), open });
        }
        let floor = free.iter().enumerate().map(|(i, free)| {
            let d = i % DIMS;
            if sums[d] > 0.0 {
                0.1 * free * squares[d] / sums[d]
            } else {
                0.0
            }
        });
        let (floor, point, parts) = (floor.collect(), vec![0.0; free.len()], parts(&kinds));
        let is_large = kinds.iter().map(|kind| kind.open.len()).sum::<usize>() > PAIRS_FEW;
        Self { threads, is_large, kinds, parts, slots: relaxation.slots.clone(), free, floor, point }
    }

    /// False when `proceed` ended it early.
    fn stage(&mut self, share: f64, steps: usize, mut proceed: impl FnMut() -> bool) -> bool {
        let size = self.free.len();
        let mut ahead = self.point.clone();
        let mut momentum = 1.0_f64;
        let (mut load, mut curvature) = (vec![0.0; size], vec![0.0; size]);
        for step in 0..steps {
            let charged = self.charged(&ahead);
            if step % STEPS_PER_FOCUS == 0 {
                self.kinds.iter_mut().for_each(|kind| kind.focus(&charged, share, FAR[usize::from(self.is_large)]));
            }
            self.look(&charged, share, &mut load, &mut curvature);
            let mut along = 0.0;
            let mut next = Vec::with_capacity(size);
            for i in 0..size {
                let slope = load[i] - self.free[i];
                let curvature = curvature[i].max(self.floor[i] / share);
                let price = if curvature > 0.0 { (ahead[i] + slope / (CAUTION * curvature)).max(0.0) } else { 0.0 };
                along += slope * (price - self.point[i]);
                next.push(price);
            }
            if along < 0.0 {
                momentum = 1.0;
                ahead.copy_from_slice(&next);
            } else {
                let grown = (1.0 + (1.0 + 4.0 * momentum * momentum).sqrt()) / 2.0;
                let carry = (momentum - 1.0) / grown;
                momentum = grown;
                for i in 0..size {
                    ahead[i] = (next[i] + carry * (next[i] - self.point[i])).max(0.0);
                }
            }
            self.point = next;
            if !proceed() {
                return false;
            }
        }
        true
    }

    /// The prices that each column is charged at.
    fn charged(&self, prices: &[f64]) -> Vec<[f64; TERMS]> {
        let price = |slot: u32| if slot == NONE { 0.0 } else { prices[slot as usize] };
        self.slots.iter().map(|slots| slots.map(price)).collect()
    }

    /// What the shares take of each resource, and how fast that changes with its price.
    fn look(&self, charged: &[[f64; TERMS]], share: f64, load: &mut [f64], curvature: &mut [f64]) {
        load.fill(0.0);
        curvature.fill(0.0);
        let parts = shared(self.threads, self.parts.len(), |i| self.taken(self.parts[i].clone(), charged, share));
        for (column, slots) in self.slots.iter().enumerate() {
            for (t, &slot) in slots.iter().enumerate().filter(|(_, &slot)| slot != NONE) {
                for taken in &parts {
                    load[slot as usize] += taken[column].load[t];
                    curvature[slot as usize] += taken[column].curvature[t];
                }
            }
        }
    }

    /// The same for some kinds, by column.
    fn taken(&self, kinds: Range<usize>, charged: &[[f64; TERMS]], share: f64) -> Vec<Taken> {
        let mut taken = vec![Taken::default(); self.slots.len()];
        let mut parts = Vec::new();
        for kind in &self.kinds[kinds] {
            let near = &kind.open[..kind.near];
            parts.clear();
            parts.extend(near.iter().map(|&open| kind.reduced(open, charged)));
            let least = parts.iter().copied().fold(kind.unplaced, f64::min);
            let scale = -1.0 / (share * kind.mean);
            parts.iter_mut().for_each(|part| *part = exponential((*part - least) * scale));
            let each = kind.count / (exponential((kind.unplaced - least) * scale) + sum(&parts));
            for (open, part) in near.iter().zip(&parts) {
                let tasks = each * part;
                if tasks < 1e-9 {
                    continue;
                }
                let taken = &mut taken[open.column as usize];
                for (t, weight) in kind.weight.iter().enumerate() {
                    let weight = weight * f64::from(open.scale);
                    taken.load[t] += tasks * weight;
                    taken.curvature[t] -= tasks * weight * weight * scale;
                }
            }
        }
        taken
    }
}

/// Kinds in a row with about as many pairs in each part.
fn parts(kinds: &[Kind]) -> Vec<Range<usize>> {
    let pairs: usize = kinds.iter().map(|kind| kind.open.len()).sum();
    let count = (pairs / PAIRS_PER_PART).clamp(1, PARTS_MAX).next_power_of_two();
    let mut parts = Vec::with_capacity(count);
    let (mut first, mut so_far) = (0, 0);
    for (i, kind) in kinds.iter().enumerate() {
        so_far += kind.open.len();
        if so_far * count >= pairs * (parts.len() + 1) {
            parts.push(first..i + 1);
            first = i + 1;
        }
    }
    parts
}

/// e^x for x <= 0 to about seven digits, the same on every machine. Without branches and calls, so that
/// several are worked out at once.
#[inline(always)]
fn exponential(x: f64) -> f64 {
    /// Numbers of this size have no fraction left: adding it rounds, and its last bits are the whole number.
    const ROUND: f64 = 6_755_399_441_055_744.0;
    const LOWEST: f64 = -700.0;
    let y = if x > LOWEST { x } else { LOWEST } * std::f64::consts::LOG2_E;
    let shifted = y + ROUND;
    let part = (y - (shifted - ROUND)) * std::f64::consts::LN_2;
    let series = 1.0
        + part * (1.0 + part * (0.5 + part * (1.0 / 6.0 + part * (1.0 / 24.0 + part * (1.0 / 120.0 + part / 720.0)))));
    f64::from_bits(shifted.to_bits().wrapping_add(1023) << 52) * series
}

/// The sum, in an order that lets four be added at once.
fn sum(numbers: &[f64]) -> f64 {
    let mut sums = [0.0; 4];
    let fours = numbers.chunks_exact(4);
    let rest: f64 = fours.remainder().iter().sum();
    fours.for_each(|four| sums.iter_mut().zip(four).for_each(|(sum, x)| *sum += x));
    sums.iter().sum::<f64>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_right_to_seven_digits() {
        for i in 0..70_000 {
            let x = f64::from(-i) / 100.0;
            let error = exponential(x) / x.exp() - 1.0;
            assert!(error.abs() < 2e-7, "e^{x} is wrong by a part of {error}");
        }
        assert!(exponential(-1e9) < 1e-300);
        assert_eq!(sum(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), 21.0);
    }
}
