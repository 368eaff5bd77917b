"""Host names of the web port.

Each port of each sandbox has its own host name, `<port>-<sandbox>.<domain>`, so that the content of a sandbox has
another origin than the API and other sandboxes. The API is served only at known host names, which protects it from DNS
rebinding.
"""

import ipaddress
import re
from dataclasses import dataclass

_SANDBOX_LABEL = re.compile(r"(?P<port>[1-9][0-9]{0,4})-(?P<sandbox>sbx-[0-9a-hjkmnp-tv-z]{20})")
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class SandboxPort:
    """A port of a sandbox."""

    sandbox_id: str
    port: int


@dataclass(frozen=True, slots=True)
class Hosts:
    """The host names of the web port.

    `domain` is the domain of exposed ports, without a leading dot. `port` is the port in the URLs of exposed ports;
    None if a reverse proxy serves them at the default port of the scheme.
    """

    domain: str
    scheme: str
    port: int | None
    api_names: frozenset[str] = frozenset()

    def url(self, where: SandboxPort) -> str:
        """Return the URL of a port of a sandbox."""
        colon = f":{self.port}" if self.port is not None else ""
        return f"{self.scheme}://{where.port}-{where.sandbox_id}.{self.domain}{colon}"

    def sandbox_port(self, host: str) -> SandboxPort | None:
        """Return the port of a sandbox for the value of a `Host` header; None if it is another host name."""
        name = _name(host)
        label, dot, domain = name.partition(".")
        found = _SANDBOX_LABEL.fullmatch(label) if dot and domain == self.domain else None
        if found is None or int(found["port"]) > _MAX_PORT:
            return None
        return SandboxPort(found["sandbox"], int(found["port"]))

    def is_api(self, host: str) -> bool:
        """Return whether the API is served at this `Host`: IP addresses, `localhost`, the domain and `api_names`.

        IP addresses are safe, because DNS rebinding requires a host name.
        """
        name = _name(host)
        return name in ("localhost", self.domain) or name in self.api_names or _is_address(name)


def _name(host: str) -> str:
    """Return a `Host` in lower case, without its port and a trailing dot."""
    name, colon, port = host.rpartition(":")
    without_port = name if colon and port.isdigit() and not (name.count(":") and not name.endswith("]")) else host
    return without_port.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
