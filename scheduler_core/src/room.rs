//! What is free on one node, in the few numbers that decide whether a task fits and how well.

use crate::cluster::NodeState;
use crate::model::{Demand, WHOLE_DEVICE_MILLI};

/// What a task takes of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ask {
    pub cpu_milli: u64,
    pub memory_mib: u64,
    /// In thousandths of a device: below 1000 of one device, or else whole ones.
    pub accelerator_milli: u64,
}

impl Ask {
    pub fn of(demand: &Demand) -> Self {
        let accelerator_milli = demand.accelerator_milli();
        Self { cpu_milli: demand.cpu_milli, memory_mib: demand.memory_mib, accelerator_milli }
    }

    fn is_share(&self) -> bool {
        (1..WHOLE_DEVICE_MILLI).contains(&self.accelerator_milli)
    }
}

/// The devices of one model that are free on a node, as far as it matters to one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct FreeDevices {
    /// Devices that nobody uses.
    whole: u16,
    /// The most that is free of one device that somebody uses.
    part_milli: u16,
}

impl FreeDevices {
    fn fit(self, ask: &Ask) -> bool {
        if ask.is_share() {
            self.whole > 0 || u64::from(self.part_milli) >= ask.accelerator_milli
        } else {
            u64::from(self.whole) >= ask.accelerator_milli / WHOLE_DEVICE_MILLI
        }
    }
}

/// What is free on a node, seen by a task that would be served by one model of its devices. It is small,
/// because reading it is what the placer does most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    cpu_milli: u64,
    memory_mib: u64,
    /// Of all devices of the node.
    device_milli: u32,
    devices: FreeDevices,
}

impl Room {
    pub fn of(node: &NodeState, model: Option<usize>) -> Self {
        let (mut device_milli, mut devices) = (0, FreeDevices::default());
        for device in &node.devices {
            let free_milli = device.free_milli();
            device_milli += free_milli as u32;
            if Some(device.model) != model {
                continue;
            }
            if free_milli == WHOLE_DEVICE_MILLI {
                devices.whole += 1;
            } else {
                devices.part_milli = devices.part_milli.max(free_milli as u16);
            }
        }
        Self { cpu_milli: node.free_cpu_milli(), memory_mib: node.free_memory_mib(), device_milli, devices }
    }

    /// Whether the task fits, as the capacity filters say.
    pub fn fits(&self, ask: &Ask) -> bool {
        self.cpu_milli >= ask.cpu_milli && self.memory_mib >= ask.memory_mib && self.devices_fit(ask)
    }

    /// Whether the devices that the task asks for are free.
    pub fn devices_fit(&self, ask: &Ask) -> bool {
        self.devices.fit(ask)
    }

    /// What the task would leave unused on the node: best fit. Accelerators weigh before cores,
    /// because what is left of a device is harder to sell.
    pub fn left_over(&self, ask: &Ask) -> u64 {
        const CORES: u64 = 1 << 24;
        // A device that is in use already is better filled than a whole one opened.
        let opens_device = ask.is_share() && u64::from(self.devices.part_milli) < ask.accelerator_milli;
        let device_milli = u64::from(self.device_milli);
        let device_left = device_milli.saturating_sub(ask.accelerator_milli) + u64::from(opens_device) * 1_000_000;
        let cpu_left = self.cpu_milli.saturating_sub(ask.cpu_milli);
        device_left * CORES + cpu_left.min(CORES - 1)
    }

    /// Whether there is less of something than before.
    pub fn is_below(&self, before: &Self) -> bool {
        self.cpu_milli < before.cpu_milli
            || self.memory_mib < before.memory_mib
            || self.device_milli < before.device_milli
            || self.devices.whole < before.devices.whole
            || self.devices.part_milli < before.devices.part_milli
    }

    pub fn at_a_glance(&self) -> Glance {
        let at_most = |amount: u64| u32::try_from(amount).unwrap_or(u32::MAX);
        Glance { cpu_milli: at_most(self.cpu_milli), memory_mib: at_most(self.memory_mib), devices: self.devices }
    }
}

/// The same in half of the memory: what it refuses does not fit, and what it admits mostly does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Glance {
    /// This and the memory: as much, or more.
    cpu_milli: u32,
    memory_mib: u32,
    devices: FreeDevices,
}

impl Glance {
    pub fn admits(&self, ask: &Ask) -> bool {
        const MOST: u64 = u32::MAX as u64;
        // Nobody can foresee each of the answers, so there are no branches.
        (u64::from(self.cpu_milli) >= ask.cpu_milli.min(MOST))
            & (u64::from(self.memory_mib) >= ask.memory_mib.min(MOST))
            & self.devices.fit(ask)
    }
}
