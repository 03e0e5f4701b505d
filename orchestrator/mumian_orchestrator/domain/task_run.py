"""How the tasks of a group are run where they are placed: their ports, their health, their restarts."""

from __future__ import annotations

from collections.abc import Iterator

from mumian.api.v1 import job_pb2
from mumian.api.v1.job_pb2 import HealthCheck, JobSpec, TaskGroup

from mumian_orchestrator.domain.coupling import QUANTITY_MAX
from mumian_orchestrator.domain.errors import FieldFault
from mumian_orchestrator.domain.names import NAME_ADVICE, is_name

PORTS_MAX, OUTPUTS_MAX = 16, 64
PORT_NUMBER_MAX = 65535
# A look costs the site a process or a connection.
INTERVAL_LEAST_MS = 200


def has_own_folder(group: TaskGroup) -> bool:
    """Whether each of its tasks runs in a folder of its own."""
    return group.command.HasField("bundle") or bool(group.outputs)


def folder_faults(group: TaskGroup) -> Iterator[FieldFault]:
    """What is wrong with the folder of each task; here and below, fields are named from the group on."""
    if not has_own_folder(group):
        return
    if len(group.outputs) > OUTPUTS_MAX:
        yield FieldFault("outputs", f"({len(group.outputs)} patterns) must be at most {OUTPUTS_MAX}")
    for position, pattern in enumerate(group.outputs):
        if not _stays_inside(pattern) or pattern in ("", "."):
            yield FieldFault(
                f"outputs[{position}]",
                f"({pattern!r}) must be a path below the working directory, such as results/*.csv",
            )
    folder = group.command.working_directory
    if not _stays_inside(folder):
        yield FieldFault(
            "command.working_directory",
            f"({folder!r}) must be below the task's own folder, which it has for its bundle and outputs",
        )


def _stays_inside(path: str) -> bool:
    return not path.startswith("/") and ".." not in path.split("/") and "\0" not in path


def port_faults(group: TaskGroup, _: JobSpec) -> Iterator[FieldFault]:
    """What is wrong with `ports`."""
    if len(group.ports) > PORTS_MAX:
        yield FieldFault("ports", f"({len(group.ports)} ports) must be at most {PORTS_MAX}")
    names: set[str] = set()
    numbers: set[int] = set()
    for position, port in enumerate(group.ports):
        path = f"ports[{position}]"
        if not is_name(port.name):
            yield FieldFault(f"{path}.name", f"({port.name!r}) is no valid name; {NAME_ADVICE}")
        elif port.name in names:
            yield FieldFault(f"{path}.name", f"({port.name}) is taken by an earlier port")
        if port.number > PORT_NUMBER_MAX:
            yield FieldFault(f"{path}.number", f"({port.number}) must be 1 to 65535, or 0 for a free one")
        elif port.number and port.number in numbers:
            yield FieldFault(f"{path}.number", f"({port.number}) is taken by an earlier port")
        names.add(port.name)
        numbers.add(port.number)


def health_faults(group: TaskGroup, spec: JobSpec) -> Iterator[FieldFault]:
    """What is wrong with `health_check`."""
    for fault in _health_faults(group, spec.kind):
        path = f"health_check.{fault.field}" if fault.field else "health_check"
        yield FieldFault(path, fault.description)


def restart_faults(group: TaskGroup, _: JobSpec) -> Iterator[FieldFault]:
    """What is wrong with `restart_delay_ms` and `restart_delay_max_ms`."""
    first_ms, most_ms = group.restart_delay_ms, group.restart_delay_max_ms
    for field, value in (("restart_delay_ms", first_ms), ("restart_delay_max_ms", most_ms)):
        if value > QUANTITY_MAX:
            yield FieldFault(field, f"({value}) must be at most {QUANTITY_MAX}")
    if 0 < most_ms < first_ms:
        yield FieldFault(
            "restart_delay_max_ms", f"({most_ms}) is less than restart_delay_ms ({first_ms}); make it longer"
        )


def _health_faults(group: TaskGroup, kind: job_pb2.JobKind.ValueType) -> Iterator[FieldFault]:
    check: HealthCheck = group.health_check
    if kind != job_pb2.JOB_KIND_SERVICE:
        yield FieldFault("", "is for services; leave it out: a task of another kind ends by itself")
    names = [port.name for port in group.ports]
    match check.WhichOneof("check"):
        case "command":
            if not check.command.argv or not check.command.argv[0]:
                yield FieldFault("command.argv", "is empty; name the program to run")
            if any("\0" in part for part in check.command.argv):
                yield FieldFault("command.argv", "holds a zero byte; remove it")
            if check.port:
                yield FieldFault("port", f"({check.port}) is not for a command; leave it out")
        case "http_path" | "tcp" as way:
            if way == "http_path" and not _is_path(check.http_path):
                yield FieldFault(
                    "http_path",
                    f"({check.http_path!r}) is no path; write one such as /healthz, without spaces",
                )
            if not names:
                yield FieldFault("port", "is missing: the group has no ports; add one")
            elif check.port and check.port not in names:
                yield FieldFault("port", f"({check.port}) is none of the group's ports: {', '.join(names)}")
        case _:
            yield FieldFault("", "does not say how to ask; set one of http_path, tcp and command")
    for field in ("interval_ms", "timeout_ms", "grace_ms", "failures"):
        value = getattr(check, field)
        if value > QUANTITY_MAX:
            yield FieldFault(field, f"({value}) must be at most {QUANTITY_MAX}")
    if 0 < check.interval_ms < INTERVAL_LEAST_MS:
        yield FieldFault("interval_ms", f"({check.interval_ms}) must be at least {INTERVAL_LEAST_MS}")


def _is_path(text: str) -> bool:
    return (
        text.startswith("/")
        and len(text) <= 1024
        and text.isascii()
        and text.isprintable()
        and " " not in text
    )
