"""Docker Engines of the tests' own, each in namespaces of its own: network, mounts and processes.

The kernel ends everything with the one process that this run holds, whatever ends the run: containers, mounts, loop
devices and network interfaces. A run that was killed leaves but a folder and empty control groups; the next one sweeps
them. Nothing of it touches another engine's bridges or packet-filter rules.
"""

import contextlib
import fcntl
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import docker
import pytest

from tests.support.certificates import Certificates, make_certificates

STATE = Path("/var/tmp/sandpool-test-engines")
PROGRAMS = ("dockerd", "iptables", "unshare", "setpriv", "ip", "mkfs.btrfs")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TLS_PORT = 2376
START_SECS = 40.0
STOP_SECS = 20.0
POLL_SECS = 0.05
DISK_BYTES = 1 << 30

# Its first process: sees no /run of the machine's, so that dockerd finds no containerd there but starts its own.
SCRIPT = """
set -eu
folder=$1 storage=$2 address=$3
shift 3
echo here
read -r _
mount -t tmpfs tmpfs /run
ip link set lo up
ip address add "$address/30" dev eth0
ip link set eth0 up
if [ "$storage" = btrfs ]; then mount -o loop "$folder/disk" "$folder/data"; fi
dockerd "$@"
while [ -e "$folder/restart" ]; do rm "$folder/restart"; dockerd "$@"; done
"""


@dataclass(frozen=True)
class SecondEngine:
    """One that runs. `host` is its local socket, `tls_host` its address from here, for clients with `certificates`.

    `disk` is the file that its storage is on, where that is btrfs.
    """

    host: str
    tls_host: str
    address: str
    certificates: Certificates
    disk: Path
    script_pid: int

    def restart(self) -> None:
        """Stop it as a service manager does, and start it again; containers end. Returns when it answers."""
        (self.disk.parent / "restart").touch()
        daemon = os.pidfd_open(_child_of(self.script_pid))
        try:
            signal.pidfd_send_signal(daemon, signal.SIGTERM)
            ended = select.poll()
            ended.register(daemon, select.POLLIN)
            assert ended.poll(STOP_SECS * 1000), "the engine does not stop"
        finally:
            os.close(daemon)
        folder = self.disk.parent
        _wait_until_it_answers(None, folder / "docker.sock", folder / "log")


@contextmanager
def second_engine(storage: Literal["overlay2", "btrfs"], images_of: docker.APIClient) -> Iterator[SecondEngine]:
    """Run an engine with busybox:latest, taken from another. Leave it out without root; fail without its programs.

    To be entered and left in the main thread, with whose end the engine ends.
    """
    if os.geteuid() != 0:
        pytest.skip("an engine of its own needs root")
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"}
    for program in PROGRAMS:
        if shutil.which(program, path=environment["PATH"]) is None:
            pytest.fail(f"{program} is not installed; `make test` installs what tests need", pytrace=False)
    with contextlib.ExitStack() as stack:
        folder = _take_folder(stack)
        stack.callback(_remove, folder)
        engine = stack.enter_context(_running(folder, storage, environment))
        with contextlib.closing(docker.APIClient(base_url=engine.host, timeout=30)) as client:
            client.load_image(images_of.get_image("busybox:latest"))
        yield engine


def _take_folder(stack: contextlib.ExitStack) -> Path:
    """Sweep, and make a folder that is locked as long as the stack lasts."""
    STATE.mkdir(mode=0o700, exist_ok=True)
    with _locked(STATE / "guard", wait=True):
        _sweep()
        folder = STATE / secrets.token_hex(4)
        folder.mkdir()
        stack.enter_context(_locked(folder / "lock"))
    return folder


def sweep() -> list[str]:
    """Remove what killed runs left; those that still run hold their lock. Returns the names of the removed."""
    with _locked(STATE / "guard", wait=True):
        return _sweep()


def _sweep() -> list[str]:
    removed = []
    for folder in STATE.iterdir():
        if folder.is_dir():
            # What its last processes still hold is left to the next sweep.
            with contextlib.suppress(OSError), _locked(folder / "lock"):
                _remove(folder)
                removed.append(folder.name)
    return removed


@contextmanager
def _locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock. Raises `BlockingIOError` when somebody else has it, unless that is to be waited for."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def _remove(folder: Path) -> None:
    # The kernel does so too, when it comes to it.
    link = ["ip", "link", "delete", _interface(folder.name)]
    subprocess.run(link, env={"PATH": SYSTEM_PATH}, check=False, capture_output=True)
    for top in (
        *Path("/sys/fs/cgroup").glob(_cgroup(folder.name)),
        *Path("/sys/fs/cgroup").glob(f"*/{_cgroup(folder.name)}"),
    ):
        for below, _, _ in os.walk(top, topdown=False):
            Path(below).rmdir()
    shutil.rmtree(folder, ignore_errors=True)


def _interface(name: str) -> str:
    return f"sp{name}"


def _cgroup(name: str) -> str:
    return f"sandpool-test-{name}"


@contextmanager
def _running(folder: Path, storage: str, environment: dict[str, str]) -> Iterator[SecondEngine]:
    # Of the range that is set aside for tests of network devices: 198.18.0.0/15.
    network = f"198.{18 + secrets.randbelow(2)}.{secrets.randbelow(256)}"
    host_part = 4 * secrets.randbelow(64)
    ours, theirs = f"{network}.{host_part + 1}", f"{network}.{host_part + 2}"
    certificates = make_certificates(folder / "certificates", theirs)
    (folder / "data").mkdir()
    if storage == "btrfs":
        with (folder / "disk").open("wb") as disk:
            disk.truncate(DISK_BYTES)
        subprocess.run(["mkfs.btrfs", "-q", folder / "disk"], env=environment, check=True, capture_output=True)
    (folder / "config.json").write_text("{}")  # Not the machine's own.
    path = folder / "docker.sock"
    options = {
        "config-file": folder / "config.json",
        "data-root": folder / "data",
        "exec-root": folder / "exec",
        "pidfile": folder / "pid",
        "storage-driver": storage,
        "cgroup-parent": f"/{_cgroup(folder.name)}",
        "default-address-pool": "base=10.213.0.0/16,size=24",
        "tlscacert": certificates.server / "ca.pem",
        "tlscert": certificates.server / "cert.pem",
        "tlskey": certificates.server / "key.pem",
    }
    flags = [f"--{key}={value}" for key, value in options.items()]
    flags += [f"--host=unix://{path}", f"--host=tcp://{theirs}:{TLS_PORT}", "--tlsverify"]
    namespaces = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
    argv = ["setpriv", "--pdeathsig", "KILL", *namespaces, "sh", "-c", SCRIPT, "sh", folder, storage, theirs, *flags]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, env=environment, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with _connected(process.pid, process.stdout, _interface(folder.name), ours, environment):
                process.stdin.write(b"\n")
                process.stdin.flush()
                _wait_until_it_answers(process, path, folder / "log")
                script = _child_of(process.pid)
                tls_host = f"tcp://{theirs}:{TLS_PORT}"
                yield SecondEngine(f"unix://{path}", tls_host, theirs, certificates, folder / "disk", script)
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


@contextmanager
def _connected(pid: int, ready: IO[bytes], interface: str, address: str, environment: dict[str, str]) -> Iterator[None]:
    """Lay a wire from here into the network namespace of the process's child, once that is there.

    In the end wait for the child's: as the first process of its namespace it ends after all others in there.
    """
    assert ready.readline() == b"here\n"
    child = _child_of(pid)
    handle = os.pidfd_open(child)
    try:
        for command in (
            ["link", "add", interface, "type", "veth", "peer", "name", "eth0", "netns", str(child)],
            ["address", "add", f"{address}/30", "dev", interface],
            ["link", "set", interface, "up"],
        ):
            subprocess.run(["ip", *command], env=environment, check=True, capture_output=True)
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        ended = select.poll()
        ended.register(handle, select.POLLIN)
        ended.poll(STOP_SECS * 1000)
        os.close(handle)


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _wait_until_it_answers(process: "subprocess.Popen[bytes] | None", path: Path, log: Path) -> None:
    """Wait for the engine's socket, then for its answer; until it is ready it takes connections and is silent.

    Fails when the process, if one is given, ends before.
    """
    for _ in range(round(START_SECS / POLL_SECS)):
        with socket.socket(socket.AF_UNIX) as probe:
            if probe.connect_ex(str(path)) == 0:
                break
        if process is None:
            time.sleep(POLL_SECS)
            continue
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(POLL_SECS)
            raise AssertionError(f"the second engine does not start: {log.read_text()[-2000:]}")
    with contextlib.closing(docker.APIClient(base_url=f"unix://{path}", timeout=START_SECS)) as client:
        client.ping()
