//! Scenarios as text, `tests/golden/*.txt`: a fleet, then questions with their answers. Each
//! block is lines of input, a line `----`, and the lines that come out. With UPDATE_GOLDEN=1 the
//! answers are written anew, to be read as a diff.
//!
//! Input, one thing a line, as `WORD [ID] key=value ...`; times in ms, the rest in the units of
//! the protos:
//!     site ID operator= jurisdiction= pue= core= memory= energy= carbon= price.MODEL= egress=
//!          health= power_cap= first_hour= hours=energy:carbon:rent,...
//!     node SITE/NAME arch= cpu= memory= power= engine= MODEL=count:power label.KEY= health= switch= rack=
//!     link ZONE|SITE SITE rtt= bandwidth=
//!     used ID NODE cpu= memory= device=index:milli job= group= index= traffic.ZONE= priority= gang=
//!     now UNIX_S
//!     optimize rounds= moves=        (the global optimiser; what is `used` for its jobs may move)
//!     policy objective= carbon= fragmentation= migration= horizon= preempt=
//!     typical weight= cpu= memory= accelerators= models=
//!     job ID kind= priority= jurisdictions= pue_max= rent_max= operators= not_operators= created=
//!           finish_within= run_time=
//!     group NAME count= cpu= memory= accelerators= models= archs= image= label.KEY= zones= budget=
//!           client= users.ZONE= share= soft= compute= compute.model.MODEL= compute.arch.ARCH= pending=
//!           spread.TOPOLOGY= apart.GROUP=topology near.GROUP= traffic.ZONE= together=topology

use std::fmt::Write;
use std::path::Path;

use scheduler_core::optimize::{optimize, stop::Rounds};
use scheduler_core::state::State;
use scheduler_core::wire::mumian::api::v1 as api;
use scheduler_core::wire::mumian_core::v1 as border;
use scheduler_core::{place, verify};

#[test]
fn every_scenario_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden");
    let entries = std::fs::read_dir(&folder).expect("tests/golden is there");
    let mut paths: Vec<_> = entries.map(|e| e.expect("readable").path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    assert!(!paths.is_empty(), "no scenario in {}", folder.display());
    let mut changed = Vec::new();
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a text file");
        let now = played(&text);
        if now != text {
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                std::fs::write(&path, &now).expect("writable");
            }
            changed.push(format!("{}:\n{now}", path.display()));
        }
    }
    let is_update = std::env::var_os("UPDATE_GOLDEN").is_some();
    assert!(is_update || changed.is_empty(), "run with UPDATE_GOLDEN=1 and read the diff:\n{}", changed.join("\n"));
}

/// The scenario with the answers as they are now.
fn played(text: &str) -> String {
    let mut state = State::default();
    let mut running: Vec<border::UsedResources> = Vec::new();
    let mut blocks = Vec::new();
    for block in text.trim_end().split("\n\n") {
        let input = block.split_once("\n----").map_or(block, |(input, _)| input);
        let lines: Vec<Line<'_>> = input.lines().filter(|l| !l.starts_with('#')).map(Line::of).collect();
        let is_fleet = lines.iter().any(|l| matches!(l.word, "site" | "node" | "link" | "used"));
        blocks.push(if lines.is_empty() {
            input.to_string()
        } else if is_fleet {
            let base_generation = state.snapshot().generation;
            let delta = delta(&lines);
            running.extend(delta.allocations.iter().cloned());
            let generation = state.apply(border::Delta { base_generation, ..delta });
            generation.expect("a fleet that is complete");
            input.to_string()
        } else if let Some(line) = lines.iter().find(|l| l.word == "optimize") {
            format!("{input}\n----\n{}", optimized(&state, &request(&lines), &running, line))
        } else {
            format!("{input}\n----\n{}", answer(&state, &request(&lines)))
        });
    }
    blocks.join("\n\n") + "\n"
}

/// The plan and its reasons; the plain scan and the verifier must agree to it.
fn answer(state: &State, request: &border::PlaceRequest) -> String {
    let cluster = state.snapshot();
    let plan = match place::place(&cluster, request) {
        Ok(plan) => plan,
        Err(error) => return error.to_string(),
    };
    assert_eq!(plan, place::place_by_scan(&cluster, request).expect("it was placed before"));
    let sent = border::VerifyRequest { plan: Some(plan.clone()), jobs: request.jobs.clone() };
    assert!(verify::verify(&cluster, &sent).verdicts.iter().all(|v| v.accepted));
    let mut out = String::new();
    for p in &plan.placements {
        let _ = write!(out, "{}/{}[{}] on {}", p.job_id, p.task_group, p.task_index, p.node_id);
        for share in &p.devices {
            let _ = write!(out, ", device {} {} m", share.device_index, share.milli);
        }
        if let Some(cost) = p.cost.filter(|c| c.total_microcny_per_hour > 0) {
            let _ = write!(out, ", {} ucny/h", cost.total_microcny_per_hour);
            for (name, part) in terms(&cost).into_iter().filter(|(_, part)| *part > 0) {
                let _ = write!(out, ", {part} of it {name}");
            }
        }
        if let Some(latency) = &p.latency {
            let _ = write!(out, ", {} us of {} us from {}", latency.total_us, latency.budget_us, latency.zone_id);
            if latency.users_within_permille < 1000 {
                let _ = write!(out, ", {} permille of the users within", latency.users_within_permille);
            }
        }
        out.push('\n');
    }
    for d in &plan.deferred {
        let (start, saves) = (d.start_unix_s, d.saves_microcny);
        let _ = writeln!(out, "{}/{}[{}] at {start}, saves {saves} ucny", d.job_id, d.task_group, d.task_index);
    }
    for e in &plan.evictions {
        let _ =
            writeln!(out, "{} evicted for {}/{}[{}]", e.allocation_id, e.by_job_id, e.by_task_group, e.by_task_index);
    }
    for u in &plan.unplaced {
        let _ = writeln!(out, "{}/{}[{}] nowhere", u.job_id, u.task_group, u.task_index);
    }
    for e in &plan.explanations {
        let explanation = e.explanation.as_ref().expect("always told");
        let _ = writeln!(out, "{}/{}: {}", e.job_id, explanation.task_group, explanation.summary);
        for site in &explanation.sites {
            if let Some(rejection) = &site.rejection {
                let name = rejection.filter().as_str_name().trim_start_matches("FILTER_");
                let _ = writeln!(out, "    {}: {name}: {}", site.site_id, rejection.reason);
            }
        }
        if let Some(r) = &explanation.relaxation {
            let _ = writeln!(out, "    would fit: {} from {:?} to {:?}, at {}", r.field, r.from, r.to, r.site_id);
        }
    }
    out.trim_end().to_string()
}

/// What moves, what is placed, and what that saves.
fn optimized(
    state: &State,
    placing: &border::PlaceRequest,
    running: &[border::UsedResources],
    line: &Line<'_>,
) -> String {
    let of_jobs = running.iter().filter(|used| placing.jobs.iter().any(|job| job.job_id == used.job_id));
    let running = of_jobs.map(|used| border::RunningTask {
        allocation_id: used.allocation_id.clone(),
        job_id: used.job_id.clone(),
        task_group: used.task_group.clone(),
        task_index: used.task_index,
    });
    let request = border::OptimizeRequest {
        evaluation_id: placing.evaluation_id.clone(),
        jobs: placing.jobs.clone(),
        running: running.collect(),
        policy: placing.policy.clone(),
        moves_max: line.text("moves").map(|moves| moves.parse().expect("a count")),
        now_unix_s: placing.now_unix_s,
        ..Default::default()
    };
    let answer = optimize(state, &request, 1, &mut Rounds(line.number("rounds"))).expect("in range");
    let mut out = String::new();
    for m in &answer.moves {
        let _ = writeln!(out, "{} to {}", m.allocation_id, m.to_node_id);
    }
    let plan = answer.plan.expect("always there");
    let moves = |p: &border::Placement| {
        let is_same = |r: &border::RunningTask| r.job_id == p.job_id && r.task_group == p.task_group;
        request.running.iter().any(|r| is_same(r) && r.task_index == p.task_index)
    };
    for p in plan.placements.iter().filter(|p| !moves(p)) {
        let _ = writeln!(out, "{}/{}[{}] on {}", p.job_id, p.task_group, p.task_index, p.node_id);
    }
    for d in &plan.deferred {
        let _ = writeln!(out, "{}/{}[{}] at {}", d.job_id, d.task_group, d.task_index, d.start_unix_s);
    }
    for u in &plan.unplaced {
        let _ = writeln!(out, "{}/{}[{}] nowhere", u.job_id, u.task_group, u.task_index);
    }
    let told = |account: Option<border::Account>| account.expect("always there").cost_microcny_per_hour;
    let bound = answer.bound_microcny_per_hour;
    let _ = write!(out, "{} ucny/h, before {}, bound {bound}", told(answer.found), told(answer.start));
    out
}

/// The parts of the cost that few tasks have.
fn terms(cost: &api::CostBreakdown) -> [(&'static str, u64); 4] {
    [
        ("latency", cost.latency_microcny_per_hour),
        ("egress", cost.egress_microcny_per_hour),
        ("migration", cost.migration_microcny_per_hour),
        ("fragmentation", cost.fragmentation_microcny_per_hour),
    ]
}

/// One line of input.
struct Line<'a> {
    word: &'a str,
    ids: Vec<&'a str>,
    pairs: Vec<(&'a str, &'a str)>,
}

impl<'a> Line<'a> {
    fn of(text: &'a str) -> Self {
        let mut parts = text.split_whitespace();
        let word = parts.next().unwrap_or_default();
        let (pairs, ids): (Vec<&str>, Vec<&str>) = parts.partition(|part| part.contains('='));
        Self { word, ids, pairs: pairs.iter().filter_map(|pair| pair.split_once('=')).collect() }
    }

    fn text(&self, key: &str) -> Option<&'a str> {
        self.pairs.iter().find(|(k, _)| *k == key).map(|(_, value)| *value)
    }

    fn number(&self, key: &str) -> u64 {
        self.text(key).map_or(0, |v| v.parse().unwrap_or_else(|_| panic!("{key}={v} is no whole number")))
    }

    fn list(&self, key: &str) -> Vec<String> {
        self.text(key).map_or(vec![], |v| v.split(',').map(String::from).collect())
    }

    fn us(&self, key: &str) -> u64 {
        self.text(key).map_or(0, us)
    }

    /// The pairs whose key starts so, by the rest of the key.
    fn under(&self, prefix: &'a str) -> impl Iterator<Item = (String, &'a str)> + '_ {
        self.pairs.iter().filter_map(move |(k, v)| k.strip_prefix(prefix).map(|rest| (rest.to_string(), *v)))
    }

    fn traffic(&self) -> Vec<api::ZoneTraffic> {
        let traffic = |(zone_id, kbps): (String, &str)| api::ZoneTraffic {
            zone_id,
            bandwidth_kbps: kbps.parse().expect("kbit/s"),
        };
        self.under("traffic.").map(traffic).collect()
    }

    fn health(&self) -> i32 {
        match self.text("health") {
            None => api::Health::Ready.into(),
            Some(name) => api::Health::from_str_name(&format!("HEALTH_{}", name.to_uppercase())).expect(name).into(),
        }
    }

    fn resources(&self) -> api::Resources {
        let accelerators = api::AcceleratorRequest { milli: self.number("accelerators"), models: self.list("models") };
        let accelerators = (accelerators.milli > 0).then_some(accelerators);
        api::Resources { cpu_milli: self.number("cpu"), memory_mib: self.number("memory"), accelerators }
    }
}

fn topology(name: &str) -> i32 {
    api::Topology::from_str_name(&format!("TOPOLOGY_{}", name.to_uppercase())).expect("a topology").into()
}

/// "9.4" milliseconds in microseconds.
fn us(ms: &str) -> u64 {
    let (whole, part) = ms.split_once('.').unwrap_or((ms, "0"));
    format!("{whole}{part:0<3}").parse().unwrap_or_else(|_| panic!("{ms} is no number of milliseconds"))
}

fn delta(lines: &[Line<'_>]) -> border::Delta {
    let mut delta = border::Delta::default();
    for line in lines {
        match line.word {
            "site" => delta.sites.push(site(line)),
            "node" => delta.nodes.push(node(line)),
            "link" => delta.links.push(api::Link {
                from_id: line.ids[0].into(),
                to_site_id: line.ids[1].into(),
                rtt_p99_us: line.us("rtt"),
                bandwidth_kbps: line.number("bandwidth"),
                // An estimate says how much of it is error.
                source: line.text("error").map_or(api::FigureSource::Measured, |_| api::FigureSource::Modelled).into(),
                rtt_error_us: line.text("error").map_or(0, us),
                ..Default::default()
            }),
            "used" => delta.allocations.push(border::UsedResources {
                allocation_id: line.ids[0].into(),
                node_id: line.ids[1].into(),
                resources: Some(line.resources()),
                devices: line.under("device").map(|(_, share)| device(share)).collect(),
                job_id: line.text("job").unwrap_or_default().into(),
                task_group: line.text("group").unwrap_or_default().into(),
                task_index: line.number("index") as u32,
                zone_traffic: line.traffic(),
                priority: line.number("priority") as u32,
                gang: line.number("gang") > 0,
            }),
            other => panic!("{other} is no part of a fleet"),
        }
    }
    delta
}

fn device(text: &str) -> api::DeviceShare {
    let (index, milli) = text.split_once(':').expect("index:milli");
    api::DeviceShare { device_index: index.parse().expect("an index"), milli: milli.parse().expect("milli") }
}

fn site(line: &Line<'_>) -> api::Site {
    let pue = line.number("pue") as u32;
    api::Site {
        id: line.ids[0].into(),
        operator_id: line.text("operator").unwrap_or_default().into(),
        jurisdiction: line.text("jurisdiction").unwrap_or_default().into(),
        pue: (pue > 0).then_some(api::Pue {
            average_permille: pue,
            marginal_permille: pue,
            source: 1,
            ..Default::default()
        }),
        prices: Some(api::Prices {
            cpu_core_hour_microcny: line.number("core"),
            memory_gib_hour_microcny: line.number("memory"),
            accelerator_hour_microcny: line
                .under("price.")
                .map(|(model, price)| (model, price.parse().expect("a price")))
                .collect(),
            energy_kwh_microcny: line.number("energy"),
            egress_gib_microcny: line.number("egress"),
        }),
        carbon_g_per_kwh: line.number("carbon") as u32,
        forecast: line.text("first_hour").map(|_| api::Forecast {
            first_hour_unix_s: line.number("first_hour") as i64,
            hours: line.list("hours").iter().map(|text| hour(text)).collect(),
        }),
        health: line.health(),
        power_cap_mw: line.number("power_cap"),
        ..Default::default()
    }
}

/// "energy:carbon:rent"; what is left out is 0.
fn hour(text: &str) -> api::HourForecast {
    let mut figures = text.split(':').map(|figure| figure.parse::<u32>().expect("a whole number"));
    let energy_kwh_microcny = u64::from(figures.next().unwrap_or(0));
    let carbon_g_per_kwh = figures.next().unwrap_or(0);
    api::HourForecast { energy_kwh_microcny, carbon_g_per_kwh, rent_permille: figures.next().unwrap_or(0) }
}

fn node(line: &Line<'_>) -> api::Node {
    let known = ["arch", "cpu", "memory", "power", "health", "engine", "switch", "rack"];
    let models = line.pairs.iter().filter(|(key, _)| !known.contains(key) && !key.starts_with("label."));
    let accelerator = |(model, value): &(&str, &str)| {
        let (count, power) = value.split_once(':').unwrap_or((value, "0"));
        api::Accelerator {
            kind: "gpu".into(),
            model: (*model).into(),
            count: count.parse().expect("a count"),
            active_power_mw: power.parse().expect("milliwatt"),
            ..Default::default()
        }
    };
    api::Node {
        id: line.ids[0].into(),
        site_id: line.ids[0].split('/').next().unwrap_or_default().into(),
        arch: line.text("arch").unwrap_or_default().into(),
        health: line.health(),
        labels: line.under("label.").map(|(key, value)| (key, value.to_string())).collect(),
        cpu_milli: line.number("cpu"),
        memory_mib: line.number("memory"),
        accelerators: models.map(accelerator).collect(),
        core_active_power_mw: line.number("power"),
        container_engine: line.text("engine").unwrap_or_default().into(),
        switch_id: line.text("switch").unwrap_or_default().into(),
        rack_id: line.text("rack").unwrap_or_default().into(),
        ..Default::default()
    }
}

fn request(lines: &[Line<'_>]) -> border::PlaceRequest {
    let mut policy = border::Policy::default();
    let mut now_unix_s = 0;
    let mut jobs: Vec<border::PendingJob> = Vec::new();
    for line in lines {
        match line.word {
            "now" => now_unix_s = line.ids[0].parse().expect("a time"),
            "policy" => {
                let name = format!("OBJECTIVE_{}", line.text("objective").unwrap_or("cost").to_uppercase());
                policy.objective = border::Objective::from_str_name(&name).expect("an objective").into();
                policy.carbon_kg_microcny = line.number("carbon");
                policy.fragmentation_microcny_per_device_hour = line.number("fragmentation");
                policy.migration_microcny = line.number("migration");
                policy.migration_horizon_h = line.number("horizon");
                policy.preempt = line.number("preempt") > 0;
            }
            "typical" => policy
                .typical_tasks
                .push(border::TypicalTask { resources: Some(line.resources()), weight: line.number("weight") as u32 }),
            "job" => jobs.push(job(line)),
            "group" => {
                let job = jobs.last_mut().expect("a job before its groups");
                job.spec.as_mut().expect("set when made").task_groups.push(group(line));
                if let Some(indexes) = line.text("pending") {
                    let task_indexes = indexes.split(',').map(|i| i.parse().expect("an index")).collect();
                    job.pending.push(border::PendingTasks { task_group: line.ids[0].into(), task_indexes });
                }
            }
            "optimize" => {}
            other => panic!("{other} is no part of a question"),
        }
    }
    border::PlaceRequest { evaluation_id: "golden".into(), jobs, policy: Some(policy), now_unix_s }
}

fn job(line: &Line<'_>) -> border::PendingJob {
    let kind = format!("JOB_KIND_{}", line.text("kind").unwrap_or("batch").to_uppercase());
    let spec = api::JobSpec {
        kind: api::JobKind::from_str_name(&kind).expect("a kind of job").into(),
        priority: line.number("priority") as u32,
        jurisdictions: line.list("jurisdictions"),
        pue_max_permille: line.number("pue_max") as u32,
        rent_max_microcny_per_hour: line.number("rent_max"),
        operators_allowed: line.list("operators"),
        operators_denied: line.list("not_operators"),
        deferral: line.text("finish_within").map(|_| api::Deferral {
            finish_within_s: line.number("finish_within"),
            run_time_s: line.number("run_time"),
        }),
        ..Default::default()
    };
    border::PendingJob {
        job_id: line.ids[0].into(),
        spec: Some(spec),
        pending: vec![],
        explain: true,
        created_unix_s: line.number("created") as i64,
    }
}

fn group(line: &Line<'_>) -> api::TaskGroup {
    api::TaskGroup {
        name: line.ids[0].into(),
        count: line.text("count").map_or(1, |count| count.parse().expect("a count")),
        resources: Some(line.resources()),
        archs: line.list("archs"),
        command: line.text("image").map(|image| api::Command { image: image.into(), ..Default::default() }),
        labels: line.under("label.").map(|(key, value)| (key, value.to_string())).collect(),
        latency_slo: line.text("budget").map(|budget| api::LatencySlo {
            zone_ids: line.list("zones"),
            budget_us: us(budget),
            client_us: line.us("client"),
            users: line.under("users.").map(|(zone, users)| (zone, users.parse().expect("a count"))).collect(),
            users_permille: line.number("share") as u32,
            soft_microcny_per_ms_hour: line.number("soft"),
            measured_only: line.number("measured_only") > 0,
            ..Default::default()
        }),
        compute_time: Some(api::ComputeTime {
            default_us: line.us("compute"),
            by_accelerator_model_us: line.under("compute.model.").map(|(model, ms)| (model, us(ms))).collect(),
            by_arch_us: line.under("compute.arch.").map(|(arch, ms)| (arch, us(ms))).collect(),
        }),
        spreads: line
            .under("spread.")
            .map(|(name, most)| api::Spread { topology: topology(&name), max_tasks: most.parse().expect("a count") })
            .collect(),
        apart_from: line
            .under("apart.")
            .map(|(task_group, name)| api::AntiAffinity { topology: topology(name), task_group })
            .collect(),
        group_latencies: line
            .under("near.")
            .map(|(task_group, ms)| api::GroupLatency { task_group, budget_us: us(ms) })
            .collect(),
        zone_traffic: line.traffic(),
        together: line.text("together").map_or(0, topology),
        ..Default::default()
    }
}
