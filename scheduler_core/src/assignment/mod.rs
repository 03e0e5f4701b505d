//! Placement as plain arithmetic, the form in which the optimiser and the bound see it: tasks of
//! few kinds onto nodes of few classes, each pair at a cost, within the capacity of every node.
//! It is made from a cluster and its jobs, or read from a table of costs and weights.

pub mod devices;
pub mod knapsack;
pub mod problem;
pub mod room;
pub mod solution;
