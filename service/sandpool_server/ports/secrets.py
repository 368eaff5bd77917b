"""The database's part in secrets."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from sandpool_server.domain.model import Secret
from sandpool_server.ports.requests import RequestKey


class SecretStore(Protocol):
    """Secrets at rest, encrypted by the caller: the store sees names and ciphertexts. Implemented beside `Store`.

    `Store.create_pool`, `update_pool`, `create_template`, `update_template` and `claim` (of a spec) raise
    `NotFound` (`secret`) for a name that is not here, in the same transaction.
    """

    async def create_secret(self, secret: Secret, ciphertext: bytes, request: RequestKey | None) -> Secret:
        """Raises `AlreadyExists`."""
        ...

    async def update_secret(
        self, namespace: str, name: str, ciphertext: bytes, now: datetime, request: RequestKey | None
    ) -> Secret:
        """Raises `NotFound`."""
        ...

    async def list_secrets(self, namespace: str, limit: int, after: str) -> list[Secret]:
        """Up to `limit` secrets whose name sorts after `after`, by name."""
        ...

    async def delete_secret(
        self, namespace: str, name: str, force: bool, now: datetime, request: RequestKey | None
    ) -> None:
        """Raises `NotFound`, and without `force` `FailedPrecondition` (`SECRET_IN_USE`) naming pools and templates."""
        ...

    async def secret_ciphertexts(self, namespace: str, names: Sequence[str]) -> dict[str, bytes]:
        """The ciphertexts by name; those that do not exist are absent."""
        ...

    async def rewrite_secrets(self, change: Callable[[bytes], bytes]) -> int:
        """Replace every ciphertext by what a pure function makes of it, in one transaction; returns how many."""
        ...
