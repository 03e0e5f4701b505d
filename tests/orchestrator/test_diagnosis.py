"""What the doctor says of the store's servers, for each thing that can be wrong with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
from mumian.api.v1.ops_service_pb2 import FINDING_STATE_FAIL, FINDING_STATE_OK, FINDING_STATE_WARN
from mumian_orchestrator.ports.key_value import NoAnswerError
from mumian_orchestrator.ports.store_health import Alarm, ServerHealth
from mumian_orchestrator.services.diagnosis.store_servers import store_findings

MIB = 1024 * 1024
GOOD = ServerHealth(
    endpoint="10.0.0.1:2379",
    version="3.4.23",
    size_bytes=100 * MIB,
    in_use_bytes=90 * MIB,
    quota_bytes=2048 * MIB,
    leads=True,
    has_leader=True,
    clock_ahead_s=0.0,
)
GONE = ServerHealth(endpoint="10.0.0.2:2379", problem="connection refused")
ALONE = dataclasses.replace(GOOD, leads=False, has_leader=False)
WARN, FAIL = FINDING_STATE_WARN, FINDING_STATE_FAIL


class Told:
    """A store's health as the test tells it; alarms None: nobody answers."""

    def __init__(self, servers: Sequence[ServerHealth], alarms: Sequence[Alarm] | None = ()) -> None:
        self._servers, self._alarms = servers, alarms

    async def servers(self) -> Sequence[ServerHealth]:
        return self._servers

    async def alarms(self) -> Sequence[Alarm]:
        if self._alarms is None:
            raise NoAnswerError("nobody answers")
        return self._alarms


def good_but(**changed: object) -> Told:
    """One good server, but for this."""
    return Told([dataclasses.replace(GOOD, **changed)])  # type: ignore[arg-type]


async def test_of_good_servers_everything_is_ok() -> None:
    other = dataclasses.replace(GOOD, endpoint="10.0.0.2:2379", leads=False)
    found = await store_findings(Told([GOOD, other]))
    assert {finding.state for finding in found} == {FINDING_STATE_OK}
    assert not any(finding.advice for finding in found)


FULL = [Alarm("NOSPACE", GOOD.endpoint)]
CORRUPT = [Alarm("CORRUPT", GOOD.endpoint)]


@pytest.mark.parametrize(
    ("health", "check", "state", "message", "advice"),
    [
        (Told([GOOD, GONE]), "store.server", WARN, "10.0.0.2:2379 does not answer: connection", "start it"),
        (Told([GONE], None), "store.server", FAIL, "does not answer", "start it"),
        (Told([ALONE], None), "store.alarm", FAIL, "not known", "a leader"),
        (Told([ALONE, GONE, GONE]), "store.leader", FAIL, "1 of 3 members answer, nothing", "more than half"),
        (good_but(version="3.5.1"), "store.version", WARN, "3.5.1, which can corrupt", "3.5.3"),
        (good_but(size_bytes=1700 * MIB), "store.quota", WARN, "83% of its quota of 2048 MiB", "defragment"),
        (
            good_but(size_bytes=1700 * MIB, in_use_bytes=1600 * MIB),
            "store.quota",
            WARN,
            "1700.0 MiB, 1600.0 MiB of it in use",
            "larger --quota-backend-bytes",
        ),
        (good_but(size_bytes=2000 * MIB), "store.quota", FAIL, "98%", "defragment"),
        (Told([GOOD], FULL), "store.alarm", FAIL, "is full: it can be read", "defragment"),
        (Told([GOOD], CORRUPT), "store.alarm", FAIL, "CORRUPT", "restore a backup"),
        (good_but(clock_ahead_s=-7.0), "store.clock", WARN, "7.0 s behind this one", "NTP"),
        (good_but(clock_ahead_s=7200.0), "store.clock", FAIL, "7200.0 s ahead of this one", "NTP"),
    ],
)
async def test_what_is_wrong_is_said_with_what_to_do(
    health: Told, check: str, state: int, message: str, advice: str
) -> None:
    found = [f for f in await store_findings(health) if f.state != FINDING_STATE_OK and f.check == check]
    assert found[0].state == state
    assert message in found[0].message
    assert advice in found[0].advice
