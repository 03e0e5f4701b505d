"""Job specs in YAML: which keys there are, and which field of the API each one fills.

Each mapping of the file has a table from key to reader; a reader takes the value and the message to fill.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mumian import builder, names, quantities
from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import ComputeTime, Deferral, JobSpec, LatencySlo, TaskGroup
from mumian.api.v1.resources_pb2 import AcceleratorRequest, Resources
from mumian.quantities import WholeNumber
from mumian.spec.document import Document, SpecError, Value

# The names of the architectures, and what else they are called.
ARCHS = {"x86_64": ("amd64", "x64"), "arm64": ("aarch64",)}
_ALIASES = {
    "gpu": "accelerators",
    "gpus": "accelerators",
    "npu": "accelerators",
    "npus": "accelerators",
    "replicas": "count",
    "tasks": "count",
    "instances": "count",
    "groups": "task_groups",
    "cmd": "command",
    "args": "command",
    "run": "command",
    "script": "command",
    "entrypoint": "entry_point",
    "workdir": "working_directory",
    "cwd": "working_directory",
    "timeout": "time_limit",
    "cpus": "cpu",
    "cores": "cpu",
    "mem": "memory",
    "ram": "memory",
    "slo": "latency",
    "type": "kind",
    "zone": "from",
    "zones": "from",
    "percentile": "share",
    "soft": "soft_cny_per_ms_hour",
    "max": "budget",
    "regions": "jurisdictions",
    "pue": "pue_max",
    "spreads": "spread",
    "topology_spread": "spread",
    "anti_affinity": "apart_from",
    "affinity": "near",
    "group_latency": "near",
    "bandwidth": "traffic",
    "zone_traffic": "traffic",
    "deadline": "finish_within",
    "duration": "run_time",
    "defer": "deferral",
    "disconnect": "on_disconnect",
    "stop_on_client_after": "stop_after",
}


@dataclass(frozen=True, slots=True)
class LoadedSpec:
    """A job spec and where each of its fields stands in the file."""

    spec: JobSpec
    path: Path
    # Line and key by field path of the API ("task_groups[0].latency_slo.budget_us").
    origins: Mapping[str, tuple[int, str]]

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
    document = Document(path)
    spec = JobSpec()
    root = document.root()
    if root is not None:
        _read_job(_Target(spec, ""), root)
    if document.faults:
        raise SpecError(path, document.faults)
    spec.name = spec.name or names.name_from(path.stem) or "job"
    return LoadedSpec(spec, path, document.origins)


@dataclass(frozen=True, slots=True)
class _Target:
    """A message to fill, and its field path in the spec."""

    message: Any
    path: str

    def note(self, field: str, value: Value) -> None:
        """Remember where a field came from."""
        path = f"{self.path}.{field}" if self.path and field else self.path or field
        value.document.origins[path] = (value.line, value.key)

    def inner(self, field: str) -> _Target:
        """The message in a field."""
        return _Target(getattr(self.message, field), f"{self.path}.{field}" if self.path else field)


Reader = Callable[[_Target, Value], None]


def _scalar(field: str, parse: Callable[[str], object]) -> Reader:
    def read(target: _Target, value: Value) -> None:
        target.note(field, value)
        parsed = value.parsed(parse)
        if parsed is not None:
            setattr(target.message, field, parsed)

    return read


def _truth(field: str) -> Reader:
    def read(target: _Target, value: Value) -> None:
        target.note(field, value)
        word = value.choice(("true", "false"))
        if word is not None:
            setattr(target.message, field, word == "true")

    return read


def _text(field: str) -> Reader:
    def read(target: _Target, value: Value) -> None:
        target.note(field, value)
        text = value.text()
        if text is not None:
            setattr(target.message, field, text)

    return read


def _texts(field: str) -> Reader:
    def read(target: _Target, value: Value) -> None:
        target.note(field, value)
        getattr(target.message, field).extend(value.texts())

    return read


def _words_by_key(field: str, example: str) -> Reader:
    def read(target: _Target, value: Value) -> None:
        target.note(field, value)
        for name, item in value.entries(example):
            word = item.word()
            if word is not None:
                getattr(target.message, field)[name] = word

    return read


def _scalars_by_key(field: str, parse: Callable[[str], object], example: str) -> Reader:
    def read(target: _Target, value: Value) -> None:
        target.note(field, value)
        for name, item in value.entries(example):
            parsed = item.parsed(parse)
            if parsed is not None:
                getattr(target.message, field)[name] = parsed

    return read


def _within(field: str, reader: Reader) -> Reader:
    return lambda target, value: reader(target.inner(field), value)


def _into(target: _Target, reader: Reader) -> Reader:
    """The reader, filling this target whatever it is called with."""
    return lambda _, value: reader(target, value)


def _fill(target: _Target, value: Value, readers: Mapping[str, Reader], example: str) -> set[str]:
    """Read a mapping by its table; the keys that it has."""
    given = set()
    for key, item in value.fields(readers, example, _ALIASES):
        given.add(key)
        readers[key](target, item)
    return given


def _read_job(target: _Target, root: Value) -> None:
    group_list: list[Value] = []

    def keep(_: _Target, value: Value) -> None:
        group_list.append(value)

    inline = TaskGroup()
    inline_target = _Target(inline, "task_groups[0]")
    inline_target.note("", root)
    inline_readers = {key: _into(inline_target, reader) for key, reader in _GROUP.items() if key not in _JOB}
    given = _fill(target, root, {**_JOB, "task_groups": keep, **inline_readers}, "`command: [echo, hello]`")
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
        target = _Target(group, f"task_groups[{number}]")
        target.note("", item)
        given = _fill(target, item, _GROUP, "`command: [echo, hello]`")
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
    if not given & {"command", "entry_point"}:
        value.document.fault(
            value.line,
            value.key,
            "does not say what to run; add command or entry_point"
            if prefix
            else "the file does not say what to run; add command or entry_point",
        )
    elif {"command", "entry_point"} <= given:
        key = f"{value.key}.entry_point" if value.key else "entry_point"
        value.document.fault(value.line, key, "is set beside command; set exactly one")
    if "resources" not in given:
        builder.fill_resources(group.resources, cpu_given=False, memory_given=False)


def _read_kind(target: _Target, value: Value) -> None:
    target.note("kind", value)
    kind = value.choice(builder.KINDS)
    if kind is not None:
        target.message.kind = builder.KINDS[kind]


def _read_archs(target: _Target, value: Value) -> None:
    target.note("archs", value)
    for item in [value] if value.is_scalar() else value.items():
        arch = item.choice(ARCHS, aliases=ARCHS)
        if arch is not None:
            target.message.archs.append(arch)


def _read_operators(target: _Target, value: Value) -> None:
    readers = {"allow": _texts("operators_allowed"), "deny": _texts("operators_denied")}
    _fill(target, value, readers, "{allow: [a], deny: [b]}")


def _read_deferral(target: _Target, value: Value) -> None:
    target.note("", value)
    example = "{finish_within: 8h, run_time: 2h}"
    given = _fill(target, value, _DEFERRAL, example)
    for key in sorted(_DEFERRAL.keys() - given if value.is_mapping() else ()):
        value.document.fault(value.line, value.key, f"has no {key}; write {example}")
    made: Deferral = target.message
    if made.run_time_s > made.finish_within_s > 0:
        value.document.fault(
            value.line, f"{value.key}.finish_within", "is less than run_time; make it longer"
        )


def _read_on_disconnect(target: _Target, value: Value) -> None:
    target.note("", value)
    _fill(target, value, _ON_DISCONNECT, "{lost_after: 5m, reconcile: keep_original}")


def _read_reconcile(target: _Target, value: Value) -> None:
    target.note("reconcile", value)
    reconcile = value.choice(builder.RECONCILES)
    if reconcile is not None:
        target.message.reconcile = builder.RECONCILES[reconcile]


def _read_command(target: _Target, value: Value) -> None:
    target.note("", value)
    target.note("argv", value)
    if value.is_list():
        argv = value.words()
        if argv[:1] == [""] or not any(value.items()):
            value.fault("names no program; write [echo, hello]")
    elif value.is_mapping():
        argv = []
        value.fault("must be a list such as [echo, hello], or a line for the shell")
    else:
        line = value.text()
        argv = builder.argv(line or "")
        if line == "":
            value.fault("is empty; write [echo, hello], or a line for the shell")
    target.message.argv.extend(argv)


def _read_resources(target: _Target, value: Value) -> None:
    target.note("", value)
    given = _fill(target, value, _RESOURCES, "{cpu: 0.5, memory: 512MiB}")
    resources: Resources = target.message
    builder.fill_resources(resources, cpu_given="cpu" in given, memory_given="memory" in given)


def _read_accelerators(target: _Target, value: Value) -> None:
    target.note("", value)
    request: AcceleratorRequest = target.message
    # Asking for accelerators without a count asks for one.
    given = _fill(target, value, _ACCELERATORS, "{count: 1, model: H100}")
    if "count" not in given:
        request.milli = 1000
    if {"model", "models"} <= given:
        value.document.fault(value.line, f"{value.key}.models", "is set beside model; set one")


def _read_latency(target: _Target, value: Value) -> None:
    target.note("", value)
    slo: LatencySlo = target.message
    given = _fill(target, value, _LATENCY, "{from: [zone], budget: 20ms}")
    if not value.is_mapping():
        return
    for key in ("from", "budget"):
        if key not in given:
            value.document.fault(value.line, value.key, f"has no {key}; write {{from: [zone], budget: 20ms}}")
    if slo.budget_us and slo.client_us >= slo.budget_us:
        value.document.fault(
            value.line, f"{value.key}.client", "leaves nothing of the budget; make it smaller"
        )


def _read_compute(target: _Target, value: Value) -> None:
    target.note("", value)
    if value.is_scalar():
        _scalar("default_us", quantities.duration_us)(target, value)
    else:
        times: ComputeTime = target.message
        _fill(
            _Target(times, target.path),
            value,
            _COMPUTE,
            "5ms, or {default: 8ms, by_accelerator: {H100: 2ms}}",
        )


def _read_spread(target: _Target, value: Value) -> None:
    target.note("spreads", value)
    for name, item in value.fields(builder.TOPOLOGIES, "{site: 2}", {}):
        most = item.parsed(WholeNumber(1, builder.COUNT_MAX))
        target.note(f"spreads[{len(target.message.spreads)}]", item)
        target.message.spreads.add(topology=builder.TOPOLOGIES[name], max_tasks=most or 0)


def _read_apart_from(target: _Target, value: Value) -> None:
    target.note("apart_from", value)
    for group, item in value.entries("{world: site}"):
        topology = item.choice(builder.TOPOLOGIES)
        target.note(f"apart_from[{len(target.message.apart_from)}]", item)
        target.message.apart_from.add(
            topology=builder.TOPOLOGIES.get(topology or "", job_pb2.TOPOLOGY_UNSPECIFIED), task_group=group
        )


def _read_near(target: _Target, value: Value) -> None:
    target.note("group_latencies", value)
    for group, item in value.entries("{world: 5ms}"):
        budget_us = item.parsed(quantities.duration_us)
        target.note(f"group_latencies[{len(target.message.group_latencies)}]", item)
        target.message.group_latencies.add(task_group=group, budget_us=budget_us or 0)


def _read_traffic(target: _Target, value: Value) -> None:
    target.note("zone_traffic", value)
    for zone, item in value.entries("{tianhe: 50Mbit/s}"):
        kbps = item.parsed(quantities.bandwidth_kbps)
        target.note(f"zone_traffic[{len(target.message.zone_traffic)}]", item)
        target.message.zone_traffic.add(zone_id=zone, bandwidth_kbps=kbps or 0)


def _read_port(target: _Target, value: Value) -> None:
    target.note("listen_port", value)
    target.note("listen_port_auto", value)
    port = value.parsed(_port_or_auto)
    if port == "auto":
        target.message.listen_port_auto = True
    elif port is not None:
        target.message.listen_port = port


def _port_or_auto(text: str) -> int | str:
    try:
        return "auto" if text == "auto" else WholeNumber(1, builder.PORT_MAX)(text)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


_JOB: dict[str, Reader] = {
    "name": _scalar("name", names.name),
    "kind": _read_kind,
    "priority": _scalar("priority", WholeNumber(1, builder.PRIORITY_MAX)),
    "jurisdictions": _texts("jurisdictions"),
    "pue_max": _scalar("pue_max_permille", quantities.pue_permille),
    "operators": _read_operators,
    "deferral": _within("deferral", _read_deferral),
    "pinned": _truth("pinned"),
    "on_disconnect": _within("on_disconnect", _read_on_disconnect),
    "at_most_once": _truth("at_most_once"),
}
_ON_DISCONNECT: dict[str, Reader] = {
    "lost_after": _scalar("lost_after_s", quantities.duration_s_or_none),
    "stop_after": _scalar("stop_after_s", quantities.duration_s),
    "replace": _truth("replace"),
    "reconcile": _read_reconcile,
}
_DEFERRAL: dict[str, Reader] = {
    "finish_within": _scalar("finish_within_s", quantities.duration_s),
    "run_time": _scalar("run_time_s", quantities.duration_s),
}
_ACCELERATORS: dict[str, Reader] = {
    "count": _scalar("milli", quantities.accelerator_milli),
    "model": _texts("models"),
    "models": _texts("models"),
}
_RESOURCES: dict[str, Reader] = {
    "cpu": _scalar("cpu_milli", quantities.cpu_milli),
    "memory": _scalar("memory_mib", quantities.memory_mib),
    "accelerators": _within("accelerators", _read_accelerators),
}
_LATENCY: dict[str, Reader] = {
    "from": _texts("zone_ids"),
    "budget": _scalar("budget_us", quantities.duration_us),
    "client": _scalar("client_us", quantities.duration_us),
    "users": _scalars_by_key("users", WholeNumber(0, builder.USERS_MAX), "{tianhe: 3000, nansha: 500}"),
    "share": _scalar("users_permille", quantities.share_permille),
    "soft_cny_per_ms_hour": _scalar("soft_microcny_per_ms_hour", quantities.money_microcny),
}
_COMPUTE: dict[str, Reader] = {
    "default": _scalar("default_us", quantities.duration_us),
    "by_accelerator": _scalars_by_key("by_accelerator_model_us", quantities.duration_us, "{H100: 2ms}"),
    "by_arch": _scalars_by_key("by_arch_us", quantities.duration_us, "{arm64: 9ms}"),
}
_GROUP: dict[str, Reader] = {
    "name": _scalar("name", names.name),
    "count": _scalar("count", WholeNumber(1, builder.COUNT_MAX)),
    "command": _within("command", _read_command),
    "entry_point": _within("command", _scalar("entry_point", names.entry_point)),
    "environment": _within("command", _words_by_key("environment", "{NAME: value}")),
    "working_directory": _within("command", _text("working_directory")),
    "resources": _within("resources", _read_resources),
    "archs": _read_archs,
    "labels": _words_by_key("labels", "{disk: ssd}"),
    "latency": _within("latency_slo", _read_latency),
    "compute": _within("compute_time", _read_compute),
    "spread": _read_spread,
    "apart_from": _read_apart_from,
    "near": _read_near,
    "traffic": _read_traffic,
    "max_restarts": _scalar("max_restarts", WholeNumber(0, builder.RESTARTS_MAX)),
    "time_limit": _scalar("time_limit_ms", quantities.duration_ms),
    "port": _read_port,
}
