"""How the store's servers are: whether they answer and agree, their alarms, their room and their clocks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mumian.api.v1.ops_service_pb2 import Finding
from mumian.findings import fail, ok, warn

from mumian_orchestrator.ports.key_value import NoAnswerError
from mumian_orchestrator.ports.store_health import ServerHealth, StoreHealth

_MIB = 1024 * 1024
_NEARLY_FULL, _FULL = 0.8, 0.95  # of the quota
_WORTH_DEFRAGMENTING = 0.5  # of the file that is free
_CLOCK_WARN_S, _CLOCK_FAIL_S = 5.0, 60.0
_MAKE_ROOM = "run `mumian-coordinator defragment`; if it stays so, give etcd a larger --quota-backend-bytes"


async def store_findings(health: StoreHealth) -> list[Finding]:
    """One finding for each server and each thing that is wrong with it, then the alarms."""
    servers = await health.servers()
    found = [finding for server in servers for finding in _server(server, servers)]
    answering = [server for server in servers if not server.problem]
    leader = [server.endpoint for server in answering if server.leads]
    if any(server.has_leader for server in answering):
        who = leader[0] if leader else "one that is not configured, or does not answer"
        found.append(ok("store.leader", f"the members have a leader: {who}"))
    else:
        found.append(
            fail(
                "store.leader",
                f"no leader: {len(answering)} of {len(servers)} members answer, nothing can be stored",
                "start the members that are away; more than half of them have to be there",
            )
        )
    if not answering:
        return found
    return [*found, *await _alarms(health)]


def _server(server: ServerHealth, servers: Sequence[ServerHealth]) -> Iterator[Finding]:
    name = f"etcd {server.endpoint}"
    if server.problem:
        state = fail if all(other.problem for other in servers) else warn
        advice = f"start it, or see its log; check that this machine reaches {server.endpoint}"
        yield state("store.server", f"{name} does not answer: {server.problem}", advice)
        return
    yield ok("store.server", f"{name} answers, version {server.version}{', leads' if server.leads else ''}")
    if re.fullmatch(r"3\.5\.[0-2]", server.version):
        yield warn(
            "store.version",
            f"{name} is of version {server.version}, which can corrupt its data when it is killed",
            "upgrade it to 3.5.3 or newer",
        )
    yield _room(name, server)
    if server.clock_ahead_s is not None:
        yield clock_finding("store.clock", name, server.clock_ahead_s)


def _room(name: str, server: ServerHealth) -> Finding:
    size, in_use = server.size_bytes / _MIB, server.in_use_bytes / _MIB
    said = f"{name} has a file of {size:.1f} MiB, {in_use:.1f} MiB of it in use"
    if server.quota_bytes is None:
        return ok("store.quota", f"{said}; its quota is not known")
    share = server.size_bytes / server.quota_bytes if server.quota_bytes else 0.0
    said = f"{said}, {share:.0%} of its quota of {server.quota_bytes / _MIB:.0f} MiB"
    if share >= _FULL:
        return fail("store.quota", said, _MAKE_ROOM)
    if share >= _NEARLY_FULL:
        advice = "run `mumian-coordinator defragment`"
        if in_use > (1 - _WORTH_DEFRAGMENTING) * size:
            advice = "give etcd a larger --quota-backend-bytes before it is full"
        return warn("store.quota", said, advice)
    return ok("store.quota", said)


async def _alarms(health: StoreHealth) -> list[Finding]:
    try:
        alarms = await health.alarms()
    except NoAnswerError as error:
        return [
            fail("store.alarm", f"alarms are not known: {error}", "see whether the members have a leader")
        ]
    found = []
    for alarm in alarms:
        if alarm.kind == "NOSPACE":
            message = f"etcd {alarm.endpoint} is full: it can be read, and takes nothing new"
            found.append(fail("store.alarm", message, _MAKE_ROOM))
        else:
            message = (
                f"etcd {alarm.endpoint} has raised {alarm.kind}: its data differ from those of the others"
            )
            advice = "stop it, remove its data, and let it join anew; or restore a backup"
            found.append(fail("store.alarm", message, advice))
    return found or [ok("store.alarm", "no alarm is raised")]


def clock_finding(check: str, whose: str, ahead_s: float) -> Finding:
    """How far a clock is off that of this coordinator."""
    off = f"the clock of {whose} is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} this one"
    if abs(ahead_s) >= _CLOCK_FAIL_S:
        return fail(check, off, "set both by NTP; agents that are 60 s off are refused")
    if abs(ahead_s) >= _CLOCK_WARN_S:
        return warn(check, off, "set both by NTP before it grows")
    return ok(check, f"the clock of {whose} is within {_CLOCK_WARN_S:.0f} s of this one")
