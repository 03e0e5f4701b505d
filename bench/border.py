"""The border between Python and Rust on its own (`make bench-border`).

- ns per delta: `Engine.apply` of the bytes that commit one task, decoding included.
- bytes per plan: what crosses the border for one placement.
- share of a call with the GIL held: while one thread is inside `place`, another writes down when
  it could run; the rest of the call it was kept out. A busy machine keeps it out as well, so the
  least of the calls is printed.
"""

from __future__ import annotations

import sys
import threading
import time
from statistics import median, quantiles

from mumian_core import Engine
from mumian_core.v1 import engine_pb2

from bench.online.run import instance
from bench.report import Report

NODES, SEED = 1_000, 1
DELTAS = 5_000
CALLS = 20
# A thread that runs freely writes down the time much more often.
GAP_NS = 20_000


def delta_ns(engine: Engine, plan: engine_pb2.Plan) -> list[int]:
    """Commits the placements one by one; the time of each."""
    samples = []
    generation = engine.generation()
    for number, placement in enumerate(plan.placements[:DELTAS]):
        delta = engine_pb2.Delta(base_generation=generation)
        delta.allocations.add(
            allocation_id=f"a{number}",
            node_id=placement.node_id,
            devices=placement.devices,
            job_id=placement.job_id,
            task_group=placement.task_group,
        )
        data = delta.SerializeToString()
        start = time.perf_counter_ns()
        generation = engine.apply(data)
        samples.append(time.perf_counter_ns() - start)
    return samples


class Watch:
    """A thread that writes down when it was kept from running."""

    def __init__(self) -> None:
        self.gaps: list[tuple[int, int]] = []
        self._stopped = False
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped = True
        self._thread.join()

    def _run(self) -> None:
        last = time.perf_counter_ns()
        while not self._stopped:
            now = time.perf_counter_ns()
            if now - last > GAP_NS:
                self.gaps.append((last, now))
            last = now

    def kept_out_ns(self, start: int, end: int) -> int:
        """How long the thread was kept out of an interval."""
        return sum(max(0, min(end, b) - max(start, a)) for a, b in self.gaps)


def gil_permille(engine: Engine, request: bytes) -> list[float]:
    """For each call of `place`, the part in which another thread could not run."""
    snapshot = engine.snapshot()
    calls = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with Watch() as watch:
            for _ in range(CALLS):
                start = time.perf_counter_ns()
                snapshot.place(request)
                calls.append((start, time.perf_counter_ns()))
                time.sleep(0.01)
    finally:
        sys.setswitchinterval(interval)
    return [1000 * watch.kept_out_ns(start, end) / (end - start) for start, end in calls]


def main() -> None:
    """Print one line a figure."""
    fleet, request = instance(NODES, SEED)
    engine = Engine()
    engine.apply(fleet.SerializeToString())
    data = request.SerializeToString()
    reply = engine.snapshot().place(data)
    plan = engine_pb2.Plan.FromString(reply)
    assert plan.placements, "the plan places nothing"
    verdicts = engine_pb2.VerifyResponse.FromString(
        engine.snapshot().verify(engine_pb2.VerifyRequest(plan=plan, jobs=request.jobs).SerializeToString())
    ).verdicts
    assert all(v.accepted for v in verdicts), "the verifier refuses a placement"
    report = Report("border")
    report.line("border_plan", len(reply) / len(plan.placements), "bytes/placement")
    report.line("border_request", len(data) / len(request.jobs), "bytes/job")
    shares = gil_permille(engine, data)
    report.line("border_gil_held_at_most", min(shares), "permille")
    samples = delta_ns(engine, plan)
    report.line("border_delta_p50", median(samples), "ns")
    report.line("border_delta_p99", quantiles(samples, n=100)[98], "ns")
    report.write({"delta_ns": samples, "gil_permille": shares})


if __name__ == "__main__":
    main()
