"""Stamps: digests of the inputs of completed steps, so that a second run skips them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest(files: Iterable[Path], *facts: str) -> str:
    """Return a digest of the paths and contents of files, and of other facts. A missing file changes the digest."""
    total = hashlib.sha256()
    for fact in facts:
        total.update(f"fact {fact}\n".encode())
    for file in sorted(files):
        total.update(f"file {file} ".encode())
        content = file.read_bytes() if file.is_file() else b"missing"
        total.update(hashlib.sha256(content).digest())
    return total.hexdigest()


class Stamp:
    """A file with the digest of the inputs of a step."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def matches(self, value: str) -> bool:
        """Return whether the step was completed with the inputs that have this digest."""
        return self._file.is_file() and self._file.read_text().strip() == value

    def clear(self) -> None:
        """Mark the result as incomplete. Call this method before changing the result."""
        self._file.unlink(missing_ok=True)

    def write(self, value: str) -> None:
        """Write the digest of the inputs. Call this method when the result is complete."""
        self._file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._file.with_suffix(".new")
        temporary.write_text(f"{value}\n")
        temporary.replace(self._file)
