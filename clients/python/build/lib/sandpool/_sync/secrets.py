# Made from _async/secrets.py by tools/codegen/blocking_client.py: change that one, then run `make generate`.
"""The client's methods about secrets."""

from __future__ import annotations

from sandpool._core import secrets
from sandpool._core.model import Secret
from sandpool._io.blocking import Transport


class SecretMethods:
    """Secrets for pools, templates and sandboxes that name them (`secret_names`).

    A sandbox has their values in the environment of its processes from its claim on; the entrypoint of a pool with
    secrets starts then too. No call gives a value back.
    """

    _transport: Transport

    def create_secret(self, name: str, value: str, *, timeout: float | None = None) -> Secret:
        """Keep a new secret, encrypted.

        Args:
            name: Its name, and that of the environment variable: a letter or an underscore, then at most 127 letters,
                digits and underscores.
            value: Text of 1 to 65,536 characters.
            timeout: Seconds for this call; the client's by default.

        Raises:
            ResourceAlreadyExistsError: There is one of that name.
            ValidationError: Name or value breaks a rule.
        """
        return self._transport.call(secrets.create_secret(name, value, timeout))

    def update_secret(self, name: str, value: str, *, timeout: float | None = None) -> Secret:
        """Change a secret's value: sandboxes claimed from now on get the new one. Raises SecretNotFoundError."""
        return self._transport.call(secrets.update_secret(name, value, timeout))

    def list_secrets(self, *, page_size: int = 0, timeout: float | None = None) -> list[Secret]:
        """All secrets by name, without values; read in pages of `page_size`, 100 by default; `timeout` is a page's."""
        return self._transport.pages(lambda token: secrets.list_secrets(page_size, token, timeout))

    def delete_secret(self, name: str, *, force: bool = False, timeout: float | None = None) -> None:
        """Delete a secret.

        With `force` also one that pools or templates name: those cannot be filled until there is one of that name
        again, or they name it no more.

        Raises:
            SecretInUseError: Pools or templates name it. The message names them.
            SecretNotFoundError: There is none.
        """
        self._transport.call(secrets.delete_secret(name, force, timeout))
