"""The private Docker Engine and its registry: start, repair and stop.

Running processes are identified by their command lines, never by pid files, because the process ID of a killed process
may belong to another one. The caller of each method must hold the engine lock.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tools.dev import processes
from tools.dev.console import Console, StepFailed
from tools.dev.debian import SYSTEM_PATH, find_program
from tools.dev.engine_api import EngineClient
from tools.dev.paths import Paths

NEEDED = {"dockerd": "docker.io", "iptables": "iptables", "docker-registry": "docker-registry"}
START_SECONDS = 60.0
STOP_SECONDS = 40.0
RELOAD_SECONDS = 10.0
POLL_SECONDS = 0.05
PORT_ATTEMPTS = 5
NOWHERE = "http://127.0.0.1:9"


def free_port() -> int:
    """Return a TCP port of the loopback address that is currently free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PrivateEngine:
    """A dockerd and a registry as its mirror, both in the runtime directory of the machine.

    With `offline`, the engine can use only this registry. Requests to other registries fail immediately.
    """

    def __init__(self, paths: Paths, console: Console, *, offline: bool = False) -> None:
        self._console = console
        self._offline = offline
        self._runtime = paths.runtime
        self._logs = paths.cache / "logs"
        self.data = paths.cache / "engine"
        self._registry_data = paths.cache / "registry"
        self._socket = paths.runtime / "docker.sock"
        self._config = paths.runtime / "dockerd.json"
        self._pid_file = paths.runtime / "dockerd.pid"
        self._exec_root = paths.runtime / "exec"
        self._registry_config = paths.runtime / "registry.yml"
        self.host = f"unix://{self._socket}"
        self._is_dockerd = processes.running_with("dockerd", str(self._config))
        self._is_containerd = processes.running_with("containerd", str(self._exec_root))
        self._is_registry = processes.running_with("docker-registry", str(self._registry_config))

    def missing_packages(self) -> list[str]:
        """Return the Debian packages of missing programs."""
        return [package for program, package in NEEDED.items() if find_program(program) is None]

    def ensure_running(self) -> str:
        """Start the engine and the registry if they do not respond. Returns the registry's host:port."""
        address = self._registry_address()
        if address is not None and EngineClient(self.host).ping() and self._mirror() == address:
            return address
        with self._console.step("private Docker Engine and registry"):
            for directory in (self._runtime, self._logs, self.data, self._registry_data):
                directory.mkdir(parents=True, exist_ok=True)
            self._runtime.chmod(0o711)
            address = address or self._start_registry()
            if EngineClient(self.host).ping():
                self._change_mirror(address)
            else:
                self._clean_up()
                self._start_dockerd(address)
        return address

    def stop(self) -> None:
        """Stop the engine and the registry. Their data remains in the cache directory."""
        with self._console.step("stopping the private engine"):
            exited = self._terminate(self._is_dockerd, STOP_SECONDS)
            exited &= self._terminate(self._is_containerd, 10.0)
            exited &= self._terminate(self._is_registry, 10.0)
            if not exited:
                raise StepFailed(
                    "a process of the private engine does not exit, not even after SIGKILL",
                    f"read the logs in {self._logs}, or restart the machine",
                )
            self._remove_stale_files()
            if _mounted_on_itself(self.data, Path("/proc/self/mountinfo").read_text()):
                self._console.run("engine", ["umount", self.data])

    def _terminate(self, match: processes.Match, grace: float) -> bool:
        """Terminate all matching processes. Returns whether all have exited."""
        exited = [processes.stop(pid, match, grace) for pid in processes.find(match)]
        return all(exited)

    # -- registry

    def _registry_address(self) -> str | None:
        """Return the address of the registry if it is running and responds, otherwise None."""
        if not processes.find(self._is_registry):
            return None
        try:
            address = str(json.loads(self._registry_config.read_text())["http"]["addr"])
        except (OSError, ValueError, KeyError):
            return None
        return address if _registry_responds(address) else None

    def _start_registry(self) -> str:
        self._terminate(self._is_registry, 10.0)
        # Prefer the address that the engine uses as its mirror, so that its configuration does not change.
        last = self._mirror()
        for attempt in range(PORT_ATTEMPTS):
            address = last if last and attempt == 0 else f"127.0.0.1:{free_port()}"
            config = {
                "version": "0.1",
                "log": {"level": "warn"},
                "storage": {"filesystem": {"rootdirectory": str(self._registry_data)}},
                "http": {"addr": address, "secret": secrets.token_hex(16)},
            }
            # Every JSON document is also a YAML document.
            _write_atomically(self._registry_config, json.dumps(config, indent=1))
            argv = ["docker-registry", "serve", str(self._registry_config)]
            process = self._spawn(argv, "registry", {})
            if _becomes_ready(process, partial(_registry_responds, address), START_SECONDS):
                return address
            self._terminate(self._is_registry, 10.0)
        raise StepFailed(
            f"the local image registry did not start in {PORT_ATTEMPTS} attempts",
            "read its log, and check the free disk space",
            self._logs / "registry.log",
        )

    # -- engine

    def _mirror(self) -> str | None:
        try:
            mirrors = json.loads(self._config.read_text())["registry-mirrors"]
            return str(mirrors[0]).removeprefix("http://")
        except (OSError, ValueError, KeyError, IndexError):
            return None

    def _change_mirror(self, address: str) -> None:
        """Change the mirror of a running engine to a restarted registry."""
        if self._mirror() == address:
            return
        self._write_config(address)
        for pid in processes.find(self._is_dockerd):
            os.kill(pid, signal.SIGHUP)
        deadline = time.monotonic() + RELOAD_SECONDS
        while address not in EngineClient(self.host).mirrors():
            if time.monotonic() > deadline:
                log = self._logs / "dockerd.log"
                raise StepFailed(
                    f"the private engine did not apply its new mirror {address}", "run the command again", log
                )
            select.select([], [], [], POLL_SECONDS)

    def _write_config(self, registry: str) -> None:
        config = {
            "hosts": [self.host],
            "data-root": str(self.data),
            "exec-root": str(self._exec_root),
            "pidfile": str(self._pid_file),
            "registry-mirrors": [f"http://{registry}"],
            "shutdown-timeout": 10,
        }
        _write_atomically(self._config, json.dumps(config, indent=1))

    def _start_dockerd(self, registry: str) -> None:
        self._write_config(registry)
        # Separate namespaces, because dockerd uses an existing containerd of the machine.
        names = ["--containerd-namespace=sandpool", "--containerd-plugins-namespace=sandpool-plugins"]
        argv = ["dockerd", "--config-file", str(self._config), *names]
        proxy = {"HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1"} if self._offline else {}
        process = self._spawn(argv, "dockerd", proxy)
        if not _becomes_ready(process, EngineClient(self.host).ping, START_SECONDS):
            self._terminate(self._is_dockerd, 10.0)
            raise StepFailed(
                "the private Docker Engine does not start",
                "read its log; the engine needs root, cgroups and packet filtering (iptables). "
                "You can also use another engine: set DOCKER_HOST to its address",
                self._logs / "dockerd.log",
            )

    def _clean_up(self) -> None:
        """Terminate the processes of an engine that does not respond, and remove its stale files.

        The processes of containers keep running. The next dockerd finds them in containerd's database and stops them.
        """
        self._terminate(self._is_dockerd, STOP_SECONDS)
        self._terminate(self._is_containerd, 10.0)
        self._remove_stale_files()

    def _remove_stale_files(self) -> None:
        # dockerd trusts both pid files if any process has the process ID in them.
        self._pid_file.unlink(missing_ok=True)
        (self._exec_root / "containerd" / "containerd.pid").unlink(missing_ok=True)
        self._socket.unlink(missing_ok=True)

    def _spawn(self, argv: list[str], name: str, extra: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start a daemon in a separate session, so that Ctrl-C and the end of this run do not affect it."""
        program = find_program(argv[0])
        if program is None:
            raise StepFailed(f"{argv[0]} is not installed", "run the command again to install it")
        path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
        env = {"PATH": path, "HOME": str(Path.home()), "LANG": "C.UTF-8"} | extra
        log = self._logs / f"{name}.log"
        if log.exists():
            shutil.move(log, log.with_suffix(".log.old"))
        with log.open("wb") as output:
            return subprocess.Popen(
                [program, *argv[1:]],
                env=env,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )


def _write_atomically(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


def _mounted_on_itself(directory: Path, mounts: str) -> bool:
    """Return whether the directory is a bind mount that a killed dockerd left, and not a separate file system.

    `mounts` is the content of /proc/self/mountinfo. Its fourth field is the mounted path within the file system, its
    fifth field is the mount point. They differ by a prefix if the file system is not mounted at the root, or in a
    chroot.
    """
    for line in mounts.splitlines():
        source, place = line.split()[3:5]
        if place == str(directory) and source != "/":
            return place.endswith(source) or source.endswith(place)
    return False


def _registry_responds(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/v2/")
        response = connection.getresponse()
        return response.status == 200 and "registry" in str(response.getheader("Docker-Distribution-Api-Version"))
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _becomes_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], seconds: float) -> bool:
    """Poll until `ready` returns True. Returns False if the process exits or is not ready after `seconds`.

    Between two polls, the function waits for the exit of the process, so it detects the exit immediately.
    """
    deadline = time.monotonic() + seconds
    handle = os.pidfd_open(process.pid)
    try:
        exited = select.poll()
        exited.register(handle, select.POLLIN)
        while time.monotonic() < deadline:
            if ready():
                return True
            if exited.poll(POLL_SECONDS * 1000):
                process.wait()
                return False
        return False
    finally:
        os.close(handle)
