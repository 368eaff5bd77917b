"""Encryption of secrets with Fernet from the `cryptography` package.

Several keys are supported for rotation: the first key encrypts, and every key decrypts. Each ciphertext contains the
name of its secret, so that it cannot be used as the value of another secret.
"""

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

_SEPARATOR = "\0"


class Vault:
    """Implements `usecases.secrets.Cipher`."""

    def __init__(self, keys: list[str]) -> None:
        """Create a vault from keys of 32 bytes each in URL-safe base64, the current key first.

        Raises `ValueError` if a key is invalid or if there are none.
        """
        if not keys:
            raise ValueError("there is no encryption key for secrets; provide at least one")
        self._keys = MultiFernet([Fernet(key) for key in keys])

    def encrypt(self, name: str, value: str) -> bytes:
        """See `Cipher.encrypt`."""
        return self._keys.encrypt(f"{name}{_SEPARATOR}{value}".encode())

    def decrypt(self, name: str, ciphertext: bytes) -> str:
        """See `Cipher.decrypt`."""
        try:
            owner, _, value = self._keys.decrypt(ciphertext).decode().partition(_SEPARATOR)
        except InvalidToken:
            raise ValueError(f"cannot decrypt the secret {name!r} with any of the keys") from None
        if owner != name:
            raise ValueError(f"the stored value of the secret {name!r} belongs to another secret")
        return value

    def rotate(self, ciphertext: bytes) -> bytes:
        """Return the same value, encrypted with the current key. Raises `ValueError` if no key can decrypt it."""
        try:
            return self._keys.rotate(ciphertext)
        except InvalidToken:
            raise ValueError("cannot decrypt a secret with any of the keys; add the key that encrypted it") from None


def new_key() -> str:
    """Return a new random key."""
    return Fernet.generate_key().decode()
