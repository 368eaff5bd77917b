"""The parts of requests that say what a container is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from sandpool._core.arguments import changed, given, one_of, refuse, words


@dataclass(frozen=True)
class Spec:
    """Arguments that say what a container is; None where the caller gave none. `disk_mb` is `ephemeral_disk_mb`."""

    image: str | None = None
    cpus: float | None = None
    memory_mb: int | None = None
    ephemeral_disk_mb: int | None = None
    disk_mb: int | None = None
    secret_names: Iterable[str] | None = None
    entrypoint: Iterable[str] | None = None

    def fields(self) -> dict[str, Any]:
        """The fields of a request, as far as given."""
        return given(
            image=self.image,
            cpus=self.cpus,
            memory_mb=self.memory_mb,
            ephemeral_disk_mb=one_of(None, ephemeral_disk_mb=self.ephemeral_disk_mb, disk_mb=self.disk_mb),
            secret_names=words("secret_names", self.secret_names),
            entrypoint=words("entrypoint", self.entrypoint),
        )

    def refuse_all(self, source: str) -> None:
        """Raise TypeError where any is given: `source` says what the container is."""
        refuse(
            f"the {source} says what the container is; leave this out, or give an image instead of the {source}",
            image=self.image,
            cpus=self.cpus,
            memory_mb=self.memory_mb,
            ephemeral_disk_mb=self.ephemeral_disk_mb,
            disk_mb=self.disk_mb,
            secret_names=self.secret_names,
            entrypoint=self.entrypoint,
        )


def changes(**arguments: object) -> dict[str, Any]:
    """The fields of an update, mask included: what is not UNSET. None puts a field back to its default.

    Raises TypeError where nothing is given.
    """
    found = changed(**arguments)
    for name in ("secret_names", "entrypoint"):
        if name in found:
            found[name] = words(name, found[name])
    if isinstance(found.get("metadata"), Mapping):
        found["metadata"] = dict(found["metadata"])
    return {**given(**found), "update_mask": FieldMask(paths=list(found))}
