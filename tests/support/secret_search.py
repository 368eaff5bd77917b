"""A search for values that must not occur in files, on the engine, in a container, or in responses of the API.

The search finds a value in the common forms of text: as plain text, in base64, and in hexadecimal digits.
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

SEARCH_PROGRAM = r"""
import os, sys

top, names = sys.argv[1], sys.argv[2:]
needles = {name: os.environ[name].encode() for name in names}
mine = {"self", "thread-self", str(os.getpid())}


def files():
    # The environment of the searching process contains the values.
    for directory, directories, leaves in os.walk(top):
        if directory == "/":
            directories[:] = [name for name in directories if name not in ("sys", "dev")]
        elif directory == "/proc":
            directories[:] = [name for name in directories if name.isdigit() and name not in mine]
        elif directory.startswith("/proc/"):
            directories[:] = []
            leaves = ["environ", "cmdline", "status", "maps", "mounts", "cgroup", "stat"]
        for leaf in leaves:
            yield os.path.join(directory, leaf)


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
"""A Python program for a container: `python3 -c SEARCH_PROGRAM DIRECTORY NAME…` searches all readable files of the
directory, /proc included, for the values of these variables. It prints a line for each file that contains a value, then
the number of searched files.
"""


def forms(value: str) -> Iterator[bytes]:
    """Yield the forms in which the value may be stored."""
    raw = value.encode()
    yield raw
    yield raw.hex().encode()
    for shift in range(3):
        # Digits that depend on the text before and after the value are omitted.
        digits = base64.b64encode(b"\0" * shift + raw)[(0, 2, 3)[shift] : -4]
        yield digits
        yield digits.translate(bytes.maketrans(b"+/", b"-_"))


@dataclass
class Search:
    """Searches for values. `found` lists the places of each value; `searched` lists the searched places."""

    values: Sequence[str]
    found: dict[str, list[str]] = field(default_factory=dict)
    searched: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._needles = {value: tuple(forms(value)) for value in self.values}
        self.found = {value: [] for value in self.values}

    def content(self, where: str, content: bytes | str) -> None:
        """Search this content."""
        data = content.encode() if isinstance(content, str) else content
        self.searched.append(where)
        for value, needles in self._needles.items():
            if any(needle in data for needle in needles):
                self.found[value].append(where)

    def directory(self, directory: Path) -> None:
        """Search every file in the directory and its subdirectories."""
        for file in sorted(directory.rglob("*")):
            if file.is_file():
                self.content(str(file), file.read_bytes())

    def engine(self, api: docker.APIClient, server_id: str) -> None:
        """Search the engine's description of every resource of this server, and the output of its containers."""
        mine = {"label": f"sandpool.server={server_id}"}
        for container in api.containers(all=True, filters=mine):
            name = container["Id"]
            self._description(f"container {name}", api.inspect_container(name))
            self._description(f"list of {name}", container)
            self._description(
                f"image of {name}", [api.inspect_image(container["ImageID"]), api.history(container["ImageID"])]
            )
            self.content(f"output of {name}", api.logs(name))
        for network in api.networks(filters=mine):
            self._description(f"network {network['Id']}", api.inspect_network(network["Id"]))
        for volume in api.volumes(filters={"label": "sandpool.agent"})["Volumes"] or ():
            self._description(f"volume {volume['Name']}", volume)

    def file_system(self, api: docker.APIClient, container_id: str) -> None:
        """Search every file of a container, as root of the engine sees them."""
        exported = io.BytesIO(b"".join(api.export(container_id)))
        with tarfile.open(fileobj=exported) as archive:
            for entry in archive:
                file = archive.extractfile(entry) if entry.isfile() else None
                if file is not None:
                    self.content(f"{container_id}:/{entry.name}", file.read())

    def _description(self, where: str, description: Any) -> None:
        self.content(where, json.dumps(description, default=str))
