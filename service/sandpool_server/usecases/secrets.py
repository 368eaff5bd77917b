"""What the calls on secrets mean. Values are encrypted before anything is kept, and decrypted for a claim alone."""

from collections.abc import Sequence
from typing import Protocol

from sandpool_server.domain.errors import FailedPrecondition
from sandpool_server.domain.model import DEFAULT_NAMESPACE, Secret
from sandpool_server.ports import Clock, SecretStore
from sandpool_server.usecases.templates import request_key


class Cipher(Protocol):
    """Encrypts values; what it makes is bound to the secret's name, so that ciphertexts cannot be swapped."""

    def encrypt(self, name: str, value: str) -> bytes:
        """The ciphertext of a value."""
        ...

    def decrypt(self, name: str, ciphertext: bytes) -> str:
        """The value. Raises `ValueError` when no key fits, or it is another name's."""
        ...


class Secrets:
    """Secrets by name. Every method raises domain errors, as `ports.SecretStore` says; none tells a value."""

    def __init__(self, store: SecretStore, cipher: Cipher, clock: Clock) -> None:
        self._store = store
        self._cipher = cipher
        self._clock = clock

    async def create(self, name: str, value: str, request_id: str, fingerprint: str) -> Secret:
        """Keep a new secret."""
        now = self._clock.now()
        secret = Secret(DEFAULT_NAMESPACE, name, now, now)
        key = request_key("CreateSecret", request_id, fingerprint)
        return await self._store.create_secret(secret, self._cipher.encrypt(name, value), key)

    async def update(self, name: str, value: str, request_id: str, fingerprint: str) -> Secret:
        """Change a value; sandboxes claimed from now on get the new one."""
        key = request_key("UpdateSecret", request_id, fingerprint)
        ciphertext = self._cipher.encrypt(name, value)
        return await self._store.update_secret(DEFAULT_NAMESPACE, name, ciphertext, self._clock.now(), key)

    async def list(self, limit: int, after: str) -> list[Secret]:
        """Up to `limit` secrets whose name sorts after `after`."""
        return await self._store.list_secrets(DEFAULT_NAMESPACE, limit, after)

    async def delete(self, name: str, force: bool, request_id: str, fingerprint: str) -> None:
        """Delete a secret that no pool and no template names, or any with `force`."""
        key = request_key("DeleteSecret", request_id, fingerprint)
        await self._store.delete_secret(DEFAULT_NAMESPACE, name, force, self._clock.now(), key)

    async def values(self, names: Sequence[str]) -> dict[str, str]:
        """Values for a sandbox's environment. Raises `FailedPrecondition` (`SECRET_MISSING`, `SECRET_UNREADABLE`)."""
        if not names:
            return {}
        ciphertexts = await self._store.secret_ciphertexts(DEFAULT_NAMESPACE, names)
        values = {}
        for name in names:
            if name not in ciphertexts:
                raise FailedPrecondition(
                    "SECRET_MISSING",
                    f"the secret {name!r} was deleted; create it again, or name it no more",
                    "secret",
                    name,
                )
            try:
                values[name] = self._cipher.decrypt(name, ciphertexts[name])
            except ValueError:
                raise FailedPrecondition(
                    "SECRET_UNREADABLE",
                    f"the secret {name!r} was encrypted with a key that this server does not have; give the server the "
                    "old key too, or set the secret anew",
                    "secret",
                    name,
                ) from None
        return values
