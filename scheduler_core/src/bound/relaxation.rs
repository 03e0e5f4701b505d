//! The problem without its gangs and without the borders between the nodes of a class: what is
//! left is one capacity for each class and resource, and tasks that differ in little.

use std::ops::Range;

use crate::assignment::problem::{range, Amounts, Problem, Weights, DIMS, NONE, REFUSED};

/// Prices that a column is charged at: cores, memory and its accelerators.
pub const TERMS: usize = 3;

/// Tasks of one kind between which the relaxed problem sees no difference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    pub kind: u32,
    /// The class of the node where they run now; NONE: they wait.
    pub home_class: u32,
    pub move_microcny: i64,
    pub unplaced_microcny: i64,
    pub count: u64,
}

/// Every solution of the problem is one of the relaxation, at no higher cost.
pub struct Relaxation<'p> {
    pub problem: &'p Problem,
    /// In the order of their kinds.
    pub groups: Vec<Group>,
    /// The groups of each kind.
    pub of_kind: Vec<Range<u32>>,
    /// What is free of each class.
    pub free: Vec<Amounts>,
    /// The most that is free of each resource on one node of the class; -1: no node can be used.
    most: Vec<Amounts>,
    /// The least of `most` over all classes: what fits here fits everywhere.
    least: Amounts,
    /// The highest cost of each kind, refused pairs aside.
    pub highest: Vec<i64>,
    /// Where a column finds its prices among those of all classes; NONE: not charged.
    pub slots: Vec<[u32; TERMS]>,
}

impl<'p> Relaxation<'p> {
    pub fn of(problem: &'p Problem) -> Self {
        let groups = groups(problem);
        let mut of_kind = vec![0..0; problem.kinds.len()];
        for (i, group) in groups.iter().enumerate() {
            let range: &mut Range<u32> = &mut of_kind[group.kind as usize];
            if range.end == 0 {
                range.start = i as u32;
            }
            range.end = i as u32 + 1;
        }
        let (mut free, mut most) = (Vec::new(), Vec::new());
        for class in &problem.classes {
            let (mut sum, mut top) = ([0; DIMS], [-1; DIMS]);
            // A node that is overfull takes nothing, so what it has left of the rest is no use.
            for node in problem.nodes[range(&class.nodes)].iter().filter(|n| n.free.iter().all(|&x| x >= 0)) {
                (0..DIMS).for_each(|d| sum[d] += node.free[d]);
                (0..DIMS).for_each(|d| top[d] = top[d].max(node.free[d]));
            }
            free.push(sum);
            most.push(top);
        }
        let least = std::array::from_fn(|d| most.iter().map(|m| m[d]).min().unwrap_or(-1));
        let highest = (0..problem.kinds.len() as u32)
            .map(|kind| {
                problem.costs(kind).iter().filter(|&&c| c != REFUSED).fold(0, |top, c| top.max(c.saturating_abs()))
            })
            .collect();
        let slots = problem.columns.iter().map(|column| {
            let slot = |d: u32| if (d as usize) < DIMS { column.class * DIMS as u32 + d } else { NONE };
            match problem.weights {
                Weights::OfKind => [slot(0), slot(1), slot(column.device_dim)],
                Weights::OfPair(_) => [slot(0), NONE, NONE],
            }
        });
        let slots = slots.collect();
        Self { problem, groups, of_kind, free, most, least, highest, slots }
    }

    /// The groups of a kind.
    pub fn groups_of(&self, kind: u32) -> &[Group] {
        &self.groups[range(&self.of_kind[kind as usize])]
    }

    /// What a task of the kind takes of the resources that columns are charged for, where weights belong to kinds.
    pub fn kind_weight(&self, kind: u32) -> [i64; TERMS] {
        let kind = &self.problem.kinds[kind as usize];
        [kind.amounts[0], kind.amounts[1], kind.device_milli]
    }

    /// What a task of the kind takes in each column, where weights belong to pairs.
    pub fn pair_weights(&self, kind: u32) -> &[i64] {
        let width = self.problem.columns.len();
        match &self.problem.weights {
            Weights::OfKind => &[],
            Weights::OfPair(table) => &table[kind as usize * width..][..width],
        }
    }

    /// Whether no resource by itself rules out every node of the column's class.
    pub fn fits(&self, kind: u32, column: u32) -> bool {
        let weight = self.problem.weight(kind, column);
        let most = &self.most[self.problem.columns[column as usize].class as usize];
        (0..DIMS).all(|d| weight[d] <= most[d])
    }

    /// Whether that is so in all columns, told without asking them one by one.
    pub fn fits_everywhere(&self, kind: u32) -> bool {
        let facts = &self.problem.kinds[kind as usize];
        let fits = |(amount, &least): (&i64, &i64)| *amount <= least;
        matches!(self.problem.weights, Weights::OfKind)
            && facts.device_milli == 0
            && facts.amounts.iter().zip(&self.least).all(fits)
    }
}

fn groups(problem: &Problem) -> Vec<Group> {
    let group = |task: &crate::assignment::problem::Task| {
        let home = problem.nodes.get(task.home as usize);
        Group {
            kind: task.kind,
            home_class: home.map_or(NONE, |node| node.class),
            move_microcny: if home.is_some() { task.move_microcny } else { 0 },
            unplaced_microcny: task.unplaced_microcny,
            count: 1,
        }
    };
    let mut groups: Vec<Group> = problem.tasks.iter().map(group).collect();
    groups.sort_unstable();
    groups.dedup_by(|next, kept| {
        let same = Group { count: kept.count, ..*next } == *kept;
        kept.count += u64::from(same);
        same
    });
    groups
}
