"""Mumian's placement engine. Messages are those of `mumian_core.v1`, as bytes."""

from mumian_core._native import CoreError, Engine, Snapshot

__all__ = ["CoreError", "Engine", "Snapshot"]
