//! Small random fleets and jobs: few distinct values, so that ties, full nodes and refusals are common.

pub mod wire_damage;

use proptest::prelude::*;
use proptest::sample::select;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

pub const READY: i32 = api::Health::Ready as i32;
pub const OBJECTIVES: [border::Objective; 5] = [
    border::Objective::Cost,
    border::Objective::Nearest,
    border::Objective::CheapestRent,
    border::Objective::Random,
    border::Objective::Pack,
];
/// Some time that is not the start of an hour.
pub const NOW: i64 = 1_795_658_460;
const MODELS: [&str; 2] = ["H100", "910B"];
/// Of nodes, and racks too; of some nobody says it.
const SWITCHES: [&str; 5] = ["w0", "w0", "w1", "w1", ""];

/// Some hours around NOW, or none.
fn forecast() -> impl Strategy<Value = Option<api::Forecast>> {
    let hour = (0_u64..4, 0_u32..3, 0_u32..3).prop_map(|(energy, carbon, rent)| api::HourForecast {
        energy_kwh_microcny: energy * 90_000,
        carbon_g_per_kwh: carbon * 400,
        rent_permille: rent * 700,
    });
    let hours = (0_i64..4, prop::collection::vec(hour, 0..6));
    prop::option::weighted(
        0.4,
        hours.prop_map(|(before, hours)| api::Forecast { first_hour_unix_s: NOW / 3600 * 3600 - before * 3600, hours }),
    )
}

pub fn site(id: usize) -> impl Strategy<Value = api::Site> {
    let prices = (0_u64..3, 0_u64..3, 0_u64..3);
    let jurisdiction = select(vec!["CN-GD", "CN-GD-GZ", "CN-GX"]);
    let cap_w = select(vec![0_u64, 0, 10, 400, 1100]);
    let health = select(vec![READY, READY, 2]);
    (prices, select(vec![0_u32, 1100, 1400]), jurisdiction, health, cap_w, forecast()).prop_map(
        move |((core, h100, energy), pue, jurisdiction, health, cap_w, forecast)| api::Site {
            id: format!("s{id}"),
            operator_id: format!("op{}", id % 2),
            jurisdiction: jurisdiction.into(),
            pue: (pue > 0).then_some(api::Pue {
                average_permille: pue,
                marginal_permille: pue,
                source: 1,
                ..Default::default()
            }),
            prices: Some(api::Prices {
                cpu_core_hour_microcny: core * 1000,
                accelerator_hour_microcny: [("H100".to_string(), h100 * 5000)].into(),
                energy_kwh_microcny: energy * 100_000,
                egress_gib_microcny: energy * 7_000,
                ..Default::default()
            }),
            carbon_g_per_kwh: 500,
            forecast,
            health,
            power_cap_mw: cap_w * 1000,
            ..Default::default()
        },
    )
}

pub fn node(site: usize, id: usize) -> impl Strategy<Value = api::Node> {
    let devices = prop::collection::vec((select(&MODELS[..]), 0_u32..4), 0..3);
    let arch_and_place = (select(vec!["x86_64", "arm64"]), select(&SWITCHES[..]), select(&SWITCHES[..]));
    (devices, 0_u64..9, 0_u64..5, arch_and_place, any::<bool>(), select(vec![READY, READY, READY, 2])).prop_map(
        move |(devices, cpu, memory, (arch, switch, rack), ssd, health)| api::Node {
            switch_id: switch.into(),
            rack_id: rack.into(),
            id: format!("s{site}/n{id}"),
            site_id: format!("s{site}"),
            arch: arch.into(),
            health,
            labels: if ssd { [("disk".to_string(), "ssd".to_string())].into() } else { Default::default() },
            cpu_milli: cpu * 500,
            memory_mib: memory * 1024,
            core_active_power_mw: 5000,
            accelerators: devices
                .into_iter()
                .map(|(model, count)| api::Accelerator {
                    kind: "gpu".into(),
                    model: model.into(),
                    count,
                    active_power_mw: if model == "H100" { 700_000 } else { 310_000 },
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        },
    )
}

pub fn link(site: usize) -> impl Strategy<Value = api::Link> {
    let from = select(vec!["z0", "z1", "s0", "s1", "s2"]);
    let error_ms = select(vec![0_u64, 0, 1]);
    (from, 1_u64..10, error_ms, select(vec![0_u64, 10, 25])).prop_map(move |(from, ms, error_ms, mbps)| api::Link {
        from_id: from.into(),
        to_site_id: format!("s{site}"),
        rtt_p99_us: ms * 1000,
        rtt_error_us: error_ms * 1000,
        source: if error_ms > 0 { api::FigureSource::Modelled } else { api::FigureSource::Measured }.into(),
        bandwidth_kbps: mbps * 1000,
        ..Default::default()
    })
}

/// A fleet of up to `sites` sites with up to `nodes` nodes each.
pub fn fleet(sites: usize, nodes: usize) -> impl Strategy<Value = border::Delta> {
    let of_site = move |s: usize| {
        let nodes: Vec<_> = (0..nodes).map(|n| node(s, n)).collect();
        let kept = 0..=nodes.len();
        let links = prop::collection::vec(link(s), 0..5);
        (site(s), nodes, kept, links).prop_map(|(site, mut nodes, kept, links)| {
            nodes.truncate(kept);
            (site, nodes, links)
        })
    };
    (1..=sites).prop_flat_map(move |count| (0..count).map(of_site).collect::<Vec<_>>()).prop_map(|parts| {
        let mut delta = border::Delta { reset: true, ..Default::default() };
        for (site, nodes, links) in parts {
            delta.sites.push(site);
            delta.nodes.extend(nodes);
            delta.links.extend(links);
        }
        delta
    })
}

pub fn resources() -> impl Strategy<Value = api::Resources> {
    let milli = select(vec![0_u64, 0, 300, 500, 700, 1000, 2000]);
    let models = select(vec![vec![], vec!["H100"], vec!["910B"], vec!["910B", "H100"]]);
    (0_u64..6, 0_u64..3, milli, models).prop_map(|(cpu, memory, milli, models)| api::Resources {
        cpu_milli: cpu * 250,
        memory_mib: memory * 512,
        accelerators: (milli > 0)
            .then(|| api::AcceleratorRequest { milli, models: models.into_iter().map(String::from).collect() }),
    })
}

/// Hard or soft, about all users or a share of them.
pub fn latency_slo() -> impl Strategy<Value = api::LatencySlo> {
    let zones = select(vec![vec!["z0"], vec!["z0", "z1"]]);
    let share = select(vec![0_u32, 0, 400, 750, 1000]);
    let users = prop::collection::btree_map(select(vec!["z0", "z1"]), 1_u32..4, 0..2);
    (4_u64..16, zones, users, share, 0_u64..2, any::<bool>()).prop_map(
        |(ms, zones, users, users_permille, soft, measured_only)| api::LatencySlo {
            zone_ids: zones.into_iter().map(String::from).collect(),
            budget_us: ms * 1000,
            client_us: 1000,
            users: users.into_iter().map(|(zone, users)| (zone.to_string(), users)).collect(),
            users_permille,
            soft_microcny_per_ms_hour: soft * 700,
            measured_only,
            ..Default::default()
        },
    )
}

pub fn group(name: usize, tasks: u32) -> impl Strategy<Value = api::TaskGroup> {
    let slo = prop::option::weighted(0.3, latency_slo());
    let rarely = || prop::bool::weighted(0.15);
    (resources(), 1..=tasks, slo, rarely(), rarely()).prop_map(move |(resources, count, slo, arm, ssd)| {
        api::TaskGroup {
            name: format!("g{name}"),
            count,
            resources: Some(resources),
            archs: if arm { vec!["arm64".into()] } else { vec![] },
            labels: if ssd { [("disk".to_string(), "ssd".to_string())].into() } else { Default::default() },
            latency_slo: slo,
            compute_time: Some(api::ComputeTime {
                default_us: 3000,
                by_accelerator_model_us: [("H100".to_string(), 1000)].into(),
                by_arch_us: [("arm64".to_string(), 5000)].into(),
            }),
            ..Default::default()
        }
    })
}

/// What couples the tasks of a group of a job of so many groups; often nothing.
pub fn coupled(name: usize, groups: usize) -> impl Strategy<Value = api::TaskGroup> {
    use api::Topology as T;
    let topology = || select(vec![T::Node, T::Switch, T::Rack, T::Site, T::Operator]);
    let spread = (topology(), 1_u32..4).prop_map(|(t, max_tasks)| api::Spread { topology: t.into(), max_tasks });
    let others: Vec<usize> = (0..groups).filter(|other| *other != name).collect();
    let apart = if others.is_empty() { Just(None).boxed() } else { rarely((topology(), select(others))).boxed() };
    let near = rarely((0..groups, 2_u64..12));
    let traffic = rarely((select(vec!["z0", "z1"]), 1_u64..12));
    let together = prop::option::weighted(0.2, topology());
    (rarely(spread), apart, near, traffic, together).prop_map(|(spread, apart, near, traffic, together)| {
        api::TaskGroup {
            together: together.map_or(0, i32::from),
            spreads: spread.into_iter().collect(),
            apart_from: apart
                .into_iter()
                .map(|(t, other)| api::AntiAffinity { topology: t.into(), task_group: format!("g{other}") })
                .collect(),
            group_latencies: near
                .into_iter()
                .map(|(other, ms)| api::GroupLatency { task_group: format!("g{other}"), budget_us: ms * 1000 })
                .collect(),
            zone_traffic: traffic
                .into_iter()
                .map(|(zone, mbps)| api::ZoneTraffic { zone_id: zone.into(), bandwidth_kbps: mbps * 1000 })
                .collect(),
            ..Default::default()
        }
    })
}

fn rarely<T: Strategy>(value: T) -> impl Strategy<Value = Option<T::Value>> {
    prop::option::weighted(0.25, value)
}

/// The group with what couples it.
pub fn with_coupling((group, coupled): (api::TaskGroup, api::TaskGroup)) -> api::TaskGroup {
    let api::TaskGroup { spreads, apart_from, group_latencies, zone_traffic, together, .. } = coupled;
    api::TaskGroup { spreads, apart_from, group_latencies, zone_traffic, together, ..group }
}

/// A job of up to `groups` groups of up to `tasks` tasks each.
pub fn job(id: usize, groups: usize, tasks: u32) -> impl Strategy<Value = border::PendingJob> {
    let group = move |g, n| (group(g, tasks), coupled(g, n)).prop_map(with_coupling);
    let groups = (1..=groups).prop_flat_map(move |n| (0..n).map(|g| group(g, n)).collect::<Vec<_>>());
    let limits = (
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        select(vec![0_u32, 0, 0, 1200]),
        select(vec![0_u64, 0, 0, 0, 1200, 6000]),
    );
    let deferral = prop::option::weighted(0.3, (0_u64..400, 1_u64..150)).prop_map(|minutes| {
        minutes.map(|(finish, run)| api::Deferral { finish_within_s: finish * 60, run_time_s: run * 60 })
    });
    let job = (groups, any::<bool>(), 0_u32..3, limits, deferral);
    job.prop_map(move |(task_groups, gang, priority, (here, op1, pue, rent), deferral)| {
        let kind = if gang { api::JobKind::Gang } else { api::JobKind::Batch };
        let spec = api::JobSpec {
            kind: kind.into(),
            priority,
            task_groups,
            jurisdictions: if here { vec!["CN-GD".into()] } else { vec![] },
            operators_denied: if op1 { vec!["op1".into()] } else { vec![] },
            pue_max_permille: pue,
            rent_max_microcny_per_hour: rent,
            deferral,
            ..Default::default()
        };
        border::PendingJob {
            job_id: format!("j{id}"),
            spec: Some(spec),
            pending: vec![],
            explain: true,
            ..Default::default()
        }
    })
}

/// A request of up to `jobs` jobs under any objective.
pub fn request(jobs: usize, groups: usize, tasks: u32) -> impl Strategy<Value = border::PlaceRequest> {
    let jobs = (1..=jobs).prop_flat_map(move |n| (0..n).map(|j| job(j, groups, tasks)).collect::<Vec<_>>());
    let stranded = select(vec![0_u64, 0, 20_000]);
    (jobs, select(&OBJECTIVES[..]), any::<bool>(), stranded).prop_map(|(jobs, objective, timed, stranded)| {
        border::PlaceRequest {
            evaluation_id: "e".into(),
            jobs,
            policy: Some(border::Policy {
                carbon_kg_microcny: 90_000,
                objective: objective.into(),
                fragmentation_microcny_per_device_hour: stranded,
                ..Default::default()
            }),
            now_unix_s: if timed { NOW } else { 0 },
        }
    })
}

/// Four nodes or fewer on two or three sites, and a job of coupled groups that asks for about
/// as much as they have, with a task of it that runs already.
pub fn coupled_job() -> impl Strategy<Value = (border::Delta, border::PendingJob)> {
    let node = (1_u64..4, select(vec!["x86_64", "arm64"]), select(vec![2000_u64, 5000]), select(&SWITCHES[..]));
    let site = (select(vec![0_u64, 0, 12]), prop::collection::vec(node, 1..3));
    let links = prop::collection::vec((0_usize..3).prop_flat_map(link), 4..10);
    let group = |g: usize, n: usize| ((1_u32..3, 0_u64..3, coupled(g, n)), Just(g));
    let groups = (1_usize..4).prop_flat_map(move |n| (0..n).map(|g| group(g, n)).collect::<Vec<_>>());
    let running = prop::option::of((0_usize..4, 0_usize..3));
    let shape = (prop::collection::vec(site, 2..4), links, groups, running, any::<bool>());
    shape.prop_map(|(sites, links, groups, running, gang)| {
        let mut fleet = border::Delta { reset: true, ..Default::default() };
        for (s, (cap_w, nodes)) in sites.into_iter().enumerate() {
            for (n, (cores, arch, core_active_power_mw, switch)) in nodes.into_iter().enumerate() {
                let (id, site_id) = (format!("s{s}/n{n}"), format!("s{s}"));
                let (cpu_milli, arch) = (cores * 1000, arch.into());
                let node = api::Node {
                    id,
                    site_id,
                    arch,
                    health: READY,
                    cpu_milli,
                    core_active_power_mw,
                    switch_id: switch.into(),
                    rack_id: switch.into(),
                    ..Default::default()
                };
                fleet.nodes.push(node);
            }
            let (id, operator_id, power_cap_mw) = (format!("s{s}"), format!("op{}", s % 2), cap_w * 1000);
            fleet.sites.push(api::Site { id, operator_id, health: READY, power_cap_mw, ..Default::default() });
        }
        fleet.nodes.truncate(4);
        fleet.links = links.into_iter().filter(|l| fleet.sites.iter().any(|s| s.id == l.to_site_id)).collect();
        let task_groups: Vec<_> = groups
            .into_iter()
            .map(|((count, cores, coupled), g)| {
                let resources = Some(api::Resources { cpu_milli: cores * 1000, ..Default::default() });
                let compute_time = api::ComputeTime {
                    default_us: 1000,
                    by_arch_us: [("arm64".into(), 3000)].into(),
                    ..Default::default()
                };
                let compute_time = Some(compute_time);
                let name = format!("g{g}");
                with_coupling((api::TaskGroup { name, count, resources, compute_time, ..Default::default() }, coupled))
            })
            .collect();
        if let Some((node, group)) = running {
            let group = &task_groups[group % task_groups.len()];
            fleet.allocations.push(border::UsedResources {
                allocation_id: "running".into(),
                node_id: fleet.nodes[node % fleet.nodes.len()].id.clone(),
                job_id: "j".into(),
                task_group: group.name.clone(),
                task_index: group.count,
                zone_traffic: group.zone_traffic.clone(),
                ..Default::default()
            });
        }
        let kind = if gang { api::JobKind::Gang } else { api::JobKind::Service };
        let spec = api::JobSpec { kind: kind.into(), task_groups, ..Default::default() };
        (fleet, border::PendingJob { job_id: "j".into(), spec: Some(spec), ..Default::default() })
    })
}

/// Two or three full-up nodes of one site, and a gang that asks for about as much as they have:
/// whether it fits is a matter of packing alone.
pub fn tight_gang() -> impl Strategy<Value = (border::Delta, border::PendingJob)> {
    let node = (1_u64..5, prop::collection::vec(select(&MODELS[..]), 0..3));
    let group = (1_u64..4, select(vec![0_u64, 300, 500, 700, 1000]), select(vec![None, Some("H100")]), 1_u32..3);
    (prop::collection::vec(node, 2..4), prop::collection::vec(group, 2..4)).prop_map(|(nodes, groups)| {
        let site = api::Site { id: "s0".into(), health: READY, ..Default::default() };
        let node = |(id, (cpu, models)): (usize, (u64, Vec<&str>))| api::Node {
            id: format!("s0/n{id}"),
            site_id: "s0".into(),
            health: READY,
            cpu_milli: cpu * 1000,
            accelerators: models
                .into_iter()
                .map(|model| api::Accelerator { model: model.into(), count: 1, ..Default::default() })
                .collect(),
            ..Default::default()
        };
        let group = |(id, (cpu, milli, model, count)): (usize, (u64, u64, Option<&str>, u32))| {
            let models = model.into_iter().map(String::from).collect();
            let accelerators = (milli > 0).then_some(api::AcceleratorRequest { milli, models });
            let resources = Some(api::Resources { cpu_milli: cpu * 1000, memory_mib: 0, accelerators });
            api::TaskGroup { name: format!("g{id}"), count, resources, ..Default::default() }
        };
        let nodes = nodes.into_iter().enumerate().map(node).collect();
        let task_groups = groups.into_iter().enumerate().map(group).collect();
        let spec = api::JobSpec { kind: api::JobKind::Gang.into(), task_groups, ..Default::default() };
        let fleet = border::Delta { reset: true, sites: vec![site], nodes, ..Default::default() };
        let job = border::PendingJob {
            job_id: "j".into(),
            spec: Some(spec),
            pending: vec![],
            explain: true,
            ..Default::default()
        };
        (fleet, job)
    })
}
