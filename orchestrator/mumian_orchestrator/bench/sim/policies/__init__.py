"""Who decides where tasks go. A policy of your own: one Python file with a `POLICY` in it (docs/twin.md)."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path

from mumian_core.v1 import engine_pb2

from mumian_orchestrator.bench.sim.fields import ScenarioError
from mumian_orchestrator.bench.sim.policies.base import Cluster, Policy, Rearranging
from mumian_orchestrator.bench.sim.policies.books import Room, Task
from mumian_orchestrator.bench.sim.policies.engine import CARBON_ABOVE_ALL_MICROCNY, EnginePolicy
from mumian_orchestrator.bench.sim.policies.fgd import FragmentationGradientDescent
from mumian_orchestrator.bench.sim.policies.round_robin import RoundRobin
from mumian_orchestrator.bench.sim.policies.scan import ScanPolicy
from mumian_orchestrator.bench.sim.policies.scores import BestFit, FirstFit, LeastAllocated, MostAllocated
from mumian_orchestrator.bench.sim.policies.solver import SolverPolicy

__all__ = ["POLICIES", "SOLVERS", "Cluster", "Policy", "Rearranging", "Room", "ScanPolicy", "Task", "policy"]

POLICIES: Mapping[str, Callable[[str], Policy]] = {
    "ours": lambda name: EnginePolicy(name, engine_pb2.OBJECTIVE_COST, rearranging=Rearranging()),
    "ours-reoptimised": lambda name: EnginePolicy(
        name, engine_pb2.OBJECTIVE_COST, rearranging=Rearranging(every_s=900, moves_max=100)
    ),
    "ours-unmoved": lambda name: EnginePolicy(name, engine_pb2.OBJECTIVE_COST),
    "nearest": lambda name: EnginePolicy(name, engine_pb2.OBJECTIVE_NEAREST),
    "cheapest": lambda name: EnginePolicy(name, engine_pb2.OBJECTIVE_CHEAPEST_RENT),
    "greenest": lambda name: EnginePolicy(name, engine_pb2.OBJECTIVE_COST, CARBON_ABOVE_ALL_MICROCNY),
    "random": lambda name: EnginePolicy(name, engine_pb2.OBJECTIVE_RANDOM),
    "first-fit": FirstFit,
    "best-fit": BestFit,
    "least-allocated": LeastAllocated,
    "most-allocated": MostAllocated,
    "fgd": FragmentationGradientDescent,
    "round-robin": RoundRobin,
}
# They need a checkout with its solvers, and small scenarios.
SOLVERS: Mapping[str, Callable[[str], Policy]] = {"cp-sat": SolverPolicy, "highs": SolverPolicy}


def policy(name: str) -> Policy:
    """A new policy by its name, or from a Python file with a `POLICY`.

    Raises:
        ScenarioError: there is none.
    """
    if name.endswith(".py"):
        return _from_file(Path(name))
    known = {**POLICIES, **SOLVERS}
    if name not in known:
        raise ScenarioError(f"policy ({name}) is unknown; known: {', '.join(known)}, or a file ending in .py")
    return known[name](name)


def _from_file(path: Path) -> Policy:
    spec = importlib.util.spec_from_file_location("mumian_bench_policy", path)
    if spec is None or spec.loader is None or not path.exists():
        raise ScenarioError(f"policy ({path}) cannot be read; give a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise ScenarioError(f"policy ({path}) cannot be loaded: {error!r}; mend the file") from error
    found = getattr(module, "POLICY", None)
    if not isinstance(found, Policy):
        raise ScenarioError(
            f"policy ({path}) has no POLICY; set it to an object of a class based on Policy or ScanPolicy"
        )
    return copy.deepcopy(found)
