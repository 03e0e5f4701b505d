"""The keys of a task group that say what its tasks run, and how."""

from __future__ import annotations

from mumian import builder, names, quantities
from mumian.quantities import WholeNumber
from mumian.spec.document import Value
from mumian.spec.readers import Reader, Target, fill, scalar, text, texts, within, words_by_key

_HEALTH_EXAMPLE = "{http: /healthz, interval: 10s}"


def _read_command(target: Target, value: Value) -> None:
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


def _read_upload(target: Target, value: Value) -> None:
    target.note("bundle", value)
    given = value.text()
    if given is None:
        return
    folder = value.document.path.parent / given
    if not folder.is_dir():
        value.fault(f"is no folder beside {value.document.path.name}; name the one that the tasks start in")
    value.document.uploads[target.path] = folder


def _read_port(target: Target, value: Value) -> None:
    target.note("ports", value)
    _add_port(target, builder.PORT_NAME, value)


def _read_ports(target: Target, value: Value) -> None:
    target.note("ports", value)
    for name, item in value.entries("{http: auto, metrics: 9100}"):
        _add_port(target, name, item)


def _add_port(target: Target, name: str, value: Value) -> None:
    target.note(f"ports[{len(target.message.ports)}]", value)
    number = value.parsed(_port_or_auto)
    try:
        target.message.ports.add(name=names.name(name), number=number or 0)
    except ValueError as error:
        value.document.fault(value.line, value.key, f"is no name of a port: it {error}")


def _port_or_auto(text: str) -> int:
    """The number; 0: a free one."""
    try:
        return 0 if text == "auto" else WholeNumber(1, builder.PORT_MAX)(text)
    except ValueError as error:
        raise ValueError(f"{error}, or auto") from None


def _read_health(target: Target, value: Value) -> None:
    target.note("", value)
    given = fill(target, value, _HEALTH, _HEALTH_EXAMPLE)
    ways = sorted(given & {"http", "tcp", "command"})
    if value.is_mapping() and len(ways) != 1:
        told = " and ".join(ways) or "nothing that asks"
        value.document.fault(value.line, value.key, f"has {told}; write one, as in {_HEALTH_EXAMPLE}")


def _read_tcp(target: Target, value: Value) -> None:
    target.note("tcp", value)
    if value.choice(("true",)):
        target.message.tcp = True


_HEALTH: dict[str, Reader] = {
    "http": text("http_path"),
    "tcp": _read_tcp,
    "command": within("command", _read_command),
    "port": scalar("port", names.name),
    "interval": scalar("interval_ms", quantities.duration_ms),
    "timeout": scalar("timeout_ms", quantities.duration_ms),
    "failures": scalar("failures", WholeNumber(1, builder.FAILURES_MAX)),
    "grace": scalar("grace_ms", quantities.duration_ms),
}
TASK_RUN: dict[str, Reader] = {
    "command": within("command", _read_command),
    "entry_point": within("command", scalar("entry_point", names.entry_point)),
    "image": within("command", text("image")),
    "environment": within("command", words_by_key("environment", "{NAME: value}")),
    "secrets": within("command", words_by_key("secrets", "{VARIABLE: secret}")),
    "working_directory": within("command", text("working_directory")),
    "upload": within("command", _read_upload),
    "outputs": texts("outputs"),
    "max_restarts": scalar("max_restarts", WholeNumber(0, builder.RESTARTS_MAX)),
    "time_limit": scalar("time_limit_ms", quantities.duration_ms),
    "restart_delay": scalar("restart_delay_ms", quantities.duration_ms),
    "restart_delay_max": scalar("restart_delay_max_ms", quantities.duration_ms),
    "port": _read_port,
    "ports": _read_ports,
    "health": within("health_check", _read_health),
}
