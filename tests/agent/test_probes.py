"""Round trips to real reflectors on the loopback."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest
from mumian.api.v1.fleet_pb2 import FIGURE_SOURCE_MEASURED, Link
from mumian_agent.runtime.prober import SAMPLES_MIN, Prober
from mumian_agent.runtime.reflector import DATAGRAM_BYTES_MAX, Reflector, ReflectorError

from tests.processes import free_port


@pytest.fixture
def reflector() -> str:
    """The address of a reflector."""
    address = f"127.0.0.1:{free_port()}"
    Reflector(address).start()
    return address


@pytest.fixture
def client(reflector: str) -> Iterator[socket.socket]:
    """A socket connected to it."""
    host, port = reflector.split(":")
    with socket.socket(type=socket.SOCK_DGRAM) as connected:
        connected.settimeout(10)
        connected.connect((host, int(port)))
        yield connected


async def news_of(prober: Prober) -> list[Link]:
    """The first news that are some."""
    async with asyncio.timeout(120):
        while not (links := prober.news()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return links


def test_a_datagram_comes_back_unchanged_and_one_too_long_does_not(client: socket.socket) -> None:
    client.send(b"x" * (DATAGRAM_BYTES_MAX + 1))
    client.send(b"y" * DATAGRAM_BYTES_MAX)
    assert client.recv(100) == b"y" * DATAGRAM_BYTES_MAX


def test_an_address_that_is_taken_is_named(reflector: str) -> None:
    with pytest.raises(ReflectorError, match=f"reflector.listen \\({reflector}\\)"):
        Reflector(reflector)


async def test_the_first_links_come_with_enough_samples_of_a_plausible_size(reflector: str) -> None:
    prober = Prober("gz-test", {}, interval_ms=20, window=64)
    prober.set_targets({"tianhe": reflector})
    links = await news_of(prober)
    prober.close()
    [link] = links
    assert (link.from_id, link.to_site_id) == ("tianhe", "gz-test")
    assert link.source == FIGURE_SOURCE_MEASURED
    assert link.sample_count >= SAMPLES_MIN
    assert 0 < link.rtt_p50_us <= link.rtt_p99_us < 1_000_000
    assert abs(link.sample_time.ToNanoseconds() - time.time_ns()) < 60e9


async def test_news_are_told_once(reflector: str) -> None:
    prober = Prober("gz-test", {}, interval_ms=60_000, window=64)
    prober.set_targets({"tianhe": reflector})
    seen = await news_of(prober)
    while seen[0].sample_count < 25:
        seen = await news_of(prober)
    assert prober.news() == []
    prober.close()


async def test_a_route_replaces_the_address_of_its_target(reflector: str) -> None:
    prober = Prober("gz-test", {"tianhe": reflector}, interval_ms=20, window=64)
    prober.set_targets({"tianhe": f"127.0.0.1:{free_port()}"})
    assert (await news_of(prober))[0].from_id == "tianhe"
    prober.close()


async def test_a_target_that_does_not_answer_is_no_link_and_one_that_leaves_is_forgotten(
    reflector: str,
) -> None:
    prober = Prober("gz-test", {}, interval_ms=20, window=64)
    prober.set_targets({"silent": f"127.0.0.1:{free_port()}", "tianhe": reflector})
    assert [link.from_id for link in await news_of(prober)] == ["tianhe"]
    prober.set_targets({})
    await asyncio.sleep(0.1)
    assert prober.news() == []
    prober.close()
