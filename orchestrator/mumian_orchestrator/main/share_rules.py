"""The `shares` of the configuration: what each tenant may hold, is guaranteed, and how its turns weigh."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any

from mumian import quantities

from mumian_orchestrator.domain.job_spec import PRIORITY_MAX
from mumian_orchestrator.domain.names import is_name
from mumian_orchestrator.domain.shares import NOTHING, UNLIMITED, Amount, ShareRules, TenantShare

_TENANT = ("weight", "guaranteed", "quota", "projects", "priority_max", "small")
_RESOURCES: Mapping[str, tuple[str, Callable[[Any], int]]] = {
    "cpu": ("cpu_milli", quantities.cpu_milli),
    "memory": ("memory_mib", quantities.memory_mib),
    "accelerators": ("accelerator_milli", quantities.accelerator_milli),
    "tasks": ("tasks", quantities.WholeNumber(1, 2**31)),
}
_WEIGHT_MAX = 1000


def share_rules(raw: Any) -> ShareRules:
    """Reads `{others, small_firm_floor, tenants}`.

    Raises:
        ValueError: a field is unknown or wrong, in one line that names it.
    """
    fields = _fields("shares", raw, ("others", "small_firm_floor", "tenants"))
    floor = _amount("shares.small_firm_floor", fields.get("small_firm_floor", {}), NOTHING, but=("tasks",))
    tenants = {}
    for tenant_id, entry in _by_name("shares.tenants", fields.get("tenants", {})).items():
        tenants[tenant_id] = _tenant_share(f"shares.tenants.{tenant_id}", entry, floor)
    return ShareRules(tenants, _tenant_share("shares.others", fields.get("others", {}), floor))


def _tenant_share(path: str, raw: Any, floor: Amount) -> TenantShare:
    fields = _fields(path, raw, _TENANT)
    guaranteed = _amount(f"{path}.guaranteed", fields.get("guaranteed", {}), NOTHING, but=("tasks",))
    is_small = fields.get("small", False)
    if not isinstance(is_small, bool):
        raise ValueError(f"{path}.small ({is_small!r}) must be true or false")
    if is_small:
        guaranteed = Amount(*(max(own, least) for own, least in zip(guaranteed, floor, strict=True)))
    projects = {
        project: _amount(f"{path}.projects.{project}", quota, UNLIMITED)
        for project, quota in _by_name(f"{path}.projects", fields.get("projects", {})).items()
    }
    return TenantShare(
        weight=_number(f"{path}.weight", fields.get("weight", 1), _WEIGHT_MAX),
        guaranteed=guaranteed,
        quota=_amount(f"{path}.quota", fields.get("quota", {}), UNLIMITED),
        projects=projects,
        priority_max=_number(f"{path}.priority_max", fields.get("priority_max", PRIORITY_MAX), PRIORITY_MAX),
    )


def _amount(path: str, raw: Any, otherwise: Amount, but: Collection[str] = ()) -> Amount:
    known = [name for name in _RESOURCES if name not in but]
    found = {}
    for name, value in _fields(path, raw, known).items():
        field, parse = _RESOURCES[name]
        try:
            found[field] = parse(value)
        except ValueError as error:
            raise ValueError(f"{path}.{name} ({value!r}) {error}") from None
    return otherwise._replace(**found)


def _number(path: str, value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise ValueError(f"{path} ({value!r}) must be a whole number from 1 to {most}")
    return value


def _by_name(path: str, raw: Any) -> Mapping[str, Any]:
    for name in _mapping(path, raw):
        if not is_name(name):
            raise ValueError(f"{path}.{name} is no valid name; use a-z, 0-9 and -")
    return _mapping(path, raw)


def _fields(path: str, raw: Any, known: Collection[str]) -> Mapping[str, Any]:
    for name in _mapping(path, raw):
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            advice = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"{path}.{name} is unknown; {advice}")
    return _mapping(path, raw)


def _mapping(path: str, raw: Any) -> Mapping[str, Any]:
    if not isinstance(raw, dict) or not all(isinstance(name, str) for name in raw):
        raise ValueError(f"{path} ({raw!r}) must be a mapping, such as {{acme: {{weight: 3}}}}")
    return raw
