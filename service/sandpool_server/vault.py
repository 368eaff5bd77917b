"""Secrets' encryption: Fernet of the `cryptography` package, several keys at once so that they can be rotated.

The first key encrypts; each decrypts. A ciphertext says inside whose it is.
"""

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

_BETWEEN = "\0"


class Vault:
    """Implements `usecases.secrets.Cipher`."""

    def __init__(self, keys: list[str]) -> None:
        """`keys` are 32 bytes each in URL-safe base64, the present one first. Raises `ValueError` on others."""
        if not keys:
            raise ValueError("no key for secrets is given")
        self._keys = MultiFernet([Fernet(key) for key in keys])

    def encrypt(self, name: str, value: str) -> bytes:
        """See `Cipher.encrypt`."""
        return self._keys.encrypt(f"{name}{_BETWEEN}{value}".encode())

    def decrypt(self, name: str, ciphertext: bytes) -> str:
        """See `Cipher.decrypt`."""
        try:
            owner, _, value = self._keys.decrypt(ciphertext).decode().partition(_BETWEEN)
        except InvalidToken:
            raise ValueError(f"no key decrypts the secret {name!r}") from None
        if owner != name:
            raise ValueError(f"the ciphertext under the name {name!r} is another secret's")
        return value

    def rotate(self, ciphertext: bytes) -> bytes:
        """The same value, encrypted with the present key. Raises `ValueError` when no key fits."""
        try:
            return self._keys.rotate(ciphertext)
        except InvalidToken:
            raise ValueError("a secret was encrypted with a key that is not at hand") from None


def new_key() -> str:
    """A fresh key."""
    return Fernet.generate_key().decode()
