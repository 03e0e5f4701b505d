"""The engine as a policy: by one of its objectives."""

from __future__ import annotations

from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim.policies.base import Cluster, Policy, Rearranging

# For 1 kg: a million yuan, so that no other term matters.
CARBON_ABOVE_ALL_MICROCNY = 10**12


class EnginePolicy(Policy):
    """The engine, deciding online.

    Args:
        carbon_kg_microcny: default: the scenario's.
        rearranging: of what runs; by default it stays.
    """

    def __init__(
        self,
        name: str,
        objective: engine_pb2.Objective.ValueType,
        carbon_kg_microcny: int | None = None,
        rearranging: Rearranging | None = None,
    ) -> None:
        super().__init__(name)
        self._objective, self._carbon_kg_microcny = objective, carbon_kg_microcny
        self.rearranging = rearranging

    def place(self, cluster: Cluster, request: engine_pb2.PlaceRequest) -> engine_pb2.Plan:
        """Ask the engine."""
        request.policy.objective = self._objective
        carbon = cluster.carbon_kg_microcny if self._carbon_kg_microcny is None else self._carbon_kg_microcny
        request.policy.carbon_kg_microcny = carbon
        return engine_pb2.Plan.FromString(cluster.snapshot.place(request.SerializeToString()))
