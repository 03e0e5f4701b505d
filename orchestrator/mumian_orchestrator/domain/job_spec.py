"""What a job spec may say, and what it means where it is silent."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from google.protobuf.message import Message
from mumian.api.v1 import error_pb2, job_pb2
from mumian.api.v1.job_pb2 import JobSpec, TaskGroup
from mumian.api.v1.resources_pb2 import AcceleratorRequest

from mumian_orchestrator.domain import disconnect
from mumian_orchestrator.domain.coupling import (
    QUANTITY_MAX,
    apart_faults,
    latency_faults,
    spread_faults,
    together_faults,
    traffic_faults,
)
from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.domain.job_state import task_count
from mumian_orchestrator.domain.names import NAME_ADVICE, is_name
from mumian_orchestrator.domain.task_run import (
    folder_faults,
    health_faults,
    port_faults,
    restart_faults,
)

GROUPS_MAX = 16
TASKS_MAX = 1000
PRIORITY_DEFAULT, PRIORITY_MAX = 50, 100
CPU_MILLI_DEFAULT, MEMORY_MIB_DEFAULT = 1000, 256
RESTARTS_DEFAULT = {job_pb2.JOB_KIND_BATCH: 0, job_pb2.JOB_KIND_GANG: 0, job_pb2.JOB_KIND_SERVICE: 10}
# A job is stored in one piece, again at each change of its state, and etcd takes 1.5 MiB at once.
SPEC_BYTES_MAX = 256 * 1024
CONTRACT_LENGTH_MAX = 64
ARCHS = ("x86_64", "arm64")
WHOLE_DEVICE_MILLI = 1000
PUE_LEAST_PERMILLE = 1000
SHARE_ALL_PERMILLE = 1000

Rule = TypeVar("Rule", bound=Callable[..., Any])

_ENTRY_POINT = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
# A reference of the OCI distribution specification; with - in front an engine would take it for a flag.
_IMAGE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._:/@-]{0,254}")
_ENVIRONMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def normalise(spec: JobSpec, zone_ids: Collection[str]) -> JobSpec:
    """The spec with every default filled in.

    Raises:
        RequestRefusedError: MESSAGE_TOO_LARGE, INVALID_FIELD with every wrong field, or UNKNOWN_ZONE.
    """
    size_bytes = spec.ByteSize()
    if size_bytes > SPEC_BYTES_MAX:
        raise RequestRefusedError(
            error_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
            f"the job spec ({size_bytes / 1024:.0f} KiB) is over the limit of {SPEC_BYTES_MAX // 1024} KiB; "
            "put data into files that the task reads, not into its command or environment",
        )
    full = JobSpec()
    full.CopyFrom(spec)
    full.kind = full.kind or job_pb2.JOB_KIND_BATCH
    full.priority = full.priority or PRIORITY_DEFAULT
    disconnect.fill(full.on_disconnect, full.kind)
    for group in full.task_groups:
        _fill(group, full.kind)
    if len(full.task_groups) == 1:
        full.task_groups[0].name = full.task_groups[0].name or "main"
    if faults := list(_job_faults(full)):
        raise invalid(faults)
    _refuse_unknown_zones(full, zone_ids)
    return full


def _fill(group: TaskGroup, kind: job_pb2.JobKind.ValueType) -> None:
    group.count = group.count or 1
    # An empty `resources` asks for the default; one that names only an accelerator means no CPU to speak of.
    if not group.resources.ByteSize():
        group.resources.cpu_milli = CPU_MILLI_DEFAULT
        group.resources.memory_mib = MEMORY_MIB_DEFAULT
    if not group.HasField("max_restarts"):
        group.max_restarts = RESTARTS_DEFAULT.get(kind, 0)


def _job_faults(spec: JobSpec) -> Iterator[FieldFault]:
    yield from _essential_faults(spec)
    for faults_of in _asked(spec, _JOB_RULES):
        yield from faults_of(spec)
    for number, group in enumerate(spec.task_groups):
        for fault in _group_faults(group, spec):
            yield FieldFault(f"task_groups[{number}].{fault.field}", fault.description)


def _group_faults(group: TaskGroup, spec: JobSpec) -> Iterator[FieldFault]:
    if not is_name(group.name):
        yield FieldFault("name", f"({group.name!r}) is no valid name; {NAME_ADVICE}")
    yield from _command_faults(group)
    yield from folder_faults(group)
    for faults_of in _asked(group, _GROUP_RULES):
        yield from faults_of(group, spec)


def _asked(message: Message, rules: Mapping[str, Rule]) -> Iterable[Rule]:
    """The rules for the fields that a message says something in, each once."""
    return dict.fromkeys([rules[field.name] for field, _ in message.ListFields() if field.name in rules])


def _essential_faults(spec: JobSpec) -> Iterator[FieldFault]:
    if not is_name(spec.name):
        yield FieldFault("name", f"({spec.name!r}) is no valid name; {NAME_ADVICE}")
    if spec.kind not in RESTARTS_DEFAULT:
        yield FieldFault("kind", f"({spec.kind}) is unknown; use batch, service or gang")
    if spec.priority > PRIORITY_MAX:
        yield FieldFault("priority", f"({spec.priority}) must be 0 to {PRIORITY_MAX}")
    groups = spec.task_groups
    if not groups:
        yield FieldFault("task_groups", "is empty; add a group with a command or an entry_point")
    if len(groups) > GROUPS_MAX:
        yield FieldFault("task_groups", f"({len(groups)} groups) must be at most {GROUPS_MAX}")
    tasks = task_count(spec)
    if tasks > TASKS_MAX:
        yield FieldFault("task_groups", f"({tasks} tasks together) must be at most {TASKS_MAX} a job")
    names = [group.name for group in groups]
    for number, name in enumerate(names):
        if name in names[:number]:
            yield FieldFault(f"task_groups[{number}].name", f"({name!r}) is taken by an earlier group")


def _project_faults(spec: JobSpec) -> Iterator[FieldFault]:
    if not is_name(spec.project):
        yield FieldFault("project", f"({spec.project!r}) is no valid name; {NAME_ADVICE}")


def _contract_faults(spec: JobSpec) -> Iterator[FieldFault]:
    contract = spec.contract
    if not (len(contract) <= CONTRACT_LENGTH_MAX and contract.isprintable() and contract == contract.strip()):
        yield FieldFault(
            "contract",
            f"({contract[:CONTRACT_LENGTH_MAX]!r}) must be one line of 1 to {CONTRACT_LENGTH_MAX} "
            "characters, without space around it",
        )


def _site_faults(spec: JobSpec) -> Iterator[FieldFault]:
    if 0 < spec.pue_max_permille < PUE_LEAST_PERMILLE:
        yield FieldFault(
            "pue_max_permille",
            f"({spec.pue_max_permille}) is below 1000: no site can use less than its IT; 1250 means 1.25",
        )
    if spec.rent_max_microcny_per_hour > QUANTITY_MAX:
        yield FieldFault(
            "rent_max_microcny_per_hour",
            f"({spec.rent_max_microcny_per_hour}) must be at most {QUANTITY_MAX}",
        )
    for field in ("jurisdictions", "operators_allowed", "operators_denied"):
        if "" in getattr(spec, field):
            yield FieldFault(field, "holds an empty text; remove it, or leave the field out")
    if both := spec.operators_denied and set(spec.operators_allowed) & set(spec.operators_denied):
        yield FieldFault(
            "operators_denied", f"({min(both)}) is also in operators_allowed; remove it from one"
        )


def _deferral_faults(spec: JobSpec) -> Iterator[FieldFault]:
    if spec.kind == job_pb2.JOB_KIND_SERVICE:
        yield FieldFault("deferral", "is for batch and gang jobs; leave it out: a service runs at all hours")
    deferral = spec.deferral
    if not 0 < deferral.run_time_s <= QUANTITY_MAX:
        advice = f"({deferral.run_time_s}) must be 1 to {QUANTITY_MAX}; say how long a task runs at most"
        yield FieldFault("deferral.run_time_s", advice)
    if deferral.finish_within_s > QUANTITY_MAX:
        advice = f"({deferral.finish_within_s}) must be at most {QUANTITY_MAX}"
        yield FieldFault("deferral.finish_within_s", advice)
    elif deferral.finish_within_s < deferral.run_time_s:
        yield FieldFault(
            "deferral.finish_within_s",
            f"({deferral.finish_within_s}) is less than run_time_s ({deferral.run_time_s}): "
            "no start would be early enough; make it longer",
        )


def _update_faults(spec: JobSpec) -> Iterator[FieldFault]:
    if spec.kind != job_pb2.JOB_KIND_SERVICE:
        yield FieldFault("update", "is for services; leave it out: other jobs are not updated")
    if spec.update.max_parallel > TASKS_MAX:
        yield FieldFault("update.max_parallel", f"({spec.update.max_parallel}) must be at most {TASKS_MAX}")
    if spec.update.well_for_ms > QUANTITY_MAX:
        yield FieldFault("update.well_for_ms", f"({spec.update.well_for_ms}) must be at most {QUANTITY_MAX}")


def _arch_faults(group: TaskGroup, _: JobSpec) -> Iterator[FieldFault]:
    for arch in group.archs:
        if arch not in ARCHS:
            yield FieldFault("archs", f"({arch!r}) is unknown; use {' or '.join(ARCHS)}")


def _label_faults(group: TaskGroup, _: JobSpec) -> Iterator[FieldFault]:
    if "" in group.labels:
        yield FieldFault("labels", "has an empty name; remove it, or name the label")


def _command_faults(group: TaskGroup) -> Iterator[FieldFault]:
    command = group.command
    said, argv = {field.name for field, _ in command.ListFields()}, command.argv
    if "image" in said:
        yield from _image_faults(command)
        if group.resources.HasField("accelerators"):
            yield FieldFault(
                "command.image", "cannot have accelerators yet; run a command of the node instead"
            )
    elif ("argv" in said) == ("entry_point" in said):
        both = "both argv and entry_point are" if argv else "neither argv nor entry_point is"
        yield FieldFault("command", f"is unclear: {both} set; set exactly one")
    if argv and not argv[0]:
        yield FieldFault("command.argv[0]", "is empty; name the program to run")
    if "entry_point" in said and not _ENTRY_POINT.fullmatch(command.entry_point):
        yield FieldFault("command.entry_point", f"({command.entry_point!r}) must be package.module:function")
    if "environment" in said or "secrets" in said:
        yield from _environment_faults(command)
    if any("\0" in part for part in [*argv, command.working_directory]):
        yield FieldFault("command", "holds a zero byte; remove it")


def _environment_faults(command: job_pb2.Command) -> Iterator[FieldFault]:
    for name, value in command.environment.items():
        if not _ENVIRONMENT_NAME.fullmatch(name):
            yield FieldFault(
                "command.environment", f"({name!r}) is no name of a variable; use A-Z, 0-9 and _"
            )
        if "\0" in value:
            yield FieldFault(f"command.environment[{name}]", "holds a zero byte; remove it")
    for name, secret in command.secrets.items():
        if not _ENVIRONMENT_NAME.fullmatch(name):
            yield FieldFault("command.secrets", f"({name!r}) is no name of a variable; use A-Z, 0-9 and _")
        elif name in command.environment:
            yield FieldFault(f"command.secrets[{name}]", "is in the environment as well; keep one of them")
        if not is_name(secret):
            yield FieldFault(f"command.secrets[{name}]", f"({secret!r}) can be no secret's name")


def _image_faults(command: job_pb2.Command) -> Iterator[FieldFault]:
    if not _IMAGE.fullmatch(command.image):
        yield FieldFault(
            "command.image",
            f"({command.image[:80]!r}) is no image; write one such as docker.io/library/nginx:1.27",
        )
    if command.entry_point:
        yield FieldFault("command.entry_point", "is set beside image; write a command, or leave both out")


def _resource_faults(group: TaskGroup, _: JobSpec) -> Iterator[FieldFault]:
    resources = group.resources
    for name in ("cpu_milli", "memory_mib"):
        value = getattr(resources, name)
        if value > QUANTITY_MAX:
            yield FieldFault(f"resources.{name}", f"({value}) must be at most {QUANTITY_MAX}")
    if resources.HasField("accelerators"):
        yield from _accelerator_faults(resources.accelerators)


def _accelerator_faults(request: AcceleratorRequest) -> Iterator[FieldFault]:
    field, milli = "resources.accelerators.milli", request.milli
    if milli == 0:
        yield FieldFault(field, "(0) must be positive; leave accelerators out to ask for none")
    elif milli > QUANTITY_MAX:
        yield FieldFault(field, f"({milli}) must be at most {QUANTITY_MAX}")
    elif milli > WHOLE_DEVICE_MILLI and milli % WHOLE_DEVICE_MILLI:
        whole = milli // WHOLE_DEVICE_MILLI
        yield FieldFault(
            field,
            f"({milli}) is neither a share of one device nor whole devices; "
            f"use at most 999, {whole * WHOLE_DEVICE_MILLI} or {(whole + 1) * WHOLE_DEVICE_MILLI}",
        )


def _slo_faults(group: TaskGroup, _: JobSpec) -> Iterator[FieldFault]:
    slo = group.latency_slo
    if not slo.zone_ids:
        yield FieldFault("latency_slo.zone_ids", "is empty; name the zones where the users are")
    if not slo.budget_us:
        yield FieldFault("latency_slo.budget_us", "(0) must be positive; 20000 means 20 ms")
    elif slo.client_us >= slo.budget_us:
        yield FieldFault(
            "latency_slo.client_us",
            f"({slo.client_us}) leaves nothing of the budget ({slo.budget_us}) for the rest",
        )
    if slo.users_permille > SHARE_ALL_PERMILLE:
        yield FieldFault(
            "latency_slo.users_permille", f"({slo.users_permille}) must be at most 1000, all users"
        )
    for zone in slo.users:
        if zone not in slo.zone_ids:
            yield FieldFault("latency_slo.users", f"({zone!r}) is none of the zone_ids; add it there")
    if slo.zone_ids and not any(slo.users.get(zone, 1) for zone in slo.zone_ids):
        yield FieldFault("latency_slo.users", "has no user in any zone; give one zone some")
    if slo.patience_ms > QUANTITY_MAX:
        yield FieldFault("latency_slo.patience_ms", f"({slo.patience_ms}) must be at most {QUANTITY_MAX}")
    if slo.soft_microcny_per_ms_hour > QUANTITY_MAX:
        yield FieldFault(
            "latency_slo.soft_microcny_per_ms_hour",
            f"({slo.soft_microcny_per_ms_hour}) must be at most {QUANTITY_MAX}",
        )


# Looked at when a spec says something in the field: where it is silent it is right, as most are about most.
_JOB_RULES: Mapping[str, Callable[[JobSpec], Iterator[FieldFault]]] = {
    "project": _project_faults,
    "contract": _contract_faults,
    "pue_max_permille": _site_faults,
    "rent_max_microcny_per_hour": _site_faults,
    "jurisdictions": _site_faults,
    "operators_allowed": _site_faults,
    "operators_denied": _site_faults,
    "deferral": _deferral_faults,
    "update": _update_faults,
    "on_disconnect": disconnect.faults,
}
_GROUP_RULES: Mapping[str, Callable[[TaskGroup, JobSpec], Iterator[FieldFault]]] = {
    "resources": _resource_faults,
    "archs": _arch_faults,
    "labels": _label_faults,
    "ports": port_faults,
    "health_check": health_faults,
    "restart_delay_ms": restart_faults,
    "restart_delay_max_ms": restart_faults,
    "latency_slo": _slo_faults,
    "spreads": spread_faults,
    "apart_from": apart_faults,
    "together": together_faults,
    "group_latencies": latency_faults,
    "zone_traffic": traffic_faults,
}


def _refuse_unknown_zones(spec: JobSpec, zone_ids: Collection[str]) -> None:
    if not any(group.HasField("latency_slo") or group.zone_traffic for group in spec.task_groups):
        return
    named = [
        *(
            (f"task_groups[{number}].latency_slo.zone_ids", zone)
            for number, group in enumerate(spec.task_groups)
            if group.HasField("latency_slo")
            for zone in group.latency_slo.zone_ids
        ),
        *(
            (f"task_groups[{number}].zone_traffic[{i}].zone_id", traffic.zone_id)
            for number, group in enumerate(spec.task_groups)
            for i, traffic in enumerate(group.zone_traffic)
        ),
    ]
    faults = [FieldFault(field, f"({zone!r}) is unknown") for field, zone in named if zone not in zone_ids]
    if faults:
        known = ", ".join(sorted(zone_ids)) or "none are configured"
        message = "; ".join(f"{fault.field} {fault.description}" for fault in faults)
        reason = error_pb2.ERROR_REASON_UNKNOWN_ZONE
        raise RequestRefusedError(reason, f"{message}; known zones: {known}", faults)
