"""Folders that tenants upload for their tasks: taken within limits, given to sites, forgotten when unused."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator

from mumian.api.v1 import error_pb2
from mumian.api.v1.job_pb2 import Bundle, JobSpec

from mumian_orchestrator.domain.errors import FieldFault, RequestRefusedError, invalid
from mumian_orchestrator.domain.job_state import TERMINAL_JOB_STATES
from mumian_orchestrator.domain.rollout import group_of
from mumian_orchestrator.ports.bundle_store import BundleKey, BundleStore
from mumian_orchestrator.ports.clock import Clock
from mumian_orchestrator.services.job_table import JobTable

log = logging.getLogger(__name__)

PIECE_BYTES_MAX = 1024 * 1024
# What no job wants any more is kept for so long: whoever submits the same folder again need not send it.
KEPT_UNUSED_S = 24 * 3600
_TIDY_EVERY_S = 3600
_SHA256 = re.compile(r"[0-9a-f]{64}")


def names_bundles(spec: JobSpec) -> bool:
    """Whether there is anything to `require`."""
    return any(group.command.HasField("bundle") for group in spec.task_groups)


class Bundles:
    """Everything about bundles but where their bytes are.

    Args:
        store: None: this coordinator takes none.
        bundle_bytes_max: of one.
        stored_bytes_max: of all together.
    """

    def __init__(
        self,
        store: BundleStore | None,
        table: JobTable,
        clock: Clock,
        bundle_bytes_max: int,
        stored_bytes_max: int,
    ) -> None:
        self._store, self._table, self._clock = store, table, clock
        self._bundle_bytes_max, self._stored_bytes_max = bundle_bytes_max, stored_bytes_max

    async def upload(self, tenant_id: str, bundle: Bundle, offset_bytes: int, data: bytes) -> int:
        """Store a piece; where the next one begins. The bundle's size: it is whole, and its hash is right.

        Raises:
            RequestRefusedError: INVALID_FIELD, MESSAGE_TOO_LARGE or STORE_FULL.
        """
        store = self._checked(bundle)
        if len(data) > PIECE_BYTES_MAX:
            raise invalid([FieldFault("data", f"({len(data)} bytes) must be at most {PIECE_BYTES_MAX}")])
        key = BundleKey(tenant_id, bundle.sha256)
        try:
            known = await store.find(key)
            if known is not None and known.is_whole:
                return bundle.size_bytes
            stored_bytes = known.size_bytes if known else 0
            if not data or offset_bytes != stored_bytes:
                return stored_bytes
            if stored_bytes + len(data) > bundle.size_bytes:
                raise invalid([FieldFault("data", f"goes beyond size_bytes ({bundle.size_bytes})")])
            if not stored_bytes:
                await self._make_room(store, bundle.size_bytes)
            stored_bytes = await store.append(key, offset_bytes, data)
            if stored_bytes < bundle.size_bytes:
                return stored_bytes
            if await store.finish(key):
                return stored_bytes
        except OSError as error:
            raise _full(
                f"bundles cannot be stored now ({error.strerror}); try again, or tell an operator"
            ) from None
        raise invalid(
            [FieldFault("bundle.sha256", f"({bundle.sha256}) is not the hash of what was uploaded")]
        )

    async def require(self, tenant_id: str, spec: JobSpec) -> None:
        """Every bundle of a spec is stored; its time begins anew.

        Raises:
            RequestRefusedError: INVALID_FIELD.
        """
        faults = []
        for number, group in enumerate(spec.task_groups):
            if not group.command.HasField("bundle"):
                continue
            bundle, path = group.command.bundle, f"task_groups[{number}].command.bundle"
            found = None
            if self._store is not None and _SHA256.fullmatch(bundle.sha256):
                found = await self._store.find(BundleKey(tenant_id, bundle.sha256))
            if found is None or not found.is_whole or found.size_bytes != bundle.size_bytes:
                advice = "is not stored; upload the folder again (`mumian submit` does so by itself)"
                faults.append(FieldFault(path, f"({bundle.sha256[:12]!r}) {advice}"))
        if faults:
            raise invalid(faults)

    async def read(self, allocation_id: str, offset_bytes: int, site_id: str | None = None) -> bytes:
        """A piece of what a task wants unpacked; empty: there is no more.

        Args:
            site_id: who asks; what is not placed there is as if it were not stored. None: anybody may ask.

        Raises:
            RequestRefusedError: BUNDLE_NOT_FOUND.
        """
        job = self._table.get(allocation_id.split(".")[0])
        allocation = next((a for a in job.allocations if a.id == allocation_id), None) if job else None
        if allocation is not None and site_id not in (None, allocation.site_id):
            allocation = None
        if job is not None and allocation is not None and self._store is not None:
            key = BundleKey(job.tenant_id, group_of(job, allocation).command.bundle.sha256)
            data = await self._store.read(key, offset_bytes, PIECE_BYTES_MAX)
            if data is not None:
                return data
        raise RequestRefusedError(
            error_pb2.ERROR_REASON_BUNDLE_NOT_FOUND,
            f"the bundle of {allocation_id} is not stored here; submit the job again, and share bundles_dir "
            "between the coordinators if there are several",
        )

    async def run(self) -> None:
        """Forget what is unused, again and again, until cancelled."""
        while True:
            await asyncio.sleep(_TIDY_EVERY_S)
            if self._store is not None:
                try:
                    await self._tidy(self._store)
                except OSError as error:
                    log.warning("unused bundles are not removed: %s", error)

    async def _make_room(self, store: BundleStore, wanted_bytes: int) -> None:
        if await self._tidy(store) + wanted_bytes > self._stored_bytes_max:
            raise _full(
                f"bundles take {self._stored_bytes_max // 1024**2} MiB together, and are in use; "
                "end jobs that are no longer needed, or raise bundles_max_mib of the coordinator"
            )

    async def _tidy(self, store: BundleStore) -> int:
        """Forget what no job wants and nobody has used for long; the bytes that are left."""
        wanted = set(self._wanted())
        latest_s = self._clock.now().seconds - KEPT_UNUSED_S
        left_bytes = 0
        for bundle in await store.all():
            if bundle.key not in wanted and bundle.used_unix_s < latest_s:
                await store.forget(bundle.key)
            else:
                left_bytes += bundle.size_bytes
        return left_bytes

    def _wanted(self) -> Iterator[BundleKey]:
        for job in self._table.jobs():
            if job.state not in TERMINAL_JOB_STATES:
                for group in [*job.spec.task_groups, *job.rollout.spec.task_groups]:
                    if group.command.HasField("bundle"):
                        yield BundleKey(job.tenant_id, group.command.bundle.sha256)

    def _checked(self, bundle: Bundle) -> BundleStore:
        if self._store is None:
            advice = "cannot be taken: this coordinator has no bundles_dir; set it in its configuration"
            raise invalid([FieldFault("bundle", advice)])
        if not _SHA256.fullmatch(bundle.sha256):
            advice = f"({bundle.sha256[:80]!r}) must be 64 hexadecimal digits"
            raise invalid([FieldFault("bundle.sha256", advice)])
        if not 0 < bundle.size_bytes <= self._bundle_bytes_max:
            raise RequestRefusedError(
                error_pb2.ERROR_REASON_MESSAGE_TOO_LARGE,
                f"the packed folder ({bundle.size_bytes / 1024**2:.1f} MiB) must be at most "
                f"{self._bundle_bytes_max // 1024**2} MiB; leave out what the tasks do not need",
                [FieldFault("bundle.size_bytes", f"({bundle.size_bytes}) is over the limit")],
            )
        return self._store


def _full(message: str) -> RequestRefusedError:
    return RequestRefusedError(error_pb2.ERROR_REASON_STORE_FULL, message)
