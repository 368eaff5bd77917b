"""The web port's socket."""

import socket


def listen(address: str) -> socket.socket:
    """A socket to serve on, HOST:PORT; port 0 takes a free one. Raises `OSError`."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host.strip("[]"), int(port)), family=family, backlog=1024)
