"""Accelerators, meters, and the engine that runs containers."""

from __future__ import annotations

import time
from collections.abc import Iterator

from mumian.api.v1.fleet_pb2 import METER_SIDE_FACILITY, METER_SIDE_IT, MeterReading
from mumian.api.v1.ops_service_pb2 import Finding
from mumian.findings import fail, ok, warn

from mumian_agent.domain.accelerators import Device, model_of
from mumian_agent.domain.config import AgentConfig, NodeConfig
from mumian_agent.domain.fields import ConfigError
from mumian_agent.runtime import container, sandbox
from mumian_agent.runtime.accelerators.inspector import Inspector
from mumian_agent.runtime.power.rapl import POWERCAP
from mumian_agent.runtime.power.site_meters import power_of_site

# RAPL has counters: a power is the difference of two readings.
_BETWEEN_READINGS_S = 0.3
_SIDES = {METER_SIDE_IT: "IT", METER_SIDE_FACILITY: "facility"}


def look(config: AgentConfig) -> Iterator[Finding]:
    """All findings; takes some seconds where a device or a meter does not answer."""
    yield from accelerators(config.node, Inspector())
    yield from _meters(config)
    yield _engine(config.node)
    yield _isolation(config)


def accelerators(config: NodeConfig, inspector: Inspector) -> Iterator[Finding]:
    """What is declared, or what the vendors' tools say."""
    if config.accelerators or not config.detects_accelerators:
        declared = ", ".join(f"{each.count} {each.model}" for each in config.accelerators) or "none"
        yield ok("accelerators", f"{declared}, as the configuration says; nothing was looked for")
        return
    devices = inspector.devices()
    for fault in inspector.faults.values():
        yield fail(
            "accelerators", fault, "see the vendor's tool (nvidia-smi, npu-smi info) and the kernel log"
        )
    if not devices and not inspector.faults:
        yield ok("accelerators", "no vendor's tool is here, so none are offered")
    for number, device in enumerate(devices):
        yield _device(number, device)


def _device(number: int, device: Device) -> Finding:
    model = model_of(device.product)
    said = f"{device.kind} {number} is a {model.name} ({device.product}, {device.memory_mib} MiB)"
    if device.fault:
        return fail("accelerators", f"{said}: {device.fault}", "it is withheld until it is well")
    if not model.fp16_gflops:
        advice = "jobs can ask for it by that name; for its figures add it to accelerator_models.toml"
        return warn("accelerators", f"{said}, a model without figures", advice)
    return ok("accelerators", f"{said}, {model.fp16_gflops / 1000:g} TFLOPS")


def _meters(config: AgentConfig) -> Iterator[Finding]:
    try:
        power = power_of_site(config)
    except ConfigError as error:
        yield fail("meters", str(error), "let the agent's user read it")
        return
    time.sleep(_BETWEEN_READINGS_S)
    readings = power.read(load_permille=0)
    for reading in readings:
        yield _meter(reading)
    sides = {reading.side for reading in readings if reading.in_use}
    if METER_SIDE_IT not in sides:
        said, advice = "no meter tells the IT power, it is modelled", "see docs/operations.md, Power"
        if any(POWERCAP.glob("intel-rapl:*")) and config.power.rapl and config.node.cpu_milli_limit is None:
            said = f"{said}; there is RAPL, and this user may not read it"
            advice = f"let the agent's group read {POWERCAP}/intel-rapl:*/energy_uj (a udev rule)"
        yield warn("meters", said, advice)
    if METER_SIDE_FACILITY not in sides:
        average = config.site.pue.average_permille / 1000
        advice = "name the site's meter in power.facility"
        yield warn("meters", f"no meter tells the facility's power: PUE {average:g} is as declared", advice)


def _meter(reading: MeterReading) -> Finding:
    side = _SIDES[reading.side]
    if reading.fault:
        advice = "correct its section below `power`, or repair it; the next source counts meanwhile"
        return fail("meters", f"{side} meter {reading.name} {reading.fault}", advice)
    return ok("meters", f"{side} meter {reading.name} reads {reading.power_mw / 1000:.1f} W")


def _isolation(config: AgentConfig) -> Finding:
    why_not = sandbox.why_not(config.node.isolation, (config.state_dir,))
    if not why_not:
        return ok("isolation", f"tasks do not see {config.state_dir}")
    said = f"tasks see {config.state_dir}: {why_not}"
    if config.node.isolation == "none":
        return ok("isolation", said)
    return warn("isolation", said, "let this user make user namespaces, or let no strangers share this site")


def _engine(config: NodeConfig) -> Finding:
    engine, why_none = container.find(config.container_engine)
    if engine:
        return ok("containers", f"they run by {engine}")
    said = f"jobs with an image do not run here: {why_none}"
    if config.container_engine in ("auto", "none"):
        return ok("containers", said)
    return fail("containers", said, "correct node.container_engine, or let this user use the engine")
