//! Each term of the cost against the same figure worked out another way.

use crate::common;
use proptest::prelude::*;
use scheduler_core::cost;
use scheduler_core::model::Demand;
use scheduler_core::place::place;
use scheduler_core::state::State;
use scheduler_core::trial::Trial;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

/// One site with one node, and links from z0 and z1 where they are measured.
fn fleet(rtt_ms: [Option<u64>; 2]) -> border::Delta {
    let site = api::Site { id: "s".into(), health: common::READY, ..Default::default() };
    let node = api::Node {
        id: "s/n".into(),
        site_id: "s".into(),
        health: common::READY,
        cpu_milli: 4000,
        ..Default::default()
    };
    let link = |(zone, ms): (usize, Option<u64>)| {
        ms.map(|ms| api::Link {
            from_id: format!("z{zone}"),
            to_site_id: "s".into(),
            rtt_p99_us: ms * 1000,
            ..Default::default()
        })
    };
    let links = rtt_ms.into_iter().enumerate().filter_map(link).collect();
    border::Delta { reset: true, sites: vec![site], nodes: vec![node], links, ..Default::default() }
}

/// One task of this group, placed on that fleet.
fn placed(fleet: border::Delta, group: api::TaskGroup) -> border::Plan {
    let mut state = State::default();
    state.apply(fleet).expect("the fleet speaks of its own site only");
    let group = api::TaskGroup { name: "main".into(), count: 1, ..group };
    let spec = api::JobSpec { task_groups: vec![group], ..Default::default() };
    let jobs = vec![border::PendingJob { job_id: "job".into(), spec: Some(spec), ..Default::default() }];
    let request = border::PlaceRequest { evaluation_id: "e".into(), jobs, ..Default::default() };
    place(&state.snapshot(), &request).expect("the request is in range")
}

/// The times over the budget, in us, of the users that the SLO is about, one by one: each user of
/// a zone is a thousand, so that any share is a whole number of them.
fn over_us(slo: &api::LatencySlo, rtt_ms: [Option<u64>; 2]) -> (Vec<u64>, usize) {
    let mut all = Vec::new();
    for zone in &slo.zone_ids {
        let rtt_ms = rtt_ms[usize::from(zone == "z1")];
        let users = slo.users.get(zone).copied().unwrap_or(1);
        let over = rtt_ms.map_or(u64::MAX, |ms| (ms * 1000 + slo.client_us).saturating_sub(slo.budget_us));
        all.extend(std::iter::repeat_n(over, users as usize * 1000));
    }
    let count = all.len();
    all.sort_unstable();
    let share = if slo.users_permille == 0 { 1000 } else { slo.users_permille as usize };
    all.truncate(count * share / 1000);
    (all, count)
}

proptest! {
    #[test]
    fn a_soft_promise_costs_the_mean_excess_and_a_hard_one_holds_for_its_share(
        slo in common::latency_slo(),
        rtt_ms in [prop::option::weighted(0.9, 1_u64..20), prop::option::weighted(0.9, 1_u64..20)],
    ) {
        let plan = placed(fleet(rtt_ms), api::TaskGroup { latency_slo: Some(slo.clone()), ..Default::default() });
        let (over, users) = over_us(&slo, rtt_ms);
        if slo.soft_microcny_per_ms_hour == 0 {
            prop_assert_eq!(plan.placements.len() == 1, over.iter().all(|over| *over == 0));
            return Ok(());
        }
        let sum: u64 = over.iter().map(|over| if *over == u64::MAX { 1_000_000 } else { *over }).sum();
        let cost = plan.placements[0].cost.expect("always told");
        let expected = slo.soft_microcny_per_ms_hour * sum / (users as u64 * 1000);
        prop_assert_eq!(cost.latency_microcny_per_hour, expected);
        prop_assert_eq!(cost.total_microcny_per_hour, expected);
    }
}

#[test]
fn a_soft_price_without_bounds_saturates() {
    let slo = api::LatencySlo {
        zone_ids: vec!["z0".into()],
        budget_us: 1,
        soft_microcny_per_ms_hour: 1 << 40,
        ..Default::default()
    };
    let plan =
        placed(fleet([Some(u64::MAX / 1000), None]), api::TaskGroup { latency_slo: Some(slo), ..Default::default() });
    assert_eq!(plan.placements[0].cost.expect("always told").latency_microcny_per_hour, u64::MAX);
}

#[test]
fn a_move_costs_its_price_over_the_horizon_on_top() {
    let mut state = State::default();
    state.apply(fleet([None, None])).expect("the fleet speaks of its own site only");
    let cluster = state.snapshot();
    let trial = Trial::new(&cluster);
    let at = cluster.at("s", "s/n").expect("it is there");
    let demand = Demand::of(&api::JobSpec::default(), &api::TaskGroup::default());
    let candidate = trial.candidate(at, &demand, None);
    for (horizon_h, expected) in [(0, 1_000_000), (1, 1_000_000), (24, 41_666)] {
        let policy =
            border::Policy { migration_microcny: 1_000_000, migration_horizon_h: horizon_h, ..Default::default() };
        let (stays, moves) = (cost::of(&candidate, &policy), cost::of_move(&candidate, &policy));
        assert_eq!(moves.migration_microcny_per_hour, expected);
        assert_eq!(moves.total_microcny_per_hour, stays.total_microcny_per_hour + expected);
    }
}

#[test]
fn egress_costs_what_leaves_the_site_in_an_hour() {
    let mut fleet = fleet([None, None]);
    fleet.sites[0].prices = Some(api::Prices { egress_gib_microcny: 800_000, ..Default::default() });
    let traffic = |zone_id: &str, bandwidth_kbps| api::ZoneTraffic { zone_id: zone_id.into(), bandwidth_kbps };
    // 10 Mbit/s for an hour are 4.5e9 bytes, 4.19 GiB.
    let group = api::TaskGroup { zone_traffic: vec![traffic("z0", 4000), traffic("z1", 6000)], ..Default::default() };
    let cost = placed(fleet, group).placements[0].cost.expect("always told");
    assert_eq!(cost.egress_microcny_per_hour, 3_352_761);
    assert_eq!(cost.total_microcny_per_hour, 3_352_761);
}
