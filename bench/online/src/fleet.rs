//! A city of 100 sites: ten operators, seven kinds of machine, prices, PUE and the round trips
//! from twelve zones. All of it follows from the seed.

use fastrand::Rng;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

pub const SITES: usize = 100;
pub const ZONES: usize = 12;
pub const OPERATORS: usize = 10;
const READY: i32 = api::Health::Ready as i32;
/// Side of the square in which sites and zones lie.
const CITY_KM: f64 = 120.0;

/// A kind of machine; a site has three to five of them.
struct Hardware {
    weight: usize,
    arch: &'static str,
    cores: u64,
    memory_gib: u64,
    core_power_mw: u64,
    /// Model, devices of a node, and power of one device.
    accelerator: Option<(&'static str, u32, u64)>,
}

const HARDWARE: [Hardware; 7] = [
    Hardware { weight: 6, arch: "x86_64", cores: 32, memory_gib: 128, core_power_mw: 6_500, accelerator: None },
    Hardware { weight: 8, arch: "x86_64", cores: 96, memory_gib: 384, core_power_mw: 4_800, accelerator: None },
    Hardware { weight: 3, arch: "x86_64", cores: 64, memory_gib: 1024, core_power_mw: 5_200, accelerator: None },
    Hardware { weight: 4, arch: "arm64", cores: 128, memory_gib: 512, core_power_mw: 2_900, accelerator: None },
    Hardware {
        weight: 3,
        arch: "x86_64",
        cores: 96,
        memory_gib: 1024,
        core_power_mw: 4_800,
        accelerator: Some(("H100", 8, 700_000)),
    },
    Hardware {
        weight: 3,
        arch: "x86_64",
        cores: 48,
        memory_gib: 256,
        core_power_mw: 5_000,
        accelerator: Some(("L4", 4, 72_000)),
    },
    Hardware {
        weight: 2,
        arch: "arm64",
        cores: 192,
        memory_gib: 1536,
        core_power_mw: 3_000,
        accelerator: Some(("Ascend-910B", 8, 310_000)),
    },
];

/// The fleet as the delta that creates it.
pub fn fleet(nodes: usize, seed: u64) -> border::Delta {
    let mut rng = Rng::with_seed(seed);
    let zones: Vec<(f64, f64)> = (0..ZONES).map(|_| point(&mut rng)).collect();
    let mut delta = border::Delta { reset: true, ..Default::default() };
    for s in 0..SITES {
        let site = site(s, &mut rng);
        let here = point(&mut rng);
        delta.links.extend(zones.iter().enumerate().map(|(z, zone)| link(z, *zone, &site.id, here, &mut rng)));
        let kinds = kinds(&mut rng);
        let first = nodes * s / SITES;
        for n in first..nodes * (s + 1) / SITES {
            delta.nodes.push(node(&site.id, n - first, &HARDWARE[drawn(&kinds, &mut rng)], &mut rng));
        }
        delta.sites.push(site);
    }
    delta
}

fn point(rng: &mut Rng) -> (f64, f64) {
    (rng.f64() * CITY_KM, rng.f64() * CITY_KM)
}

fn site(s: usize, rng: &mut Rng) -> api::Site {
    let device = |cny: u64, rng: &mut Rng| cny * 1_000_000 * rng.u64(80..130) / 100;
    let pue = rng.u32(115..165) * 10;
    api::Site {
        id: format!("site-{s:03}"),
        operator_id: format!("operator-{}", s % OPERATORS),
        jurisdiction: ["CN-GD-GZ", "CN-GD-SZ", "CN-GD-FS", "CN-GX-NN"][s % 4].into(),
        pue: Some(api::Pue {
            average_permille: pue,
            marginal_permille: pue - rng.u32(0..60),
            source: 1,
            ..Default::default()
        }),
        prices: Some(api::Prices {
            cpu_core_hour_microcny: rng.u64(60..130) * 1000,
            memory_gib_hour_microcny: rng.u64(8..20) * 1000,
            accelerator_hour_microcny: [
                ("H100".into(), device(18, rng)),
                ("L4".into(), device(4, rng)),
                ("Ascend-910B".into(), device(11, rng)),
            ]
            .into(),
            energy_kwh_microcny: rng.u64(35..95) * 10_000,
            ..Default::default()
        }),
        carbon_g_per_kwh: rng.u32(250..650),
        health: READY,
        ..Default::default()
    }
}

/// Light in fibre and a few switches, as p99; a few links are worse than their length.
fn link(z: usize, zone: (f64, f64), site_id: &str, site: (f64, f64), rng: &mut Rng) -> api::Link {
    let km = (zone.0 - site.0).hypot(zone.1 - site.1);
    let detour = if rng.u32(0..10) == 0 { 3 } else { 1 };
    let rtt_p50_us = (400 + (km * 22.0) as u64) * detour;
    api::Link {
        from_id: format!("zone-{z:02}"),
        to_site_id: site_id.into(),
        rtt_p50_us,
        rtt_p99_us: rtt_p50_us * 2 + rng.u64(200..900),
        source: 1,
        sample_count: 600,
        ..Default::default()
    }
}

/// Three to five kinds of machine; the first two have no accelerator.
fn kinds(rng: &mut Rng) -> Vec<usize> {
    let mut kinds = vec![rng.usize(0..2), rng.usize(2..4)];
    for _ in 0..rng.usize(1..4) {
        kinds.push(rng.usize(0..HARDWARE.len()));
    }
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

fn drawn(kinds: &[usize], rng: &mut Rng) -> usize {
    let mut draw = rng.usize(0..kinds.iter().map(|k| HARDWARE[*k].weight).sum());
    for &kind in kinds {
        match draw.checked_sub(HARDWARE[kind].weight) {
            Some(rest) => draw = rest,
            None => return kind,
        }
    }
    kinds[0]
}

fn node(site_id: &str, n: usize, hardware: &Hardware, rng: &mut Rng) -> api::Node {
    let disk = if rng.u32(0..3) == 0 { "hdd" } else { "nvme" };
    api::Node {
        id: format!("{site_id}/node-{n:04}"),
        site_id: site_id.into(),
        arch: hardware.arch.into(),
        health: READY,
        labels: [("disk".into(), disk.into())].into(),
        cpu_milli: hardware.cores * 1000,
        memory_mib: hardware.memory_gib * 1024,
        core_active_power_mw: hardware.core_power_mw,
        accelerators: hardware
            .accelerator
            .map(|(model, count, active_power_mw)| api::Accelerator {
                kind: if model == "Ascend-910B" { "npu" } else { "gpu" }.into(),
                model: model.into(),
                count,
                active_power_mw,
                ..Default::default()
            })
            .into_iter()
            .collect(),
        ..Default::default()
    }
}
