"""The jobs that are to be considered, each once, by tenant and in the order in which they came."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable


class EvaluationQueue:
    """A line for each tenant, and one that goes before all.

    Ordered dictionaries: to find the first key of a plain one takes as long as it has lost others before.
    """

    def __init__(self) -> None:
        self._first: OrderedDict[str, None] = OrderedDict()
        self._lines: dict[str, OrderedDict[str, None]] = {}
        self._tenant_of: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._first) + len(self._tenant_of)

    def add(self, job_id: str, tenant_id: str) -> None:
        """At the end of its tenant's line, if it is not in the queue."""
        if job_id not in self._first and job_id not in self._tenant_of:
            self._lines.setdefault(tenant_id, OrderedDict())[job_id] = None
            self._tenant_of[job_id] = tenant_id

    def add_first(self, job_ids: Iterable[str]) -> None:
        """Before all others."""
        job_ids = list(job_ids)
        for job_id in job_ids:
            if (tenant_id := self._tenant_of.pop(job_id, None)) is not None:
                self._leave(tenant_id, job_id)
        self._first = OrderedDict.fromkeys([*job_ids, *self._first])

    def tenants(self) -> Collection[str]:
        """Those whose lines are not empty, by when these began."""
        return self._lines.keys()

    def pop_first(self) -> str | None:
        """The next of those that go before all."""
        return self._first.popitem(last=False)[0] if self._first else None

    def pop(self, tenant_id: str) -> str:
        """The first of a tenant's line, which must not be empty."""
        job_id = next(iter(self._lines[tenant_id]))
        del self._tenant_of[job_id]
        self._leave(tenant_id, job_id)
        return job_id

    def _leave(self, tenant_id: str, job_id: str) -> None:
        line = self._lines[tenant_id]
        del line[job_id]
        if not line:
            del self._lines[tenant_id]
