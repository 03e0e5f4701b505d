"""HiGHS, its branch-and-bound for mixed-integer programs."""

from __future__ import annotations

import math
import time
from importlib.metadata import version

import highspy
import numpy as np

from bench.peers.model import Answer, Model, Pair

STATUS = {
    highspy.HighsModelStatus.kOptimal: "optimal",
    highspy.HighsModelStatus.kInfeasible: "infeasible",
}


def solve(model: Model, seconds: float, threads: int, seed: int) -> Answer:
    """Place all tasks at the least cost within the time."""
    started = time.perf_counter()
    pairs = model.pairs()
    solver = highspy.Highs()
    for option, value in {
        "output_flag": False,
        "time_limit": seconds,
        "threads": threads,
        "random_seed": seed,
        "mip_rel_gap": 0.0,  # its default ends at 0.01 %, where the others go on
        "mip_abs_gap": 0.5,
    }.items():
        solver.setOptionValue(option, value)
    solver.passModel(_program(model, pairs))
    trace: list[tuple[float, int]] = []
    built = time.perf_counter()
    solver.cbMipImprovingSolution.subscribe(
        lambda event: trace.append(
            (time.perf_counter() - built, round(event.data_out.objective_function_value))
        )
    )
    solver.run()
    solved = time.perf_counter()
    info = solver.getInfo()
    found = info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible
    values = solver.getSolution().col_value if found else []
    status = STATUS.get(solver.getModelStatus(), "feasible" if found else "unknown")
    return Answer(
        solver="highs",
        version=version("highspy"),
        status=status,
        objective=round(info.objective_function_value) if found else None,
        bound=info.mip_dual_bound if math.isfinite(info.mip_dual_bound) else None,
        build_seconds=built - started,
        solve_seconds=solved - built,
        variables=len(pairs),
        trace=trace,
        placed=[(p.kind, p.node, round(v)) for p, v in zip(pairs, values, strict=found) if round(v)],
    )


def _program(model: Model, pairs: list[Pair]) -> highspy.HighsLp:
    """Rows: one for each kind, then one for each node and resource; a column for each pair."""
    kinds, resources = len(model.kind_counts), len(model.node_capacities[0])
    program = highspy.HighsLp()
    program.num_col_ = len(pairs)
    program.num_row_ = kinds + resources * len(model.node_capacities)
    program.col_cost_ = np.array([pair.cost for pair in pairs], dtype=float)
    program.col_lower_ = np.zeros(len(pairs))
    program.col_upper_ = np.array([pair.most for pair in pairs], dtype=float)
    program.integrality_ = [highspy.HighsVarType.kInteger] * len(pairs)
    capacities = np.array(model.node_capacities, dtype=float).ravel()
    counts = np.array(model.kind_counts, dtype=float)
    program.row_lower_ = np.concatenate([counts, np.full(len(capacities), -highspy.kHighsInf)])
    program.row_upper_ = np.concatenate([counts, capacities])
    starts, rows, weights = [0], [], []
    for pair in pairs:
        demand = model.kind_demands[pair.kind]
        rows += [pair.kind, *(kinds + pair.node * resources + r for r in range(resources) if demand[r])]
        weights += [1, *(amount for amount in demand if amount)]
        starts.append(len(rows))
    program.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    program.a_matrix_.start_ = np.array(starts, dtype=np.int32)
    program.a_matrix_.index_ = np.array(rows, dtype=np.int32)
    program.a_matrix_.value_ = np.array(weights, dtype=float)
    return program
