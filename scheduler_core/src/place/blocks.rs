//! The nodes in blocks of a few dozen of one class. What the filters about facts say and what a
//! task costs is one answer for a whole block, and what is free on its nodes lies side by side, so
//! that the best of them is found in some tens of nanoseconds.

use super::bits::ones;
use super::classes::Classes;
use super::freed::{Freed, FreedLog};
use crate::cluster::{At, Cluster, NodeState};
use crate::room::{Ask, Room};

/// Most nodes of a block: looking at all of them stays cheaper than keeping them sorted, and a set
/// of them is one word.
const BLOCK_NODES_MAX: usize = u64::BITS as usize;

/// All nodes of a cluster.
#[derive(Default)]
pub struct Blocks {
    blocks: Vec<Block>,
    /// How many shelves they have.
    shelves: u32,
    classes: Classes,
    /// By class.
    of_class: Vec<Vec<usize>>,
    /// By site: blocks stay at theirs.
    of_site: Vec<Vec<u32>>,
    /// By site and node.
    seats: Vec<Vec<Seat>>,
    pub freed: FreedLog,
    /// Counts the changes of facts.
    facts: u64,
    /// Of each block the number of the newest. By itself, since every ranking reads it after each.
    facts_of: Vec<u64>,
}

/// Where a node is.
#[derive(Clone, Copy, Default)]
struct Seat {
    block: u32,
    index: u32,
}

pub struct Block {
    pub nodes: Vec<At>,
    /// Number of its first shelf.
    first_shelf: u32,
    shelves: Vec<Shelf>,
    /// Counts the changes of the rooms.
    pub version: u64,
    /// The newest version in which a node had more room than before.
    pub freed: u64,
}

/// A block as seen by tasks that are served by one model of its devices.
struct Shelf {
    /// Unset when the nodes have none.
    model: Option<usize>,
    /// Of each node.
    rooms: Vec<Room>,
    /// For each node the number of the newest entry about it in the log, counted from 1; 0: none.
    logged: Vec<u64>,
}

impl Blocks {
    pub fn of(cluster: &Cluster) -> Self {
        let mut blocks = Self { facts: 1, ..Self::default() };
        for (s, site) in cluster.sites.iter().enumerate() {
            blocks.seats.push(vec![Seat::default(); site.nodes.len()]);
            blocks.of_site.push(Vec::new());
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
        (0..).zip(&self.facts_of).filter(move |(_, newest)| **newest > facts).map(|(number, _)| number)
    }

    /// How many shelves the blocks have: one for each model of device of each, or else one.
    pub fn shelves(&self) -> usize {
        self.shelves as usize
    }

    /// The load of a node has changed.
    pub fn load_changed(&mut self, at: At, node: &NodeState) {
        let seat = self.seats[at.site as usize][at.node as usize];
        let block = &mut self.blocks[seat.block as usize];
        block.version += 1;
        for (number, shelf) in (block.first_shelf..).zip(&mut block.shelves) {
            let (room, logged) = (Room::of(node, shelf.model), &mut shelf.logged[seat.index as usize]);
            let before = std::mem::replace(&mut shelf.rooms[seat.index as usize], room);
            if before.is_below(&room) {
                block.freed = block.version;
                self.freed.push(logged, Freed { shelf: number, room: room.at_a_glance() });
            } else {
                self.freed.correct(*logged, room.at_a_glance());
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
        self.of_site[site as usize].iter().for_each(|block| self.facts_of[*block as usize] = self.facts);
    }

    fn unseat(&mut self, at: At) {
        let Seat { block: number, index } = self.seats[at.site as usize][at.node as usize];
        let block = &mut self.blocks[number as usize];
        block.nodes.swap_remove(index as usize);
        for shelf in &mut block.shelves {
            shelf.rooms.swap_remove(index as usize);
            shelf.logged.swap_remove(index as usize);
        }
        block.version += 1;
        block.freed = block.version; // what was found there goes by other indexes
        self.facts_of[number as usize] = self.facts; // it may be empty now
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
            self.of_site[at.site as usize].push(self.blocks.len() as u32);
            self.facts_of.push(0);
            let block = Block::new(node, self.shelves);
            self.shelves += block.shelves.len() as u32;
            self.blocks.push(block);
            self.blocks.len() - 1
        });
        let block = &mut self.blocks[number];
        let seat = Seat { block: number as u32, index: block.nodes.len() as u32 };
        block.nodes.push(at);
        for shelf in &mut block.shelves {
            shelf.rooms.push(Room::of(node, shelf.model));
            shelf.logged.push(0);
        }
        block.version += 1;
        block.freed = block.version;
        self.facts_of[number] = self.facts;
        self.seats[at.site as usize][at.node as usize] = seat;
    }
}

impl Block {
    fn new(node: &NodeState, first_shelf: u32) -> Self {
        let mut models: Vec<Option<usize>> = node.models().map(Some).collect();
        if models.is_empty() {
            models.push(None);
        }
        let shelf = |model| Shelf { model, rooms: Vec::with_capacity(BLOCK_NODES_MAX), logged: Vec::new() };
        let shelves = models.into_iter().map(shelf).collect();
        Self { nodes: Vec::new(), first_shelf, shelves, version: 0, freed: 0 }
    }

    /// A task that asks for no device is served by no model, and any will do.
    fn slot(&self, model: Option<usize>) -> usize {
        self.shelves.iter().position(|shelf| shelf.model == model).unwrap_or(0)
    }

    /// The numbers of its shelves.
    pub fn shelves(&self) -> impl Iterator<Item = usize> {
        (self.first_shelf as usize..).take(self.shelves.len())
    }

    /// The number of the shelf for tasks that are served by the model.
    pub fn shelf(&self, model: Option<usize>) -> usize {
        self.first_shelf as usize + self.slot(model)
    }

    /// Of some of the nodes, as a set of their indexes, those with room for the task on devices of the model:
    /// which they are, and what it would leave over.
    pub fn roomy<'a>(
        &'a self,
        model: Option<usize>,
        ask: &'a Ask,
        among: u64,
    ) -> impl Iterator<Item = (usize, u64, At)> + 'a {
        let rooms = &self.shelves[self.slot(model)].rooms;
        let all = u64::MAX >> (BLOCK_NODES_MAX - self.nodes.len().max(1));
        ones(among & all)
            .filter_map(move |index| rooms.get(index).map(|room| (index, room)))
            .filter(|(_, room)| room.fits(ask))
            .map(|(index, room)| (index, room.left_over(ask), self.nodes[index]))
    }
}
