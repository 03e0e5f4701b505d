"""OR-Tools CP-SAT."""

from __future__ import annotations

import time
from collections import defaultdict

import ortools
from ortools.sat.python import cp_model

from bench.peers.model import Answer, Model

STATUS = {
    cp_model.OPTIMAL: "optimal",
    cp_model.FEASIBLE: "feasible",
    cp_model.INFEASIBLE: "infeasible",
}


class _Trace(cp_model.CpSolverSolutionCallback):  # type: ignore[misc] # it comes without types
    """Notes when each better solution came."""

    def __init__(self) -> None:
        super().__init__()
        self.started = time.perf_counter()
        self.points: list[tuple[float, int]] = []

    def on_solution_callback(self) -> None:
        self.points.append((time.perf_counter() - self.started, round(self.objective_value)))


def solve(model: Model, seconds: float, threads: int, seed: int) -> Answer:
    """Place all tasks at the least cost within the time."""
    started = time.perf_counter()
    pairs = model.pairs()
    program = cp_model.CpModel()
    variables = [program.new_int_var(0, pair.most, "") for pair in pairs]
    of_kind = defaultdict(list)
    of_node = defaultdict(list)
    for pair, variable in zip(pairs, variables, strict=True):
        of_kind[pair.kind].append(variable)
        of_node[pair.node].append((model.kind_demands[pair.kind], variable))
    for kind, count in enumerate(model.kind_counts):
        program.add(cp_model.LinearExpr.sum(of_kind[kind]) == count)
    for node, entries in of_node.items():
        for resource, capacity in enumerate(model.node_capacities[node]):
            takers = [(demand[resource], variable) for demand, variable in entries if demand[resource]]
            weights = [weight for weight, _ in takers]
            program.add(cp_model.LinearExpr.weighted_sum([v for _, v in takers], weights) <= capacity)
    program.minimize(cp_model.LinearExpr.weighted_sum(variables, [pair.cost for pair in pairs]))

    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = threads
    solver.parameters.random_seed = seed
    built = time.perf_counter()
    trace = _Trace()
    status = STATUS.get(solver.solve(program, trace), "unknown")
    solved = time.perf_counter()
    found = status in ("optimal", "feasible")
    values = solver.values(variables) if found else []
    return Answer(
        solver="cp-sat",
        version=ortools.__version__,
        status=status,
        objective=round(solver.objective_value) if found else None,
        bound=solver.best_objective_bound if status != "infeasible" else None,
        build_seconds=built - started,
        solve_seconds=solved - built,
        variables=len(pairs),
        trace=trace.points,
        placed=[(p.kind, p.node, int(v)) for p, v in zip(pairs, values, strict=found) if v],
    )
