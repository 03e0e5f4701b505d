"""The door to tenants' secrets: values go in, none come out."""

from __future__ import annotations

from mumian.api.v1 import secret_service_pb2 as pb
from mumian.api.v1.secret_service_pb2_grpc import SecretServiceServicer

from mumian_orchestrator.adapters.grpc.errors import Context, unary
from mumian_orchestrator.adapters.grpc.tenant import tenant_of
from mumian_orchestrator.domain.identity import current_caller
from mumian_orchestrator.domain.pages import page
from mumian_orchestrator.services.secrets import Secrets


class SecretService(SecretServiceServicer):
    """`SecretService` over the secrets, which are told the tenant."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    @unary
    async def PutSecret(self, request: pb.PutSecretRequest, context: Context) -> pb.PutSecretResponse:
        by = current_caller().name
        secret = await self._secrets.put(tenant_of(context), request.name, request.value, by)
        return pb.PutSecretResponse(secret=secret)

    @unary
    async def ListSecrets(self, request: pb.ListSecretsRequest, context: Context) -> pb.ListSecretsResponse:
        found = self._secrets.of(tenant_of(context))
        shown, token = page(found, lambda secret: secret.name, request.page_size, request.page_token)
        return pb.ListSecretsResponse(secrets=shown, next_page_token=token)

    @unary
    async def DeleteSecret(
        self, request: pb.DeleteSecretRequest, context: Context
    ) -> pb.DeleteSecretResponse:
        await self._secrets.delete(tenant_of(context), request.name)
        return pb.DeleteSecretResponse()
