"""Well-known ways to choose a node."""

from __future__ import annotations

from mumian_orchestrator.bench.sim.policies.books import Room, Task
from mumian_orchestrator.bench.sim.policies.scan import ScanPolicy


class FirstFit(ScanPolicy):
    """The first node in order of declaration."""

    def score(self, room: Room, task: Task) -> float:  # noqa: ARG002
        """All alike."""
        return 0.0


class BestFit(ScanPolicy):
    """The least cores left over."""

    def score(self, room: Room, task: Task) -> float:  # noqa: ARG002
        """Free cores."""
        return room.cpu_milli


class LeastAllocated(ScanPolicy):
    """Kubernetes' NodeResourcesFit with LeastAllocated: the mean share of what is free after the task."""

    def score(self, room: Room, task: Task) -> float:
        """The most free first."""
        return -_free_share_after(room, task)


class MostAllocated(ScanPolicy):
    """Kubernetes' NodeResourcesFit with MostAllocated."""

    def score(self, room: Room, task: Task) -> float:
        """The least free first."""
        return _free_share_after(room, task)


def _free_share_after(room: Room, task: Task) -> float:
    """Over cores and memory, as by default in Kubernetes, and devices where the task asks for them."""
    shares = [
        (room.cpu_milli - task.cpu_milli) / room.node.cpu_milli,
        (room.memory_mib - task.memory_mib) / room.node.memory_mib,
    ]
    if task.accelerator_milli:
        free_milli = sum(room.devices_milli) - task.accelerator_milli
        shares.append(free_milli / (1000 * len(room.devices_milli)))
    return sum(shares) / len(shares)
