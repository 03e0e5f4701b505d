//! Fragmentation of a node's accelerators for an expected workload, after Weng et al., "Beware
//! of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent",
//! USENIX ATC 2023: of a node's free accelerators, the part that a task drawn from the workload
//! cannot use. All of it when the node lacks the cores or devices for the task, or the task asks
//! for no accelerator; otherwise the devices that have less free than the task needs of each.
//! Memory is not part of their definition.

use std::collections::BTreeMap;

use crate::model::{accepts_model, Candidate, WHOLE_DEVICE_MILLI};
use crate::wire::mumian::api::v1 as api;
use crate::wire::mumian_core::v1 as border;

/// Larger than any fragmentation: weights add up to at most 2^40, a node has at most 2^10 devices.
const OFFSET: i64 = 1 << 62;

/// The expected workload: how often which task comes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mix {
    weight: i64,
    kinds: Vec<Kind>,
}

/// The tasks of the workload that ask for the same accelerators.
#[derive(Debug, Clone, PartialEq)]
struct Kind {
    request: api::AcceleratorRequest,
    /// Cores asked for, in milli, ascending, with the weight of all tasks that ask for no more.
    weight_by_cpu: Vec<(u64, i64)>,
}

/// What is free on one node: cores in milli, and of each device its model and its milli.
struct Free {
    cpu_milli: u64,
    devices: Vec<(usize, u64)>,
}

impl Mix {
    /// The typical tasks of a policy, or else those that wait in the request.
    pub fn of(typical: &[border::TypicalTask], jobs: &[border::PendingJob]) -> Self {
        if !typical.is_empty() {
            return Self::new(typical.iter().map(|t| (t.resources.as_ref(), i64::from(t.weight))));
        }
        Self::new(jobs.iter().filter_map(|job| job.spec.as_ref().map(|spec| (job, spec))).flat_map(|(job, spec)| {
            spec.task_groups.iter().map(move |group| {
                let named = job.pending.iter().filter(|p| p.task_group == group.name).map(|p| p.task_indexes.len());
                let count = if job.pending.is_empty() { i64::from(group.count) } else { named.sum::<usize>() as i64 };
                (group.resources.as_ref(), count)
            })
        }))
    }

    fn new<'a>(tasks: impl Iterator<Item = (Option<&'a api::Resources>, i64)>) -> Self {
        let mut mix = Self::default();
        let mut kinds: BTreeMap<(u64, &[String]), BTreeMap<u64, i64>> = BTreeMap::new();
        for (resources, weight) in tasks {
            mix.weight += weight;
            let Some(resources) = resources else { continue };
            let Some(request) = resources.accelerators.as_ref().filter(|a| a.milli > 0) else { continue };
            let by_cpu = kinds.entry((request.milli, &request.models)).or_default();
            *by_cpu.entry(resources.cpu_milli).or_default() += weight;
        }
        for ((milli, models), by_cpu) in kinds {
            let mut sum = 0;
            let weight_by_cpu = by_cpu.into_iter().map(|(cpu_milli, weight)| {
                sum += weight;
                (cpu_milli, sum)
            });
            let request = api::AcceleratorRequest { milli, models: models.to_vec() };
            mix.kinds.push(Kind { request, weight_by_cpu: weight_by_cpu.collect() });
        }
        mix
    }

    /// How much placing the task adds to the node's fragmentation, as a number that sorts, and
    /// for a share the device on which it adds least. The fullest device wins a tie.
    pub fn increase(&self, c: &Candidate<'_>) -> (u64, Option<usize>) {
        let devices = c.node.devices.iter().map(|d| (d.model, d.free_milli())).collect();
        let mut free = Free { cpu_milli: c.node.free_cpu_milli(), devices };
        let before = self.fragmentation(c, &free);
        free.cpu_milli = free.cpu_milli.saturating_sub(c.demand.cpu_milli);
        let sortable = |after: i64| (after - before + OFFSET) as u64;
        let milli = c.demand.accelerator_milli();
        if milli == 0 || milli >= WHOLE_DEVICE_MILLI {
            for share in c.devices(None) {
                free.devices[share.device_index as usize].1 -= u64::from(share.milli);
            }
            return (sortable(self.fragmentation(c, &free)), None);
        }
        // Devices that are equally full are equal, so one of each fullness is asked.
        let mut levels: Vec<(u64, usize)> = c.share_devices().map(|(index, d)| (d.free_milli(), index)).collect();
        levels.sort_unstable();
        levels.dedup_by_key(|(free_milli, _)| *free_milli);
        let after = levels.into_iter().map(|(free_milli, index)| {
            free.devices[index].1 = free_milli - milli;
            let after = self.fragmentation(c, &free);
            free.devices[index].1 = free_milli;
            (sortable(after), Some(index))
        });
        after.min_by_key(|(increase, _)| *increase).unwrap_or((u64::MAX, None))
    }

    /// The milli of devices that the task would strand, times the weight of the workload, and that
    /// weight. Asked only where its devices fit.
    pub fn stranded(&self, c: &Candidate<'_>) -> (u64, u64) {
        let (increase, _) = self.increase(c);
        (increase.saturating_sub(OFFSET as u64), self.weight as u64)
    }

    /// In milli of a device times weight.
    fn fragmentation(&self, c: &Candidate<'_>, free: &Free) -> i64 {
        let all: u64 = free.devices.iter().map(|(_, milli)| milli).sum();
        let usable: i64 = self.kinds.iter().map(|kind| kind.usable(c, free)).sum();
        self.weight * all as i64 - usable
    }
}

impl Kind {
    /// The free milli that the tasks of this kind could use, times the weight of those tasks.
    fn usable(&self, c: &Candidate<'_>, free: &Free) -> i64 {
        let runnable = self.weight_by_cpu.partition_point(|(cpu_milli, _)| *cpu_milli <= free.cpu_milli);
        let Some((_, weight)) = self.weight_by_cpu[..runnable].last() else { return 0 };
        let each = self.request.milli.min(WHOLE_DEVICE_MILLI);
        let count = self.request.milli.div_ceil(WHOLE_DEVICE_MILLI);
        let of_model = |model: usize| {
            let roomy = free.devices.iter().filter(|(m, milli)| *m == model && *milli >= each);
            let (devices, milli) = roomy.fold((0, 0), |(n, sum), (_, milli)| (n + 1, sum + milli));
            if devices >= count {
                milli
            } else {
                0
            }
        };
        let accepted = c.node.models().filter(|m| accepts_model(&self.request, &c.node.node.accelerators[*m].model));
        *weight * accepted.map(of_model).sum::<u64>() as i64
    }
}
