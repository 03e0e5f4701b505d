"""Mumian's placement engine. Messages are those of `mumian_core.v1`, as bytes."""

from mumian_core._native import CancelToken, CoreError, Engine, Snapshot, solve_assignment

__all__ = ["CancelToken", "CoreError", "Engine", "Snapshot", "solve_assignment"]
