"""Job specs in YAML: which keys there are, and which field of the API each one fills.

Each mapping of the file has a table from key to reader; a reader takes the value and the message to fill.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mumian import builder, names, quantities
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import ComputeTime, Deferral, JobSpec, LatencySlo, TaskGroup
from mumian.api.v1.resources_pb2 import AcceleratorRequest, Resources
from mumian.quantities import WholeNumber
from mumian.spec.document import Document, Fault, SpecError, Value
from mumian.spec.readers import (
    Reader,
    Target,
    fill,
    into,
    scalar,
    scalars_by_key,
    texts,
    truth,
    within,
    words_by_key,
)
from mumian.spec.task_run import TASK_RUN

# The names of the architectures, and what else they are called.
ARCHS = {"x86_64": ("amd64", "x64"), "arm64": ("aarch64",)}


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """A job spec and where each of its fields stands in the file."""

    spec: JobSpec
    path: Path
    # Line and key by field path of the API ("task_groups[0].latency_slo.budget_us").
    origins: Mapping[str, tuple[int, str]]
    # The folder that each group's tasks start in, by the group's number.
    uploads: Mapping[int, Path]

    def origin_of(self, field: str) -> tuple[int, str] | None:
        """Line and key that a field came from, or the nearest field around it that the file names."""
        while field not in self.origins and field:
            field = field[: max(field.rfind("."), field.rfind("["), 0)]
        return self.origins.get(field)


def load_spec(path: Path | str) -> LoadedSpec:
    """Read a job spec from a YAML file. Its name defaults to the file's.

    Raises:
        SpecError: all that is wrong with it, each with its line.
        MumianError: INVALID_FIELD, the file cannot be read.
    """
    path = Path(path)
    first, *others = Document.all_of(path)
    if others and (root := others[0].root()) is not None:
        others[0].fault(
            root.line, "", "the file has several job specs; write one, or `mumian submit` them all"
        )
        raise SpecError(path, others[0].faults)
    return _load(first)


def load_specs(path: Path | str) -> list[LoadedSpec]:
    """The same of a file with any number of job specs, `---` between them.

    Raises:
        SpecError: all that is wrong with any of them, each with its line.
        MumianError: INVALID_FIELD, the file cannot be read.
    """
    loaded, faults = [], list[Fault]()
    for document in Document.all_of(Path(path)):
        try:
            loaded.append(_load(document))
        except SpecError as error:
            faults += error.faults
    if faults:
        raise SpecError(Path(path), faults)
    return loaded


def _load(document: Document) -> LoadedSpec:
    path, spec = document.path, JobSpec()
    root = document.root()
    if root is not None:
        _read_job(Target(spec, ""), root)
    if document.faults:
        raise SpecError(path, document.faults)
    spec.name = spec.name or names.name_from(path.stem) or "job"
    uploads = {
        number: document.uploads[f"task_groups[{number}].command"]
        for number in range(len(spec.task_groups))
        if f"task_groups[{number}].command" in document.uploads
    }
    return LoadedSpec(spec, path, document.origins, uploads)


def _read_job(target: Target, root: Value) -> None:
    group_list: list[Value] = []

    def keep(_: Target, value: Value) -> None:
        group_list.append(value)

    inline = TaskGroup()
    inline_target = Target(inline, "task_groups[0]")
    inline_target.note("", root)
    inline_readers = {key: into(inline_target, reader) for key, reader in _GROUP.items() if key not in _JOB}
    given = fill(target, root, {**_JOB, "task_groups": keep, **inline_readers}, "`command: [echo, hello]`")
    of_group = sorted(given & set(inline_readers))
    if group_list and of_group:
        root.document.fault(
            group_list[0].line,
            "task_groups",
            f"is set beside {', '.join(of_group)}, which belongs to one group; move it into a group",
        )
    elif group_list:
        _read_groups(target.message, group_list[0])
    elif root.is_mapping():
        _finish_group(inline, root, given)
        target.message.task_groups.append(inline)


def _read_groups(spec: JobSpec, value: Value) -> None:
    items = list(value.items())
    if value.is_list() and not items:
        value.fault("is empty; add a group with a command")
    lines: dict[str, int] = {}
    for number, item in enumerate(items):
        group = spec.task_groups.add()
        target = Target(group, f"task_groups[{number}]")
        target.note("", item)
        given = fill(target, item, _GROUP, "`command: [echo, hello]`")
        if item.is_mapping():
            _finish_group(group, item, given)
            if "name" not in given and len(items) > 1:
                value.document.fault(item.line, item.key, "has no name; with several groups each needs one")
        if group.name in lines:
            value.document.fault(
                item.line,
                f"{item.key}.name",
                f"({group.name}) is the name of the group in line {lines[group.name]}",
            )
        elif group.name:
            lines[group.name] = item.line


def _finish_group(group: TaskGroup, value: Value, given: set[str]) -> None:
    prefix = f"{value.key} " if value.key else ""
    if not given & {"command", "entry_point", "image"}:
        value.document.fault(
            value.line,
            value.key,
            "does not say what to run; add command, entry_point or image"
            if prefix
            else "the file does not say what to run; add command, entry_point or image",
        )
    elif "entry_point" in given and given & {"command", "image"}:
        key = f"{value.key}.entry_point" if value.key else "entry_point"
        other = "command" if "command" in given else "image"
        value.document.fault(value.line, key, f"is set beside {other}; set one")
    if {"port", "ports"} <= given:
        value.document.fault(value.line, f"{prefix.strip()}.ports".lstrip("."), "is set beside port; set one")
    if "resources" not in given:
        builder.fill_resources(group.resources, cpu_given=False, memory_given=False)


def _read_kind(target: Target, value: Value) -> None:
    target.note("kind", value)
    kind = value.choice(builder.KINDS)
    if kind is not None:
        target.message.kind = builder.KINDS[kind]


def _read_archs(target: Target, value: Value) -> None:
    target.note("archs", value)
    for item in [value] if value.is_scalar() else value.items():
        arch = item.choice(ARCHS, aliases=ARCHS)
        if arch is not None:
            target.message.archs.append(arch)


def _read_operators(target: Target, value: Value) -> None:
    readers = {"allow": texts("operators_allowed"), "deny": texts("operators_denied")}
    fill(target, value, readers, "{allow: [a], deny: [b]}")


def _read_deferral(target: Target, value: Value) -> None:
    target.note("", value)
    example = "{finish_within: 8h, run_time: 2h}"
    given = fill(target, value, _DEFERRAL, example)
    for key in sorted(_DEFERRAL.keys() - given if value.is_mapping() else ()):
        value.document.fault(value.line, value.key, f"has no {key}; write {example}")
    made: Deferral = target.message
    if made.run_time_s > made.finish_within_s > 0:
        value.document.fault(
            value.line, f"{value.key}.finish_within", "is less than run_time; make it longer"
        )


def _read_update(target: Target, value: Value) -> None:
    target.note("", value)
    fill(target, value, _UPDATE, "{max_parallel: 2, well_for: 10s}")


def _read_on_disconnect(target: Target, value: Value) -> None:
    target.note("", value)
    fill(target, value, _ON_DISCONNECT, "{lost_after: 5m, reconcile: keep_original}")


def _read_reconcile(target: Target, value: Value) -> None:
    target.note("reconcile", value)
    reconcile = value.choice(builder.RECONCILES)
    if reconcile is not None:
        target.message.reconcile = builder.RECONCILES[reconcile]


def _read_resources(target: Target, value: Value) -> None:
    target.note("", value)
    given = fill(target, value, _RESOURCES, "{cpu: 0.5, memory: 512MiB}")
    resources: Resources = target.message
    builder.fill_resources(resources, cpu_given="cpu" in given, memory_given="memory" in given)


def _read_accelerators(target: Target, value: Value) -> None:
    target.note("", value)
    request: AcceleratorRequest = target.message
    # Asking for accelerators without a count asks for one.
    given = fill(target, value, _ACCELERATORS, "{count: 1, model: H100}")
    if "count" not in given:
        request.milli = 1000
    if {"model", "models"} <= given:
        value.document.fault(value.line, f"{value.key}.models", "is set beside model; set one")


def _read_latency(target: Target, value: Value) -> None:
    target.note("", value)
    slo: LatencySlo = target.message
    given = fill(target, value, _LATENCY, "{from: [zone], budget: 20ms}")
    if not value.is_mapping():
        return
    for key in ("from", "budget"):
        if key not in given:
            value.document.fault(value.line, value.key, f"has no {key}; write {{from: [zone], budget: 20ms}}")
    if slo.budget_us and slo.client_us >= slo.budget_us:
        value.document.fault(
            value.line, f"{value.key}.client", "leaves nothing of the budget; make it smaller"
        )


def _read_compute(target: Target, value: Value) -> None:
    target.note("", value)
    if value.is_scalar():
        scalar("default_us", quantities.duration_us)(target, value)
    else:
        times: ComputeTime = target.message
        fill(
            Target(times, target.path),
            value,
            _COMPUTE,
            "5ms, or {default: 8ms, by_accelerator: {H100: 2ms}}",
        )


def _read_spread(target: Target, value: Value) -> None:
    target.note("spreads", value)
    for name, item in value.fields(builder.TOPOLOGIES, "{site: 2}", {}):
        most = item.parsed(WholeNumber(1, builder.COUNT_MAX))
        target.note(f"spreads[{len(target.message.spreads)}]", item)
        target.message.spreads.add(topology=builder.TOPOLOGIES[name], max_tasks=most or 0)


def _read_apart_from(target: Target, value: Value) -> None:
    target.note("apart_from", value)
    for group, item in value.entries("{world: site}"):
        topology = item.choice(builder.TOPOLOGIES)
        target.note(f"apart_from[{len(target.message.apart_from)}]", item)
        target.message.apart_from.add(
            topology=builder.TOPOLOGIES.get(topology or "", job_pb2.TOPOLOGY_UNSPECIFIED), task_group=group
        )


def _read_together(target: Target, value: Value) -> None:
    target.note("together", value)
    topology = value.choice(builder.TOPOLOGIES)
    if topology is not None:
        target.message.together = builder.TOPOLOGIES[topology]


def _read_near(target: Target, value: Value) -> None:
    target.note("group_latencies", value)
    for group, item in value.entries("{world: 5ms}"):
        budget_us = item.parsed(quantities.duration_us)
        target.note(f"group_latencies[{len(target.message.group_latencies)}]", item)
        target.message.group_latencies.add(task_group=group, budget_us=budget_us or 0)


def _read_traffic(target: Target, value: Value) -> None:
    target.note("zone_traffic", value)
    for zone, item in value.entries("{tianhe: 50Mbit/s}"):
        kbps = item.parsed(quantities.bandwidth_kbps)
        target.note(f"zone_traffic[{len(target.message.zone_traffic)}]", item)
        target.message.zone_traffic.add(zone_id=zone, bandwidth_kbps=kbps or 0)


_JOB: dict[str, Reader] = {
    "name": scalar("name", names.name),
    "kind": _read_kind,
    "project": scalar("project", names.name),
    "contract": scalar("contract", names.contract),
    "priority": scalar("priority", WholeNumber(1, builder.PRIORITY_MAX)),
    "jurisdictions": texts("jurisdictions"),
    "pue_max": scalar("pue_max_permille", quantities.pue_permille),
    "rent_max": scalar("rent_max_microcny_per_hour", quantities.rent_microcny_per_hour),
    "operators": _read_operators,
    "deferral": within("deferral", _read_deferral),
    "pinned": truth("pinned"),
    "on_disconnect": within("on_disconnect", _read_on_disconnect),
    "at_most_once": truth("at_most_once"),
    "update": within("update", _read_update),
}
_UPDATE: dict[str, Reader] = {
    "max_parallel": scalar("max_parallel", WholeNumber(1, builder.COUNT_MAX)),
    "well_for": scalar("well_for_ms", quantities.duration_ms_or_none),
}
_ON_DISCONNECT: dict[str, Reader] = {
    "lost_after": scalar("lost_after_s", quantities.duration_s_or_none),
    "stop_after": scalar("stop_after_s", quantities.duration_s),
    "replace": truth("replace"),
    "reconcile": _read_reconcile,
}
_DEFERRAL: dict[str, Reader] = {
    "finish_within": scalar("finish_within_s", quantities.duration_s),
    "run_time": scalar("run_time_s", quantities.duration_s),
}
_ACCELERATORS: dict[str, Reader] = {
    "count": scalar("milli", quantities.accelerator_milli),
    "model": texts("models"),
    "models": texts("models"),
}
_RESOURCES: dict[str, Reader] = {
    "cpu": scalar("cpu_milli", quantities.cpu_milli),
    "memory": scalar("memory_mib", quantities.memory_mib),
    "accelerators": within("accelerators", _read_accelerators),
}
_LATENCY: dict[str, Reader] = {
    "from": texts("zone_ids"),
    "budget": scalar("budget_us", quantities.duration_us),
    "client": scalar("client_us", quantities.duration_us),
    "users": scalars_by_key("users", WholeNumber(0, builder.USERS_MAX), "{tianhe: 3000, nansha: 500}"),
    "share": scalar("users_permille", quantities.share_permille),
    "patience": scalar("patience_ms", quantities.duration_ms),
    "measured_only": truth("measured_only"),
    "soft_cny_per_ms_hour": scalar("soft_microcny_per_ms_hour", quantities.money_microcny),
}
_COMPUTE: dict[str, Reader] = {
    "default": scalar("default_us", quantities.duration_us),
    "by_accelerator": scalars_by_key("by_accelerator_model_us", quantities.duration_us, "{H100: 2ms}"),
    "by_arch": scalars_by_key("by_arch_us", quantities.duration_us, "{arm64: 9ms}"),
}
_GROUP: dict[str, Reader] = {
    "name": scalar("name", names.name),
    "count": scalar("count", WholeNumber(1, builder.COUNT_MAX)),
    "resources": within("resources", _read_resources),
    "archs": _read_archs,
    "labels": words_by_key("labels", "{disk: ssd}"),
    "latency": within("latency_slo", _read_latency),
    "compute": within("compute_time", _read_compute),
    "spread": _read_spread,
    "apart_from": _read_apart_from,
    "together": _read_together,
    "near": _read_near,
    "traffic": _read_traffic,
    **TASK_RUN,
}
