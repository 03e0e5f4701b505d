//! Fragmentation for an expected workload: what is free of a node's accelerators and yet of no use.
//!
//! Weng et al. ("Beware of Fragmentation", USENIX ATC 2023) count what is free as usable when one
//! more task would fit. Here it is usable as far as the rest of the node reaches:
//! - **Stranded** is what is left when the node's cores or memory run out first, with tasks that
//!   come with the workload's own cores and memory for each accelerator. So a task with few cores
//!   goes where cores are short, and one without accelerators where they are plenty.
//! - **Scarce** is a model that many ask for and accept few others. The demand of each task, spread
//!   over the devices that it accepts, gives a device its worth. So a task that takes any model
//!   leaves the scarce ones to those that take no other.
//! - **Cut** is a device of which shares are in use. What is left of it is worth what equal tasks of
//!   the workload could fill of it, on average over those tasks.

use std::collections::BTreeMap;

use crate::model::{accepts_model, Candidate, WHOLE_DEVICE_MILLI};
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// The worth of one accelerator milli where every task accepts every model.
const ONE: u128 = 1 << 16;

/// Bits of a score that tell how a device is cut; the bits above tell what the node loses.
const CUT_BITS: u32 = 20;
const FILLABLE_MAX: u64 = (1 << CUT_BITS) - 1;

/// The expected workload, as what it makes a node's free resources worth.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mix {
    /// One for each model of the cluster; few, so they are looked through.
    worths: Vec<Worth>,
}

/// What is free beside devices of this model is worth so much, until something else runs out.
#[derive(Debug, Clone, PartialEq)]
struct Worth {
    model: String,
    /// The most of it is `FILLABLE_MAX`, at a whole device.
    fillable: Steps,
    accelerator_milli: u64,
    /// Unset when the workload needs none for its accelerators.
    cpu_milli: Option<u64>,
    memory_mib: Option<u64>,
}

/// How much of a device the workload could fill, by what is free of it: grows at these steps, given
/// in milli, ascending, with the amount from there on.
#[derive(Debug, Clone, Default, PartialEq)]
struct Steps(Vec<(u64, u64)>);

/// Sums over the tasks of the workload that ask for accelerators, each by its weight.
#[derive(Default)]
struct Sums {
    accelerator_milli: u128,
    cpu_milli: u128,
    memory_mib: u128,
}

impl Mix {
    /// The typical tasks of a policy, or else those that wait in the request, on a cluster with so
    /// many devices of each model.
    pub fn of(
        typical: &[border::TypicalTask],
        jobs: &[border::PendingJob],
        device_counts: &BTreeMap<String, u64>,
    ) -> Self {
        if !typical.is_empty() {
            return Self::new(typical.iter().map(|t| (t.resources.as_ref(), u64::from(t.weight))), device_counts);
        }
        let waiting = jobs.iter().filter_map(|job| job.spec.as_ref().map(|spec| (job, spec)));
        let waiting = waiting.flat_map(|(job, spec)| {
            spec.task_groups.iter().map(move |group| {
                let named = job.pending.iter().filter(|p| p.task_group == group.name).map(|p| p.task_indexes.len());
                let count = if job.pending.is_empty() { u64::from(group.count) } else { named.sum::<usize>() as u64 };
                (group.resources.as_ref(), count)
            })
        });
        Self::new(waiting, device_counts)
    }

    fn new<'a>(
        tasks: impl Iterator<Item = (Option<&'a api::Resources>, u64)>,
        device_counts: &BTreeMap<String, u64>,
    ) -> Self {
        let mut sums = Sums::default();
        let mut demands: BTreeMap<(&[String], u64), (&api::AcceleratorRequest, u128)> = BTreeMap::new();
        for (resources, weight) in tasks {
            let Some(resources) = resources else { continue };
            let Some(request) = resources.accelerators.as_ref().filter(|a| a.milli > 0) else { continue };
            let weighted = |quantity: u64| u128::from(weight) * u128::from(quantity);
            sums.accelerator_milli += weighted(request.milli);
            sums.cpu_milli += weighted(resources.cpu_milli);
            sums.memory_mib += weighted(resources.memory_mib);
            demands.entry((&request.models, request.milli)).or_insert((request, 0)).1 += u128::from(weight);
        }
        if sums.accelerator_milli == 0 {
            return Self::default();
        }
        let all_devices: u128 = device_counts.values().map(|count| u128::from(*count)).sum();
        let mut worths: Vec<Worth> = device_counts.keys().map(|model| Worth::nothing(model)).collect();
        for (request, weight) in demands.values() {
            let accepted = || device_counts.iter().filter(|(model, _)| accepts_model(request, model));
            let devices: u128 = accepted().map(|(_, count)| u128::from(*count)).sum();
            let milli = weight * u128::from(request.milli);
            for worth in worths.iter_mut().filter(|w| devices > 0 && accepts_model(request, &w.model)) {
                worth.accelerator_milli += (ONE * milli * all_devices / sums.accelerator_milli / devices) as u64;
            }
        }
        for worth in &mut worths {
            let per = |needed: u128| {
                let milli = u128::from(worth.accelerator_milli) * sums.accelerator_milli;
                milli.checked_div(needed).map(|worth| u64::try_from(worth).unwrap_or(u64::MAX))
            };
            (worth.cpu_milli, worth.memory_mib) = (per(sums.cpu_milli), per(sums.memory_mib));
            let accepting = demands.values().filter(|(request, _)| accepts_model(request, &worth.model));
            worth.fillable = Steps::of(accepting.map(|(request, weight)| (request.milli, *weight)));
        }
        Self { worths }
    }

    /// How much worse the task makes the node, as a number that sorts, and for a share the device
    /// on which it does least harm: what is lost of the node's worth, and among equals what is lost
    /// of what the workload could fill of the device. The fullest device wins a tie.
    pub fn increase(&self, c: &Candidate<'_>) -> (u64, Option<usize>) {
        let lost = self.lost(c).min(u64::MAX >> CUT_BITS) << CUT_BITS;
        match self.cut(c) {
            Some((cut, index)) => (lost | cut, Some(index)),
            None => (lost, None),
        }
    }

    /// How much more than the task asks for is lost to the workload, in milli of a device: beside
    /// it on the node, or of the device that it cuts.
    pub fn stranded_milli(&self, c: &Candidate<'_>) -> u64 {
        let asked = self.asked(c).or_else(|| self.of_node(c).map(|(dearest, _)| dearest));
        let each = asked.map_or(0, |worth| worth.accelerator_milli);
        let of_node = self.lost(c).checked_div(each).unwrap_or(0);
        let of_device = self.cut(c).map_or(0, |(cut, _)| cut * WHOLE_DEVICE_MILLI / FILLABLE_MAX);
        of_node.max(of_device).saturating_sub(c.demand.accelerator_milli())
    }

    /// For a share, the device where least is lost of what the workload could fill, and that loss.
    fn cut(&self, c: &Candidate<'_>) -> Option<(u64, usize)> {
        let milli = c.demand.accelerator_milli();
        if milli == 0 || milli >= WHOLE_DEVICE_MILLI {
            return None;
        }
        let fillable = self.asked(c).map(|worth| &worth.fillable);
        let mut least: Option<(u64, u64, usize)> = None;
        let mut before = None;
        for (index, device) in c.share_devices() {
            let free = device.free_milli();
            if before.replace(free) == Some(free) {
                continue; // equal to the device before, most often an unused one
            }
            let cut = fillable.map_or(0, |fillable| fillable.at(free) - fillable.at(free - milli));
            if least.is_none_or(|least| (cut, free, index) < least) {
                least = Some((cut, free, index));
            }
        }
        least.map(|(cut, _, index)| (cut, index))
    }

    /// What the node is worth less with the task.
    fn lost(&self, c: &Candidate<'_>) -> u64 {
        let Some((worth, accelerators)) = self.of_node(c) else { return 0 };
        let taken = self.asked(c).map_or(0, |w| w.accelerator_milli.saturating_mul(c.demand.accelerator_milli()));
        let (cpu_milli, memory_mib) = (c.node.free_cpu_milli(), c.node.free_memory_mib());
        let before = worth.reach(accelerators, cpu_milli, memory_mib);
        let cpu_milli = cpu_milli.saturating_sub(c.demand.cpu_milli);
        let memory_mib = memory_mib.saturating_sub(c.demand.memory_mib);
        before - worth.reach(accelerators.saturating_sub(taken), cpu_milli, memory_mib)
    }

    /// The dearest of the node's models, beside which its cores and memory are worth most, and what
    /// its free devices are worth together.
    fn of_node(&self, c: &Candidate<'_>) -> Option<(&Worth, u64)> {
        let mut accelerators: u64 = 0;
        let mut dearest: Option<&Worth> = None;
        for devices in c.node.devices.chunk_by(|a, b| a.model == b.model) {
            let Some(worth) = self.worth(&c.node.node.accelerators[devices[0].model].model) else { continue };
            let free: u64 = devices.iter().map(|d| d.free_milli()).sum();
            accelerators = accelerators.saturating_add(worth.accelerator_milli.saturating_mul(free));
            if dearest.is_none_or(|w| w.accelerator_milli < worth.accelerator_milli) {
                dearest = Some(worth);
            }
        }
        dearest.map(|worth| (worth, accelerators))
    }

    /// The worth of the model that would serve the task.
    fn asked(&self, c: &Candidate<'_>) -> Option<&Worth> {
        c.accelerator().and_then(|accelerator| self.worth(&accelerator.model))
    }

    fn worth(&self, model: &str) -> Option<&Worth> {
        self.worths.iter().find(|worth| worth.model == model)
    }
}

impl Worth {
    fn nothing(model: &str) -> Self {
        Self {
            model: model.into(),
            fillable: Steps::default(),
            accelerator_milli: 0,
            cpu_milli: None,
            memory_mib: None,
        }
    }

    /// The least of what the node's accelerators, cores and memory are worth.
    fn reach(&self, accelerators: u64, cpu_milli: u64, memory_mib: u64) -> u64 {
        let worth = |each: Option<u64>, free: u64| each.map_or(u64::MAX, |each| each.saturating_mul(free));
        accelerators.min(worth(self.cpu_milli, cpu_milli)).min(worth(self.memory_mib, memory_mib))
    }
}

impl Steps {
    /// For tasks that ask for so many milli of a device, or of several, each with its weight.
    fn of(tasks: impl Iterator<Item = (u64, u128)>) -> Self {
        let mut gains: BTreeMap<u64, u128> = BTreeMap::new();
        let mut weights = 0;
        for (milli, weight) in tasks {
            let each = milli.min(WHOLE_DEVICE_MILLI);
            weights += weight;
            for filled in 1..=WHOLE_DEVICE_MILLI / each {
                *gains.entry(filled * each).or_default() += weight * u128::from(each);
            }
        }
        let mut sum = 0;
        let steps = gains.into_iter().map(|(milli, gain)| {
            sum += gain;
            (milli, (sum * u128::from(FILLABLE_MAX) / (weights * u128::from(WHOLE_DEVICE_MILLI)).max(1)) as u64)
        });
        Self(steps.collect())
    }

    fn at(&self, free_milli: u64) -> u64 {
        let reached = self.0.partition_point(|(milli, _)| *milli <= free_milli);
        self.0[..reached].last().map_or(0, |(_, amount)| *amount)
    }
}
