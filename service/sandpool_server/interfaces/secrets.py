"""The interface to the secrets in the database."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from sandpool_server.domain.model import Secret
from sandpool_server.interfaces.requests import RequestKey


class SecretStore(Protocol):
    """Stores secrets. The caller encrypts the values: the store receives only names and ciphertexts.

    The implementation of `Store` also implements this interface. Its methods `create_pool`, `update_pool`,
    `create_template`, `update_template` and `claim` (with a specification) check in their transaction that the named
    secrets exist, and raise `NotFound` (secret).
    """

    async def create_secret(self, secret: Secret, ciphertext: bytes, request: RequestKey | None) -> Secret:
        """Write a new secret. Raises `AlreadyExists`."""
        ...

    async def update_secret(
        self, namespace: str, name: str, ciphertext: bytes, now: datetime, request: RequestKey | None
    ) -> Secret:
        """Replace the ciphertext of a secret. Raises `NotFound`."""
        ...

    async def get_secret(self, namespace: str, name: str) -> Secret:
        """Return a secret without its value. Raises `NotFound`."""
        ...

    async def list_secrets(self, namespace: str, limit: int, after: str) -> list[Secret]:
        """Return up to `limit` secrets whose name sorts after `after`, sorted by name."""
        ...

    async def delete_secret(
        self, namespace: str, name: str, force: bool, now: datetime, request: RequestKey | None
    ) -> None:
        """Delete a secret.

        Raises:
            NotFound: the secret does not exist.
            FailedPrecondition: (SECRET_IN_USE) `force` is false, and pools or templates use the secret. The message
                lists them.
        """
        ...

    async def secret_ciphertexts(self, namespace: str, names: Sequence[str]) -> dict[str, bytes]:
        """Return the ciphertexts by name, without an entry for names that do not exist."""
        ...

    async def rewrite_secrets(self, change: Callable[[bytes], bytes]) -> int:
        """Replace every ciphertext by the result of `change` in one transaction, and return the number of secrets.

        `change` must be a pure function.
        """
        ...
