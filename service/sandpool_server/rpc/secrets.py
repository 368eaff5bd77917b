"""The SecretService: secrets of the contract to secrets of the use cases and back.

A value goes one way, from a request to its use case. It is in no answer, no fingerprint, no page token, and like all
that `Calls` does not name, in no line of the log.
"""

from sandpool.v1 import secret_service_pb2 as messages
from sandpool.v1 import secret_service_pb2_grpc as stubs
from sandpool_server.rpc.calls import Context
from sandpool_server.rpc.converters import secret_message
from sandpool_server.rpc.fingerprints import fingerprint_of
from sandpool_server.rpc.paging import page_of
from sandpool_server.usecases.secrets import Secrets

_HIDDEN = ("value",)


class SecretServicer(stubs.SecretServiceServicer):
    """Answers SecretService. Requests are valid when they get here; domain errors become statuses in `Calls`."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    async def CreateSecret(
        self, request: messages.CreateSecretRequest, context: Context
    ) -> messages.CreateSecretResponse:
        """Keep a new secret."""
        fingerprint = fingerprint_of(request, request.request_id, _HIDDEN)
        secret = await self._secrets.create(request.name, request.value, request.request_id, fingerprint)
        return messages.CreateSecretResponse(secret=secret_message(secret))

    async def UpdateSecret(
        self, request: messages.UpdateSecretRequest, context: Context
    ) -> messages.UpdateSecretResponse:
        """Change a secret's value."""
        fingerprint = fingerprint_of(request, request.request_id, _HIDDEN)
        secret = await self._secrets.update(request.name, request.value, request.request_id, fingerprint)
        return messages.UpdateSecretResponse(secret=secret_message(secret))

    async def ListSecrets(self, request: messages.ListSecretsRequest, context: Context) -> messages.ListSecretsResponse:
        """List secrets by name."""
        secrets, token = await page_of(request).fetch(self._secrets.list, lambda secret: secret.name)
        return messages.ListSecretsResponse(
            secrets=[secret_message(secret) for secret in secrets], next_page_token=token
        )

    async def DeleteSecret(
        self, request: messages.DeleteSecretRequest, context: Context
    ) -> messages.DeleteSecretResponse:
        """Delete a secret."""
        fingerprint = fingerprint_of(request, request.request_id)
        await self._secrets.delete(request.name, request.force, request.request_id, fingerprint)
        return messages.DeleteSecretResponse()
