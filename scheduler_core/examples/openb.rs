//! Replays Alibaba's openb trace (hkust-adsl/kubernetes-scheduler-simulator, data/csv) against
//! the core on one core: `cargo run --release --example openb -- FOLDER`. Prints placements per
//! second, in one request and one request per task, and the accelerators allocated by each
//! objective in percent, by the trace's published method: tasks drawn with replacement until
//! their demand is 130 % of the cluster, none leaves, none is moved.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use scheduler_core::place;
use scheduler_core::state::State;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

const SITE: &str = "openb";
const READY: i32 = api::Health::Ready as i32;
const DRAWS: u64 = 3;

fn main() {
    let folder = std::env::args().nth(1).expect("give the folder of the trace's CSV files");
    let rows = |name: &str| rows(&Path::new(&folder).join(name));
    let nodes = rows("openb_node_list_all_node.csv");
    let tasks: Vec<api::Resources> = rows("openb_pod_list_default.csv").iter().map(resources).collect();
    println!("{} nodes, {} tasks", nodes.len(), tasks.len());

    for objective in [border::Objective::Cost, border::Objective::Pack] {
        let state = state(&nodes);
        for round in ["cold", "warm"] {
            let request = request(&tasks, objective, &tasks);
            let start = Instant::now();
            let plan = place::place(&state.snapshot(), &request).expect("the trace is in range");
            report(&format!("{objective:?} in one request, {round} index"), plan.placements.len(), start);
        }
        let start = Instant::now();
        let mut live = Live { state, next: 0, allocated_milli: 0, policy: policy(objective, &tasks) };
        tasks.iter().for_each(|task| live.place(task));
        report(&format!("{objective:?} one request per task, with its delta"), live.next as usize, start);
    }

    let capacity_milli: u64 = nodes.iter().map(|n| number(n, "gpu") * 1000).sum();
    for objective in [border::Objective::Cost, border::Objective::Pack, border::Objective::Random] {
        for draw in 0..DRAWS {
            let mut seed = draw;
            let mut live =
                Live { state: state(&nodes), next: 0, allocated_milli: 0, policy: policy(objective, &tasks) };
            let mut arrived_milli = 0;
            while arrived_milli < capacity_milli * 13 / 10 {
                let task = &tasks[(splitmix(&mut seed) % tasks.len() as u64) as usize];
                arrived_milli += milli(task);
                live.place(task);
            }
            let percent = live.allocated_milli as f64 * 100.0 / capacity_milli as f64;
            println!("{objective:?} allocated at 130 %, draw {draw}: {percent:.2} %");
        }
    }
}

/// The coordinator in small: places a task, then commits it.
struct Live {
    state: State,
    next: u64,
    allocated_milli: u64,
    policy: border::Policy,
}

impl Live {
    fn place(&mut self, task: &api::Resources) {
        let jobs = vec![job(self.next, task)];
        let request = border::PlaceRequest {
            evaluation_id: "e".into(),
            jobs,
            policy: Some(self.policy.clone()),
            ..Default::default()
        };
        let snapshot = self.state.snapshot();
        let plan = place::place(&snapshot, &request).expect("the trace is in range");
        let base_generation = snapshot.generation;
        drop(snapshot); // or else the delta would copy the site
        let allocations = plan.placements.into_iter().map(|p| border::UsedResources {
            allocation_id: p.job_id,
            node_id: p.node_id,
            resources: Some(task.clone()),
            devices: p.devices,
            ..Default::default()
        });
        let allocations: Vec<_> = allocations.collect();
        self.allocated_milli += allocations.len() as u64 * milli(task);
        let delta = border::Delta { base_generation, allocations, ..Default::default() };
        self.state.apply(delta).expect("the plan is of this generation");
        self.next += 1;
    }
}

fn report(what: &str, placed: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{what}: {placed} in {:.1} ms, {:.0} placements/s", seconds * 1e3, placed as f64 / seconds);
}

fn policy(objective: border::Objective, tasks: &[api::Resources]) -> border::Policy {
    if objective != border::Objective::Pack {
        return border::Policy { objective: objective.into(), ..Default::default() };
    }
    let mut weights: Vec<(&api::Resources, u32)> = Vec::new();
    let mut known = HashMap::new();
    for task in tasks {
        let position = *known.entry(task).or_insert_with(|| {
            weights.push((task, 0));
            weights.len() - 1
        });
        weights[position].1 += 1;
    }
    let typical = weights.into_iter().map(|(r, weight)| border::TypicalTask { resources: Some(r.clone()), weight });
    border::Policy { objective: objective.into(), typical_tasks: typical.collect(), ..Default::default() }
}

fn request(tasks: &[api::Resources], objective: border::Objective, mix: &[api::Resources]) -> border::PlaceRequest {
    let jobs = tasks.iter().enumerate().map(|(i, task)| job(i as u64, task)).collect();
    border::PlaceRequest { evaluation_id: "e".into(), jobs, policy: Some(policy(objective, mix)), ..Default::default() }
}

fn job(number: u64, task: &api::Resources) -> border::PendingJob {
    let group = api::TaskGroup { name: "main".into(), count: 1, resources: Some(task.clone()), ..Default::default() };
    let spec = api::JobSpec { task_groups: vec![group], ..Default::default() };
    border::PendingJob {
        job_id: format!("job-{number:06}"),
        spec: Some(spec),
        pending: vec![],
        explain: false,
        ..Default::default()
    }
}

fn state(nodes: &[Row]) -> State {
    let site = api::Site { id: SITE.into(), health: READY, ..Default::default() };
    let nodes = nodes.iter().map(|row| api::Node {
        id: format!("{SITE}/{}", row["sn"]),
        site_id: SITE.into(),
        health: READY,
        cpu_milli: number(row, "cpu_milli"),
        memory_mib: number(row, "memory_mib"),
        accelerators: vec![api::Accelerator {
            kind: "gpu".into(),
            model: row["model"].clone(),
            count: number(row, "gpu") as u32,
            active_power_mw: 0,
        }],
        ..Default::default()
    });
    let mut state = State::default();
    let delta = border::Delta { reset: true, sites: vec![site], nodes: nodes.collect(), ..Default::default() };
    state.apply(delta).expect("the nodes are of this site");
    state
}

fn resources(row: &Row) -> api::Resources {
    let milli = match number(row, "num_gpu") {
        1 => number(row, "gpu_milli"),
        count => count * 1000,
    };
    let models = row["gpu_spec"].split('|').filter(|m| !m.is_empty()).map(String::from).collect();
    let accelerators = (milli > 0).then_some(api::AcceleratorRequest { milli, models });
    api::Resources { cpu_milli: number(row, "cpu_milli"), memory_mib: number(row, "memory_mib"), accelerators }
}

fn milli(task: &api::Resources) -> u64 {
    task.accelerators.as_ref().map_or(0, |a| a.milli)
}

type Row = HashMap<String, String>;

fn rows(path: &Path) -> Vec<Row> {
    let text = std::fs::read_to_string(path).expect("the trace's file is there");
    let mut lines = text.lines().map(|line| line.split(',').map(String::from));
    let head: Vec<String> = lines.next().expect("a head line").collect();
    lines.map(|line| head.iter().cloned().zip(line).collect()).collect()
}

fn number(row: &Row, column: &str) -> u64 {
    row[column].parse().expect("a whole number")
}

/// SplitMix64 (Steele, Lea, Flood 2014).
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
