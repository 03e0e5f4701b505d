"""Jobs of a made-up city, and where each of them may run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from random import Random

from mumian.api.v1.fleet_pb2 import Site
from mumian.api.v1.job_pb2 import (
    JOB_KIND_BATCH,
    JOB_KIND_SERVICE,
    Command,
    ComputeTime,
    JobSpec,
    LatencySlo,
    TaskGroup,
)
from mumian.api.v1.resources_pb2 import AcceleratorRequest, Resources

from bench.global_placement.city import ZONES

MODELS = ("H100", "Ascend-910B")
# Cloud VR by RFC 10054's use case: 20 ms in all, 9.4 ms of them at the client.
VR_BUDGET_US, VR_CLIENT_US = 20_000, 9_400
VR_COMPUTE_US = {"H100": 4_000, "Ascend-910B": 6_500}


@dataclass(frozen=True)
class Template:
    """A job whose number of tasks is open.

    Args:
        weight: how often its tasks occur, against others.
    """

    spec: JobSpec
    weight: float

    @cached_property
    def group(self) -> TaskGroup:
        """The only one."""
        return self.spec.task_groups[0]

    @cached_property
    def cpu_milli(self) -> int:
        """Of one task."""
        return self.group.resources.cpu_milli

    @cached_property
    def memory_mib(self) -> int:
        """Of one task."""
        return self.group.resources.memory_mib

    @cached_property
    def devices(self) -> int:
        """Whole accelerators of one task."""
        return self.group.resources.accelerators.milli // 1000

    @cached_property
    def models(self) -> frozenset[str]:
        """The accelerators that would do."""
        return frozenset(self.group.resources.accelerators.models)

    def may_run_at(self, site: Site) -> bool:
        """Whether a task may run at the site, as far as jurisdiction and PUE say."""
        spec = self.spec
        if spec.pue_max_permille and site.pue.average_permille > spec.pue_max_permille:
            return False
        return not spec.jurisdictions or any(
            f"{site.jurisdiction}-".startswith(f"{wide}-") for wide in spec.jurisdictions
        )

    def keeps_promise(self, rtt_us: Mapping[str, int], model: str | None) -> bool:
        """Whether its latency is within the budget there, on accelerators of the model.

        Args:
            rtt_us: from each zone to the site, p99.
        """
        slo, compute = self.group.latency_slo, self.group.compute_time
        compute_us = compute.by_accelerator_model_us.get(model or "", compute.default_us)
        return all(rtt_us[zone] + compute_us + slo.client_us <= slo.budget_us for zone in slo.zone_ids)


def templates_of(rng: Random, count: int) -> list[Template]:
    """Jobs of every sort. The first three may run anywhere, so that no node stays empty."""
    free = [
        _template(rng, 0, devices=0, bound=False),
        *(_anywhere_on(rng, i + 1, m) for i, m in enumerate(MODELS)),
    ]
    rest = [_template(rng, n, devices=_devices(rng), bound=True) for n in range(len(free), count)]
    return free + rest


def _devices(rng: Random) -> int:
    return rng.choice([1, 1, 1, 2, 2, 4]) if rng.random() < 0.4 else 0


def _anywhere_on(rng: Random, number: int, model: str) -> Template:
    template = _template(rng, number, devices=1, bound=False)
    template.group.resources.accelerators.models[:] = [model]
    return template


def _template(rng: Random, number: int, devices: int, bound: bool) -> Template:
    group = TaskGroup(name="main", command=Command(argv=["/bin/true"]), resources=_resources(rng, devices))
    spec = JobSpec(name=f"job-{number:04}", kind=JOB_KIND_BATCH, priority=50)
    draw = rng.random() if bound else 1.0
    if draw < 0.4:
        spec.kind = JOB_KIND_SERVICE
        _promise(rng, group, devices)
    elif draw < 0.55:
        spec.jurisdictions.append(rng.choice(["CN-GD", "CN-GD-GZ"]))
    elif draw < 0.65:
        spec.pue_max_permille = rng.choice([1300, 1400])
    spec.task_groups.append(group)
    return Template(spec, weight=rng.lognormvariate(0, 1))


def _resources(rng: Random, devices: int) -> Resources:
    if not devices:
        cpu_milli = rng.choice([500, 1000, 2000, 4000, 8000])
        return Resources(cpu_milli=cpu_milli, memory_mib=cpu_milli * rng.choice([1, 2, 4, 8]) * 1024 // 1000)
    models = rng.choice([MODELS, MODELS, MODELS[:1], MODELS[1:]])
    return Resources(
        cpu_milli=devices * rng.choice([2000, 4000, 6000]),
        memory_mib=devices * rng.choice([8, 16, 32]) * 1024,
        accelerators=AcceleratorRequest(milli=devices * 1000, models=models),
    )


def _promise(rng: Random, group: TaskGroup, devices: int) -> None:
    """Latency from one zone: Cloud VR on accelerators, else a service with more time."""
    zone_id = rng.choice(ZONES)
    if devices:
        slo = LatencySlo(zone_ids=[zone_id], budget_us=VR_BUDGET_US, client_us=VR_CLIENT_US)
        compute = ComputeTime(default_us=VR_COMPUTE_US["H100"], by_accelerator_model_us=VR_COMPUTE_US)
    else:
        slo = LatencySlo(zone_ids=[zone_id], budget_us=rng.choice([12_000, 20_000, 40_000]))
        compute = ComputeTime(default_us=8_000)
    group.latency_slo.CopyFrom(slo)
    group.compute_time.CopyFrom(compute)
