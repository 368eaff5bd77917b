"""Implementation of SecretService on the use cases.

A secret's value is passed only from a request to the use case. It is never part of a response, a fingerprint, a page
token or a log message.
"""

from sandpool.v1 import secret_service_pb2 as messages
from sandpool_server.gen.v1 import secret_service_pb2_grpc as stubs
from sandpool_server.rpc.calls import Context
from sandpool_server.rpc.converters import secret_message
from sandpool_server.rpc.fingerprints import fingerprint_of
from sandpool_server.rpc.paging import page_of
from sandpool_server.usecases.secrets import Secrets

_HIDDEN = ("value",)


class SecretServicer(stubs.SecretServiceServicer):
    """Implements SecretService. `Calls` validates requests and converts domain errors to statuses."""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    async def CreateSecret(
        self, request: messages.CreateSecretRequest, context: Context
    ) -> messages.CreateSecretResponse:
        """Create a secret."""
        fingerprint = fingerprint_of(request, request.request_id, _HIDDEN)
        secret = await self._secrets.create(request.name, request.value, request.request_id, fingerprint)
        return messages.CreateSecretResponse(secret=secret_message(secret))

    async def UpdateSecret(
        self, request: messages.UpdateSecretRequest, context: Context
    ) -> messages.UpdateSecretResponse:
        """Replace the value of a secret."""
        fingerprint = fingerprint_of(request, request.request_id, _HIDDEN)
        secret = await self._secrets.update(request.name, request.value, request.request_id, fingerprint)
        return messages.UpdateSecretResponse(secret=secret_message(secret))

    async def GetSecret(self, request: messages.GetSecretRequest, context: Context) -> messages.GetSecretResponse:
        """Return a secret without its value."""
        return messages.GetSecretResponse(secret=secret_message(await self._secrets.get(request.name)))

    async def ListSecrets(self, request: messages.ListSecretsRequest, context: Context) -> messages.ListSecretsResponse:
        """List secrets without their values, ordered by name."""
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
