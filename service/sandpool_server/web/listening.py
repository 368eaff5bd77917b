"""The socket of the web port."""

import socket


def listen(address: str) -> socket.socket:
    """Return a socket that listens on HOST:PORT. Port 0 selects a free port. Raises `OSError`."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=1024)
