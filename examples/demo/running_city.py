"""Starts the city's processes, and stops every one of them, whatever happened in between."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import yaml
from mumian_agent.adapters.ray.settings import temp_dir_of
from mumian_orchestrator.main.embedded import has_ready_line, start_etcd, start_script
from mumian_orchestrator.main.free_ports import free_port
from mumian_orchestrator.main.local_processes import LocalProcesses

from examples.demo import city, delay_proxy
from examples.demo.city import Place
from examples.demo.delay_proxy import Address, DelayedPath

_HOST = "127.0.0.1"
_PROXY_READY_WITHIN_S = 20.0
_LOG_LINES = 8
Progress = Callable[[str], None]


class RunningCity:
    """etcd, a coordinator, the zones' reflectors, the delayed paths, and three sites.

    Args:
        progress: told each step that is done.

    Attributes:
        folder: holds all state and logs.
        coordinator: where the coordinator listens.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.folder = Path(tempfile.mkdtemp(prefix="mumian-demo-"))
        # One for each site, because a record of processes is one writer's.
        self._shared = LocalProcesses(self.folder / "shared")
        self._sites = {place.id: LocalProcesses(self.folder / place.id) for place in city.PLACES}
        self.coordinator = f"{_HOST}:{free_port()}"

    def start(self) -> None:
        """Start everything and wait until it is ready.

        Raises:
            StartError: a process did not come up; what did still has to be stopped.
        """
        etcd = start_etcd(self._shared, self.folder / "shared")
        self._progress("etcd stores, privately")
        reflectors = {zone.id: f"{_HOST}:{free_port()}" for zone in city.ZONES}
        config = _written(
            self.folder / "coordinator.yaml", city.coordinator_config(self.coordinator, etcd, reflectors)
        )
        start_script(self._shared, "coordinator", "mumian-coordinator", "--config", config)
        self._progress(f"the coordinator leads on {self.coordinator}")
        for zone, listen in reflectors.items():
            start_script(self._shared, f"reflector-{zone}", "mumian-agent", "reflector", "--listen", listen)
        self._progress(f"reflectors answer in {' and '.join(reflectors)}")
        site_reflectors = {place.id: f"{_HOST}:{free_port()}" for place in city.PLACES}
        routes = self._open_probe_paths({**reflectors, **site_reflectors})
        self._progress(f"{len(city.RTT_MS)} network paths delay what passes")
        self._start_sites(site_reflectors, routes)

    def open_service_paths(self, ends: Mapping[tuple[str, str], str]) -> dict[tuple[str, str], Address]:
        """Delayed TCP paths from zones to services.

        Args:
            ends: by (zone, site), the service's host:port.

        Returns:
            The near ends, by the same keys.
        """
        paths = {key: _path("tcp", end, city.RTT_MS[key]) for key, end in ends.items()}
        self._start_proxy("service-paths", list(paths.values()))
        return {key: path.listen for key, path in paths.items()}

    def last_words_of_the_dead(self) -> list[str]:
        """The ends of the logs of processes that were started and have ended by themselves."""
        words = []
        for processes in (self._shared, *self._sites.values()):
            alive = processes.running()
            for log in sorted(processes.log("*").parent.glob("*.log")):
                if log.stem not in alive:
                    words.append(f"{log.stem} has ended; the end of its log:")
                    words += log.read_text(errors="replace").strip().splitlines()[-_LOG_LINES:]
        return words

    def stop(self, *, keep: bool = False) -> None:
        """Stop the sites beside one another, then what they depend on; remove the state unless it is kept."""
        self._stop_sites()
        self._shared.stop_all()
        for place in city.PLACES:
            shutil.rmtree(temp_dir_of(self._agent_state(place)), ignore_errors=True)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _open_probe_paths(self, reflectors: Mapping[str, str]) -> dict[str, dict[str, str]]:
        """For each site, where its probes of each target go in."""
        paths = {(far, site): _path("udp", reflectors[far], rtt) for (far, site), rtt in city.RTT_MS.items()}
        self._start_proxy("probe-paths", list(paths.values()))
        routes: dict[str, dict[str, str]] = {place.id: {} for place in city.PLACES}
        for (far, site), path in paths.items():
            routes[site][far] = "{}:{}".format(*path.listen)
        return routes

    def _start_proxy(self, name: str, paths: Sequence[DelayedPath]) -> None:
        argv = [sys.executable, delay_proxy.__file__, *map(str, paths)]
        self._shared.start(name, argv, has_ready_line, _PROXY_READY_WITHIN_S)

    def _start_sites(self, reflectors: Mapping[str, str], routes: Mapping[str, Mapping[str, str]]) -> None:
        def start(place: Place) -> None:
            config = city.agent_config(
                place, self.coordinator, self._agent_state(place), reflectors[place.id], routes[place.id]
            )
            path = _written(self.folder / f"{place.id}.yaml", config)
            start_script(self._sites[place.id], f"agent-{place.id}", "mumian-agent", "run", "--config", path)
            self._progress(f"{place.id} is ready: {place.title}, PUE {place.pue:.2f}")

        # Ray would put all tasks at niceness 15: behind whatever else this machine does.
        os.environ.setdefault("RAY_worker_niceness", "0")
        with ThreadPoolExecutor() as pool:
            starts = [pool.submit(start, place) for place in city.PLACES]
            try:
                for started in as_completed(starts):
                    started.result()
            except BaseException:
                self._stop_sites()  # else the others would be waited for until they are ready
                raise

    def _agent_state(self, place: Place) -> Path:
        return self.folder / place.id / "agent"

    def _stop_sites(self) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(LocalProcesses.stop_all, self._sites.values()))


def _path(protocol: str, target: str, rtt_ms: float) -> DelayedPath:
    host, _, port = target.rpartition(":")
    return DelayedPath(protocol, (_HOST, free_port()), (host, int(port)), rtt_ms)


def _written(path: Path, config: object) -> str:
    path.write_text(yaml.safe_dump(config))
    return str(path)
