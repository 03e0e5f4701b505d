"""What the sites of a fleet offer by name; a job that asks for what none has is most likely misspelt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from mumian_orchestrator.bench.sim.fields import Fields
from mumian_orchestrator.bench.sim.task_groups import TaskGroup


class Wishes(Protocol):
    """What a job asks of sites and nodes."""

    @property
    def jurisdictions(self) -> Sequence[str]:
        """One of them covers that of its site."""

    @property
    def operators_allowed(self) -> Sequence[str]:
        """None: all."""

    @property
    def operators_denied(self) -> Sequence[str]:
        """None: nobody."""

    @property
    def groups(self) -> Sequence[TaskGroup]:
        """Its tasks."""


@dataclass(frozen=True, slots=True)
class Offers:
    """Of all sites: operators, jurisdictions, names of labels, models of accelerators."""

    operators: Collection[str]
    jurisdictions: Collection[str]
    labels: Collection[str]
    models: Collection[str]

    def check(self, f: Fields, job: Wishes) -> None:
        """Refuse a job that asks for what no site has.

        Raises:
            ScenarioError: it names the field.
        """
        for operator in job.operators_allowed:
            _known(f, "operators_allowed", operator, self.operators)
        for operator in job.operators_denied:
            _known(f, "operators_denied", operator, self.operators)
        for wide in job.jurisdictions:
            if not any(covers(wide, narrow) for narrow in self.jurisdictions):
                _known(f, "jurisdictions", wide, self.jurisdictions)
        for group in job.groups:
            for label, _ in group.labels:
                _known(f, "labels", label, self.labels)
            for model in group.accelerator_models:
                _known(f, "accelerator_models", model, self.models)


def covers(wide: str, narrow: str) -> bool:
    """Whether a jurisdiction is within another, as in the engine: CN-GD is within CN."""
    return narrow == wide or narrow.startswith(f"{wide}-")


def _known(f: Fields, field: str, value: str, known: Collection[str]) -> None:
    f.known(field, value, dict.fromkeys(sorted(known)))
