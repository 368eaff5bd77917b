"""Stamps: what a finished step was made from, so that a second run does nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(files: Iterable[Path], *facts: str) -> str:
    """A hash of the files' paths and contents and of further facts. A missing file counts too."""
    total = hashlib.sha256()
    for fact in facts:
        total.update(f"fact {fact}\n".encode())
    for file in sorted(files):
        total.update(f"file {file} ".encode())
        content = file.read_bytes() if file.is_file() else b"missing"
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


class Stamp:
    """One file that holds the digest of what a result was made from."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def matches(self, value: str) -> bool:
        """Whether the last finished step was made from the same things."""
        return self._file.is_file() and self._file.read_text().strip() == value

    def clear(self) -> None:
        """Say that the result cannot be trusted: call before changing it."""
        self._file.unlink(missing_ok=True)

    def write(self, value: str) -> None:
        """Say what the result was made from: call when it is whole."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".new")
        temporary.write_text(f"{value}\n")
        temporary.replace(self._file)
