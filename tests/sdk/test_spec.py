"""Job specs in YAML: what each key means, and that every fault is named with its line."""

from __future__ import annotations

import os
from pathlib import Path

import mumian
import pytest
from google.protobuf import text_format
from mumian import MumianError, load_spec
from mumian.api.v1 import job_pb2
from mumian.spec import SpecError

GOLDEN = Path(__file__).parent / "golden"
EXAMPLES = Path(__file__).parents[2] / "examples" / "jobs"


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_fault_is_named_with_its_line(path: Path) -> None:
    """MUMIAN_GOLDEN_UPDATE=1 rewrites the expected texts; review them as a diff."""
    with pytest.raises(SpecError) as caught:
        load_spec(path)
    told = caught.value.message.replace(str(path), path.name) + "\n"
    expected = path.with_suffix(".txt")
    if os.environ.get("MUMIAN_GOLDEN_UPDATE"):
        expected.write_text(told)
    assert told == expected.read_text()
    assert all(fault.line >= 1 and fault.description for fault in caught.value.faults)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_is_valid(path: Path) -> None:
    assert load_spec(path).spec.task_groups


def test_only_what_to_run_is_needed(tmp_path: Path) -> None:
    path = tmp_path / "My First_Job.v2.yaml"
    path.write_text("command: echo hello | wc\n")
    spec = load_spec(path).spec
    assert spec.name == "my-first-job-v2"
    assert list(spec.task_groups[0].command.argv) == ["sh", "-c", "echo hello | wc"]
    assert (spec.task_groups[0].resources.cpu_milli, spec.task_groups[0].resources.memory_mib) == (1000, 256)


def test_every_key_fills_its_field(tmp_path: Path) -> None:
    path = tmp_path / "full.yaml"
    path.write_text(
        """
        name: vr
        kind: service
        priority: 70
        jurisdictions: [CN-GD, CN-HK]
        pue_max: 1.25
        rent_max: 0.2
        operators: {allow: [a], deny: b}
        deferral: {finish_within: 8h, run_time: 90m}
        pinned: true
        on_disconnect: {lost_after: 0s, stop_after: 2m, replace: false, reconcile: longest_running}
        at_most_once: true
        update: {max_parallel: 2, well_for: 0s}
        task_groups:
        - name: render
          count: 2
          command: [render, --fps, 90]
          environment: {THREADS: 8, FLAG: true, EMPTY: ""}
          working_directory: /srv
          resources: {cpu: 500m, memory: 2GiB, accelerators: {count: 0.5, models: [H100, "4090"]}}
          archs: [x86_64]
          labels: {disk: ssd}
          latency:
            {from: [tianhe, nansha], budget: 20ms, client: 9.4ms, users: {tianhe: 3000}, share: 95%,
             soft_cny_per_ms_hour: 0.05, patience: 90s}
          compute: {default: 8ms, by_accelerator: {H100: 2ms}, by_arch: {arm64: 9ms}}
          spread: {node: 1, site: 2, rack: 3}
          together: switch
          apart_from: {world: operator}
          near: {world: 5ms}
          traffic: {tianhe: 50Mbit/s}
          max_restarts: 3
          time_limit: 10m
          restart_delay: 2s
          restart_delay_max: 5m
          ports: {http: auto, metrics: 9100}
          health:
            {http: /healthz, port: http, interval: 5s, timeout: 500ms, failures: 2, grace: 2m}
        - name: cache
          image: docker.io/library/redis:7
        - name: world
          entry_point: world.server:main
          resources: {accelerators: {count: 2, model: H100}}
          compute: 500us
          port: 8080
        """
    )
    expected = text_format.Parse(
        """
        name: "vr" kind: JOB_KIND_SERVICE priority: 70 jurisdictions: "CN-GD" jurisdictions: "CN-HK"
        pue_max_permille: 1250 rent_max_microcny_per_hour: 200000 operators_allowed: "a" operators_denied: "b"
        deferral { finish_within_s: 28800 run_time_s: 5400 } pinned: true at_most_once: true
        update { max_parallel: 2 well_for_ms: 0 }
        on_disconnect {
          lost_after_s: 0 stop_after_s: 120 replace: false reconcile: RECONCILE_LONGEST_RUNNING
        }
        task_groups {
          name: "render" count: 2
          command {
            argv: "render" argv: "--fps" argv: "90" working_directory: "/srv"
            environment { key: "THREADS" value: "8" } environment { key: "FLAG" value: "true" }
            environment { key: "EMPTY" value: "" }
          }
          resources { cpu_milli: 500 memory_mib: 2048
            accelerators { milli: 500 models: "H100" models: "4090" } }
          archs: "x86_64" labels { key: "disk" value: "ssd" }
          latency_slo {
            zone_ids: "tianhe" zone_ids: "nansha" budget_us: 20000 client_us: 9400
            users { key: "tianhe" value: 3000 } users_permille: 950 soft_microcny_per_ms_hour: 50000
            patience_ms: 90000
          }
          compute_time {
            default_us: 8000 by_accelerator_model_us { key: "H100" value: 2000 }
            by_arch_us { key: "arm64" value: 9000 }
          }
          max_restarts: 3 time_limit_ms: 600000 restart_delay_ms: 2000 restart_delay_max_ms: 300000
          ports { name: "http" } ports { name: "metrics" number: 9100 }
          health_check {
            http_path: "/healthz" port: "http" interval_ms: 5000 timeout_ms: 500 failures: 2 grace_ms: 120000
          }
          spreads { topology: TOPOLOGY_NODE max_tasks: 1 } spreads { topology: TOPOLOGY_SITE max_tasks: 2 }
          spreads { topology: TOPOLOGY_RACK max_tasks: 3 } together: TOPOLOGY_SWITCH
          apart_from { topology: TOPOLOGY_OPERATOR task_group: "world" }
          group_latencies { task_group: "world" budget_us: 5000 }
          zone_traffic { zone_id: "tianhe" bandwidth_kbps: 50000 }
        }
        task_groups {
          name: "cache" command { image: "docker.io/library/redis:7" }
          resources { cpu_milli: 1000 memory_mib: 256 }
        }
        task_groups {
          name: "world"
          command { entry_point: "world.server:main" }
          resources { cpu_milli: 1000 memory_mib: 256 accelerators { milli: 2000 models: "H100" } }
          compute_time { default_us: 500 }
          ports { name: "main" number: 8080 }
        }
        """,
        job_pb2.JobSpec(),
    )
    assert load_spec(path).spec == expected


def test_a_field_of_the_api_leads_back_to_its_line(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("command: [a]\nlatency:\n  from: moon\n  budget: 5ms\n")
    loaded = load_spec(path)
    assert loaded.origin_of("task_groups[0].latency_slo.zone_ids") == (3, "latency.from")
    assert loaded.origin_of("task_groups[0].latency_slo.client_us") == (2, "latency")
    assert loaded.origin_of("task_groups[0].command.argv[0]") == (1, "command")
    assert loaded.origin_of("request_id") is None


def test_a_constraint_of_the_api_leads_back_to_its_line(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("command: [a]\nspread:\n  node: 1\n  site: 2\nnear:\n  world: 5ms\n")
    loaded = load_spec(path)
    assert loaded.origin_of("task_groups[0].spreads[1].max_tasks") == (4, "spread.site")
    assert loaded.origin_of("task_groups[0].group_latencies[0].task_group") == (6, "near.world")


def test_python_and_yaml_mean_the_same_by_health_and_ports(tmp_path: Path) -> None:
    path = tmp_path / "web.yaml"
    path.write_text(
        "kind: service\ncommand: [serve]\ncount: 1\noutputs: [log/*.txt]\n"
        "ports: {http: 80, admin: auto}\nrestart_delay: 1s\n"
        "health: {command: pg_isready -q, interval: 5s, timeout: 1s, failures: 5, grace: 2m}\n"
    )
    built = mumian.job(
        "web",
        mumian.task_group(
            command=["serve"],
            outputs=["log/*.txt"],
            ports={"http": 80, "admin": "auto"},
            restart_delay="1s",
            health=mumian.health(
                command="pg_isready -q", interval="5s", timeout="1s", failures=5, grace="2m"
            ),
        ),
        kind="service",
    )
    assert load_spec(path).spec == built
    with pytest.raises(MumianError, match="has http and tcp"):
        mumian.health(http="/", tcp=True)


def test_a_folder_to_upload_stands_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    (tmp_path / "app").mkdir()
    path.write_text("task_groups:\n- {name: a, command: [b]}\n- {name: c, command: [d], upload: app}\n")
    loaded = load_spec(path)
    assert loaded.uploads == {1: tmp_path / "app"}
    assert not loaded.spec.task_groups[1].command.HasField("bundle"), "what it holds is not known yet"
    assert loaded.origin_of("task_groups[1].command.bundle") == (3, "task_groups[1].upload")
    path.write_text("command: [b]\nupload: none\n")
    with pytest.raises(SpecError, match=r"job.yaml:2: upload \(none\) is no folder beside job.yaml"):
        load_spec(path)


def test_a_file_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(MumianError, match=r"cannot be read: no such file"):
        load_spec(tmp_path / "none.yaml")


def test_python_and_yaml_make_the_same_spec(tmp_path: Path) -> None:
    path = tmp_path / "hello.yaml"
    path.write_text(
        "kind: gang\ncommand: [serve]\nresources: {memory: 1GiB}\nport: 80\n"
        "deferral: {finish_within: 8h, run_time: 2h}\n"
        "latency: {from: tianhe, budget: 20ms, users: {tianhe: 7}, share: 0.9, soft_cny_per_ms_hour: 0.002}\n"
        "compute: 5ms\ncount: 2\n"
        "spread: {site: 1}\napart_from: {a: node}\nnear: {b: 5ms}\n"
        "traffic: {tianhe: 1Gbit/s}\ntogether: rack\n"
    )
    built = mumian.job(
        "hello",
        mumian.task_group(
            command=["serve"],
            memory="1GiB",
            port=80,
            latency=mumian.latency(
                "tianhe", budget="20ms", users={"tianhe": 7}, share="90%", soft_cny_per_ms_hour=0.002
            ),
            compute="5ms",
            count=2,
            spread={"site": 1},
            apart_from={"a": "node"},
            near={"b": "5ms"},
            traffic={"tianhe": "1Gbps"},
            together="rack",
        ),
        kind="gang",
        deferral=mumian.deferral(finish_within="8h", run_time="2h"),
    )
    assert load_spec(path).spec == built
