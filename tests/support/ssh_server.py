"""The system's sshd on the loopback, with throw-away keys, through which the engine's socket can be had."""

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_SECS = 10.0


@dataclass(frozen=True)
class SshServer:
    """`programs` holds an `ssh` that knows the keys, to be put before `path`."""

    url: str
    programs: Path
    path: str
    pid: int
    authorized: Path

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the server's processes meanwhile: connections stay open and nothing comes back."""
        pids = [self.pid, *_descendants(self.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def close_to_us(self) -> None:
        """Let nobody in any more, and throw out who is in."""
        self.authorized.write_text("")
        for pid in _descendants(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [*children, *(below for child in children for below in _descendants(child))]


@contextmanager
def ssh_server(folder: Path, docker_host: str) -> Iterator[SshServer]:
    """Run it. Left out without root; fails where no sshd or no docker command is installed."""
    if os.geteuid() != 0:
        pytest.skip("an sshd of its own needs root")
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    found = {program: shutil.which(program, path=path) for program in ("sshd", "ssh", "ssh-keygen", "docker")}
    for program, where in found.items():
        if where is None:
            pytest.fail(f"{program} is not installed; `make test` installs what tests need", pytrace=False)
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own, which its service would make.
    for key in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / key], check=True)
    authorized = folder / "authorized"
    shutil.copy(folder / "client.pub", authorized)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server_config = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": authorized,
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "MaxStartups": "100",
        "SetEnv": f"DOCKER_HOST={docker_host} PATH={path}",
    }
    (folder / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in server_config.items()))
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    client_config = {
        "Host": "the-engine",
        "HostName": "127.0.0.1",
        "Port": port,
        "User": "root",
        "IdentityFile": folder / "client",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": folder / "known_hosts",
        "StrictHostKeyChecking": "yes",
    }
    (folder / "ssh_config").write_text("".join(f"{key} {value}\n" for key, value in client_config.items()))
    programs = folder / "bin"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {found["ssh"]} -F {shlex.quote(str(folder / "ssh_config"))} "$@"\n')
    ssh.chmod(0o755)
    with (folder / "sshd.log").open("wb") as log:
        argv = [str(found["sshd"]), "-D", "-e", "-f", str(folder / "sshd_config")]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_until_it_listens(process, port, folder / "sshd.log")
            yield SshServer("ssh://the-engine", programs, path, process.pid, authorized)
        finally:
            pids = _descendants(process.pid)
            process.terminate()
            process.wait()
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def _wait_until_it_listens(process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    for _ in range(round(START_SECS / 0.05)):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
                break
        else:
            return
    raise AssertionError(f"sshd does not start: {log.read_text()}")
