"""Looks at a run from outside, now and then: how far it is from the bound, and how much room is in fragments.

It builds a state of its own from what runs where, so that it is the same for every policy and both modes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from mumian.api.v1.fleet_pb2 import Node, Site
from mumian.api.v1.job_pb2 import JOB_KIND_GANG
from mumian.api.v1.resources_pb2 import DeviceShare
from mumian_core import Engine
from mumian_core.v1 import engine_pb2, optimize_pb2

from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.account import Running, node_class_index
from mumian_orchestrator.bench.sim.arrivals import Arrival
from mumian_orchestrator.bench.sim.links import Links, link_messages
from mumian_orchestrator.bench.sim.policies.books import Room, Task
from mumian_orchestrator.bench.sim.policies.fgd import fragment_milli
from mumian_orchestrator.bench.sim.scenario import Scenario


@dataclass(frozen=True, slots=True)
class Reading:
    """One look.

    Args:
        cost_microcny_per_hour: of all that runs, at the figures of now.
        bound_microcny_per_hour: proven: no arrangement of the same tasks costs less.
        core_fragments: the share of free cores that a task drawn from the arrivals could not use, as its
            node lacks something for it.
        device_fragments: the same of free devices and the tasks that ask for one (after Weng et al.,
            USENIX ATC 2023); None: no devices.
    """

    at_s: int
    cost_microcny_per_hour: int
    bound_microcny_per_hour: int
    core_fragments: float
    device_fragments: float | None

    @property
    def gap(self) -> float:
        """By how much what runs costs more than the bound, as a share of the bound."""
        bound = self.bound_microcny_per_hour
        return max(0.0, self.cost_microcny_per_hour / bound - 1) if bound > 0 else 0.0


class Gauge:
    """Reads a scenario's runs."""

    def __init__(self, scenario: Scenario) -> None:
        self._scenario, self._specs = scenario, world.Specs(scenario)
        self._nodes = [node for site in scenario.sites for node in world.node_messages(site)]
        self._machines = {site.id: site.nodes for site in scenario.sites}
        self._workload = [(Task.of(group), share) for group, share in self._specs.typical()]
        # Devices are of use to tasks that ask for one, so only those count for them.
        asking = sum(share for task, share in self._workload if task.accelerator_milli) or 1.0
        self._device_workload = [
            (task, share / asking) for task, share in self._workload if task.accelerator_milli
        ]

    def read(
        self,
        now_s: int,
        sites: Sequence[Site],
        links: Links,
        running: Collection[Running],
    ) -> Reading:
        """How things stand. Tasks whose promise is broken where they are stay out of cost and bound."""
        pue = {site.id: site.pue.average_permille for site in sites}
        kept = [r for r in running if self._keeps_promises(r, links, pue)]
        answer = self.optimise(sites, links, running, kept, rounds=1)
        core_fragments, device_fragments = self._fragments(running)
        return Reading(
            now_s,
            answer.start.objective_microcny_per_hour,
            answer.bound_microcny_per_hour,
            core_fragments,
            device_fragments,
        )

    def optimise(
        self,
        sites: Sequence[Site],
        links: Links,
        running: Collection[Running],
        movable: Collection[Running],
        waiting: Collection[Arrival] = (),
        more_nodes: Sequence[Node] = (),
        *,
        rounds: int,
    ) -> optimize_pb2.OptimizeResponse:
        """The best arrangement of what is movable and waits, as if all of it could move at once.

        Moves cost nothing. The rest of what is running stays.
        """
        engine = Engine()
        messages = link_messages(links, self._scenario.rtt_p99_factor)
        nodes = [*self._nodes, *more_nodes]
        delta = engine_pb2.Delta(reset=True, sites=sites, nodes=nodes, links=messages)
        for entry in running:
            task, group = self._specs.running(entry.task), self._specs.group_of(entry.task)
            delta.allocations.add(
                allocation_id=task.id,
                node_id=entry.node_id,
                resources=group.resources,
                devices=[DeviceShare(device_index=i, milli=milli) for i, milli in entry.devices_milli],
                job_id=task.job_id,
                task_group=task.task_group,
                task_index=task.task_index,
                zone_traffic=group.zone_traffic,
                priority=task.spec.priority,
                gang=task.spec.kind == JOB_KIND_GANG,
            )
        engine.apply(delta.SerializeToString())
        policy = engine_pb2.Policy(
            objective=engine_pb2.OBJECTIVE_COST, carbon_kg_microcny=self._scenario.carbon_kg_microcny
        )
        in_play = [self._specs.running(entry.task) for entry in movable]
        request = _whole_fleet_request(in_play, self._specs.pending(waiting), policy)
        request.stop.rounds_max, request.stop.threads = rounds, 1
        return optimize_pb2.OptimizeResponse.FromString(
            engine.snapshot().optimize(request.SerializeToString())
        )

    def _keeps_promises(self, running: Running, links: Links, pue_permille: Mapping[str, int]) -> bool:
        job = self._scenario.jobs[running.task.job_class]
        if job.pue_max_permille and pue_permille[running.site_id] > job.pue_max_permille:
            return False
        group = job.groups[running.task.group]
        machine = self._machines[running.site_id][node_class_index(running.node_id)]
        rtt_p99_us = links[running.task.zone, running.site_id].rtt_p99_us
        return not group.is_hard or group.keeps_promise(rtt_p99_us, machine)

    def _fragments(self, running: Collection[Running]) -> tuple[float, float | None]:
        sites = {site.id: Site(id=site.id) for site in self._scenario.sites}
        rooms = {node.id: Room.empty(node, sites[node.site_id]) for node in self._nodes}
        for entry in running:
            group = self._scenario.jobs[entry.task.job_class].groups[entry.task.group]
            room = rooms[entry.node_id]
            room.cpu_milli -= group.cpu_milli
            room.memory_mib -= group.memory_mib
            for index, milli in entry.devices_milli:
                room.devices_milli[index] -= milli
        cores = cores_lost = devices = devices_lost = 0.0
        for room in rooms.values():
            cores += room.cpu_milli
            cores_lost += room.cpu_milli * self._share_that_does_not_fit(room)
            devices += sum(room.devices_milli)
            devices_lost += fragment_milli(
                room.cpu_milli, room.memory_mib, room.devices_milli, room.device_models, self._device_workload
            )
        has_devices = any(node.accelerators for node in self._nodes)
        return (
            cores_lost / cores if cores else 0.0,
            (devices_lost / devices if devices else 0.0) if has_devices else None,
        )

    def _share_that_does_not_fit(self, room: Room) -> float:
        """Of the arrivals, by cores and memory alone: a node without devices is no fragment."""
        return sum(
            share
            for task, share in self._workload
            if task.cpu_milli > room.cpu_milli or task.memory_mib > room.memory_mib
        )


def _whole_fleet_request(
    running: Iterable[world.RunningTask],
    pending: Iterable[engine_pb2.PendingJob],
    policy: engine_pb2.Policy,
) -> optimize_pb2.OptimizeRequest:
    """All these in play: what runs may move, and what is pending wants a place."""
    request = optimize_pb2.OptimizeRequest(evaluation_id="gauge", policy=policy)
    wanting = list(pending)
    named = {job.job_id for job in wanting}
    for task in running:
        if task.job_id not in named:
            named.add(task.job_id)
            # An entry without tasks: none is pending. No entry would mean all.
            none = engine_pb2.PendingTasks(task_group=task.spec.task_groups[0].name)
            request.jobs.add(job_id=task.job_id, spec=task.spec, pending=[none])
        request.running.add(
            allocation_id=task.id,
            job_id=task.job_id,
            task_group=task.task_group,
            task_index=task.task_index,
        )
    request.jobs.extend(wanting)
    return request
