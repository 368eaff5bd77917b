"""The image of the v1 contract, with which later versions of the contract must be compatible."""

from __future__ import annotations

from collections.abc import Mapping

from tools.dev.console import Console
from tools.dev.paths import Paths
from tools.dev.signals import foreground

IMAGE = "proto/v1.binpb"
"""The contract of the last release, public and private, without comments."""


class ContractImage:
    """Compares `proto/` with the image, and writes the image."""

    def __init__(self, paths: Paths, console: Console, env: Mapping[str, str]) -> None:
        self._repo = paths.repo
        self._console = console
        self._env = env

    def check(self) -> int:
        """Check that clients and agents of the image's contract work with the current one. Returns 0 if they do."""
        if not (self._repo / IMAGE).is_file():
            self._console.say(f"    {IMAGE} does not exist; restore it from git, or run `make freeze`")
            return 1
        return self._compare()

    def freeze(self, *, allow_breaking: bool = False) -> int:
        """Write the image of the current contract. Returns 0 if it was written.

        Rejects breaking changes. With `allow_breaking`, they are only reported.
        """
        if code := self._buf("build"):
            return code
        if (self._repo / IMAGE).is_file() and (code := self._compare()):
            if not allow_breaking:
                self._console.say(
                    f"{IMAGE} was not written, because the changes above break clients. See proto/README.md."
                )
                return code
            self._console.say("The changes above break clients of the former contract.")
        code = self._buf("build", "--path", "proto/sandpool", "--exclude-source-info", "--output", IMAGE)
        if code == 0:
            self._console.say(f"wrote {IMAGE}")
        return code

    def _compare(self) -> int:
        return self._buf("breaking", "proto", "--against", IMAGE)

    def _buf(self, *argv: str) -> int:
        return foreground(["buf", *argv], self._env, self._repo)
