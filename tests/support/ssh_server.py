"""The sshd of the system on the loopback interface, with temporary keys, for connections to the engine's socket."""

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
    """A running sshd. `programs` contains an `ssh` command that uses the keys; put it before `path`."""

    url: str
    programs: Path
    path: str
    pid: int
    authorized: Path

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Stop the processes of the server during the context: connections stay open, but nothing responds."""
        pids = [self.pid, *_descendants(self.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def revoke_access(self) -> None:
        """Reject all further logins and end all sessions."""
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
def ssh_server(directory: Path, docker_host: str) -> Iterator[SshServer]:
    """Run an sshd. Skip without root; fail if sshd, ssh or docker is not installed."""
    if os.geteuid() != 0:
        pytest.skip("a separate sshd needs root")
    path = f"{os.environ.get('PATH', '')}:{SYSTEM_PATH}"
    found = {program: shutil.which(program, path=path) for program in ("sshd", "ssh", "ssh-keygen", "docker")}
    for program, where in found.items():
        if where is None:
            pytest.fail(f"{program} is not installed; `make test` installs all programs that tests need", pytrace=False)
    Path("/run/sshd").mkdir(exist_ok=True)  # Its service normally creates this directory.
    for key in ("host", "client"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", directory / key], check=True)
    authorized = directory / "authorized"
    shutil.copy(directory / "client.pub", authorized)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server_config = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": directory / "host",
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
    (directory / "sshd_config").write_text("".join(f"{key} {value}\n" for key, value in server_config.items()))
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {(directory / 'host.pub').read_text()}")
    client_config = {
        "Host": "the-engine",
        "HostName": "127.0.0.1",
        "Port": port,
        "User": "root",
        "IdentityFile": directory / "client",
        "IdentitiesOnly": "yes",
        "UserKnownHostsFile": directory / "known_hosts",
        "StrictHostKeyChecking": "yes",
    }
    (directory / "ssh_config").write_text("".join(f"{key} {value}\n" for key, value in client_config.items()))
    programs = directory / "bin"
    programs.mkdir()
    ssh = programs / "ssh"
    ssh.write_text(f'#!/bin/sh\nexec {found["ssh"]} -F {shlex.quote(str(directory / "ssh_config"))} "$@"\n')
    ssh.chmod(0o755)
    with (directory / "sshd.log").open("wb") as log:
        argv = [str(found["sshd"]), "-D", "-e", "-f", str(directory / "sshd_config")]
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            _wait_until_it_listens(process, port, directory / "sshd.log")
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
