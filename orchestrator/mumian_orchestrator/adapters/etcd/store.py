"""The store in etcd: every commit is one transaction that only this leader can make, and only once."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Mapping, Sequence

import grpc

from mumian_orchestrator.adapters.etcd.client import (
    EtcdClient,
    created_at,
    delete,
    get,
    modified_at,
    put,
)
from mumian_orchestrator.adapters.etcd.leadership import Term
from mumian_orchestrator.ports.store import SupersededError, Write

log = logging.getLogger(__name__)

# etcd takes 128 operations and 1.5 MiB a transaction; one operation is the commit mark.
MAX_WRITES = 127
_FIRST_RETRY_S, _LAST_RETRY_S = 0.05, 1.0


class EtcdStore:
    """Keys live under `prefix`, the leader's key and the commit mark beside them under the same prefix.

    The commit mark holds the id of the newest commit. Each transaction demands that the mark is the one
    that the previous commit left, so an attempt that timed out and happens later cannot happen twice, and
    two commits cannot change places.
    """

    def __init__(self, client: EtcdClient, prefix: str, term: Term) -> None:
        self._client, self._term = client, term
        self._data = f"{prefix}data/"
        self._mark = f"{prefix}commit"
        self._mark_revision = 0

    async def load(self) -> Mapping[str, bytes]:
        """Everything that is stored, read after the term began."""
        answer = await self._client.txn([], [get(self._mark)])
        for pair in answer.responses[0].response_range.kvs:
            self._mark_revision = pair.mod_revision
        found = await self._client.range_prefix(self._data)
        return {key.removeprefix(self._data): value for key, value in found.items()}

    async def commit(self, writes: Sequence[Write]) -> None:
        """Store all writes in one transaction (at most MAX_WRITES).

        Raises:
            SupersededError: a newer leader writes now.
            ValueError: more than MAX_WRITES.
        """
        if len(writes) > MAX_WRITES:
            raise ValueError(f"writes ({len(writes)}) of one commit must be at most {MAX_WRITES}")
        commit_id = uuid.uuid4().bytes
        operations = [
            delete(self._data + write.key)
            if write.value is None
            else put(self._data + write.key, write.value)
            for write in writes
        ]
        retry_s = _FIRST_RETRY_S
        while not self._term.over.is_set():
            try:
                answer = await self._client.txn(
                    [
                        created_at(self._term.key, self._term.number),
                        modified_at(self._mark, self._mark_revision),
                    ],
                    [*operations, put(self._mark, commit_id)],
                    [get(self._mark)],
                )
            except grpc.aio.AioRpcError as error:
                log.warning("commit not confirmed: %s; trying again", error.details())
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, _LAST_RETRY_S)
                continue
            if answer.succeeded:
                self._mark_revision = answer.header.revision
                return
            # Either an earlier attempt of this very commit did happen, or another leader writes.
            for pair in answer.responses[0].response_range.kvs:
                if pair.value == commit_id:
                    self._mark_revision = pair.mod_revision
                    return
            break
        raise SupersededError(f"term {self._term.number} is over")
