//! The hot paths, each prepared and ready to be run: for instruction counts and micro-benchmarks.

use std::fmt;

use scheduler_core::place::place;
use scheduler_core::state::State;
use scheduler_core::verify::verify;
use scheduler_core::wire::mumian_core::v1 as border;

use crate::{fleet, jobs, live};

const NODES: usize = 1000;
const TASKS: u32 = 10_000;
const SEED: u64 = 7;

/// A hot path with its name.
#[derive(Clone, Copy)]
pub struct Path {
    pub name: &'static str,
    /// Prepares it; what is returned is to be run once, and frees nothing until it is dropped.
    pub prepare: fn() -> Box<dyn FnMut()>,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

pub const PATHS: [Path; 6] = [
    Path { name: "bulk", prepare: bulk },
    Path { name: "bulk_again", prepare: bulk_again },
    Path { name: "decision", prepare: decision },
    Path { name: "delta", prepare: delta },
    Path { name: "verify", prepare: verification },
    Path { name: "snapshot", prepare: snapshot },
];

/// A fleet, and jobs of TASKS tasks together.
fn instance() -> (State, border::PlaceRequest) {
    let fleet = fleet::fleet(NODES, SEED);
    let mut request = jobs::pending(&fleet, &jobs::catalogue(SEED), SEED);
    let mut left = TASKS;
    for job in &mut request.jobs {
        let group = &mut job.spec.as_mut().expect("generated").task_groups[0];
        group.count = group.count.min(left);
        left -= group.count;
    }
    request.jobs.retain(|job| job.spec.as_ref().expect("generated").task_groups[0].count > 0);
    (live::state(&fleet), request)
}

/// The same with those jobs running, and a request of one task more that was asked before.
fn running() -> (State, border::PlaceRequest) {
    let (mut state, mut request) = instance();
    let plan = planned(&state, &request);
    state.apply(live::commit(&request, &plan)).expect("the plan is of this generation");
    request.jobs.truncate(1);
    request.jobs[0].job_id = "one".into();
    request.jobs[0].spec.as_mut().expect("generated").task_groups[0].count = 1;
    planned(&state, &request);
    (state, request)
}

fn planned(state: &State, request: &border::PlaceRequest) -> border::Plan {
    place(&state.snapshot(), request).expect("the request is in range")
}

/// All tasks in one request, on a state that was never asked.
fn bulk() -> Box<dyn FnMut()> {
    let (state, request) = instance();
    keeping(move || planned(&state, &request))
}

/// The same on a state that has just been asked for it.
fn bulk_again() -> Box<dyn FnMut()> {
    let (state, request) = instance();
    planned(&state, &request);
    keeping(move || planned(&state, &request))
}

/// One task on a full fleet.
fn decision() -> Box<dyn FnMut()> {
    let (state, request) = running();
    keeping(move || planned(&state, &request))
}

/// The delta that commits one task, after enough others that what the index remembers has caught up with the jobs
/// that run: each lets one demand catch up.
fn delta() -> Box<dyn FnMut()> {
    let (mut state, request) = running();
    let mut commit = live::commit(&request, &planned(&state, &request));
    let removed_allocation_ids: Vec<String> = commit.allocations.iter().map(|a| a.allocation_id.clone()).collect();
    for _ in 0..jobs::TEMPLATES {
        let base_generation = state.apply(commit.clone()).expect("the plan is of this generation");
        let removed_allocation_ids = removed_allocation_ids.clone();
        let end = border::Delta { base_generation, removed_allocation_ids, ..Default::default() };
        commit.base_generation = state.apply(end).expect("they run");
    }
    let mut commit = Some(commit);
    keeping(move || commit.take().map(|commit| state.apply(commit)))
}

/// The plan of all tasks, checked.
fn verification() -> Box<dyn FnMut()> {
    let (state, request) = instance();
    let plan = planned(&state, &request);
    let cluster = state.snapshot();
    let request = border::VerifyRequest { plan: Some(plan), jobs: request.jobs };
    keeping(move || verify(&cluster, &request))
}

/// A frozen view.
fn snapshot() -> Box<dyn FnMut()> {
    let (state, _) = running();
    keeping(move || state.snapshot())
}

/// Keeps the answer, so that dropping it is no part of the path.
fn keeping<T: 'static>(mut run: impl FnMut() -> T + 'static) -> Box<dyn FnMut()> {
    let mut answers = Vec::with_capacity(1);
    Box::new(move || answers.push(run()))
}
