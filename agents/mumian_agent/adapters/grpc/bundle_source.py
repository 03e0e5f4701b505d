"""Bundles from the coordinators, over connections of their own: reports do not wait behind them."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from mumian.agent.v1.agent_pb2 import ReadBundleRequest
from mumian.agent.v1.agent_service_pb2_grpc import AgentServiceStub

from mumian_agent.adapters.grpc.channels import open_channel
from mumian_agent.adapters.grpc.refusals import reason_of
from mumian_agent.agent.ports import BundleAwayError, BundleGoneError
from mumian_agent.runtime.certificates import Certificates

_ANSWER_WITHIN_S = 10.0
_OPTIONS = (("grpc.max_receive_message_length", 4 * 1024 * 1024),)


class CoordinatorBundles:
    """Any of the coordinators will do; one that does not lead asks the one that does."""

    def __init__(self, addresses: Sequence[str], certificates: Certificates) -> None:
        self._addresses, self._certificates = addresses, certificates

    async def read(self, allocation_id: str, offset_bytes: int) -> bytes:
        """A piece of what an allocation wants unpacked; empty: there is no more.

        Raises:
            BundleAwayError: no coordinator answers.
            BundleGoneError: the leader does not have it.
        """
        request = ReadBundleRequest(allocation_id=allocation_id, offset_bytes=offset_bytes)
        away = ""
        for address in self._addresses:
            async with open_channel(address, self._certificates, _OPTIONS) as channel:
                try:
                    answer = await AgentServiceStub(channel).ReadBundle(request, timeout=_ANSWER_WITHIN_S)
                except grpc.aio.AioRpcError as error:
                    if reason_of(error) == "BUNDLE_NOT_FOUND":
                        raise BundleGoneError(error.details()) from None
                    away = f"the coordinator at {address} does not give it: {error.details()}"
                    continue
            return bytes(answer.data)
        raise BundleAwayError(away)
