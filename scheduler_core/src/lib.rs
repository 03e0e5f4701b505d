//! The placement engine of Mumian: a snapshot goes in, a plan comes out. It owns no clock,
//! no entropy and no I/O, so recorded bytes replay bit for bit.

pub mod allocation;
pub mod assess;
pub mod assignment;
pub mod bound;
pub mod cluster;
pub mod cost;
pub mod coupling;
pub mod error;
pub mod explain;
pub mod filter;
mod fragmentation;
pub mod model;
pub mod occupancy;
pub mod optimize;
pub mod place;
mod recent;
mod relax;
mod room;
mod score;
mod seed;
pub mod state;
mod threads;
mod topology;
pub mod trial;
pub mod validate;
pub mod verify;
mod words;

/// The generated messages of `proto/`.
#[allow(clippy::all)]
pub mod wire {
    include!(concat!(env!("OUT_DIR"), "/wire.rs"));
}
