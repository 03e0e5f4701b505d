"""What runs here, or could: the agent, its Ray, and the ports that they listen on."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from mumian.api.v1.ops_service_pb2 import Finding
from mumian.findings import fail, ok, warn

from mumian_agent.adapters.local.client import NoAgentError, RefusedError, ask
from mumian_agent.agent.ports import SiteRuntimeError
from mumian_agent.domain.config import LOOPBACK_ONLY, AgentConfig
from mumian_agent.domain.fields import host_and_port
from mumian_agent.runtime.reflector import Reflector, ReflectorError

_SILENT_S = 15.0


def running_agent(config: AgentConfig) -> Finding | None:
    """The agent of this state folder, if one answers."""
    try:
        [told] = ask(config.state_dir, verb="status")
    except (NoAgentError, RefusedError, ValueError):
        return None
    silent_s, untold = told["silent_s"], told["untold"]
    if silent_s is None or silent_s > _SILENT_S:
        heard = "has not been heard" if silent_s is None else f"was heard {silent_s} s ago"
        said = f"it runs alone: the coordinator {heard}; {untold} results wait to be told"
        return warn("agent", said, "tasks go on; see below what is wrong with the way there")
    return ok("agent", f"it runs, and the coordinator was heard {silent_s} s ago")


def ports(config: AgentConfig) -> Iterator[Finding]:
    """Whether the agent could listen."""
    try:
        Reflector(config.reflector_listen).close()
        yield ok("reflector", f"{config.reflector_listen} (UDP) is free to answer probes")
    except ReflectorError as error:
        yield fail("reflector", str(error), "choose an address of this machine, and a port that is free")
    if config.reflector_grpc_listen is not None:
        state = fail if config.reflector_grpc_asked else warn
        yield _tcp("reflector.grpc", config.reflector_grpc_listen, "to answer probes", state)
    if config.ray_listen != LOOPBACK_ONLY:
        yield _tcp("ray.listen", config.ray_listen, "for further nodes to join at")


def _tcp(check: str, address: str, purpose: str, wrong: Callable[[str, str, str], Finding] = fail) -> Finding:
    try:
        socket.create_server(host_and_port(address)).close()
    except OSError as error:
        advice = "choose an address of this machine, and a port that is free"
        return wrong(check, f"{address} cannot be listened on: {error.strerror}", advice)
    return ok(check, f"{address} is free {purpose}")


async def ray() -> AsyncIterator[Finding]:
    """Whether a Ray starts here: one of its own is started, and ended."""
    # Here, for Ray reads the environment when it is imported.
    with tempfile.TemporaryDirectory(prefix="mumian-doctor-") as folder:
        begun_s = time.monotonic()
        try:
            from mumian_agent.adapters.ray.settings import own_token, prepare_environment

            prepare_environment(own_token(Path(folder)))
            from mumian_agent.adapters.ray.cluster import RayCluster
        except ImportError as error:
            yield fail("ray", f"it is not installed: {error}", "pip install 'mumian-agent[ray]'")
            return
        cluster = RayCluster(Path(folder), 1, LOOPBACK_ONLY)
        try:
            await cluster.open()
        except (SiteRuntimeError, TimeoutError) as error:
            log = (Path(folder) / "ray.log").read_text(errors="replace").strip().splitlines()
            last = f"; its last word: {log[-1][:300]}" if log else ""
            advice = "have 1 GiB of memory and 100 MiB in /dev/shm and /tmp, and let it use the loopback"
            yield fail("ray", f"{error or 'it does not start in time'}{last}", advice)
            return
        else:
            yield ok("ray", f"one started within {time.monotonic() - begun_s:.1f} s, and was ended")
        finally:
            await asyncio.shield(cluster.close())
