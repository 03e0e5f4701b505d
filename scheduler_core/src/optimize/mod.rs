//! The global optimiser: many tasks placed jointly, from a start that it never makes worse,
//! until a stop says so, with a proven bound beside it.
//!
//! Prices of the bound guide it: `construct` puts each task where its cost plus the price of what
//! it takes is least, `insert` makes room for those that found none, and the steps of
//! `moves` lift a few tasks and seat them anew in the best way found.
//! `jobs` brings the jobs of a state into that form, `table` a table from the literature.

mod apportion;
mod construct;
mod fill;
mod guide;
mod in_play;
mod insert;
mod instance;
mod jobs;
mod moves;
mod search;
mod share;
pub mod stop;
mod table;
mod unsearched;

pub use jobs::optimize;
pub use search::{solve, Found, Settings};
pub use table::solve_table;
