"""The engine over ssh: each connection is one `ssh HOST docker system dial-stdio`, as docker's own client does it.

docker-py's own transport needs paramiko even to run the system's `ssh`, and then knows no timeouts. Here the program
speaks into one end of a socket pair, and the other end is a socket like any: deadlines hold, streams can be shut.
"""

import re
import socket
import subprocess
import threading
from typing import Any
from urllib.parse import urlsplit

import structlog
from docker.errors import DockerException
from docker.transport.unixconn import UnixHTTPAdapter, UnixHTTPConnection, UnixHTTPConnectionPool

_DIAL = "docker system dial-stdio"
_CONNECT_SECS = 10
_ALIVE_SECS = 15
_MAX_GREETING = 16 * 1024
_LOOK_UP_SECS = 10
_SSH_FAILED = 255
"""The exit code that ssh keeps for its own failures."""
_LOG = structlog.get_logger(__name__)


def ssh_argv(url: str, *extra: str) -> list[str]:
    """The command that reaches `url` (ssh://[user@]host[:port]) by the person's own ssh configuration, never asking.

    Raises `DockerException` when the address names no host.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise DockerException(f"the engine's address {url!r} has a port that is none") from None
    if not parts.hostname:
        raise DockerException(f"the engine's address {url!r} names no host")
    argv = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECS}"]
    argv += ["-o", f"ServerAliveInterval={_ALIVE_SECS}", *extra]
    if parts.username:
        argv += ["-l", parts.username]
    if port:
        argv += ["-p", str(port)]
    return [*argv, "--", parts.hostname]


def ssh_host_name(url: str) -> str:
    """The host's real name or address, for the one in the url may be an alias of the ssh configuration. Blocks."""
    try:
        said = subprocess.run(
            ssh_argv(url, "-G"),
            capture_output=True,
            text=True,
            timeout=_LOOK_UP_SECS,
            check=True,
            stdin=subprocess.DEVNULL,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise DockerException(f"ssh does not say where {url!r} is: {error}") from error
    found = re.search(r"^hostname (\S+)$", said, re.MULTILINE)
    return found[1] if found else str(urlsplit(url).hostname)


class _Connection(UnixHTTPConnection):
    """One connection, and the ssh process behind it."""

    def connect(self) -> None:
        """Start ssh and wait for the engine's first answer through it.

        Logging in may take longer than a request is given; so it has a time of its own, and is not begun anew with each
        request that came too early.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            end = theirs.fileno()
            try:
                process = subprocess.Popen(
                    [*ssh_argv(self.base_url), _DIAL],
                    stdin=end,
                    stdout=end,
                    stderr=subprocess.PIPE,
                    start_new_session=True,  # Ctrl-C is the server's to deal with.
                )
            except BaseException:
                ours.close()
                raise
        self._process = process
        threading.Thread(target=_see_off, args=(process, self.base_url), name="engine-ssh", daemon=True).start()
        try:
            _greet(ours)
        except BaseException:
            ours.close()
            process.terminate()
            raise
        ours.settimeout(self.timeout)
        self.sock = ours

    def close(self) -> None:
        """Close the connection and end its process."""
        super().close()
        process = getattr(self, "_process", None)
        if process is not None:
            process.terminate()


def _greet(connection: socket.socket) -> None:
    """Ask for a sign of life. Raises `TimeoutError` when none comes in the time for logging in, `ConnectionError`."""
    connection.settimeout(_CONNECT_SECS)
    answer = b""
    try:
        connection.sendall(b"HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
        while not answer.endswith(b"\r\n\r\n") and (more := connection.recv(_MAX_GREETING)):
            answer += more  # To its end: the answer to a HEAD has no body.
            if len(answer) > _MAX_GREETING:
                break
    except (BrokenPipeError, ConnectionResetError) as error:
        # Not as it is: while a request is sent, urllib3 takes these to mean that an answer is there to be read.
        raise ConnectionError("ssh has ended") from error
    if not answer.endswith(b"\r\n\r\n"):
        raise ConnectionError("no engine answers through ssh")


def _see_off(process: "subprocess.Popen[bytes]", url: str) -> None:
    """Wait for the process's end and say why it ended if that was ssh's fault. Runs in a thread of its own."""
    _, said = process.communicate()
    if process.returncode == _SSH_FAILED and said:
        _LOG.warning("ssh to the engine failed", engine=url, said=said.decode(errors="replace").strip()[-500:])


class _Pool(UnixHTTPConnectionPool):
    def _new_conn(self) -> _Connection:  # type: ignore[override]
        return _Connection(self.base_url, "", self.timeout)  # type: ignore[arg-type]  # docker-py has it so too


class SshAdapter(UnixHTTPAdapter):
    """A transport for `requests` that reaches the engine at an ssh:// address."""

    def __init__(self, url: str, timeout: float, max_pool_size: int) -> None:
        super().__init__("http+unix://ssh", timeout=timeout, max_pool_size=max_pool_size)  # type: ignore[arg-type]
        ssh_argv(url)
        self._url = url

    def get_connection(self, url: str | bytes, proxies: Any = None) -> Any:
        """The pool of connections; there is one, whatever the path of `url`."""
        with self.pools.lock:
            pool = self.pools.get(self._url)
            if pool is None:
                pool = _Pool(self._url, "", self.timeout, maxsize=self.max_pool_size)
                self.pools[self._url] = pool
        return pool
