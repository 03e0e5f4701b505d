"""What the agent asks of one machine of its site: its own is asked as it is, others by an actor there."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
from mumian.api.v1.fleet_pb2 import HEALTH_READY, Node
from mumian.api.v1.resources_pb2 import Accelerator, DeviceShare

from mumian_agent.domain import accelerators
from mumian_agent.domain.accelerators import Device
from mumian_agent.domain.allocation import AllocationKey
from mumian_agent.domain.config import RACK_VARIABLE, SWITCH_VARIABLE, NodeConfig
from mumian_agent.runtime import contact, container, limits, process_tree, sandbox
from mumian_agent.runtime.accelerators.inspector import Inspector, is_foreign
from mumian_agent.runtime.contact import Contact
from mumian_agent.runtime.machine import Machine, arch
from mumian_agent.runtime.power.meter import MeterError
from mumian_agent.runtime.power.rapl import RaplMeter
from mumian_agent.runtime.process_tree import ProcessId

log = logging.getLogger(__name__)

_LOOK_AT_DEVICES_EVERY_S = 60.0


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node adds to a task."""

    host: str  # where its services are reached
    core_active_power_mw: int
    accelerators: Sequence[Accelerator]
    stop_grace_s: float
    contact: Path  # where the newest contact with the coordinator is noted, on that node
    engine: str = ""  # the container engine's client; empty: there is none
    hidden: tuple[str, ...] = ()  # folders of that node that tasks are kept from; none: they cannot be


@dataclass(frozen=True, slots=True)
class NodeReading:
    """A node at one moment. Travels between processes."""

    node: Node  # but for its id and site
    clock_ns: int  # by the node's own `contact.now_ns`
    cpu_used_milli: int
    power_mw: int | None  # of its own meter, mean since the last reading; None: it has none that answers
    engine: str = ""  # the container engine's client; empty: there is none
    hidden: tuple[str, ...] = ()  # folders that tasks are kept from


class NodeProbe:
    """One machine. Every method may block for seconds, and is called on a thread."""

    def __init__(
        self,
        config: NodeConfig,
        folder: Path,
        own: Callable[[], Iterable[psutil.Process]] = process_tree.all_members,
        inspector: Inspector | None = None,
        meters: bool = True,
        hidden: Sequence[Path] = (),
    ) -> None:
        """
        Args:
            folder: the agent's on this machine; tasks write below it.
            own: the processes of the site on this machine, when it is a slice of one.
            meters: look for a meter; False where somebody else reads it.
            hidden: folders that no task is to see.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._config, self._own = config, own
        self._machine = Machine(config, folder)
        self._contact = Contact(folder / "contact")
        looks = config.detects_accelerators and not config.accelerators
        self._inspector = (inspector or Inspector()) if looks else None
        self._devices: list[Device] = []
        self._looked_s = -_LOOK_AT_DEVICES_EVERY_S
        self._engine, why_none = container.find(config.container_engine)
        log.info("containers: %s", self._engine or f"none ({why_none})")
        why_not = sandbox.why_not(config.isolation, hidden) if hidden else "there is nothing to hide"
        self._hidden = () if why_not else tuple(map(str, hidden))
        log.info("tasks do not see: %s", ", ".join(self._hidden) or f"nothing is kept from them ({why_not})")
        is_slice = config.cpu_milli_limit is not None
        self._meter = RaplMeter.find() if meters and not is_slice else None

    @property
    def contact_path(self) -> Path:
        """Where the newest contact with the coordinator is noted."""
        return self._contact.path

    def read(self) -> NodeReading:
        """The machine now."""
        usage = self._machine.usage(self._own)
        offered, withheld = self._accelerators()
        cpu_permille = min(usage.cpu_milli * 1000 // self._machine.cpu_milli, 1000)
        node = Node(
            arch=arch(),
            health=HEALTH_READY,
            labels=self._config.labels,
            cpu_milli=self._machine.cpu_milli - usage.cpu_milli_withheld,
            memory_mib=self._machine.memory_mib - usage.memory_mib_withheld,
            accelerators=offered,
            core_active_power_mw=self._config.core_active_power_mw,
            cpu_used_permille=cpu_permille,
            memory_mib_used=usage.memory_mib,
            disk_mib=usage.disk_mib,
            disk_mib_used=usage.disk_used_mib,
            network_kbps=usage.network_kbps,
            network_kbps_used=usage.network_used_kbps,
            cpu_milli_withheld=usage.cpu_milli_withheld,
            memory_mib_withheld=usage.memory_mib_withheld,
            devices_withheld=withheld,
            container_engine=str(self._engine or ""),
            switch_id=self._config.switch or os.environ.get(SWITCH_VARIABLE, ""),
            rack_id=self._config.rack or os.environ.get(RACK_VARIABLE, ""),
        )
        engine = self._engine.path if self._engine else ""
        return NodeReading(node, contact.now_ns(), usage.cpu_milli, self._power_mw(), engine, self._hidden)

    def heard(self, clock_ns: int) -> None:
        """The coordinator has heard the site at that time or later, by this machine's clock."""
        self._contact.heard(clock_ns)

    def sweep(self, process: ProcessId | None, key: AllocationKey, is_container: bool) -> None:
        """End what is left of a task."""
        process_tree.sweep(process, *key)
        limits.clear(key)
        if is_container and self._engine is not None:
            container.remove(self._engine.path, key)

    def _accelerators(self) -> tuple[Sequence[Accelerator], list[DeviceShare]]:
        if self._inspector is None:
            return self._config.accelerators, []
        if self._inspector.has_sources and time.monotonic() - self._looked_s >= _LOOK_AT_DEVICES_EVERY_S:
            before = accelerators.faults_of(self._devices)
            self._devices = self._inspector.devices()
            self._looked_s = time.monotonic()
            for fault in accelerators.faults_of(self._devices):
                if fault not in before:
                    log.warning("%s; it is not offered", fault)
        return accelerators.offered(self._devices), accelerators.withheld(self._devices, is_foreign)

    def _power_mw(self) -> int | None:
        if self._meter is None:
            return None
        try:
            return self._meter.power_mw()
        except MeterError:
            return None
