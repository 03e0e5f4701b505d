"""Scenarios are read as all data files are; what is wrong with one is a ScenarioError."""

from mumian_orchestrator.domain.fields import FieldError as ScenarioError
from mumian_orchestrator.domain.fields import Fields

__all__ = ["Fields", "ScenarioError"]
