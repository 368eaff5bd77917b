"""The private Docker Engine and its registry: start, repair, stop.

Both are found again by their command lines, never by pid files, so whatever was killed and
whoever has its number now, the next start sees what is really there. Every method is called
under the engine lock.
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
    """A TCP port of the loopback address that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class PrivateEngine:
    """One dockerd with one registry as its mirror, both under the machine's runtime folder.

    With `offline` the engine reaches no registry but ours: asking another fails at once.
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
        """Debian packages whose programs are not on this machine."""
        return [package for program, package in NEEDED.items() if find_program(program) is None]

    def ensure_running(self) -> str:
        """Have both running and answering; the registry's host:port."""
        address = self._registry_address()
        if address is not None and EngineClient(self.host).ping() and self._mirror() == address:
            return address
        with self._console.step("private Docker Engine and registry"):
            for folder in (self._runtime, self._logs, self.data, self._registry_data):
                folder.mkdir(parents=True, exist_ok=True)
            self._runtime.chmod(0o711)
            address = address or self._start_registry()
            if EngineClient(self.host).ping():
                self._change_mirror(address)
            else:
                self._clear_away()
                self._start_dockerd(address)
        return address

    def stop(self) -> None:
        """End both. Data stays in the cache folder."""
        with self._console.step("stopping the private engine"):
            gone = self._end(self._is_dockerd, STOP_SECONDS)
            gone &= self._end(self._is_containerd, 10.0)
            gone &= self._end(self._is_registry, 10.0)
            if not gone:
                raise StepFailed(
                    "a part of the private engine does not end, not even when killed",
                    f"see {self._logs}; a restart of the machine helps for certain",
                )
            self._remove_stale_files()
            if _mounted_on_itself(self.data, Path("/proc/self/mountinfo").read_text()):
                self._console.run("engine", ["umount", self.data])

    def _end(self, match: processes.Match, grace: float) -> bool:
        """End every process that matches, one that resists not keeping the others; whether all are gone."""
        ended = [processes.stop(pid, match, grace) for pid in processes.find(match)]
        return all(ended)

    # -- registry

    def _registry_address(self) -> str | None:
        """The address of our registry when it is running and answers."""
        if not processes.find(self._is_registry):
            return None
        try:
            address = str(json.loads(self._registry_config.read_text())["http"]["addr"])
        except (OSError, ValueError, KeyError):
            return None
        return address if _registry_answers(address) else None

    def _start_registry(self) -> str:
        self._end(self._is_registry, 10.0)
        # The engine's mirror, where that port is still free: then nothing has to be changed there.
        last = self._mirror()
        for attempt in range(PORT_ATTEMPTS):
            address = last if last and attempt == 0 else f"127.0.0.1:{free_port()}"
            config = {
                "version": "0.1",
                "log": {"level": "warn"},
                "storage": {"filesystem": {"rootdirectory": str(self._registry_data)}},
                "http": {"addr": address, "secret": secrets.token_hex(16)},
            }
            # Every JSON document is a YAML document.
            _write_whole(self._registry_config, json.dumps(config, indent=1))
            argv = ["docker-registry", "serve", str(self._registry_config)]
            process = self._spawn(argv, "registry", {})
            if _comes_up(process, partial(_registry_answers, address), START_SECONDS):
                return address
            self._end(self._is_registry, 10.0)
        raise StepFailed(
            "the local image registry does not start",
            "see its log; is the disk full?",
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
        """Point a running engine to a registry that had to be started anew."""
        if self._mirror() == address:
            return
        self._write_config(address)
        for pid in processes.find(self._is_dockerd):
            os.kill(pid, signal.SIGHUP)
        deadline = time.monotonic() + RELOAD_SECONDS
        while address not in EngineClient(self.host).mirrors():
            if time.monotonic() > deadline:
                log = self._logs / "dockerd.log"
                raise StepFailed("the private engine does not take its new mirror", "run it again", log)
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
        _write_whole(self._config, json.dumps(config, indent=1))

    def _start_dockerd(self, registry: str) -> None:
        self._write_config(registry)
        # Names of our own, should the machine run a containerd: dockerd uses it then.
        names = ["--containerd-namespace=sandpool", "--containerd-plugins-namespace=sandpool-plugins"]
        argv = ["dockerd", "--config-file", str(self._config), *names]
        proxy = {"HTTPS_PROXY": NOWHERE, "NO_PROXY": "127.0.0.1"} if self._offline else {}
        process = self._spawn(argv, "dockerd", proxy)
        if not _comes_up(process, EngineClient(self.host).ping, START_SECONDS):
            self._end(self._is_dockerd, 10.0)
            raise StepFailed(
                "the private Docker Engine does not start",
                "see its log; it needs root, cgroups and packet filtering (iptables). "
                "An engine of your own, named by DOCKER_HOST, is used instead if you have one",
                self._logs / "dockerd.log",
            )

    def _clear_away(self) -> None:
        """End what is left of an engine that does not answer, and the files that would lie.

        Containers' own processes stay: the next dockerd finds them through containerd's records
        and ends them in order.
        """
        self._end(self._is_dockerd, STOP_SECONDS)
        self._end(self._is_containerd, 10.0)
        self._remove_stale_files()

    def _remove_stale_files(self) -> None:
        # dockerd believes both pid files as soon as any process has the number in them.
        self._pid_file.unlink(missing_ok=True)
        (self._exec_root / "containerd" / "containerd.pid").unlink(missing_ok=True)
        self._socket.unlink(missing_ok=True)

    def _spawn(self, argv: list[str], name: str, extra: dict[str, str]) -> subprocess.Popen[bytes]:
        """Start a daemon in a session of its own: Ctrl-C and the end of this run do not reach it."""
        program = find_program(argv[0])
        if program is None:
            raise StepFailed(f"{argv[0]} is not installed", "run `make` again to install it")
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


def _write_whole(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.replace(path)


def _mounted_on_itself(folder: Path, mounts: str) -> bool:
    """Whether the folder is the bind mount that a killed dockerd leaves, and not a disk of its own.

    `mounts` is the text of /proc/self/mountinfo: its fourth field is what of a file system is mounted, its fifth where.
    The two differ by a prefix when the file system itself is mounted somewhere, or we are in a chroot.
    """
    for line in mounts.splitlines():
        source, place = line.split()[3:5]
        if place == str(folder) and source != "/":
            return place.endswith(source) or source.endswith(place)
    return False


def _registry_answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=5)
    try:
        connection.request("GET", "/v2/")
        answer = connection.getresponse()
        return answer.status == 200 and "registry" in str(answer.getheader("Docker-Distribution-Api-Version"))
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _comes_up(process: subprocess.Popen[bytes], ready: Callable[[], bool], seconds: float) -> bool:
    """Ask until it is ready; False when the process ends before, or the time is over.

    Waiting on the process's handle is what paces the questions, so its end is noticed at once.
    """
    deadline = time.monotonic() + seconds
    handle = os.pidfd_open(process.pid)
    try:
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        while time.monotonic() < deadline:
            if ready():
                return True
            if ended.poll(POLL_SECONDS * 1000):
                process.wait()
                return False
        return False
    finally:
        os.close(handle)
