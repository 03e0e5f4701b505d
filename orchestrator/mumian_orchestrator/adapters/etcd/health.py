"""Health of an etcd cluster, asked of each member by its maintenance API and its metrics."""

from __future__ import annotations

import asyncio
import http.client
import re
import ssl
import tempfile
import time
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from typing import Any

import grpc

from mumian_orchestrator.adapters.etcd.client import Credentials, EtcdClient, Member, reason_of
from mumian_orchestrator.adapters.etcd.messages import rpc
from mumian_orchestrator.ports.store_health import Alarm, ServerHealth

_QUOTA = re.compile(r"^etcd_server_quota_backend_bytes (\S+)$", re.MULTILINE)
_ALARMS = {rpc.NOSPACE: "NOSPACE", rpc.CORRUPT: "CORRUPT"}
_WITHIN_S = 2.0
_DEFRAGMENT_WITHIN_S = 600.0  # 10 s for a gigabyte and more, on a slow disk


class EtcdHealth:
    """The members behind a client. Each call asks every member once, all at the same time."""

    def __init__(self, client: EtcdClient, credentials: Credentials | None = None) -> None:
        self._client, self._credentials = client, credentials

    async def servers(self) -> Sequence[ServerHealth]:
        """All members, in the order of the configuration."""
        return await asyncio.gather(*(self._server(member) for member in self._client.members))

    async def alarms(self) -> Sequence[Alarm]:
        """What the cluster has raised."""
        raised = await self._raised()
        names = await self._endpoints_by_id()
        return [
            Alarm(
                _ALARMS.get(alarm.alarm, f"alarm {alarm.alarm}"),
                names.get(alarm.memberID, f"member {alarm.memberID:x}"),
            )
            for alarm in raised
        ]

    async def defragment(self, endpoint: str) -> None:
        """Give a member's free space back to its disk; it answers nobody meanwhile.

        Raises:
            NoAnswerError: it did not end in time.
        """
        member = next(member for member in self._client.members if member.endpoint == endpoint)
        try:
            await member.maintenance.Defragment(rpc.DefragmentRequest(), timeout=_DEFRAGMENT_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            raise self._client.failure(member, error) from None

    async def disarm(self) -> None:
        """Take every NOSPACE alarm back. It comes again with the next write if there is no space.

        Raises:
            NoAnswerError: nobody answered.
        """
        for alarm in await self._raised():
            if alarm.alarm == rpc.NOSPACE:
                deactivate = rpc.AlarmRequest.DEACTIVATE
                request = rpc.AlarmRequest(action=deactivate, memberID=alarm.memberID, alarm=alarm.alarm)
                await self._client.ask(lambda member: member.maintenance.Alarm, request)

    async def _raised(self) -> Sequence[Any]:
        request = rpc.AlarmRequest(action=rpc.AlarmRequest.GET)
        return list((await self._client.ask(lambda member: member.maintenance.Alarm, request)).alarms)

    async def _server(self, member: Member) -> ServerHealth:
        try:
            status = await member.maintenance.Status(rpc.StatusRequest(), timeout=_WITHIN_S)
        except grpc.aio.AioRpcError as error:
            return ServerHealth(member.endpoint, problem=reason_of(error))
        quota_bytes, clock_ahead_s = await asyncio.to_thread(self._metrics, member.endpoint)
        return ServerHealth(
            endpoint=member.endpoint,
            version=status.version,
            size_bytes=status.dbSize,
            in_use_bytes=status.dbSizeInUse,
            quota_bytes=quota_bytes,
            leads=status.leader == status.header.member_id,
            has_leader=status.leader != 0,
            clock_ahead_s=clock_ahead_s,
        )

    async def _endpoints_by_id(self) -> dict[int, str]:
        found: dict[int, str] = {}
        for member in self._client.members:
            try:
                status = await member.maintenance.Status(rpc.StatusRequest(), timeout=_WITHIN_S)
            except grpc.aio.AioRpcError:
                continue
            found[status.header.member_id] = member.endpoint
        return found

    def _metrics(self, endpoint: str) -> tuple[int | None, float | None]:
        """Quota and clock, which etcd tells only over HTTP; None where it does not."""
        host, _, port = endpoint.rpartition(":")
        try:
            connection = self._connection(host, int(port))
            asked_s = time.time()
            connection.request("GET", "/metrics")
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
            answered_s = time.time()
            connection.close()
            date = answer.headers["Date"]
        except (OSError, http.client.HTTPException):
            return None, None
        quota = _QUOTA.search(text)
        quota_bytes = int(float(quota.group(1))) if quota else None
        if not date:
            return quota_bytes, None
        told_s = parsedate_to_datetime(date).timestamp()
        # Its second may have begun up to a second before it told.
        if told_s > answered_s:
            return quota_bytes, told_s - answered_s
        return quota_bytes, min(0.0, told_s + 1 - asked_s)

    def _connection(self, host: str, port: int) -> http.client.HTTPConnection:
        if self._credentials is None:
            return http.client.HTTPConnection(host, port, timeout=_WITHIN_S)
        context = ssl.create_default_context(cadata=self._credentials.ca.decode())
        # The standard library reads a client's proof from files only.
        with tempfile.NamedTemporaryFile() as file:
            file.write(self._credentials.certificate + b"\n" + self._credentials.key)
            file.flush()
            context.load_cert_chain(file.name)
        return http.client.HTTPSConnection(host, port, timeout=_WITHIN_S, context=context)
