"""Which host name means what: a port of a sandbox, or the API.

Each port of each sandbox has a name of its own, `<port>-<sandbox>.<domain>`, so that what a sandbox serves shares no
origin with the API or with another sandbox. The API answers under names that are known to be ours alone: a page of
somebody else whose name was made to lead here (DNS rebinding) gets nothing.
"""

import ipaddress
import re
from dataclasses import dataclass

_SANDBOX_LABEL = re.compile(r"(?P<port>[1-9][0-9]{0,4})-(?P<sandbox>sbx-[0-9a-hjkmnp-tv-z]{20})")
_MAX_PORT = 65535


@dataclass(frozen=True, slots=True)
class SandboxPort:
    """A port of a sandbox, by the sandbox's identifier."""

    sandbox_id: str
    port: int


@dataclass(frozen=True, slots=True)
class Hosts:
    """The names under which the web port serves. `domain` is what sandboxes' names end in, without a dot before it.

    `port` is added to the URLs of sandboxes; None where something before the server serves them at the scheme's own.
    """

    domain: str
    scheme: str
    port: int | None
    api_names: frozenset[str] = frozenset()

    def url(self, where: SandboxPort) -> str:
        """Where a port of a sandbox is served."""
        colon = f":{self.port}" if self.port is not None else ""
        return f"{self.scheme}://{where.port}-{where.sandbox_id}.{self.domain}{colon}"

    def sandbox_port(self, host: str) -> SandboxPort | None:
        """What a `Host` header's value means; None when it names no port of a sandbox."""
        name = _name(host)
        label, dot, domain = name.partition(".")
        found = _SANDBOX_LABEL.fullmatch(label) if dot and domain == self.domain else None
        if found is None or int(found["port"]) > _MAX_PORT:
            return None
        return SandboxPort(found["sandbox"], int(found["port"]))

    def is_api(self, host: str) -> bool:
        """Whether the API answers under this `Host`: addresses, `localhost`, the domain itself and the names given.

        A page can be made to reach this server by an address only if it was served from there.
        """
        name = _name(host)
        return name in ("localhost", self.domain) or name in self.api_names or _is_address(name)


def _name(host: str) -> str:
    """A `Host` without its port, in lower case and without the root's dot."""
    name, colon, port = host.rpartition(":")
    without_port = name if colon and port.isdigit() and not (name.count(":") and not name.endswith("]")) else host
    return without_port.lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
    except ValueError:
        return False
    return True
