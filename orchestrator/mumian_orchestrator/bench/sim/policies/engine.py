"""The engine as a policy: by one of its objectives, and with all jobs looked at together now and then."""

from __future__ import annotations

from collections.abc import Iterable

from mumian_core.v1 import engine_pb2, optimize_pb2

from mumian_orchestrator.bench.sim.policies.base import Cluster, Policy, RunningTask

# For 1 kg: a million yuan, so that no other term matters.
CARBON_ABOVE_ALL_MICROCNY = 10**12
REOPTIMISED_EVERY_S = 900
MOVES_MAX = 100
_ROUNDS = 20
# The coordinator's defaults (main/config.py): a move costs one fen, spread over a day.
_MIGRATION_MICROCNY, _MIGRATION_HORIZON_H = 10_000, 24


class EnginePolicy(Policy):
    """The engine, deciding online.

    Args:
        carbon_kg_microcny: default: the scenario's.
    """

    def __init__(
        self, name: str, objective: engine_pb2.Objective.ValueType, carbon_kg_microcny: int | None = None
    ) -> None:
        super().__init__(name)
        self._objective, self._carbon_kg_microcny = objective, carbon_kg_microcny

    def place(self, cluster: Cluster, request: engine_pb2.PlaceRequest) -> engine_pb2.Plan:
        """Ask the engine."""
        request.policy.objective = self._objective
        carbon = cluster.carbon_kg_microcny if self._carbon_kg_microcny is None else self._carbon_kg_microcny
        request.policy.carbon_kg_microcny = carbon
        return engine_pb2.Plan.FromString(cluster.snapshot.place(request.SerializeToString()))


class ReoptimisingPolicy(EnginePolicy):
    """Online, and every quarter of an hour all that waits or may move is arranged jointly."""

    def __init__(self, name: str) -> None:
        super().__init__(name, engine_pb2.OBJECTIVE_COST)
        self._due_unix_s = 0

    def place(self, cluster: Cluster, request: engine_pb2.PlaceRequest) -> engine_pb2.Plan:
        """Ask the placer, or the optimiser when it is due."""
        if not self._due_unix_s:
            self._due_unix_s = request.now_unix_s + REOPTIMISED_EVERY_S
        if request.now_unix_s < self._due_unix_s:
            return super().place(cluster, request)
        self._due_unix_s = request.now_unix_s + REOPTIMISED_EVERY_S
        policy = engine_pb2.Policy(
            objective=engine_pb2.OBJECTIVE_COST,
            carbon_kg_microcny=cluster.carbon_kg_microcny,
            migration_microcny=_MIGRATION_MICROCNY,
            migration_horizon_h=_MIGRATION_HORIZON_H,
        )
        asked = whole_fleet_request(request.evaluation_id, cluster.movable(), request.jobs, policy)
        asked.moves_max = MOVES_MAX
        # Rounds, not seconds: the same run gives the same plan on any machine.
        asked.stop.rounds_max, asked.stop.threads = _ROUNDS, 1
        answer = optimize_pb2.OptimizeResponse.FromString(
            cluster.snapshot.optimize(asked.SerializeToString())
        )
        return answer.plan


def whole_fleet_request(
    evaluation_id: str,
    running: Iterable[RunningTask],
    pending: Iterable[engine_pb2.PendingJob],
    policy: engine_pb2.Policy,
) -> optimize_pb2.OptimizeRequest:
    """All these in play: what runs may move, and what is pending wants a place."""
    request = optimize_pb2.OptimizeRequest(evaluation_id=evaluation_id, policy=policy)
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
