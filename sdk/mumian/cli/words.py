"""The API's enumerations as words, with their colours."""

from __future__ import annotations

from mumian.api.v1 import explanation_pb2, fleet_pb2, job_event_pb2, job_pb2
from mumian.api.v1.explanation_pb2 import Filter, Relaxation

# The key of a job spec that each filter is about.
_KEYS = {
    explanation_pb2.FILTER_OPERATOR: "operators",
    explanation_pb2.FILTER_JURISDICTION: "jurisdictions",
    explanation_pb2.FILTER_PUE_CEILING: "pue_max",
    explanation_pb2.FILTER_RENT_CEILING: "rent_max",
    explanation_pb2.FILTER_ARCH: "archs",
    explanation_pb2.FILTER_LABELS: "labels",
    explanation_pb2.FILTER_CONTAINER_ENGINE: "image",
    explanation_pb2.FILTER_ACCELERATOR_MODEL: "resources.accelerators.models",
    explanation_pb2.FILTER_LATENCY_SLO: "latency.budget",
    explanation_pb2.FILTER_CPU: "resources.cpu",
    explanation_pb2.FILTER_MEMORY: "resources.memory",
    explanation_pb2.FILTER_ACCELERATORS: "resources.accelerators.count",
    explanation_pb2.FILTER_SPREAD: "spread",
    explanation_pb2.FILTER_ANTI_AFFINITY: "apart_from",
    explanation_pb2.FILTER_TOGETHER: "together",
    explanation_pb2.FILTER_GROUP_LATENCY: "near",
    explanation_pb2.FILTER_LINK_BANDWIDTH: "traffic",
}
_FILTERS = {
    explanation_pb2.FILTER_PUE_CEILING: "PUE",
    explanation_pb2.FILTER_RENT_CEILING: "rent",
    explanation_pb2.FILTER_LATENCY_SLO: "latency",
    explanation_pb2.FILTER_CPU: "CPU",
    explanation_pb2.FILTER_ACCELERATOR_MODEL: "model",
}
STYLES = {
    "running": "green",
    "ready": "green",
    "succeeded": "green",
    "starting": "yellow",
    "pending": "yellow",
    "draining": "yellow",
    "failed": "bold red",
    "unreachable": "bold red",
    "unknown": "yellow",
    "lost": "bold red",
    "cancelled": "dim",
}


def key_of(relaxation: Relaxation) -> str:
    """The key of a job spec that a change is about: `latency.budget`"""
    if relaxation.field.endswith(".latency_slo.measured_only"):
        return "latency.measured_only"
    return _KEYS.get(relaxation.filter, relaxation.field)


def job_state(value: job_pb2.JobState.ValueType) -> str:
    """`running`"""
    return _word(job_pb2.JobState.Name(value), "JOB_STATE_")


def allocation_state(value: job_pb2.AllocationState.ValueType) -> str:
    """`running`"""
    return _word(job_pb2.AllocationState.Name(value), "ALLOCATION_STATE_")


def job_event_kind(value: job_event_pb2.JobEventKind.ValueType) -> str:
    """`placed`"""
    return _word(job_event_pb2.JobEventKind.Name(value), "JOB_EVENT_KIND_")


def job_kind(value: job_pb2.JobKind.ValueType) -> str:
    """`service`"""
    return _word(job_pb2.JobKind.Name(value), "JOB_KIND_")


def health(value: fleet_pb2.Health.ValueType) -> str:
    """`ready`"""
    return _word(fleet_pb2.Health.Name(value), "HEALTH_")


def tier(value: fleet_pb2.Tier.ValueType) -> str:
    """`edge`"""
    return _word(fleet_pb2.Tier.Name(value), "TIER_")


def source(value: fleet_pb2.FigureSource.ValueType) -> str:
    """`measured`"""
    return _word(fleet_pb2.FigureSource.Name(value), "FIGURE_SOURCE_")


def filter_name(value: Filter.ValueType) -> str:
    """`latency`"""
    return _FILTERS.get(value) or _word(Filter.Name(value), "FILTER_")


def _word(name: str, prefix: str) -> str:
    word = name.removeprefix(prefix).lower().replace("_", " ")
    return "-" if word == "unspecified" else word
