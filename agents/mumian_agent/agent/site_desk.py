"""What who is at the site may ask and tell the agent, whether the coordinator is there or not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from mumian.api.v1.job_pb2 import AllocationState

from mumian_agent.agent.allocations import Allocations
from mumian_agent.runtime import contact, log_files
from mumian_agent.runtime.contact import Contact
from mumian_agent.runtime.journal import Entry, Journal
from mumian_agent.runtime.log_files import LogPiece

_ENDED_TOLD_MAX = 20


class SiteDesk:
    """One site's."""

    def __init__(self, site_id: str, allocations: Allocations, journal: Journal, contact: Contact) -> None:
        self._site_id, self._allocations, self._journal, self._contact = (
            site_id,
            allocations,
            journal,
            contact,
        )

    def status(self) -> dict[str, Any]:
        """The site, what runs here, and what has ended last."""
        heard_ns = self._contact.last_ns()
        live = self._allocations.live()
        ended = [entry for entry in self._allocations.all() if not entry.is_live]
        ended.sort(key=lambda entry: -entry.status.end_time.ToNanoseconds())
        return {
            "site": self._site_id,
            "silent_s": None if heard_ns is None else round((contact.now_ns() - heard_ns) / 1e9, 1),
            "untold": sum(not entry.stored for entry in ended),
            "tasks": [_told(entry) for entry in [*live, *ended[:_ENDED_TOLD_MAX]]],
        }

    def logs(self, allocation_id: str, *, follow: bool, tail_bytes: int) -> AsyncIterator[LogPiece] | None:
        """What an allocation has written; None: it is not known here."""
        entry = self._allocations.newest_of(allocation_id)
        if entry is None:
            return None
        folder = self._journal.log_dir(entry.key)
        return log_files.read(folder, tail_bytes, lambda: not entry.is_live, follow)

    def cancel(self, allocation_id: str) -> bool:
        """End an allocation; whether there was one to end."""
        return self._allocations.end_here(allocation_id) is not None


def _told(entry: Entry) -> dict[str, Any]:
    status, run = entry.status, entry.run
    return {
        "allocation": status.allocation_id,
        "tenant": run.allocation.tenant_id if run else "",
        "state": AllocationState.Name(status.state).removeprefix("ALLOCATION_STATE_").lower(),
        "message": "; ".join(part for part in (status.message, status.health_fault) if part),
        "endpoints": {endpoint.port: endpoint.address for endpoint in status.endpoints},
        "restarts": status.restart_count,
        "pid": entry.process.pid if entry.process else None,
        "told": entry.stored or entry.is_live,
    }
