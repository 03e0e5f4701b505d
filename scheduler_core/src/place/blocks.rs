//! The nodes in blocks of a few dozen of one class. What the filters about facts say and what a
//! task costs is one answer for a whole block, and what is free on its nodes lies side by side, so
//! that the best of them is found in some tens of nanoseconds.

use std::collections::VecDeque;

use super::classes::Classes;
use super::Found;
use crate::cluster::{At, Cluster, NodeState};
use crate::room::{Ask, Room};

/// Most nodes of a block: looking at all of them stays cheaper than keeping them sorted.
const BLOCK_NODES_MAX: usize = 64;
/// Nodes that were freed and are remembered one by one.
const FREED_MAX: usize = 4096;

/// All nodes of a cluster.
#[derive(Default)]
pub struct Blocks {
    blocks: Vec<Block>,
    classes: Classes,
    /// By class.
    of_class: Vec<Vec<usize>>,
    /// By site and node.
    seats: Vec<Vec<Seat>>,
    pub freed: FreedLog,
    /// Counts the changes of facts.
    facts: u64,
}

/// Where a node is.
#[derive(Clone, Copy, Default)]
struct Seat {
    block: u32,
    index: u32,
}

/// A block, one of whose nodes has more room for one model of device than before.
#[derive(Clone, Copy)]
pub struct Freed {
    pub block: u32,
    pub room: Room,
}

pub struct Block {
    pub nodes: Vec<At>,
    /// The models of device that the nodes have; one unset entry when they have none.
    models: Vec<Option<usize>>,
    /// For each model, what is free on each node.
    rooms: Vec<Vec<Room>>,
    /// Counts the changes of the rooms.
    pub version: u64,
    /// Number of the newest change of facts.
    facts: u64,
}

/// The newest of those, oldest first.
#[derive(Default)]
pub struct FreedLog {
    entries: VecDeque<Freed>,
    /// How many there were before those.
    forgotten: u64,
}

impl FreedLog {
    /// How many there were in all.
    pub fn count(&self) -> u64 {
        self.forgotten + self.entries.len() as u64
    }

    /// All but the first so many; none when some of them are forgotten.
    pub fn after(&self, count: u64) -> Option<impl Iterator<Item = &Freed> + '_> {
        let first = count.checked_sub(self.forgotten)?;
        Some(self.entries.range(first as usize..))
    }

    fn push(&mut self, freed: Freed) {
        if self.entries.len() == FREED_MAX {
            self.entries.pop_front();
            self.forgotten += 1;
        }
        self.entries.push_back(freed);
    }
}

impl Blocks {
    pub fn of(cluster: &Cluster) -> Self {
        let mut blocks = Self { facts: 1, ..Self::default() };
        for (s, site) in cluster.sites.iter().enumerate() {
            blocks.seats.push(vec![Seat::default(); site.nodes.len()]);
            for (n, node) in site.nodes.iter().enumerate() {
                blocks.seat(At { site: s as u32, node: n as u32 }, node);
            }
        }
        blocks
    }

    pub fn block(&self, block: u32) -> &Block {
        &self.blocks[block as usize]
    }

    /// How many changes of facts there were.
    pub fn facts(&self) -> u64 {
        self.facts
    }

    /// The blocks whose facts changed after the first so many changes.
    pub fn facts_changed_after(&self, facts: u64) -> impl Iterator<Item = u32> + '_ {
        (0..).zip(&self.blocks).filter(move |(_, block)| block.facts > facts).map(|(number, _)| number)
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// The load of a node has changed.
    pub fn load_changed(&mut self, at: At, node: &NodeState) {
        let seat = self.seats[at.site as usize][at.node as usize];
        let block = &mut self.blocks[seat.block as usize];
        block.version += 1;
        for (model, rooms) in block.models.iter().zip(&mut block.rooms) {
            let room = Room::of(node, *model);
            let before = std::mem::replace(&mut rooms[seat.index as usize], room);
            if before.is_below(&room) {
                self.freed.push(Freed { block: seat.block, room });
            }
        }
    }

    /// The facts of a node have changed, and maybe its load.
    pub fn node_changed(&mut self, at: At, node: &NodeState) {
        self.facts += 1;
        self.unseat(at);
        self.seat(at, node);
    }

    /// The facts of a site have changed.
    pub fn site_changed(&mut self, site: u32) {
        self.facts += 1;
        let here = |block: &&mut Block| block.nodes.first().is_some_and(|at| at.site == site);
        self.blocks.iter_mut().filter(here).for_each(|block| block.facts = self.facts);
    }

    fn unseat(&mut self, at: At) {
        let Seat { block: number, index } = self.seats[at.site as usize][at.node as usize];
        let block = &mut self.blocks[number as usize];
        block.nodes.swap_remove(index as usize);
        block.rooms.iter_mut().for_each(|rooms| {
            rooms.swap_remove(index as usize);
        });
        block.version += 1;
        block.facts = self.facts; // it may be empty now
        if let Some(moved) = block.nodes.get(index as usize) {
            self.seats[moved.site as usize][moved.node as usize].index = index;
        }
    }

    fn seat(&mut self, at: At, node: &NodeState) {
        let class = self.classes.number(at.site, node) as usize;
        if class == self.of_class.len() {
            self.of_class.push(Vec::new());
        }
        let of_class = &mut self.of_class[class];
        let has_seat = |number: &&usize| self.blocks[**number].nodes.len() < BLOCK_NODES_MAX;
        let number = of_class.iter().rev().find(has_seat).copied().unwrap_or_else(|| {
            of_class.push(self.blocks.len());
            self.blocks.push(Block::new(node));
            self.blocks.len() - 1
        });
        let block = &mut self.blocks[number];
        let seat = Seat { block: number as u32, index: block.nodes.len() as u32 };
        block.nodes.push(at);
        for (model, rooms) in block.models.iter().zip(&mut block.rooms) {
            rooms.push(Room::of(node, *model));
        }
        block.version += 1;
        block.facts = self.facts;
        self.seats[at.site as usize][at.node as usize] = seat;
    }
}

impl Block {
    fn new(node: &NodeState) -> Self {
        let mut models: Vec<Option<usize>> = node.models().map(Some).collect();
        if models.is_empty() {
            models.push(None);
        }
        let rooms = models.iter().map(|_| Vec::with_capacity(BLOCK_NODES_MAX)).collect();
        Self { nodes: Vec::new(), models, rooms, version: 0, facts: 0 }
    }

    /// A task that asks for no device is served by no model, and any will do.
    fn rooms_of(&self, model: Option<usize>) -> &[Room] {
        &self.rooms[self.models.iter().position(|m| *m == model).unwrap_or(0)]
    }

    /// The nodes with room for the task on devices of the model, with what it would leave over.
    pub fn roomy<'a>(&'a self, model: Option<usize>, ask: &'a Ask) -> impl Iterator<Item = (u64, Found)> + 'a {
        let nodes = self.nodes.iter().zip(self.rooms_of(model)).filter(|(_, room)| room.fits(ask));
        nodes.map(move |(at, room)| (room.left_over(ask), Found { at: *at, model }))
    }
}
