"""Additional Docker Engines for tests, each in separate namespaces for network, mounts and processes.

When the first process of an engine ends, for any reason, the kernel removes its containers, mounts, loop devices and
network interfaces. A killed test run leaves only a directory and empty control groups; the next run removes them. The
engines do not change bridges or packet-filter rules of other engines.
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

# The first process of an engine. It mounts an empty /run, so that dockerd starts its own containerd.
SCRIPT = """
set -eu
directory=$1 storage=$2 address=$3
shift 3
echo ready
read -r _
mount -t tmpfs tmpfs /run
ip link set lo up
ip address add "$address/30" dev eth0
ip link set eth0 up
if [ "$storage" = btrfs ]; then mount -o loop "$directory/disk" "$directory/data"; fi
dockerd "$@"
while [ -e "$directory/restart" ]; do rm "$directory/restart"; dockerd "$@"; done
"""


@dataclass(frozen=True)
class SecondEngine:
    """A running engine. `host` is its local socket, `tls_host` its TCP address for clients with `certificates`.

    `disk` is the file that contains its storage if the storage driver is btrfs.
    """

    host: str
    tls_host: str
    address: str
    certificates: Certificates
    disk: Path
    script_pid: int

    def restart(self) -> None:
        """Stop the engine as a service manager does, and start it again. Containers stop. Return when it responds."""
        (self.disk.parent / "restart").touch()
        daemon = os.pidfd_open(_child_of(self.script_pid))
        try:
            signal.pidfd_send_signal(daemon, signal.SIGTERM)
            exited = select.poll()
            exited.register(daemon, select.POLLIN)
            assert exited.poll(STOP_SECS * 1000), "the engine does not stop"
        finally:
            os.close(daemon)
        directory = self.disk.parent
        _wait_until_ready(None, directory / "docker.sock", directory / "log")


@contextmanager
def second_engine(storage: Literal["overlay2", "btrfs"], images_of: docker.APIClient) -> Iterator[SecondEngine]:
    """Run an engine with busybox:latest, copied from another engine. Skip without root; fail without its programs.

    Enter and leave the context in the main thread: the engine ends with that thread.
    """
    if os.geteuid() != 0:
        pytest.skip("a separate engine needs root")
    environment = os.environ | {"PATH": f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"}
    for program in PROGRAMS:
        if shutil.which(program, path=environment["PATH"]) is None:
            pytest.fail(f"{program} is not installed; `make test` installs all programs that tests need", pytrace=False)
    with contextlib.ExitStack() as stack:
        directory = _create_directory(stack)
        stack.callback(_remove, directory)
        engine = stack.enter_context(_running(directory, storage, environment))
        with contextlib.closing(docker.APIClient(base_url=engine.host, timeout=30)) as client:
            client.load_image(images_of.get_image("busybox:latest"))
        yield engine


def _create_directory(stack: contextlib.ExitStack) -> Path:
    """Sweep, and create a directory that is locked until the stack is closed."""
    STATE.mkdir(mode=0o700, exist_ok=True)
    with _locked(STATE / "guard", wait=True):
        _sweep()
        directory = STATE / secrets.token_hex(4)
        directory.mkdir()
        stack.enter_context(_locked(directory / "lock"))
    return directory


def sweep() -> list[str]:
    """Remove the directories of killed runs and return their names. Current runs hold the lock of their directory."""
    with _locked(STATE / "guard", wait=True):
        return _sweep()


def _sweep() -> list[str]:
    removed = []
    for directory in STATE.iterdir():
        if directory.is_dir():
            # The next sweep removes files that the last processes of an engine still use.
            with contextlib.suppress(OSError), _locked(directory / "lock"):
                _remove(directory)
                removed.append(directory.name)
    return removed


@contextmanager
def _locked(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock. Without `wait`, raise `BlockingIOError` if another process holds it."""
    with path.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def _remove(directory: Path) -> None:
    # The kernel also removes the interface, but possibly later.
    link = ["ip", "link", "delete", _interface(directory.name)]
    subprocess.run(link, env={"PATH": SYSTEM_PATH}, check=False, capture_output=True)
    for top in (
        *Path("/sys/fs/cgroup").glob(_cgroup(directory.name)),
        *Path("/sys/fs/cgroup").glob(f"*/{_cgroup(directory.name)}"),
    ):
        for below, _, _ in os.walk(top, topdown=False):
            Path(below).rmdir()
    shutil.rmtree(directory, ignore_errors=True)


def _interface(name: str) -> str:
    return f"sp{name}"


def _cgroup(name: str) -> str:
    return f"sandpool-test-{name}"


@contextmanager
def _running(directory: Path, storage: str, environment: dict[str, str]) -> Iterator[SecondEngine]:
    # From the range that is reserved for tests of network devices: 198.18.0.0/15.
    network = f"198.{18 + secrets.randbelow(2)}.{secrets.randbelow(256)}"
    host_part = 4 * secrets.randbelow(64)
    host_ip, engine_ip = f"{network}.{host_part + 1}", f"{network}.{host_part + 2}"
    certificates = make_certificates(directory / "certificates", engine_ip)
    (directory / "data").mkdir()
    if storage == "btrfs":
        with (directory / "disk").open("wb") as disk:
            disk.truncate(DISK_BYTES)
        subprocess.run(["mkfs.btrfs", "-q", directory / "disk"], env=environment, check=True, capture_output=True)
    (directory / "config.json").write_text("{}")  # Ignore the configuration of the machine.
    path = directory / "docker.sock"
    options = {
        "config-file": directory / "config.json",
        "data-root": directory / "data",
        "exec-root": directory / "exec",
        "pidfile": directory / "pid",
        "storage-driver": storage,
        "cgroup-parent": f"/{_cgroup(directory.name)}",
        "default-address-pool": "base=10.213.0.0/16,size=24",
        "tlscacert": certificates.server / "ca.pem",
        "tlscert": certificates.server / "cert.pem",
        "tlskey": certificates.server / "key.pem",
    }
    flags = [f"--{key}={value}" for key, value in options.items()]
    flags += [f"--host=unix://{path}", f"--host=tcp://{engine_ip}:{TLS_PORT}", "--tlsverify"]
    namespaces = ["unshare", "--mount", "--pid", "--net", "--fork", "--kill-child", "--mount-proc"]
    argv = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        *namespaces,
        "sh",
        "-c",
        SCRIPT,
        "sh",
        directory,
        storage,
        engine_ip,
        *flags,
    ]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, env=environment, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with _connected(process.pid, process.stdout, _interface(directory.name), host_ip, environment):
                process.stdin.write(b"\n")
                process.stdin.flush()
                _wait_until_ready(process, path, directory / "log")
                script = _child_of(process.pid)
                tls_host = f"tcp://{engine_ip}:{TLS_PORT}"
                yield SecondEngine(f"unix://{path}", tls_host, engine_ip, certificates, directory / "disk", script)
        finally:
            process.kill()
            process.wait()
            process.stdin.close()
            process.stdout.close()


@contextmanager
def _connected(pid: int, ready: IO[bytes], interface: str, address: str, environment: dict[str, str]) -> Iterator[None]:
    """Connect to the network namespace of the child of the process with a veth pair, when the child is ready.

    At the end, wait until the child has exited: as the first process of its namespace it exits after all others.
    """
    assert ready.readline() == b"ready\n"
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
        exited = select.poll()
        exited.register(handle, select.POLLIN)
        exited.poll(STOP_SECS * 1000)
        os.close(handle)


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _wait_until_ready(process: "subprocess.Popen[bytes] | None", path: Path, log: Path) -> None:
    """Wait for the socket of the engine, then for a response: before it is ready, it accepts connections only.

    Fail if the process, when one is passed, exits before.
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
