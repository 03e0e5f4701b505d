"""Fragmentation gradient descent: Weng et al., "Beware of Fragmentation" (USENIX ATC 2023)."""

from __future__ import annotations

from collections.abc import Sequence

from mumian_orchestrator.bench.sim.policies.base import Cluster
from mumian_orchestrator.bench.sim.policies.books import WHOLE_MILLI, Room, Task, each_and_count
from mumian_orchestrator.bench.sim.policies.scan import ScanPolicy

Workload = Sequence[tuple[Task, float]]


def fragment_milli(
    cpu_milli: int, memory_mib: int, devices_milli: Sequence[int], models: Sequence[str], workload: Workload
) -> float:
    """How much of a node's free devices a task drawn from the workload cannot use, in expectation.

    As the paper defines it: all that is free where the task does not fit at all or asks for no
    device; else what is free on devices that have less than the task needs of one.
    """
    free = sum(devices_milli)
    if not free:
        return 0.0
    lost = 0.0
    for task, share in workload:
        each, count = each_and_count(task.accelerator_milli)
        usable = [
            left
            for left, model in zip(devices_milli, models, strict=True)
            if left >= each and (not task.accelerator_models or model in task.accelerator_models)
        ]
        if (
            not task.accelerator_milli
            or task.cpu_milli > cpu_milli
            or task.memory_mib > memory_mib
            or len(usable) < count
        ):
            lost += share * free
        else:
            lost += share * (free - sum(usable))
    return lost


class FragmentationGradientDescent(ScanPolicy):
    """The node, and on it the device, on which the task adds least to the expected fragments."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._workload: Workload = ()

    def begin(self, cluster: Cluster) -> None:
        """The scenario's own mix of tasks is the workload that is expected."""
        self._workload = [(Task.of(group), share) for group, share in cluster.typical]

    def score(self, room: Room, task: Task) -> float:
        """Fragments after less fragments before."""
        return self._least(room, task)[0]

    def devices(self, room: Room, task: Task) -> list[int]:
        """Those with the least fragments after."""
        return self._least(room, task)[1]

    def _least(self, room: Room, task: Task) -> tuple[float, list[int]]:
        before = self._fragments(room, room.cpu_milli, room.memory_mib, room.devices_milli)
        cpu_milli, memory_mib = room.cpu_milli - task.cpu_milli, room.memory_mib - task.memory_mib
        each, _ = each_and_count(task.accelerator_milli)
        choices = [room.choose(task)] if task.accelerator_milli else [[]]
        if 0 < task.accelerator_milli < WHOLE_MILLI:
            seen: dict[tuple[int, str], int] = {}
            for device, left in enumerate(room.devices_milli):
                model = room.device_models[device]
                if left >= each and (not task.accelerator_models or model in task.accelerator_models):
                    seen.setdefault((left, model), device)
            choices = [[device] for device in seen.values()]
        found = []
        for chosen in choices:
            after = list(room.devices_milli)
            for device in chosen:
                after[device] -= each
            found.append((self._fragments(room, cpu_milli, memory_mib, after) - before, chosen))
        return min(found)

    def _fragments(self, room: Room, cpu_milli: int, memory_mib: int, devices_milli: list[int]) -> float:
        return fragment_milli(cpu_milli, memory_mib, devices_milli, room.device_models, self._workload)
