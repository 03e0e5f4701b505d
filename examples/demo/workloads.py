"""The tenants' jobs, built with the public SDK, and what their users send to them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import mumian
import numpy as np
from mumian.api.v1.job_pb2 import JobSpec

from examples.demo import city
from examples.demo.city import UserZone
from examples.demo.jobs import training as training_job
from examples.demo.jobs import var_pricing, vr_renderer

_REPOSITORY = str(Path(__file__).parents[2])
# One thread each: a task that takes more than its share would take it from its neighbours.
_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
_PROFILE_RUNS, _PROFILE_PAUSE_S = 200, 0.005

VAR_BUDGET_MS = 15.0
VAR_COMPUTE_MAX_MS = 8.0
VAR_SCENARIOS = (2500, 1500, 900)
VR_BUDGET_MS, VR_CLIENT_MS = 20.0, 9.4
# What the renderer keeps to on any machine: its frame time, and the handling of the request around it.
VR_COMPUTE_MS = vr_renderer.FRAME_TIME_S * 1000 + 1.6
HEDGING_BUDGET_MS = 3.0


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request of a user; with a body it is a POST."""

    path: str
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Workload:
    """A job, what it is for, where its users are, and what they send it."""

    spec: JobSpec
    purpose: str
    zone: UserZone
    request: Callable[[int], Request] | None = None  # of a number; None: it has no endpoint

    @property
    def is_service(self) -> bool:
        """Whether it answers requests."""
        return self.request is not None


@dataclass(frozen=True, slots=True)
class RiskProfile:
    """How many scenarios one valuation takes into account, and how long that takes here, p99."""

    scenarios: int
    compute_ms: float


def profiled_risk() -> RiskProfile:
    """The most scenarios that leave the network its time: what a tenant finds out before asking."""
    for scenarios in VAR_SCENARIOS:
        compute_ms = _valuation_ms(scenarios)
        if compute_ms <= VAR_COMPUTE_MAX_MS:
            break
    return RiskProfile(scenarios, compute_ms)


def _valuation_ms(scenarios: int) -> float:
    """p99 of some hundred. With a pause before each: who waits for users finds the caches cold."""
    random = np.random.default_rng()
    times_ms = []
    for number in range(_PROFILE_RUNS):
        portfolio = var_pricing.Portfolio.parse(_portfolio(number).body)
        time.sleep(_PROFILE_PAUSE_S)
        begun_s = time.perf_counter()
        var_pricing.value_at_risk(portfolio, random, scenarios)
        times_ms.append((time.perf_counter() - begun_s) * 1000)
    return float(np.quantile(times_ms, 0.99))


def risk_service(profile: RiskProfile) -> Workload:
    """Value at risk for traders, within the time that their desk allows."""
    group = mumian.task_group(
        entry_point=_entry_point(var_pricing),
        working_directory=_REPOSITORY,
        cpu=0.5,
        memory="256MiB",
        port="auto",
        latency=mumian.latency(city.EXCHANGE.id, budget=_ms(VAR_BUDGET_MS)),
        compute=_ms(profile.compute_ms),
        environment={**_ENVIRONMENT, var_pricing.SCENARIOS_VARIABLE: str(profile.scenarios)},
    )
    spec = mumian.job("var-pricing", group, kind="service", priority=80)
    return Workload(spec, "value at risk of a portfolio, by Monte Carlo", city.EXCHANGE, _portfolio)


def vr_service() -> Workload:
    """Frames for headsets, within 20 ms from the head's motion to the photon."""
    group = mumian.task_group(
        entry_point=_entry_point(vr_renderer),
        working_directory=_REPOSITORY,
        cpu=0.5,
        memory="256MiB",
        port="auto",
        latency=mumian.latency(city.NANSHA.id, budget=_ms(VR_BUDGET_MS), client=_ms(VR_CLIENT_MS)),
        compute=_ms(VR_COMPUTE_MS),
        environment=_ENVIRONMENT,
    )
    spec = mumian.job("vr-renderer", group, kind="service", priority=90)
    return Workload(spec, "ray-traced frames for VR headsets", city.NANSHA, _head_pose)


def training() -> Workload:
    """Gradient descent that nobody waits for."""
    group = mumian.task_group(
        entry_point=_entry_point(training_job),
        working_directory=_REPOSITORY,
        cpu=1,
        memory="512MiB",
        time_limit="2m",
        environment=_ENVIRONMENT,
    )
    return Workload(mumian.job("training", group), "gradient descent of a model", city.EXCHANGE)


def impossible_hedging() -> Workload:
    """A promise that no site can keep: less than one calculation and the shortest way there and back."""
    group = mumian.task_group(
        command=["true"],
        cpu=0.5,
        latency=mumian.latency(city.EXCHANGE.id, budget=_ms(HEDGING_BUDGET_MS)),
        compute="2ms",
    )
    spec = mumian.job("fast-hedging", group, kind="service")
    return Workload(spec, "hedging within less time than it takes to get there", city.EXCHANGE)


def _entry_point(module: ModuleType) -> str:
    return f"{module.__name__}:main"


def _portfolio(number: int) -> Request:
    random = np.random.default_rng(number)
    count = var_pricing.SPOTS.size
    portfolio = {
        "shares": random.integers(0, 2000, count).tolist(),
        "calls": random.integers(-1000, 1000, count).tolist(),
        "strike_ratios": random.uniform(0.9, 1.2, count).round(2).tolist(),
    }
    return Request("/var", json.dumps(portfolio).encode())


def _head_pose(number: int) -> Request:
    return Request(f"/frame?yaw={0.4 * math.sin(number / 15):.4f}&pitch={0.1 * math.sin(number / 23):.4f}")


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f}ms"
