"""An image that contains one static binary and no other file."""

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.engine_view import EngineView

NAME = "sandpool-test/bare"
BINARY = "/busybox"


@contextmanager
def bare_image(engine: EngineView) -> Iterator[str]:
    """Create the image and yield its name. Remove it from the engine at the end."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as made:
        data = _busybox(engine)
        entry = tarfile.TarInfo(BINARY.removeprefix("/"))
        entry.size, entry.mode = len(data), 0o755
        made.addfile(entry, io.BytesIO(data))
    engine.api.import_image_from_data(archive.getvalue(), repository=NAME, tag="latest")
    try:
        yield f"{NAME}:latest"
    finally:
        engine.api.remove_image(f"{NAME}:latest", force=True)


def _busybox(engine: EngineView) -> bytes:
    """Return the binary of the busybox image."""
    source = engine.api.create_container("busybox:latest", ["true"], network_disabled=True)["Id"]
    try:
        parts, _ = engine.api.get_archive(source, "/bin/busybox")
        with tarfile.open(fileobj=io.BytesIO(b"".join(parts))) as archive:
            (entry,) = [each for each in archive if each.isfile()]
            binary = archive.extractfile(entry)
            assert binary is not None
            return binary.read()
    finally:
        engine.api.remove_container(source, force=True)
