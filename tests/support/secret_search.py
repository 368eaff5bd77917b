"""A search for values that must be nowhere: in files, on the engine, in a container, in answers of the API.

A value counts as found in the forms that programs commonly keep text in: as it is, in base64, in hexadecimal digits.
"""

import base64
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker

INSIDE = r"""
import os, sys

top, names = sys.argv[1], sys.argv[2:]
needles = {name: os.environ[name].encode() for name in names}
mine = {"self", "thread-self", str(os.getpid())}


def files():
    # A process's own environment is where its values belong.
    for folder, folders, leaves in os.walk(top):
        if folder == "/":
            folders[:] = [name for name in folders if name not in ("sys", "dev")]
        elif folder == "/proc":
            folders[:] = [name for name in folders if name.isdigit() and name not in mine]
        elif folder.startswith("/proc/"):
            folders[:] = []
            leaves = ["environ", "cmdline", "status", "maps", "mounts", "cgroup", "stat"]
        for leaf in leaves:
            yield os.path.join(folder, leaf)


looked = 0
for path in files():
    try:
        if not path.startswith("/proc/") and not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            content = file.read()
    except OSError:
        continue
    looked += 1
    for name, needle in needles.items():
        if needle in content:
            print("found", name, path)
print("looked", looked)
"""
"""A program for Python in a container: `python3 -c INSIDE FOLDER NAME…` searches whatever its user may read under the
folder, /proc included, for the values of these variables; prints a line for each file that holds one, then how many it
looked into.
"""


def forms(value: str) -> Iterator[bytes]:
    """The forms that the value may be kept in."""
    raw = value.encode()
    yield raw
    yield raw.hex().encode()
    for shift in range(3):
        # The digits that depend on what stands before and after are left out.
        digits = base64.b64encode(b"\0" * shift + raw)[(0, 2, 3)[shift] : -4]
        yield digits
        yield digits.translate(bytes.maketrans(b"+/", b"-_"))


@dataclass
class Search:
    """Looks for values; `found` says where each was, `looked` what was looked at."""

    values: Sequence[str]
    found: dict[str, list[str]] = field(default_factory=dict)
    looked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._needles = {value: tuple(forms(value)) for value in self.values}
        self.found = {value: [] for value in self.values}

    def content(self, where: str, content: bytes | str) -> None:
        """Look into this."""
        data = content.encode() if isinstance(content, str) else content
        self.looked.append(where)
        for value, needles in self._needles.items():
            if any(needle in data for needle in needles):
                self.found[value].append(where)

    def folder(self, folder: Path) -> None:
        """Look into every file under the folder."""
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                self.content(str(file), file.read_bytes())

    def engine(self, api: docker.APIClient, server_id: str) -> None:
        """Look into what the engine tells of everything that this server made, and into what containers printed."""
        mine = {"label": f"sandpool.server={server_id}"}
        for container in api.containers(all=True, filters=mine):
            name = container["Id"]
            self._told(f"container {name}", api.inspect_container(name))
            self._told(f"list of {name}", container)
            self._told(f"image of {name}", [api.inspect_image(container["ImageID"]), api.history(container["ImageID"])])
            self.content(f"output of {name}", api.logs(name))
        for network in api.networks(filters=mine):
            self._told(f"network {network['Id']}", api.inspect_network(network["Id"]))
        for volume in api.volumes(filters={"label": "sandpool.agent"})["Volumes"] or ():
            self._told(f"volume {volume['Name']}", volume)

    def file_system(self, api: docker.APIClient, container_id: str) -> None:
        """Look into every file of a container, as the engine's root sees them."""
        exported = io.BytesIO(b"".join(api.export(container_id)))
        with tarfile.open(fileobj=exported) as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isfile() else None
                if file is not None:
                    self.content(f"{container_id}:/{entry.name}", file.read())

    def _told(self, where: str, answer: Any) -> None:
        self.content(where, json.dumps(answer, default=str))
