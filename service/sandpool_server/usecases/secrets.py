"""The use cases of secrets. Values are encrypted before they are stored, and decrypted only for a sandbox."""

from collections.abc import Sequence
from typing import Protocol

from sandpool_server.domain.errors import FailedPrecondition
from sandpool_server.domain.model import DEFAULT_NAMESPACE, Secret
from sandpool_server.interfaces import Clock, SecretStore
from sandpool_server.usecases.templates import request_key


class Cipher(Protocol):
    """Encrypts values. A ciphertext is bound to the name of its secret, so ciphertexts cannot be swapped."""

    def encrypt(self, name: str, value: str) -> bytes:
        """Return the ciphertext of a value."""
        ...

    def decrypt(self, name: str, ciphertext: bytes) -> str:
        """Return the value.

        Raises:
            ValueError: no key decrypts the ciphertext, or it belongs to another name.
        """
        ...


class Secrets:
    """Secrets by name. The methods raise the domain errors that `interfaces.SecretStore` documents.

    Only `values` returns values.
    """

    def __init__(self, store: SecretStore, cipher: Cipher, clock: Clock) -> None:
        self._store = store
        self._cipher = cipher
        self._clock = clock

    async def create(self, name: str, value: str, request_id: str, fingerprint: str) -> Secret:
        """Create a secret and return it without its value."""
        now = self._clock.now()
        secret = Secret(DEFAULT_NAMESPACE, name, now, now)
        key = request_key("CreateSecret", request_id, fingerprint)
        return await self._store.create_secret(secret, self._cipher.encrypt(name, value), key)

    async def update(self, name: str, value: str, request_id: str, fingerprint: str) -> Secret:
        """Replace the value of a secret. Sandboxes that are created after this call get the new value."""
        key = request_key("UpdateSecret", request_id, fingerprint)
        ciphertext = self._cipher.encrypt(name, value)
        return await self._store.update_secret(DEFAULT_NAMESPACE, name, ciphertext, self._clock.now(), key)

    async def get(self, name: str) -> Secret:
        """Return a secret without its value."""
        return await self._store.get_secret(DEFAULT_NAMESPACE, name)

    async def list(self, limit: int, after: str) -> list[Secret]:
        """Return up to `limit` secrets whose name sorts after `after`, sorted by name."""
        return await self._store.list_secrets(DEFAULT_NAMESPACE, limit, after)

    async def delete(self, name: str, force: bool, request_id: str, fingerprint: str) -> None:
        """Delete a secret. Without `force`, no pool and no template may use it."""
        key = request_key("DeleteSecret", request_id, fingerprint)
        await self._store.delete_secret(DEFAULT_NAMESPACE, name, force, self._clock.now(), key)

    async def values(self, names: Sequence[str]) -> dict[str, str]:
        """Return the values of secrets, by name, for the environment of a sandbox.

        Raises:
            FailedPrecondition: a secret does not exist (SECRET_MISSING) or cannot be decrypted (SECRET_UNREADABLE).
        """
        if not names:
            return {}
        ciphertexts = await self._store.secret_ciphertexts(DEFAULT_NAMESPACE, names)
        values = {}
        for name in names:
            if name not in ciphertexts:
                raise FailedPrecondition(
                    "SECRET_MISSING",
                    f"secret {name!r} was deleted; create it again, or remove it from secret_names",
                    "secret",
                    name,
                )
            try:
                values[name] = self._cipher.decrypt(name, ciphertexts[name])
            except ValueError:
                raise FailedPrecondition(
                    "SECRET_UNREADABLE",
                    f"secret {name!r} was encrypted with a key that this server does not have; add that key to the "
                    "server's secrets_keys, or update the secret with its value",
                    "secret",
                    name,
                ) from None
        return values
