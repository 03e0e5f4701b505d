"""The site's own Ray: started in a session of its own, found again by the next agent, ended alone."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import shutil
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray

from mumian_agent.adapters.ray.settings import NAMESPACE, temp_dir_of
from mumian_agent.agent.ports import SiteRuntimeError
from mumian_agent.domain.fields import host_and_port
from mumian_agent.runtime import process_tree

log = logging.getLogger(__name__)

_START_WITHIN_S = 150.0  # a busy machine takes long
_RAY_GIVES_UP_AFTER_S = 15.0
# It holds nothing that is worth waiting for.
_END_WITHIN_S = 1.0


@dataclass(frozen=True, slots=True)
class _Record:
    """A Ray that runs: where it is, and the session that all its processes are in."""

    address: str
    session_id: int
    begun_s: float  # no process of it was born before

    def processes(self) -> list[psutil.Process]:
        """Its processes; the tasks' are not among them, each has a session of its own."""
        found = []
        for pid in psutil.pids():
            with contextlib.suppress(OSError, psutil.NoSuchProcess):
                if os.getsid(pid) == self.session_id:
                    process = psutil.Process(pid)
                    if process.create_time() >= self.begun_s and process.status() != psutil.STATUS_ZOMBIE:
                        found.append(process)
        return found

    def is_alive(self) -> bool:
        """Whether its two servers are there."""
        names = {process.name() for process in self.processes()}
        return {"gcs_server", "raylet"} <= names and _accepts(self.address)


class RayCluster:
    """The head node, which other machines of the site may join. Never `ray stop`: that would end every Ray
    of the machine.
    """

    def __init__(self, state_dir: Path, num_cpus: int, listen: str) -> None:
        """`listen` is host:port of Ray's own server; port 0: any that is free."""
        self._host, self._port = host_and_port(listen)
        self._file = state_dir / "ray.json"
        self._log_file = state_dir / "ray.log"
        self._temp_dir = temp_dir_of(state_dir)
        self._num_cpus = num_cpus
        self._record: _Record | None = None

    async def open(self) -> None:
        """Connect to the Ray of an earlier agent if it still lives, otherwise start one.

        Raises:
            SiteRuntimeError: it does not start.
        """
        known = self._load()
        if known and known.is_alive():
            log.info("taking over the site's Ray at %s", known.address)
            self._record = known
        else:
            if known:
                self._end(known)
            self._record = await self._start()
        try:
            # On this thread: Ray sets signal handlers, which only the main one may.
            ray.init(
                address=self._record.address,
                namespace=NAMESPACE,
                _node_ip_address=self._host,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
            raise SiteRuntimeError(f"the site's Ray at {self._record.address} refuses: {error}") from error

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on the site: Ray's own processes and the tasks below them."""
        assert self._record is not None
        return process_tree.with_descendants(self._record.processes())

    @property
    def address(self) -> str:
        """Where other nodes join it, as host:port."""
        assert self._record is not None
        return self._record.address

    def is_alive(self) -> bool:
        """Whether Ray's servers are still there."""
        return self._record is not None and self._record.is_alive()

    async def close(self) -> None:
        """End the site's Ray, and nothing else."""
        await asyncio.to_thread(ray.shutdown)
        if self._record is not None:
            await asyncio.to_thread(self._end, self._record)
            self._file.unlink(missing_ok=True)
            shutil.rmtree(self._temp_dir, ignore_errors=True)

    async def _start(self) -> _Record:
        """A busy machine, or one that reads Ray from its disk at first, may need more than one attempt:
        Ray gives up after 15 s without its own helpers, which nothing can change (ray-project/ray#65983).
        """
        deadline_s = time.monotonic() + _START_WITHIN_S
        while True:
            begun_s = time.monotonic()
            if (record := await self._try_to_start()) is not None:
                return record
            now_s = time.monotonic()
            if now_s - begun_s < _RAY_GIVES_UP_AFTER_S or now_s > deadline_s:
                raise SiteRuntimeError(
                    f"the site's Ray does not start; {self._log_file} and {self._temp_dir} say why"
                )
            log.warning("the site's Ray has not started within %.0f s; trying again", now_s - begun_s)

    async def _try_to_start(self) -> _Record | None:
        shutil.rmtree(self._temp_dir, ignore_errors=True)
        begun_s = psutil.Process().create_time()
        with self._log_file.open("ab") as errors:
            starter = await asyncio.create_subprocess_exec(
                # -P: not by what lies in the folder that the agent was started in.
                *(sys.executable, "-P", "-m", "mumian_agent.adapters.ray.head"),
                *(str(self._num_cpus), str(self._temp_dir), self._host, str(self._port)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
            )
        record = _Record("", starter.pid, begun_s)
        assert starter.stdout is not None
        try:
            async with asyncio.timeout(_START_WITHIN_S):
                lines = iter((await starter.stdout.readline()).decode().split())
        except TimeoutError:
            self._end(record)
            return None
        except asyncio.CancelledError:
            self._end(record)
            raise
        address = next(lines, "")
        await starter.wait()
        if not address:
            self._end(record)
            return None
        record = dataclasses.replace(record, address=address)
        self._file.write_text(json.dumps(dataclasses.asdict(record)))
        return record

    def _load(self) -> _Record | None:
        try:
            return _Record(**json.loads(self._file.read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None

    def _end(self, record: _Record) -> None:
        processes = record.processes()
        process_tree.send(processes, signal.SIGTERM)
        psutil.wait_procs(processes, timeout=_END_WITHIN_S)
        while left := record.processes():
            process_tree.send(left, signal.SIGKILL)
            psutil.wait_procs(left, timeout=_END_WITHIN_S)


def _accepts(address: str) -> bool:
    try:
        with socket.create_connection(host_and_port(address), timeout=1):
            return True
    except OSError:
        return False
