"""Transport to an engine over ssh: each connection runs `ssh HOST docker system dial-stdio`, like the docker CLI.

docker-py's ssh transport requires paramiko even to run the system's `ssh`, and does not support timeouts. In this
transport, `ssh` uses one end of a socket pair. The other end is an ordinary socket, so timeouts work and streams can be
shut down.
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
_MAX_RESPONSE_BYTES = 16 * 1024
_LOOK_UP_SECS = 10
_SSH_FAILED = 255
"""The exit code that ssh uses for its own failures."""
_LOG = structlog.get_logger(__name__)


def ssh_argv(url: str, *extra: str) -> list[str]:
    """Return the ssh command for `url` (ssh://[user@]host[:port]).

    The command uses the ssh configuration of the user and never prompts. Raises `DockerException` if the address has no
    host or an invalid port.
    """
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        raise DockerException(
            f"the engine's address {url!r} has an invalid port; use ssh://[user@]host[:port]"
        ) from None
    if not parts.hostname:
        raise DockerException(f"the engine's address {url!r} has no host; use ssh://[user@]host[:port]")
    argv = ["ssh", "-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_SECS}"]
    argv += ["-o", f"ServerAliveInterval={_ALIVE_SECS}", *extra]
    if parts.username:
        argv += ["-l", parts.username]
    if port:
        argv += ["-p", str(port)]
    return [*argv, "--", parts.hostname]


def ssh_host_name(url: str) -> str:
    """Return the name or address of the host; the URL may contain an alias of the ssh configuration. Blocks.

    Raises `DockerException` if ssh fails.
    """
    try:
        output = subprocess.run(
            ssh_argv(url, "-G"),
            capture_output=True,
            text=True,
            timeout=_LOOK_UP_SECS,
            check=True,
            stdin=subprocess.DEVNULL,
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise DockerException(f"cannot read the host name of {url!r} from the ssh configuration: {error}") from error
    found = re.search(r"^hostname (\S+)$", output, re.MULTILINE)
    return found[1] if found else str(urlsplit(url).hostname)


class _Connection(UnixHTTPConnection):
    """One connection and its ssh process."""

    def connect(self) -> None:
        """Start ssh and wait for the first response of the engine.

        The login may take longer than the timeout of a request. It therefore has a separate timeout, and does not
        restart with every request that times out.
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
                    start_new_session=True,  # Ctrl-C must reach the server only.
                )
            except BaseException:
                ours.close()
                raise
        self._process = process
        threading.Thread(target=_log_failure, args=(process, self.base_url), name="engine-ssh", daemon=True).start()
        try:
            _ping(ours)
        except BaseException:
            ours.close()
            process.terminate()
            raise
        ours.settimeout(self.timeout)
        self.sock = ours

    def close(self) -> None:
        """Close the connection and terminate its process."""
        super().close()
        process = getattr(self, "_process", None)
        if process is not None:
            process.terminate()


def _ping(connection: socket.socket) -> None:
    """Send a ping to the engine and wait for the response.

    Raises `TimeoutError` after the time limit of the login, and `ConnectionError` if ssh or the engine fails.
    """
    connection.settimeout(_CONNECT_SECS)
    response = b""
    try:
        connection.sendall(b"HEAD /_ping HTTP/1.1\r\nHost: docker\r\n\r\n")
        while not response.endswith(b"\r\n\r\n") and (more := connection.recv(_MAX_RESPONSE_BYTES)):
            response += more  # The response to a HEAD request has no body, so an empty line is its end.
            if len(response) > _MAX_RESPONSE_BYTES:
                break
    except (BrokenPipeError, ConnectionResetError) as error:
        # Converted, because urllib3 interprets these errors during a request as "a response is available".
        raise ConnectionError("the ssh process exited") from error
    if not response.endswith(b"\r\n\r\n"):
        raise ConnectionError("the engine does not respond through ssh")


def _log_failure(process: "subprocess.Popen[bytes]", url: str) -> None:
    """Wait until the ssh process exits, and log its output if ssh itself failed. Runs in a separate thread."""
    _, output = process.communicate()
    if process.returncode == _SSH_FAILED and output:
        _LOG.warning("ssh to the engine failed", engine=url, output=output.decode(errors="replace").strip()[-500:])


class _Pool(UnixHTTPConnectionPool):
    def _new_conn(self) -> _Connection:  # type: ignore[override]
        return _Connection(self.base_url, "", self.timeout)  # type: ignore[arg-type]  # like docker-py


class SshAdapter(UnixHTTPAdapter):
    """A transport for `requests` that reaches the engine at an ssh:// address."""

    def __init__(self, url: str, timeout: float, max_pool_size: int) -> None:
        super().__init__("http+unix://ssh", timeout=timeout, max_pool_size=max_pool_size)  # type: ignore[arg-type]
        ssh_argv(url)
        self._url = url

    def get_connection(self, url: str | bytes, proxies: Any = None) -> Any:
        """Return the connection pool. There is one for all URLs."""
        with self.pools.lock:
            pool = self.pools.get(self._url)
            if pool is None:
                pool = _Pool(self._url, "", self.timeout, maxsize=self.max_pool_size)
                self.pools[self._url] = pool
        return pool
