//! `bench_online measure NODES SEED` measures the online placer on one generated instance and
//! prints one JSON object. `bench_online instance NODES SEED FOLDER` writes the instance, as the
//! bytes that cross the border, for a placer in another language.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bench_online::{baselines, fleet, jobs, live};
use fastrand::Rng;
use prost::Message;
use scheduler_core::place::place;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;
use serde::Serialize;

const DECISIONS: usize = 20_000;
const WARM_UP_DECISIONS: usize = 5_000;
/// Where links change, one does before so many decisions.
const DECISIONS_PER_LINK: usize = 20;
/// A scan that takes longer is judged by what it has placed until then, on the emptier fleet.
const SCAN_LIMIT: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Figures {
    nodes: usize,
    seed: u64,
    jobs: usize,
    tasks: u64,
    placed: usize,
    demands: usize,
    microcny_per_hour: u64,
    /// One call with all pending tasks, plan included: on a state that was never asked, and again.
    bulk_cold_seconds: f64,
    bulk_warm_seconds: f64,
    /// Of that, the time on a processor: on a busy machine the two differ.
    bulk_cold_cpu_seconds: f64,
    bulk_warm_cpu_seconds: f64,
    /// A request of one task, and the delta that commits it and ends another allocation.
    decision_ns: Percentiles,
    delta_ns: Percentiles,
    /// The same while round trips change.
    decision_beside_links_ns: Percentiles,
    delta_beside_links_ns: Percentiles,
    decisions: usize,
    decisions_placed: usize,
    scans: BTreeMap<&'static str, baselines::Outcome>,
}

#[derive(Serialize)]
struct Percentiles {
    p50: u64,
    p99: u64,
    max: u64,
}

impl Percentiles {
    fn of(mut samples: Vec<u64>) -> Self {
        samples.sort_unstable();
        let at = |permille: usize| samples[(samples.len() - 1) * permille / 1000];
        Self { p50: at(500), p99: at(990), max: at(1000) }
    }
}

const USAGE: &str = "usage: bench_online measure NODES SEED | bench_online instance NODES SEED FOLDER";

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |text: &str| text.parse().unwrap_or_else(|_| panic!("({text}) must be a whole number; {USAGE}"));
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["measure", nodes, seed] => {
            let (fleet, request) = instance(number(nodes), number(seed));
            let figures = measure(&fleet, &request, number(seed));
            println!("{}", serde_json::to_string(&figures).expect("plain numbers"));
        }
        ["instance", nodes, seed, folder] => {
            let (fleet, request) = instance(number(nodes), number(seed));
            write(Path::new(folder), &fleet, &request).unwrap_or_else(|e| panic!("cannot write to {folder}: {e}"));
        }
        _ => panic!("{USAGE}"),
    }
}

fn instance(nodes: u64, seed: u64) -> (border::Delta, border::PlaceRequest) {
    let fleet = fleet::fleet(nodes as usize, seed);
    let request = jobs::pending(&fleet, &jobs::catalogue(seed), seed);
    (fleet, request)
}

fn write(folder: &Path, fleet: &border::Delta, request: &border::PlaceRequest) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("fleet.pb"), fleet.encode_to_vec())?;
    std::fs::write(folder.join("request.pb"), request.encode_to_vec())
}

fn measure(fleet: &border::Delta, request: &border::PlaceRequest, seed: u64) -> Figures {
    let mut state = live::state(fleet);
    let timed = |state: &scheduler_core::state::State| {
        let (start, on_cpu) = (Instant::now(), cpu_seconds());
        let plan = place(&state.snapshot(), request).expect("the request is in range");
        (start.elapsed().as_secs_f64(), cpu_seconds() - on_cpu, plan)
    };
    let (bulk_cold_seconds, bulk_cold_cpu_seconds, plan) = timed(&state);
    let (bulk_warm_seconds, bulk_warm_cpu_seconds, again) = timed(&state);
    assert_eq!(plan, again, "a warm index answers as a cold one");
    live::assert_accepted(&state.snapshot(), request, &plan);
    let scans = [("first_fit", baselines::Rule::FirstFit), ("best_fit", baselines::Rule::BestFit)];
    let scans = scans.map(|(name, rule)| (name, baselines::run(&state.snapshot(), request, rule, SCAN_LIMIT)));

    let commit = live::commit(request, &plan);
    let mut running: Vec<String> = commit.allocations.iter().map(|a| a.allocation_id.clone()).collect();
    state.apply(commit).expect("the plan was made on this generation");
    let (decision_ns, delta_ns, decisions_placed) = decisions(&mut state, &mut running, seed, &[]);
    let (decision_beside_links_ns, delta_beside_links_ns, _) = decisions(&mut state, &mut running, seed, &fleet.links);

    let groups =
        || request.jobs.iter().flat_map(|j| j.spec.iter().flat_map(|s| s.task_groups.iter().map(move |g| (s, g))));
    let demands: std::collections::HashSet<_> =
        groups().map(|(spec, group)| scheduler_core::model::Demand::of(spec, group)).collect();
    Figures {
        nodes: fleet.nodes.len(),
        seed,
        jobs: request.jobs.len(),
        tasks: groups().map(|(_, g)| u64::from(g.count)).sum(),
        placed: plan.placements.len(),
        demands: demands.len(),
        microcny_per_hour: plan.placements.iter().flat_map(|p| &p.cost).map(|c| c.total_microcny_per_hour).sum(),
        bulk_cold_seconds,
        bulk_warm_seconds,
        bulk_cold_cpu_seconds,
        bulk_warm_cpu_seconds,
        decision_ns: Percentiles::of(decision_ns),
        delta_ns: Percentiles::of(delta_ns),
        decision_beside_links_ns: Percentiles::of(decision_beside_links_ns),
        delta_beside_links_ns: Percentiles::of(delta_beside_links_ns),
        decisions: DECISIONS,
        decisions_placed,
        scans: scans.into(),
    }
}

/// Time that this thread has been on a processor.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts it");
    let ns: u64 = stat.split(' ').next().and_then(|first| first.parse().ok()).expect("nanoseconds come first");
    ns as f64 / 1e9
}

/// One task comes and another ends, again and again, on the fleet as the bulk has filled it. Of these links one changes now
/// and then.
fn decisions(
    state: &mut scheduler_core::state::State,
    running: &mut Vec<String>,
    seed: u64,
    links: &[api::Link],
) -> (Vec<u64>, Vec<u64>, usize) {
    let mut rng = Rng::with_seed(seed ^ 0x006f_6e65 ^ links.len() as u64);
    let catalogue = jobs::catalogue(seed);
    let (mut decision_ns, mut delta_ns) = (Vec::with_capacity(DECISIONS), Vec::with_capacity(DECISIONS));
    let mut placed = 0;
    for number in 0..WARM_UP_DECISIONS + DECISIONS {
        if !links.is_empty() && number % DECISIONS_PER_LINK == 0 {
            state.apply(changed_link(state.generation(), links, &mut rng)).expect("the link is there");
        }
        let spec = jobs::draw(&catalogue, &mut rng).clone();
        let job = border::PendingJob {
            job_id: format!("one-{}-{number:06}", links.len()),
            spec: Some(spec),
            ..Default::default()
        };
        let request = border::PlaceRequest {
            evaluation_id: format!("one-{number}"),
            jobs: vec![job],
            policy: Some(jobs::policy()),
            ..Default::default()
        };
        let start = Instant::now();
        let plan = place(&state.snapshot(), &request).expect("the request is in range");
        let decided = start.elapsed();
        let mut delta = live::commit(&request, &plan);
        delta.removed_allocation_ids = vec![running.swap_remove(rng.usize(0..running.len()))];
        running.extend(delta.allocations.iter().map(|a| a.allocation_id.clone()));
        let start = Instant::now();
        state.apply(delta).expect("the plan was made on this generation");
        let applied = start.elapsed();
        if number >= WARM_UP_DECISIONS {
            placed += plan.placements.len();
            decision_ns.push(decided.as_nanos() as u64);
            delta_ns.push(applied.as_nanos() as u64);
        }
    }
    (decision_ns, delta_ns, placed)
}

/// One of the links, by up to a tenth slower.
fn changed_link(base_generation: u64, links: &[api::Link], rng: &mut Rng) -> border::Delta {
    let mut link = links[rng.usize(0..links.len())].clone();
    link.rtt_p99_us += rng.u64(0..=link.rtt_p99_us / 10);
    border::Delta { base_generation, links: vec![link], ..Default::default() }
}
