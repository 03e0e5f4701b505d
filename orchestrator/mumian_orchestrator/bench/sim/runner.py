"""One run of a scenario: by the engine alone, or by all services."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mumian_orchestrator.adapters.memory.virtual_time import run_in_virtual_time
from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.account import Account
from mumian_orchestrator.bench.sim.core_backend import CoreBackend
from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.policies import policy
from mumian_orchestrator.bench.sim.scenario import Scenario
from mumian_orchestrator.bench.sim.services_backend import services_backend
from mumian_orchestrator.bench.sim.simulation import Simulation

Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Run:
    """What to run.

    Args:
        policy_name: a name, or a Python file.
        mode: "core" or "services".
        readings: how often the gauge looks at the run.

    Raises:
        ScenarioError: the mode cannot do that.
    """

    scenario: Scenario
    policy_name: str = "ours"
    mode: str = "core"
    readings: int = 24

    def __post_init__(self) -> None:
        if self.mode == "services" and self.policy_name not in ("ours", "ours-reoptimised"):
            raise ScenarioError(f"--policy ({self.policy_name}) runs with --mode core only")
        if self.mode == "services" and any(event.kind == "drain" for event in self.scenario.events):
            raise ScenarioError("events of kind drain run with --mode core only")

    def simulate(
        self, seed: int, progress: Progress | None = None, *, keeps_placements: bool = False
    ) -> Simulation:
        """From the first tick to the last."""
        shown = progress or (lambda _: None)
        return (
            self._on_core(seed, shown, keeps_placements)
            if self.mode == "core"
            else self._on_services(seed, shown, keeps_placements)
        )

    def _on_core(self, seed: int, progress: Progress, keeps_placements: bool) -> Simulation:
        """Delta, place, verify on the real engine, a batch at each tick."""
        backend = CoreBackend(self.scenario, policy(self.policy_name), world.Specs(self.scenario))
        made = Simulation(
            self.scenario, seed, backend, Account.of(self.scenario), self.readings, keeps_placements
        )
        run_in_virtual_time(made.run(progress))
        return made

    def _on_services(self, seed: int, progress: Progress, keeps_placements: bool) -> Simulation:
        """Each task through the coordinator's real services, in virtual time."""

        rearranging = policy(self.policy_name).rearranging
        assert rearranging is not None

        async def work() -> Simulation:
            async with services_backend(self.scenario, world.Specs(self.scenario), rearranging) as backend:
                made = Simulation(
                    self.scenario, seed, backend, Account.of(self.scenario), self.readings, keeps_placements
                )
                await made.run(progress)
                return made

        return run_in_virtual_time(work())
