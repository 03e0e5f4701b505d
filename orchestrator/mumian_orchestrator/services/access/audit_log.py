"""Keeps the audit log: who changed what, and who was refused, in the transaction of the change itself."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field

from mumian_orchestrator.domain.audit import AUDIT, Head, entry_after, shortened
from mumian_orchestrator.domain.identity import Caller
from mumian_orchestrator.domain.periods import month_of
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.ports.store import LOG, TermStore, Write
from mumian_orchestrator.services.commit_log import CommitLog
from mumian_orchestrator.services.store.log_pages import LogPages

_HEAD = "access/audit_head"
_KEYS_LISTED_MAX = 8
# Whoever is refused again and again must not fill the store: so many are listed at once, then one a second.
_REFUSALS_AT_ONCE, _REFUSALS_PER_S = 60, 1.0


@dataclass
class Change:
    """A change that somebody is making by the call that is being answered."""

    who: str
    origin: str
    action: str
    about: Mapping[str, str]
    in_parts: bool = False
    is_listed: bool = field(default=False, compare=False)


_CHANGE: ContextVar[Change | None] = ContextVar("change", default=None)


class AuditLog:
    """The chain of this term's entries, behind those that are stored.

    What a call commits first carries the call's entry, so neither is ever stored without the other.
    """

    def __init__(self, commit_log: CommitLog, store: TermStore, pages: LogPages, clock: Clock) -> None:
        self._commit_log, self._store, self._pages, self._clock = commit_log, store, pages, clock
        self._head, self._month = Head(), ""
        self._refusals_left, self._refilled_s = float(_REFUSALS_AT_ONCE), clock.monotonic_s()
        self._refusals_unlisted = 0
        commit_log.ride_along = self._ride_along

    def load(self, stored: Mapping[str, bytes]) -> None:
        """Go on behind what is stored."""
        if _HEAD in stored:
            self._head, self._month = _head_in(stored[_HEAD])

    @property
    def head(self) -> Head:
        """Of the newest entry."""
        return self._head

    async def stored_head(self) -> Head:
        """As it is kept beside the entries, not from memory."""
        kept = await self._store.read_log(_HEAD)
        return _head_in(kept[0])[0] if kept else Head()

    async def stored_entries(self, head: Head) -> AsyncIterator[Sequence[bytes]]:
        """The entries up to a head, oldest first, in parts that fit into memory and into one answer.

        Raises:
            RequestRefusedError: LOG_FILES_AWAY.
        """
        left = head.number
        async with aclosing(self._pages.of("")) as parts:
            async for part in parts:
                yield part.pages[:left]  # what was added since the head was read comes last
                left -= len(part.pages)
                if left <= 0:
                    return

    @contextmanager
    def changing(
        self, caller: Caller, origin: str, action: str, about: Mapping[str, str], *, in_parts: bool = False
    ) -> Iterator[Change]:
        """While it lasts, the first commit of this task, or of one that it starts, is the caller's.

        Args:
            in_parts: all are, and each entry names everything that its commit has stored.
        """
        change = Change(caller.name, origin, action, about, in_parts)
        token = _CHANGE.set(change)
        try:
            yield change
        finally:
            _CHANGE.reset(token)

    def changed(self, change: Change) -> asyncio.Future[None] | None:
        """List a change that was made without a commit; None where one has carried its entry."""
        if change.is_listed:
            return None
        change.is_listed = True
        return self.note(change.who, change.origin, change.action, "done", change.about)

    def refused(self, who: str, origin: str, action: str, why: str) -> bool:
        """List a refusal, unless there are too many; the next that is listed tells of how many were not."""
        now_s = self._clock.monotonic_s()
        refilled = self._refusals_left + (now_s - self._refilled_s) * _REFUSALS_PER_S
        self._refusals_left, self._refilled_s = min(refilled, float(_REFUSALS_AT_ONCE)), now_s
        if self._refusals_left < 1:
            self._refusals_unlisted += 1
            return False
        self._refusals_left -= 1
        about = {"why": why}
        if self._refusals_unlisted:
            about["refusals_not_listed"] = str(self._refusals_unlisted)
            self._refusals_unlisted = 0
        self.note(who, origin, action, "refused", about)
        return True

    def note(
        self, who: str, origin: str, action: str, outcome: str, about: Mapping[str, str]
    ) -> asyncio.Future[None]:
        """List something for its own sake; durable when the future is done."""
        return self._commit_log.append(self.writes(who, origin, action, outcome, about))

    def writes(
        self,
        who: str,
        origin: str,
        action: str,
        outcome: str,
        about: Mapping[str, str],
        keys: Sequence[str] = (),
    ) -> list[Write]:
        """The next entry, to be appended to the commit log at once, with what it is about."""
        now = self._clock.now()
        facts: dict[str, object] = {
            "time": now.ToJsonString(),
            "who": shortened(who),
            "from": shortened(origin),
            "action": action,
            "outcome": outcome,
            "about": {name: shortened(value) for name, value in about.items()},
        }
        if keys:
            facts["stored"] = [shortened(key) for key in keys]
        line, self._head = entry_after(self._head, facts)
        # Never an earlier month than the last: if the clock goes back, what is over takes no more entries.
        self._month = max(self._month, month_of(now.ToMilliseconds()))
        head = json.dumps({**asdict(self._head), "month": self._month}).encode()
        return [Write(AUDIT.key(self._month, self._head.number), line), Write(_HEAD, head)]

    def _ride_along(self, writes: Sequence[Write]) -> Sequence[Write]:
        change = _CHANGE.get()
        if change is None or (change.is_listed and not change.in_parts):
            return ()
        change.is_listed = True
        keys = [write.key for write in writes if not write.key.startswith(LOG)]
        if not change.in_parts:
            keys = keys[:_KEYS_LISTED_MAX]
        return self.writes(change.who, change.origin, change.action, "done", change.about, keys)


def _head_in(kept: bytes) -> tuple[Head, str]:
    """A head as it is stored, and the month of its entry."""
    fields = json.loads(kept)
    return Head(fields["number"], fields["sha256"]), fields.get("month", "")
