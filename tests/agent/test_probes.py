"""Round trips to real reflectors on the loopback."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from mumian.api.v1.fleet_pb2 import FIGURE_SOURCE_MEASURED, PROBE_METHOD_GRPC, PROBE_METHOD_UDP, Link
from mumian_agent.adapters.grpc import echo
from mumian_agent.domain.probe_packet import NONCE_BYTES, PACKET_BYTES, answer_to, nonce_of_answer, request
from mumian_agent.domain.rate_limit import RateLimit
from mumian_agent.runtime.probing import prober as probing
from mumian_agent.runtime.probing.prober import NoAnswerError, Prober
from mumian_agent.runtime.probing.target import SAMPLES_MIN
from mumian_agent.runtime.probing.udp_echo import UdpAddress, UdpEcho
from mumian_agent.runtime.reflector import Reflector, ReflectorError
from mumian_orchestrator.main.free_ports import free_port

from tests.processes import SCRIPTS, Running


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


def test_only_a_request_is_answered_by_as_many_bytes(client: socket.socket) -> None:
    nonce = bytes(range(NONCE_BYTES))
    answer = answer_to(request(nonce))
    assert answer is not None
    for no_request in (b"", b"x" * PACKET_BYTES, request(nonce)[:-1], request(nonce) + b"x", answer):
        client.send(no_request)
    client.send(request(nonce))
    assert client.recv(100) == answer
    assert (len(answer), nonce_of_answer(answer)) == (len(request(nonce)), nonce)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(100)


def test_an_answer_is_never_answered_so_reflectors_cannot_be_set_upon_one_another() -> None:
    answer = answer_to(request(b"n" * NONCE_BYTES))
    assert answer is not None
    assert answer_to(answer) is None
    assert nonce_of_answer(request(b"n" * NONCE_BYTES)) is None


def test_a_sender_gets_its_rate_and_no_more_and_leaves_others_theirs() -> None:
    limit = RateLimit(sender_per_second=10, all_per_second=100, senders_max=1000)
    flood = [limit.admits("flooder", time_ns) for time_ns in range(0, 2_000_000_000, 1_000_000)]
    assert sum(flood) == pytest.approx(10 + 20, abs=1)  # a second's worth at once, then the rate
    assert limit.admits("another", 2_000_000_000)


def test_many_senders_share_one_limit_and_only_so_many_are_remembered() -> None:
    limit = RateLimit(sender_per_second=10, all_per_second=100, senders_max=8)
    assert sum(limit.admits(f"10.0.0.{number}", 0) for number in range(250)) == 100
    # Whoever is forgotten begins anew, which the limit of all bounds.
    assert sum(limit.admits(f"10.0.0.{number}", 1_000_000_000) for number in range(250)) == 100


async def test_with_many_targets_the_pause_grows_so_that_the_budget_holds() -> None:
    prober = Prober("gz-test", {}, interval_ms=200, window=64, packets_per_second_max=50)
    prober.set_targets({f"site-{number}": f"127.0.0.1:{free_port()}" for number in range(100)})
    # 100 targets at 50 packets a second: two seconds for each, a quarter more or less, in the burst as well.
    pauses_s = [prober._pause_s(is_burst) for is_burst in (True, False) for _ in range(500)]
    prober.close()
    assert 1.5 <= min(pauses_s) < 1.6
    assert 2.4 < max(pauses_s) <= 2.5


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


async def test_where_udp_does_not_pass_a_target_is_called_by_grpc() -> None:
    address = f"127.0.0.1:{free_port()}"
    server = echo.serve(address)
    prober = Prober("gz-test", {}, interval_ms=20, window=64, connect=echo.connected)
    prober.set_targets({"tianhe": f"grpc://{address}"})
    [link] = await news_of(prober)
    assert link.from_id == "tianhe"
    assert 0 < link.rtt_p50_us <= link.rtt_p99_us < 1_000_000
    server.stop(None).wait()
    while prober.news():  # noqa: ASYNC110 -- what was under way
        await asyncio.sleep(0.1)
    echo.serve(address)
    assert (await news_of(prober))[0].from_id == "tianhe", "it comes back by itself"
    prober.close()


async def test_a_target_that_udp_does_not_reach_is_called_and_probed_by_udp_again_when_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(probing, "_KNOCK_EVERY_S", 0.2)
    address = f"127.0.0.1:{free_port()}"
    server = echo.serve(address)
    prober = Prober("gz-test", {}, interval_ms=20, window=64, connect=echo.connected)
    prober.set_targets({"tianhe": address})
    [called] = await news_of(prober)
    assert called.probe_method == PROBE_METHOD_GRPC
    Reflector(address).start()
    async with asyncio.timeout(120):
        while (link := (await news_of(prober))[0]).probe_method != PROBE_METHOD_UDP:
            pass
    assert link.rtt_p50_us < called.rtt_p50_us, "no sample of the calls is left"
    prober.close()
    server.stop(None).wait()


async def test_a_clock_that_is_set_during_a_round_trip_makes_it_no_sample(
    reflector: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, port = reflector.split(":")
    probes = UdpEcho()
    probes.send("tianhe", UdpAddress(socket.AF_INET, (host, int(port))))
    await asyncio.sleep(0.2)
    real_ns = time.time_ns
    with monkeypatch.context() as patched:
        patched.setattr(time, "time_ns", lambda: real_ns() + 10**9)
        assert list(probes.answers()) == []
    probes.close()


async def test_a_zones_reflector_answers_by_udp_and_by_grpc(tmp_path: Path) -> None:
    udp, tcp = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    argv = [str(SCRIPTS / "mumian-agent"), "reflector", "--listen", udp, "--grpc-listen", tcp]
    running = Running(argv, tmp_path, "reflector")
    prober = Prober("gz-test", {}, interval_ms=20, window=64, connect=echo.connected)
    try:
        await asyncio.to_thread(running.wait_ready)
        prober.set_targets({"by-udp": udp, "by-grpc": f"grpc://{tcp}"})
        seen: set[str] = set()
        while len(seen) < 2:
            seen |= {link.from_id for link in await news_of(prober)}
    finally:
        prober.close()
        running.sweep()


async def test_any_grpc_server_answers_even_one_without_a_health_check() -> None:
    server = grpc.aio.server()
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with echo.connected(f"127.0.0.1:{port}") as round_trip:
        await round_trip()
        await server.stop(None)
        with pytest.raises(NoAnswerError):
            await round_trip()


async def test_a_call_counts_for_the_packets_that_it_takes() -> None:
    prober = Prober("gz-test", {}, 200, window=64, packets_per_second_max=50, connect=echo.connected)
    prober.set_targets({f"site-{number}": f"grpc://127.0.0.1:{free_port()}" for number in range(100)})
    pauses_s = [prober._pause_s(False) for _ in range(500)]
    prober.close()
    assert min(pauses_s) >= 3
    assert max(pauses_s) <= 5
