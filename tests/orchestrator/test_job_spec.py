"""What admission makes of a job spec, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import CommandCheck, HealthCheck, JobSpec, Port
from mumian_orchestrator.domain.errors import RequestRefusedError
from mumian_orchestrator.domain.job_spec import _GROUP_RULES, _JOB_RULES, normalise


def _spec() -> JobSpec:
    slo = job_pb2.LatencySlo(zone_ids=["tianhe", "nansha"], budget_us=20_000)
    group = job_pb2.TaskGroup(name="main", command=job_pb2.Command(argv=["true"]), latency_slo=slo)
    return JobSpec(name="work", task_groups=[group])


def _slo(**fields: object) -> Callable[[JobSpec], None]:
    def change(spec: JobSpec) -> None:
        spec.task_groups[0].latency_slo.MergeFrom(job_pb2.LatencySlo(**fields))  # type: ignore[arg-type]

    return change


def _deferral(
    run_time_s: int, finish_within_s: int, kind: job_pb2.JobKind.ValueType = job_pb2.JOB_KIND_BATCH
) -> Callable[[JobSpec], None]:
    def change(spec: JobSpec) -> None:
        deferral = job_pb2.Deferral(run_time_s=run_time_s, finish_within_s=finish_within_s)
        spec.MergeFrom(JobSpec(kind=kind, deferral=deferral))

    return change


def _on_disconnect(**fields: object) -> Callable[[JobSpec], None]:
    def change(spec: JobSpec) -> None:
        spec.on_disconnect.MergeFrom(job_pb2.OnDisconnect(**fields))  # type: ignore[arg-type]

    return change


def _health(**fields: object) -> HealthCheck:
    return HealthCheck(**fields)  # type: ignore[arg-type]


def _service(check: HealthCheck | None, *ports: Port) -> Callable[[JobSpec], None]:
    def change(spec: JobSpec) -> None:
        group = job_pb2.TaskGroup(health_check=check, ports=ports)
        spec.kind = job_pb2.JOB_KIND_SERVICE
        spec.task_groups[0].MergeFrom(group)

    return change


def _delays(first_ms: int, most_ms: int) -> Callable[[JobSpec], None]:
    def change(spec: JobSpec) -> None:
        spec.task_groups[0].restart_delay_ms, spec.task_groups[0].restart_delay_max_ms = first_ms, most_ms

    return change


@pytest.mark.parametrize(
    ("kind", "lost_after_s", "reconcile"),
    [
        (job_pb2.JOB_KIND_SERVICE, 60, job_pb2.RECONCILE_BEST_SCORE),
        (job_pb2.JOB_KIND_BATCH, 300, job_pb2.RECONCILE_KEEP_ORIGINAL),
        (job_pb2.JOB_KIND_GANG, 300, job_pb2.RECONCILE_KEEP_ORIGINAL),
    ],
)
def test_a_disconnect_contract_is_filled_in_by_the_kind_of_job(
    kind: job_pb2.JobKind.ValueType, lost_after_s: int, reconcile: job_pb2.Reconcile.ValueType
) -> None:
    spec = _spec()
    spec.kind = kind
    full = normalise(spec, {"tianhe", "nansha"}).on_disconnect
    assert (full.lost_after_s, full.replace, full.reconcile) == (lost_after_s, True, reconcile)
    spec.on_disconnect.lost_after_s, spec.on_disconnect.replace = 0, False
    full = normalise(spec, {"tianhe", "nansha"}).on_disconnect
    assert (full.lost_after_s, full.replace) == (0, False)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (_slo(users_permille=1001), "task_groups[0].latency_slo.users_permille"),
        (_slo(users={"panyu": 5}), "task_groups[0].latency_slo.users"),
        (_slo(users={"tianhe": 0, "nansha": 0}), "task_groups[0].latency_slo.users"),
        (_deferral(0, 100), "deferral.run_time_s"),
        (_deferral(101, 100), "deferral.finish_within_s"),
        (_deferral(1, 2**41), "deferral.finish_within_s"),
        (_deferral(1, 2, job_pb2.JOB_KIND_SERVICE), "deferral"),
        (_on_disconnect(lost_after_s=2**41), "on_disconnect.lost_after_s"),
        (_on_disconnect(stop_after_s=9), "on_disconnect.stop_after_s"),
        (_on_disconnect(reconcile=9), "on_disconnect.reconcile"),
        (_slo(soft_microcny_per_ms_hour=2**41), "task_groups[0].latency_slo.soft_microcny_per_ms_hour"),
        (_service(_health(tcp=True)), "task_groups[0].health_check.port"),
        (_service(_health(tcp=True, port="other"), Port(name="http")), "task_groups[0].health_check.port"),
        (_service(_health(http_path="healthz"), Port(name="http")), "task_groups[0].health_check.http_path"),
        (_service(_health(command=CommandCheck())), "task_groups[0].health_check.command.argv"),
        (
            _service(_health(tcp=True, interval_ms=9), Port(name="a")),
            "task_groups[0].health_check.interval_ms",
        ),
        (_service(HealthCheck(interval_ms=1000)), "task_groups[0].health_check"),
        (_service(None, Port(name="a"), Port(name="a")), "task_groups[0].ports[1].name"),
        (
            _service(None, Port(name="a", number=8), Port(name="b", number=8)),
            "task_groups[0].ports[1].number",
        ),
        (_service(None, Port(name="a", number=65536)), "task_groups[0].ports[0].number"),
        (_delays(2000, 1000), "task_groups[0].restart_delay_max_ms"),
    ],
)
def test_a_wrong_field_is_named(change: Callable[[JobSpec], None], field: str) -> None:
    spec = _spec()
    change(spec)
    with pytest.raises(RequestRefusedError) as refused:
        normalise(spec, {"tianhe", "nansha", "panyu"})
    assert [fault.field for fault in refused.value.faults] == [field]


def test_a_soft_promise_for_a_share_of_the_users_is_taken_as_it_is() -> None:
    spec = _spec()
    _slo(users_permille=950, users={"tianhe": 9}, soft_microcny_per_ms_hour=7)(spec)
    full = normalise(spec, {"tianhe", "nansha"})
    assert full.task_groups[0].latency_slo == spec.task_groups[0].latency_slo


def test_a_batch_task_has_no_health_check() -> None:
    spec = _spec()
    spec.task_groups[0].health_check.command.argv.append("true")
    with pytest.raises(RequestRefusedError, match="is for services"):
        normalise(spec, {"tianhe", "nansha"})


@pytest.mark.parametrize(
    ("command", "field"),
    [
        (job_pb2.Command(image="--privileged"), "command.image"),
        (job_pb2.Command(image="two words"), "command.image"),
        (job_pb2.Command(image="nginx", entry_point="a:b"), "command.entry_point"),
    ],
)
def test_an_image_is_the_name_of_one(command: job_pb2.Command, field: str) -> None:
    spec = _spec()
    spec.task_groups[0].command.CopyFrom(command)
    with pytest.raises(RequestRefusedError) as refused:
        normalise(spec, {"tianhe", "nansha"})
    assert [fault.field for fault in refused.value.faults] == [f"task_groups[0].{field}"]
    spec.task_groups[0].command.CopyFrom(job_pb2.Command(image="docker.io/library/nginx:1.27"))
    assert normalise(spec, {"tianhe", "nansha"})
    spec.task_groups[0].resources.accelerators.milli = 1000
    with pytest.raises(RequestRefusedError, match="cannot have accelerators yet"):
        normalise(spec, {"tianhe", "nansha"})


def test_every_rule_is_about_a_field_that_there_is() -> None:
    assert set(_JOB_RULES) <= set(JobSpec.DESCRIPTOR.fields_by_name)
    assert set(_GROUP_RULES) <= set(job_pb2.TaskGroup.DESCRIPTOR.fields_by_name)
