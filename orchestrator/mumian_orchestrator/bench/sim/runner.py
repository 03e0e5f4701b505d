"""One run of a scenario: by the engine alone, or by all services."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mumian_orchestrator.adapters.memory.virtual_time import run_in_virtual_time
from mumian_orchestrator.bench.sim import world
from mumian_orchestrator.bench.sim.account import Account
from mumian_orchestrator.bench.sim.core_backend import CoreBackend
from mumian_orchestrator.bench.sim.policies import Policy
from mumian_orchestrator.bench.sim.scenario import Scenario
from mumian_orchestrator.bench.sim.services_backend import services_backend
from mumian_orchestrator.bench.sim.simulation import Simulation

Progress = Callable[[int], None]


def _silent(_now_s: int) -> None:
    pass


def run_on_core(
    scenario: Scenario,
    seed: int,
    policy: Policy,
    progress: Progress = _silent,
    *,
    keeps_placements: bool = False,
) -> Simulation:
    """Delta, place, verify on the real engine, a batch at each tick."""
    backend = CoreBackend(scenario, policy, world.Specs(scenario))
    made = Simulation(scenario, seed, backend, Account.of(scenario), keeps_placements=keeps_placements)
    asyncio.run(made.run(progress))
    return made


def run_on_services(
    scenario: Scenario, seed: int, progress: Progress = _silent, *, keeps_placements: bool = False
) -> Simulation:
    """Each task through the coordinator's real services, in virtual time.

    Raises:
        ScenarioError: the scenario has what this mode cannot do.
    """

    async def work() -> Simulation:
        async with services_backend(scenario, world.Specs(scenario)) as backend:
            made = Simulation(
                scenario, seed, backend, Account.of(scenario), keeps_placements=keeps_placements
            )
            await made.run(progress)
            return made

    return run_in_virtual_time(work())
