//! Mixed jobs from a catalogue of templates: some have a latency SLO, a share of a device or
//! whole ones, an architecture, labels, a jurisdiction, a PUE ceiling. Popular templates are
//! drawn more often (Zipf); a job has 1 to 300 tasks, evenly by order of magnitude.

use std::collections::BTreeMap;

use fastrand::Rng;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

use crate::fleet::{OPERATORS, ZONES};

pub const TEMPLATES: usize = 200;
/// Part of the fleet's cores and devices that the jobs ask for together, in percent.
pub const LOAD_PERCENT: u64 = 85;
const TASKS_MAX: f64 = 300.0;
/// A gang is all or nothing, so it stays below a site's size.
const GANG_TASKS_MAX: u32 = 32;

/// Money decides, carbon's price is the national market's.
pub fn policy() -> border::Policy {
    let objective = border::Objective::Cost.into();
    border::Policy { carbon_kg_microcny: 90_000, objective, ..Default::default() }
}

/// The catalogue of one seed.
pub fn catalogue(seed: u64) -> Vec<api::JobSpec> {
    let mut rng = Rng::with_seed(seed ^ 0x0063_6174);
    (0..TEMPLATES).map(|_| template(&mut rng)).collect()
}

/// A template of the catalogue, the popular ones more often.
pub fn draw<'a>(catalogue: &'a [api::JobSpec], rng: &mut Rng) -> &'a api::JobSpec {
    // The inverse of the continuous Zipf distribution with exponent 1.
    let rank = (catalogue.len() as f64 + 1.0).powf(rng.f64()) as usize;
    &catalogue[rank.clamp(1, catalogue.len()) - 1]
}

/// Jobs that ask for LOAD_PERCENT of the fleet's cores, and of no model of device for more.
pub fn pending(fleet: &border::Delta, catalogue: &[api::JobSpec], seed: u64) -> border::PlaceRequest {
    let mut rng = Rng::with_seed(seed ^ 0x6a6f_6273);
    let mut room = Room::of(fleet);
    let mut jobs = Vec::new();
    while room.cpu_milli > 0 {
        let mut spec = draw(catalogue, &mut rng).clone();
        let count = TASKS_MAX.powf(rng.f64()) as u32;
        let gang = spec.kind() == api::JobKind::Gang;
        spec.task_groups[0].count = if gang { count.min(GANG_TASKS_MAX) } else { count };
        if room.take(&spec.task_groups[0]) {
            let job_id = format!("job-{:06}", jobs.len());
            jobs.push(border::PendingJob { job_id, spec: Some(spec), ..Default::default() });
        }
    }
    border::PlaceRequest { evaluation_id: format!("bulk-{seed}"), jobs, policy: Some(policy()), ..Default::default() }
}

/// What the jobs may still ask for.
struct Room {
    cpu_milli: u64,
    device_milli: BTreeMap<String, u64>,
}

impl Room {
    fn of(fleet: &border::Delta) -> Self {
        let cpu_milli = fleet.nodes.iter().map(|n| n.cpu_milli).sum::<u64>() * LOAD_PERCENT / 100;
        let mut device_milli = BTreeMap::new();
        for a in fleet.nodes.iter().flat_map(|n| &n.accelerators) {
            *device_milli.entry(a.model.clone()).or_default() += u64::from(a.count) * 1000 * LOAD_PERCENT / 100;
        }
        Self { cpu_milli, device_milli }
    }

    /// False when the devices that the group asks for have all been asked for.
    fn take(&mut self, group: &api::TaskGroup) -> bool {
        let resources = group.resources.clone().unwrap_or_default();
        let count = u64::from(group.count);
        if let Some(request) = &resources.accelerators {
            let Some(room) = request.models.first().and_then(|model| self.device_milli.get_mut(model)) else {
                return false;
            };
            let Some(rest) = room.checked_sub(request.milli * count) else { return false };
            *room = rest;
        }
        self.cpu_milli = self.cpu_milli.saturating_sub(resources.cpu_milli * count);
        true
    }
}

fn template(rng: &mut Rng) -> api::JobSpec {
    let percent = |rng: &mut Rng, chance: u32| rng.u32(0..100) < chance;
    let resources = if percent(rng, 25) { on_accelerators(rng) } else { on_cores(rng) };
    let has_devices = resources.accelerators.is_some();
    let slo = percent(rng, 25).then(|| slo(rng));
    let arch = *rng.choice(&["x86_64", "arm64"]).expect("two of them");
    let group = api::TaskGroup {
        name: "main".into(),
        count: 1,
        archs: if !has_devices && percent(rng, 15) { vec![arch.into()] } else { vec![] },
        labels: if percent(rng, 10) { [("disk".into(), "nvme".into())].into() } else { BTreeMap::new() },
        compute_time: slo.is_some().then(|| api::ComputeTime {
            default_us: 3000,
            by_accelerator_model_us: [("H100".to_string(), 1500), ("L4".to_string(), 2500)].into(),
            by_arch_us: [("arm64".to_string(), 3600)].into(),
        }),
        latency_slo: slo,
        resources: Some(resources),
        ..Default::default()
    };
    let kind = match rng.u32(0..100) {
        0..5 => api::JobKind::Gang,
        5..40 => api::JobKind::Service,
        _ => api::JobKind::Batch,
    };
    api::JobSpec {
        name: "generated".into(),
        kind: kind.into(),
        priority: [30, 50, 50, 50, 80][rng.usize(0..5)],
        jurisdictions: if percent(rng, 15) { vec!["CN-GD".into()] } else { vec![] },
        operators_denied: if percent(rng, 8) { vec![format!("operator-{}", rng.usize(0..OPERATORS))] } else { vec![] },
        pue_max_permille: if percent(rng, 10) { 1500 } else { 0 },
        task_groups: vec![group],
        ..Default::default()
    }
}

/// 0.5 to 16 cores with 1 to 8 GiB a core.
fn on_cores(rng: &mut Rng) -> api::Resources {
    let cpu_milli = *rng.choice(&[500, 1000, 1000, 2000, 2000, 4000, 8000, 16_000]).expect("not empty");
    let gib_per_core = *rng.choice(&[1, 2, 2, 4, 8]).expect("not empty");
    api::Resources { cpu_milli, memory_mib: cpu_milli * gib_per_core * 1024 / 1000, accelerators: None }
}

/// A share of one device, or one to eight whole ones.
fn on_accelerators(rng: &mut Rng) -> api::Resources {
    let (model, milli) = *rng
        .choice(&[
            ("H100", 1000),
            ("H100", 2000),
            ("H100", 8000),
            ("H100", 500),
            ("L4", 250),
            ("L4", 500),
            ("L4", 1000),
            ("Ascend-910B", 1000),
            ("Ascend-910B", 4000),
        ])
        .expect("not empty");
    let accelerators = Some(api::AcceleratorRequest { milli, models: vec![model.into()] });
    api::Resources { cpu_milli: (milli * 6).max(1000), memory_mib: milli * 32, accelerators }
}

/// One or two zones and a budget that some, or most, of the sites meet.
fn slo(rng: &mut Rng) -> api::LatencySlo {
    let first = rng.usize(0..ZONES);
    let zones = if rng.bool() { vec![first] } else { vec![first, (first + 1) % ZONES] };
    api::LatencySlo {
        zone_ids: zones.into_iter().map(|z| format!("zone-{z:02}")).collect(),
        budget_us: *rng.choice(&[11_000, 13_000, 16_000, 20_000]).expect("not empty"),
        client_us: 4000,
        ..Default::default()
    }
}
