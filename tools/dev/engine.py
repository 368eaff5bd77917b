"""Which engine to use: the one that answers, else a private one shared by lease."""

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
from tools.dev.locks import Lease, exclusive, nobody_holds
from tools.dev.paths import Paths
from tools.dev.private_engine import PrivateEngine
from tools.dev.signals import uninterrupted

DEFAULT_SOCKET = Path("/var/run/docker.sock")
SERVER_LABEL = "sandpool.server"


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine ready for use. `registry` is the local registry's host:port when it is ours."""

    host: str
    private: bool
    registry: str | None

    def environment(self) -> dict[str, str]:
        """What programs need to find it."""
        found = {"DOCKER_HOST": self.host}
        if self.registry is not None:
            found["SANDPOOL_TEST_REGISTRY"] = self.registry
        return found


class Engines:
    """Finds the engine of this machine, or makes one."""

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
        """The DOCKER_HOST of an engine that is not ours and that answers; None when there is none.

        Naming one that does not answer is an error: starting another behind the person's back
        would put containers where they do not look for them.
        """
        named = self._env.get("DOCKER_HOST")
        if named and named != self._private.host:
            if EngineClient(named).ping():
                return named
            raise StepFailed(
                f"no engine answers at DOCKER_HOST={named}",
                "start that engine, or unset DOCKER_HOST to have a private one started",
            )
        if named or not _accepts(self._default):
            return None
        host = f"unix://{self._default}"
        if EngineClient(host).ping():
            return host
        raise StepFailed(
            f"something listens on {self._default} but does not answer as an engine does",
            "restart or stop that engine, or set DOCKER_HOST to another one",
        )

    def plan(self) -> list[str]:
        """What has to be installed, started or made before an engine with its images is there."""
        host = self.existing()
        images = Images(self._paths, self._console, self._packages)
        if host is not None:
            return images.plan(EngineClient(host))
        _require_root()
        lines = []
        missing = self._private.missing_packages()
        if missing:
            lines.append(f"Debian packages, their services not started: {' '.join(missing)}")
        client = EngineClient(self._private.host)
        if not client.ping():
            lines.append(
                f"a private Docker Engine and registry, until the last user ends (data under {self._private.data})"
            )
            return lines + images.plan(None)
        return lines + images.plan(client)

    @contextmanager
    def use(self) -> Iterator[Engine]:
        """An engine that answers and has the images; a private one is ours until the block ends."""
        host = self.existing()
        if host is not None:
            self._console.say(f"    engine: the one that answers at {host}")
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
            alone = nobody_holds(self._lease)
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
                    # One that was killed meanwhile comes back once, to end its containers.
                    self._private.ensure_running()
                    self._sweep()
                finally:
                    self._private.stop()

    def _sweep(self) -> None:
        """Nobody uses the private engine now: what servers left on it belongs to killed ones."""
        removed = EngineClient(self._private.host).remove_labelled(SERVER_LABEL)
        if removed:
            self._console.say(f"    removed {removed} leftovers of ended servers")


def _require_root() -> None:
    if os.geteuid() != 0:
        raise StepFailed(
            "no Docker Engine answers, and only root can start a private one",
            "start an engine and set DOCKER_HOST if it is not on the default socket, or run this as root",
        )


def _accepts(path: Path) -> bool:
    """Whether somebody accepts connections on a socket; a stale file does not."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.settimeout(5)
            probe.connect(str(path))
    except TimeoutError:
        return True
    except OSError:
        return False
    return True
