"""Selection of the engine: an existing engine if there is one, otherwise a private engine with shared leases."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.dev.console import Console, StepFailed
from tools.dev.debian import Packages
from tools.dev.engine_api import EngineClient
from tools.dev.images import Images
from tools.dev.locks import Lease, exclusive, is_unused
from tools.dev.paths import Paths
from tools.dev.private_engine import PrivateEngine
from tools.dev.signals import uninterrupted

DEFAULT_SOCKET = Path("/var/run/docker.sock")
SERVER_LABEL = "sandpool.server"


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that is ready to use. `registry` is the host:port of the local registry of a private engine."""

    host: str
    private: bool
    registry: str | None

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which programs find the engine."""
        found = {"DOCKER_HOST": self.host}
        if self.registry is not None:
            found["SANDPOOL_TEST_REGISTRY"] = self.registry
        return found


class Engines:
    """Finds the engine of this machine, or starts a private one."""

    def __init__(
        self,
        paths: Paths,
        console: Console,
        env: Mapping[str, str],
        default_socket: Path = DEFAULT_SOCKET,
    ) -> None:
        self._paths = paths
        self._console = console
        self._env = env
        self._default = default_socket
        self._packages = Packages(paths, console)
        self._private = PrivateEngine(paths, console, offline=bool(env.get("SANDPOOL_OFFLINE")))
        self._guard = paths.runtime / "engine.lock"
        self._lease = paths.runtime / "engine.lease"

    def existing(self) -> str | None:
        """Return the DOCKER_HOST of an engine that is not private and responds; None if there is none.

        Raises `StepFailed` if DOCKER_HOST is set and its engine does not respond. Starting a private engine instead
        would create containers where the user does not expect them.
        """
        named = self._env.get("DOCKER_HOST")
        if named and named != self._private.host:
            if EngineClient(named).ping():
                return named
            raise StepFailed(
                f"the engine at DOCKER_HOST={named} does not respond",
                "start that engine, or unset DOCKER_HOST to start a private one",
            )
        if named or not _accepts(self._default):
            return None
        host = f"unix://{self._default}"
        if EngineClient(host).ping():
            return host
        raise StepFailed(
            f"a process listens on {self._default} but does not respond as an engine",
            "restart or stop that engine, or set DOCKER_HOST to another one",
        )

    def plan(self) -> list[str]:
        """Return the steps to provide an engine with all images, as texts."""
        host = self.existing()
        images = Images(self._paths, self._console, self._packages)
        if host is not None:
            return images.plan(EngineClient(host))
        _require_root()
        lines = []
        missing = self._private.missing_packages()
        if missing:
            lines.append(f"Debian packages, without starting their services: {' '.join(missing)}")
        client = EngineClient(self._private.host)
        if not client.ping():
            lines.append(
                f"private Docker Engine and registry, until the last command that uses them exits (data in "
                f"{self._private.data})"
            )
            return lines + images.plan(None)
        return lines + images.plan(client)

    @contextmanager
    def use(self) -> Iterator[Engine]:
        """Return a context manager with an engine that responds and has all images.

        A private engine runs at least until the end of the block.
        """
        host = self.existing()
        if host is not None:
            self._console.say(f"    engine: existing engine at {host}")
            Images(self._paths, self._console, self._packages).ensure(EngineClient(host), None)
            yield Engine(host, private=False, registry=None)
            return
        _require_root()
        lease = Lease(self._lease)
        registry = self._join(lease)
        try:
            client = EngineClient(self._private.host)
            offline = bool(self._env.get("SANDPOOL_OFFLINE"))
            images = Images(self._paths, self._console, self._packages, offline=offline)
            images.ensure(client, registry)
            yield Engine(self._private.host, private=True, registry=registry)
        finally:
            with uninterrupted():
                self._leave(lease)

    def _join(self, lease: Lease) -> str:
        with exclusive(self._guard, self._console, "starting or stopping the engine"):
            missing = self._private.missing_packages()
            if missing:
                self._packages.install(missing, "a private Docker Engine")
            alone = is_unused(self._lease)
            try:
                registry = self._private.ensure_running()
                if alone:
                    self._sweep()
            except BaseException:
                if alone:
                    self._private.stop()
                raise
            lease.join()
            return registry

    def _leave(self, lease: Lease) -> None:
        with exclusive(self._guard, self._console, "starting or stopping the engine"):
            if lease.leave():
                try:
                    # If the engine was killed, start it again, so that it can remove its containers.
                    self._private.ensure_running()
                    self._sweep()
                finally:
                    self._private.stop()

    def _sweep(self) -> None:
        """Remove the objects of killed servers. The caller ensures that no process uses the private engine."""
        removed = EngineClient(self._private.host).remove_labelled(SERVER_LABEL)
        if removed:
            self._console.say(f"    removed {removed} containers and networks of killed servers")


def _require_root() -> None:
    if os.geteuid() != 0:
        raise StepFailed(
            "no Docker Engine responds, and only root can start a private one",
            "start an engine, and set DOCKER_HOST if it is not on the default socket; or run this command as root",
        )


def _accepts(path: Path) -> bool:
    """Return whether a process accepts connections on a socket. A stale socket file does not accept connections."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(5)
            probe.connect(str(path))
    except TimeoutError:
        return True
    except OSError:
        return False
    return True
