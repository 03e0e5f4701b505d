//! The problem: what is to be put where, at what cost.
//!
//! Tasks with equal demands are of one kind; nodes of one site with equal facts are of one class.
//! A class has a column for each accelerator model that could serve a task (or one column for
//! all tasks without accelerators); a kind has one cost in each column. So the tables are small
//! however many tasks and nodes there are.

use std::ops::Range;

/// Resources of a node: cores in milli, memory in MiB, then for each of its accelerator models
/// the milli of all its devices.
pub const DIMS: usize = 6;
/// Of these the first that is about accelerators.
pub const FIRST_DEVICE_DIM: usize = 2;
/// Milli of one whole device.
pub const WHOLE: i64 = 1000;
/// The cost of a pair that some hard constraint forbids.
pub const REFUSED: i64 = i64::MAX;
/// No node, gang or dimension.
pub const NONE: u32 = u32::MAX;

/// One amount for each resource.
pub type Amounts = [i64; DIMS];

/// Tasks that ask for the same.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Kind {
    /// Without accelerators, whose dimension depends on the column.
    pub amounts: Amounts,
    /// A share of one device below 1000, or whole devices.
    pub device_milli: i64,
}

/// One way in which nodes of a class can serve a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub class: u32,
    /// The model, by its position in the node's accelerators; NONE for tasks without accelerators.
    pub model: u32,
    /// The resource that accelerators of this model count in; NONE when they are not counted:
    /// the column is for tasks without, or the node has more models than there are dimensions.
    pub device_dim: u32,
}

/// Nodes that differ in nothing but what is free on them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    pub site: u32,
    pub columns: Range<u32>,
    pub nodes: Range<u32>,
}

/// What is free on a node before any task of the problem is put there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub class: u32,
    pub free: Amounts,
    /// Its devices in `Problem::devices`, at most 64 of them.
    pub devices: Range<u32>,
}

/// One accelerator device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    pub model: u32,
    pub free_milli: u16,
}

/// One task to be put somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Task {
    pub kind: u32,
    /// Tasks of one gang stand together or not at all; NONE: it stands alone.
    pub gang: u32,
    /// What leaving it out counts as, far above any cost.
    pub unplaced_microcny: i64,
    /// The node where it runs now; NONE: it waits. What runs is never left out.
    pub home: u32,
    /// The devices that it holds there.
    pub home_devices: u64,
    /// What taking it away from there costs.
    pub move_microcny: i64,
}

impl Default for Task {
    fn default() -> Self {
        Self { kind: 0, gang: NONE, unplaced_microcny: 0, home: NONE, home_devices: 0, move_microcny: 0 }
    }
}

/// How much of each resource a pair takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Weights {
    /// What the kind asks for, wherever it goes.
    #[default]
    OfKind,
    /// One amount, in the first dimension, for each kind and column: kind x columns + column.
    OfPair(Vec<i64>),
}

/// All of it. Classes, their nodes and their columns lie in one order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problem {
    pub kinds: Vec<Kind>,
    pub columns: Vec<Column>,
    pub classes: Vec<Class>,
    pub nodes: Vec<Node>,
    pub devices: Vec<Device>,
    pub tasks: Vec<Task>,
    /// The tasks of each gang.
    pub gangs: Vec<Vec<u32>>,
    /// In micro-CNY per hour: kind x columns + column.
    pub cost: Vec<i64>,
    pub weights: Weights,
}

impl Problem {
    /// Cost of a task of this kind in this column, or `REFUSED`.
    #[inline]
    pub fn cost(&self, kind: u32, column: u32) -> i64 {
        self.cost[kind as usize * self.columns.len() + column as usize]
    }

    /// The costs of a kind, one for each column.
    pub fn costs(&self, kind: u32) -> &[i64] {
        let width = self.columns.len();
        &self.cost[kind as usize * width..][..width]
    }

    /// What a task of this kind takes of a node in this column.
    #[inline]
    pub fn weight(&self, kind: u32, column: u32) -> Amounts {
        match &self.weights {
            Weights::OfKind => {
                let kind = &self.kinds[kind as usize];
                let mut amounts = kind.amounts;
                if let Some(amount) = amounts.get_mut(self.columns[column as usize].device_dim as usize) {
                    *amount = kind.device_milli;
                }
                amounts
            }
            Weights::OfPair(table) => {
                let mut amounts = Amounts::default();
                amounts[0] = table[kind as usize * self.columns.len() + column as usize];
                amounts
            }
        }
    }

    /// How many of the dimensions anything asks for.
    pub fn dims(&self) -> usize {
        let device_dims = self.columns.iter().map(|c| c.device_dim).filter(|&d| d != NONE).max();
        match &self.weights {
            Weights::OfKind => device_dims.map_or(FIRST_DEVICE_DIM, |d| d as usize + 1),
            Weights::OfPair(_) => 1,
        }
    }

    /// What is free of a class, all its nodes together.
    pub fn class_free(&self, class: u32) -> Amounts {
        let nodes = &self.nodes[range(&self.classes[class as usize].nodes)];
        nodes.iter().fold(Amounts::default(), |mut sum, node| {
            (0..DIMS).for_each(|d| sum[d] += node.free[d]);
            sum
        })
    }

    /// How many tasks there are of each kind.
    pub fn kind_counts(&self) -> Vec<u64> {
        let mut counts = vec![0; self.kinds.len()];
        self.tasks.iter().for_each(|task| counts[task.kind as usize] += 1);
        counts
    }
}

/// A range of positions as the slices want it.
pub fn range(range: &Range<u32>) -> Range<usize> {
    range.start as usize..range.end as usize
}
