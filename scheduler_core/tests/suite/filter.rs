//! Each hard constraint that asks about one site and node, alone: a node that meets it exactly is taken, one that
//! just does not is refused, by that constraint and no other. Those that couple tasks: see `verifier`.

use crate::common::READY;
use scheduler_core::state::State;
use scheduler_core::verify::verify;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;

/// A site with a node, what runs there and one task for it; all of it fits.
struct Case {
    site: api::Site,
    node: api::Node,
    link: api::Link,
    used: border::UsedResources,
    spec: api::JobSpec,
    devices: Vec<api::DeviceShare>,
}

impl Case {
    fn new() -> Self {
        let pue = Some(api::Pue { average_permille: 1300, marginal_permille: 1300, ..Default::default() });
        let (site_id, node_id): (String, String) = ("s".into(), "s/n".into());
        let group = api::TaskGroup { name: "g".into(), count: 1, ..Default::default() };
        Self {
            site: api::Site {
                id: site_id.clone(),
                operator_id: "op1".into(),
                jurisdiction: "CN-GD-GZ".into(),
                health: READY,
                pue,
                ..Default::default()
            },
            node: api::Node {
                id: node_id.clone(),
                site_id: site_id.clone(),
                health: READY,
                arch: "arm64".into(),
                cpu_milli: 4000,
                memory_mib: 4096,
                labels: [("disk".to_string(), "ssd".to_string())].into(),
                accelerators: vec![api::Accelerator { model: "910B".into(), count: 2, ..Default::default() }],
                ..Default::default()
            },
            link: api::Link { from_id: "z".into(), to_site_id: site_id, rtt_p99_us: 6000, ..Default::default() },
            used: border::UsedResources { allocation_id: "a".into(), node_id, ..Default::default() },
            spec: api::JobSpec { task_groups: vec![group], ..Default::default() },
            devices: vec![],
        }
    }

    fn group(&mut self) -> &mut api::TaskGroup {
        &mut self.spec.task_groups[0]
    }

    fn resources(&mut self) -> &mut api::Resources {
        self.group().resources.get_or_insert_default()
    }

    fn asks_for_devices(&mut self, milli: u64, models: &[&str]) {
        let models = models.iter().map(|model| (*model).into()).collect();
        self.resources().accelerators = Some(api::AcceleratorRequest { milli, models });
        let each = milli.min(1000) as u32;
        let share = |device_index| api::DeviceShare { device_index, milli: each };
        self.devices = (0..milli.div_ceil(1000) as u32).map(share).collect();
    }

    /// Who refuses the task; none when it is taken.
    fn refused_by(self) -> Option<api::Filter> {
        let (sites, nodes, links) = (vec![self.site], vec![self.node], vec![self.link]);
        let mut state = State::default();
        let fleet = border::Delta { sites, nodes, links, allocations: vec![self.used], ..Default::default() };
        state.apply(fleet).expect("a fleet that is complete");
        let placement = border::Placement {
            job_id: "j".into(),
            task_group: "g".into(),
            site_id: "s".into(),
            node_id: "s/n".into(),
            devices: self.devices,
            ..Default::default()
        };
        let job = border::PendingJob { job_id: "j".into(), spec: Some(self.spec), ..Default::default() };
        let plan = Some(border::Plan { placements: vec![placement], ..Default::default() });
        let verdicts = verify(&state.snapshot(), &border::VerifyRequest { plan, jobs: vec![job] }).verdicts;
        verdicts[0].rejection.as_ref().map(api::Rejection::filter)
    }
}

fn assert_asks(filter: api::Filter, fits: impl FnOnce(&mut Case), does_not: impl FnOnce(&mut Case)) {
    let (mut good, mut bad) = (Case::new(), Case::new());
    fits(&mut good);
    does_not(&mut bad);
    assert_eq!((good.refused_by(), bad.refused_by()), (None, Some(filter)));
}

#[test]
fn site_and_node_must_be_ready() {
    let draining = api::Health::Draining as i32;
    assert_asks(api::Filter::Health, |_| {}, |c| c.node.health = draining);
    assert_asks(api::Filter::Health, |_| {}, |c| c.site.health = draining);
    assert_asks(api::Filter::Health, |_| {}, |c| c.site.health = 0);
}

#[test]
fn the_operator_must_be_allowed_and_not_denied() {
    let allowed = |operator: &str| vec![operator.to_string()];
    assert_asks(
        api::Filter::Operator,
        |c| c.spec.operators_allowed = allowed("op1"),
        |c| c.spec.operators_allowed = allowed("op"),
    );
    assert_asks(
        api::Filter::Operator,
        |c| c.spec.operators_denied = allowed("op"),
        |c| (c.spec.operators_allowed, c.spec.operators_denied) = (allowed("op1"), allowed("op1")),
    );
}

#[test]
fn a_jurisdiction_covers_those_inside_it_only() {
    let within = |c: &mut Case, jurisdiction: &str| c.spec.jurisdictions = vec![jurisdiction.into()];
    assert_asks(api::Filter::Jurisdiction, |c| within(c, "CN-GD"), |c| within(c, "CN-GD-GZ-1"));
    assert_asks(api::Filter::Jurisdiction, |c| within(c, "CN-GD-GZ"), |c| within(c, "CN-GD-G"));
}

#[test]
fn the_average_pue_is_known_and_at_most_the_ceiling() {
    let ceiling = |c: &mut Case, permille| c.spec.pue_max_permille = permille;
    assert_asks(api::Filter::PueCeiling, |c| ceiling(c, 1300), |c| ceiling(c, 1299));
    assert_asks(
        api::Filter::PueCeiling,
        |c| c.site.pue = None,
        |c| (c.site.pue, c.spec.pue_max_permille) = (None, 9999),
    );
}

#[test]
fn the_rent_of_cores_memory_and_devices_is_at_most_the_ceiling() {
    let ceiling = |c: &mut Case, microcny| {
        c.site.prices = Some(api::Prices {
            cpu_core_hour_microcny: 1000,
            memory_gib_hour_microcny: 100,
            accelerator_hour_microcny: [("910B".to_string(), 5000), ("H100".to_string(), 1)].into(),
            energy_kwh_microcny: 1 << 30,
            ..Default::default()
        });
        c.node.core_active_power_mw = 1 << 20;
        c.spec.rent_max_microcny_per_hour = microcny;
        c.asks_for_devices(2000, &[]);
        (c.resources().cpu_milli, c.resources().memory_mib) = (1500, 2048);
    };
    assert_asks(api::Filter::RentCeiling, |c| ceiling(c, 11_700), |c| ceiling(c, 11_699));
    let without_prices = |c: &mut Case| {
        ceiling(c, 1);
        c.site.prices = None;
    };
    assert_asks(api::Filter::RentCeiling, without_prices, |c| ceiling(c, 1));
}

#[test]
fn the_architecture_is_one_of_those_named() {
    let archs = |c: &mut Case, archs: &[&str]| c.group().archs = archs.iter().map(|arch| (*arch).into()).collect();
    assert_asks(api::Filter::Arch, |c| archs(c, &["x86_64", "arm64"]), |c| archs(c, &["x86_64"]));
}

#[test]
fn an_image_needs_a_container_engine() {
    let image = |c: &mut Case| c.group().command = Some(api::Command { image: "i".into(), ..Default::default() });
    let with_engine = |c: &mut Case| {
        image(c);
        c.node.container_engine = "podman".into();
    };
    assert_asks(api::Filter::ContainerEngine, with_engine, image);
}

#[test]
fn every_label_has_exactly_its_value() {
    let label = |c: &mut Case, key: &str, value: &str| {
        c.group().labels.insert(key.into(), value.into());
    };
    assert_asks(api::Filter::Labels, |c| label(c, "disk", "ssd"), |c| label(c, "disk", "ss"));
    assert_asks(api::Filter::Labels, |_| {}, |c| label(c, "rack", ""));
}

#[test]
fn devices_are_of_a_model_that_the_task_takes() {
    let asks = |c: &mut Case, models: &[&str]| c.asks_for_devices(1000, models);
    assert_asks(api::Filter::AcceleratorModel, |c| asks(c, &["H100", "910B"]), |c| asks(c, &["H100"]));
}

#[test]
fn network_compute_and_client_time_are_within_the_budget() {
    let budget = |c: &mut Case, budget_us| {
        let slo = api::LatencySlo { zone_ids: vec!["z".into()], budget_us, client_us: 1000, ..Default::default() };
        c.group().latency_slo = Some(slo);
        c.group().compute_time = Some(api::ComputeTime { default_us: 3000, ..Default::default() });
    };
    assert_asks(api::Filter::LatencySlo, |c| budget(c, 10_000), |c| budget(c, 9999));
    let elsewhere = |c: &mut Case| {
        budget(c, 1 << 40);
        c.link.from_id = "y".into();
    };
    assert_asks(api::Filter::LatencySlo, |_| {}, elsewhere);
}

#[test]
fn what_is_free_of_cores_and_memory_covers_the_task() {
    let beside = |c: &mut Case, cpu_milli, memory_mib| {
        c.used.resources = Some(api::Resources { cpu_milli: 1000, memory_mib: 1024, accelerators: None });
        *c.resources() = api::Resources { cpu_milli, memory_mib, accelerators: None };
    };
    assert_asks(api::Filter::Cpu, |c| beside(c, 3000, 3072), |c| beside(c, 3001, 3072));
    assert_asks(api::Filter::Memory, |c| beside(c, 3000, 3072), |c| beside(c, 3000, 3073));
}

#[test]
fn whole_devices_are_wholly_free_and_a_share_fits_on_one() {
    let beside = |c: &mut Case, used_milli, milli| {
        c.used.devices = vec![api::DeviceShare { device_index: 0, milli: used_milli }];
        c.asks_for_devices(milli, &[]);
    };
    assert_asks(api::Filter::Accelerators, |c| beside(c, 0, 2000), |c| beside(c, 1, 2000));
    // The other device is not offered.
    let alone = |c: &mut Case, used_milli| {
        c.node.devices_withheld = vec![api::DeviceShare { device_index: 1, milli: 1000 }];
        beside(c, used_milli, 400);
    };
    assert_asks(api::Filter::Accelerators, |c| alone(c, 600), |c| alone(c, 601));
}
