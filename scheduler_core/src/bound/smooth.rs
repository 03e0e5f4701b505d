//! Prices that are nearly right, fast: the least over a kind's columns is smoothed (each column gets
//! a share by the exponential of what it costs more than the least, Nesterov, "Smooth minimization of
//! non-smooth functions", Mathematical Programming 103, 2005), the smooth function is climbed by
//! accelerated gradient steps with a diagonal preconditioner and gradient restarts (O'Donoghue and
//! Candes, "Adaptive restart for accelerated gradient schemes", 2015), and the smoothing is
//! lowered in stages. Nothing here need be exact: prices are valued exactly afterwards.

use super::relaxation::{Relaxation, TERMS};
use crate::assignment::problem::{DIMS, NONE, REFUSED};

/// Steps of one stage.
const STEPS: usize = 60;
/// Smoothing of the stages, as a share of a kind's mean cost.
const STAGES: [f64; 7] = [0.3, 0.1, 0.03, 0.01, 0.003, 0.001, 0.0003];
/// How much shorter a step is than the curvature by itself allows; prices of one node pull together.
const CAUTION: f64 = 2.5;

/// Climbs with each smoothing in turn. `proceed` is asked after every step, and is shown the prices,
/// class by class, where a stage ends, be it early.
pub fn climb(relaxation: &Relaxation<'_>, mut proceed: impl FnMut(Option<&[f64]>) -> bool) {
    let mut smooth = Smooth::new(relaxation);
    for share in STAGES {
        let is_whole = smooth.stage(share, || proceed(None));
        if !proceed(Some(&smooth.point)) || !is_whole {
            return;
        }
    }
}

struct Column {
    cost: f64,
    slots: [u32; TERMS],
    weight: [f64; TERMS],
}

struct Kind {
    count: f64,
    unplaced: f64,
    mean: f64,
    columns: Vec<Column>,
}

struct Smooth {
    kinds: Vec<Kind>,
    free: Vec<f64>,
    /// Curvature that a resource counts as at the least, times the smoothing.
    floor: Vec<f64>,
    point: Vec<f64>,
}

impl Smooth {
    /// Starts at prices of 0.
    fn new(relaxation: &Relaxation<'_>) -> Self {
        let problem = relaxation.problem;
        let free: Vec<f64> = relaxation.free.iter().flatten().map(|&x| x as f64).collect();
        let mut kinds = Vec::new();
        let (mut squares, mut sums) = ([0.0; DIMS], [0.0; DIMS]);
        for kind in 0..problem.kinds.len() as u32 {
            let groups = relaxation.groups_of(kind);
            let open = (0..problem.columns.len() as u32)
                .filter(|&c| problem.cost(kind, c) != REFUSED && relaxation.fits(kind, c));
            let columns: Vec<Column> = open
                .map(|c| Column {
                    cost: problem.cost(kind, c) as f64,
                    slots: relaxation.slots[c as usize],
                    weight: relaxation.weight(kind, c).map(|w| w as f64),
                })
                .collect();
            if groups.is_empty() || columns.is_empty() {
                continue;
            }
            let count = groups.iter().map(|g| g.count as f64).sum();
            let mean = columns.iter().map(|c| c.cost).sum::<f64>() / columns.len() as f64;
            for (t, weight) in columns[0].weight.iter().enumerate() {
                let dims = if t < TERMS - 1 { t..t + 1 } else { t..DIMS };
                dims.for_each(|d| {
                    squares[d] += count * weight * weight / mean.max(1.0);
                    sums[d] += count * weight;
                });
            }
            let unplaced = groups.iter().map(|g| g.unplaced_microcny as f64).fold(f64::INFINITY, f64::min);
            kinds.push(Kind { count, unplaced, mean: mean.max(1.0), columns });
        }
        let floor = free.iter().enumerate().map(|(i, free)| {
            let d = i % DIMS;
            if sums[d] > 0.0 {
                0.1 * free * squares[d] / sums[d]
            } else {
                0.0
            }
        });
        Self { floor: floor.collect(), point: vec![0.0; free.len()], kinds, free }
    }

    /// False when `proceed` ended it early.
    fn stage(&mut self, share: f64, mut proceed: impl FnMut() -> bool) -> bool {
        let size = self.free.len();
        let mut ahead = self.point.clone();
        let mut momentum = 1.0_f64;
        let (mut load, mut curvature) = (vec![0.0; size], vec![0.0; size]);
        for _ in 0..STEPS {
            self.look(&ahead, share, &mut load, &mut curvature);
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

    /// What the shares take of each resource, and how fast that changes with its price.
    fn look(&self, prices: &[f64], share: f64, load: &mut [f64], curvature: &mut [f64]) {
        load.fill(0.0);
        curvature.fill(0.0);
        let mut reduced = Vec::new();
        for kind in &self.kinds {
            reduced.clear();
            let price = |slot: u32| if slot == NONE { 0.0 } else { prices[slot as usize] };
            reduced.extend(kind.columns.iter().map(|c| {
                c.cost
                    + c.weight[0] * price(c.slots[0])
                    + c.weight[1] * price(c.slots[1])
                    + c.weight[2] * price(c.slots[2])
            }));
            let least = reduced.iter().copied().fold(kind.unplaced, f64::min);
            let scale = -1.0 / (share * kind.mean);
            let mut sum = exponential((kind.unplaced - least) * scale);
            for reduced in &mut reduced {
                *reduced = exponential((*reduced - least) * scale);
                sum += *reduced;
            }
            let each = kind.count / sum;
            for (column, part) in kind.columns.iter().zip(&reduced) {
                let tasks = each * part;
                if tasks < 1e-9 {
                    continue;
                }
                for (&slot, weight) in column.slots.iter().zip(column.weight) {
                    if slot != NONE {
                        load[slot as usize] += tasks * weight;
                        curvature[slot as usize] -= tasks * weight * weight * scale;
                    }
                }
            }
        }
    }
}

/// e^x for x <= 0 to about seven digits, the same on every machine.
fn exponential(x: f64) -> f64 {
    if x < -40.0 {
        return 0.0;
    }
    let y = x * std::f64::consts::LOG2_E;
    let whole = y.floor();
    let part = (y - whole) * std::f64::consts::LN_2;
    let series = 1.0
        + part * (1.0 + part * (0.5 + part * (1.0 / 6.0 + part * (1.0 / 24.0 + part * (1.0 / 120.0 + part / 720.0)))));
    f64::from_bits(((whole as i64 + 1023) as u64) << 52) * series
}
