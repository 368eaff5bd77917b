"""Server settings, read once at startup from flags, environment variables and a settings file.

Precedence: flag, environment variable (`SANDPOOL_SERVER_…`), settings file (TOML, the field names are keys), default.
"""

import os
import platform
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

ENV_PREFIX = "SANDPOOL_SERVER_"

_GO_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def default_agent_binary() -> Path:
    """Return the path of the agent for this machine's architecture.

    The agent is in the `bin` directory of an installed package, or in the `build` directory of a checkout.
    """
    machine = platform.machine()
    name = f"agent-linux-{_GO_ARCHITECTURES.get(machine, machine)}"
    package = Path(__file__).resolve().parent
    installed = package / "bin" / name
    return installed if installed.exists() else package.parents[1] / "build" / name


def default_data_dir() -> Path:
    """Return `$XDG_DATA_HOME/sandpool`; without that variable, `~/.local/share/sandpool`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "sandpool"


PositiveInt = Annotated[int, Field(ge=1)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """All settings of the server. Durations are in seconds."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    config: Path | None = Field(None, description="Path of a TOML file with settings.")
    address: str = Field(
        "127.0.0.1:50051", description="Listen address of the gRPC API, HOST:PORT. Port 0 selects a free port."
    )
    web_address: str = Field(
        "",
        description="Listen address of the web port, HOST:PORT. The web port serves the API for browsers and the "
        "exposed ports of sandboxes over HTTP. Default: no web port.",
    )
    web_domain: str = Field(
        "localhost",
        description="Domain of exposed ports, which are served at <port>-<sandbox>.<domain>. All its subdomains must "
        "resolve to the web port. Browsers resolve subdomains of localhost without configuration.",
    )
    web_url: str = Field(
        "",
        description="Public scheme and port of the web port if it is behind a reverse proxy, for example https://:443. "
        "Default: http and the port of the web address.",
    )
    web_hosts: str = Field(
        "",
        description="Additional host names of the API on the web port, separated by commas. IP addresses, localhost "
        "and the web domain are always accepted.",
    )
    web_cors_origins: str = Field(
        "",
        description="Origins that may call the API on the web port, separated by commas, for example "
        "https://app.example. Default: only the origin of the web port.",
    )
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="Directory of the database and the keys. Only one server can use it at a time.",
    )
    docker_host: str = Field(
        "",
        description="Address of the Docker Engine, for example unix:///var/run/docker.sock. "
        "Default: $DOCKER_HOST, or that socket.",
    )
    agent_binary: Path = Field(
        default_factory=default_agent_binary, description="Agent program to mount into each container."
    )
    oci_runtime: str = Field(
        "", description="OCI runtime of the containers, for example runsc. Default: the default runtime of the engine."
    )
    refill_parallelism: PositiveInt = Field(
        2,
        description="Maximum number of containers to start at the same time to refill pools. "
        "A small number leaves CPU time for claims.",
    )
    cold_parallelism: PositiveInt = Field(4, description="Maximum number of cold starts at the same time.")
    route: Literal["auto", "direct", "published"] = Field(
        "auto",
        description="Route to the agents: direct (IP addresses of the containers), published (ports published on the "
        "Docker host) or auto (detect the route with a probe at startup).",
    )
    secrets_keys: SecretStr = Field(
        SecretStr(""),
        description="Encryption keys of stored secrets, separated by commas, the current key first. Each key is 32 "
        "bytes in URL-safe base64. Default: secrets.key in the data directory, created at the first start.",
    )
    pids_limit: Annotated[int, Field(ge=16)] = Field(
        1024, description="Maximum number of processes and threads in a sandbox."
    )
    ready_timeout: PositiveSeconds = Field(
        30.0, description="Maximum time in seconds for a started container to become ready."
    )
    drain_timeout: PositiveSeconds = Field(
        10.0, description="Maximum time in seconds for active calls to finish after SIGTERM."
    )
    terminated_retention: PositiveSeconds = Field(
        3600.0, description="Time in seconds for which terminated sandboxes remain visible."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Minimum level of log messages: debug, info, warning or error."
    )
    log_format: Literal["console", "json"] = Field("console", description="Format of log messages: console or json.")

    @model_validator(mode="after")
    def _check_addresses(self) -> "Settings":
        for name, address in (("address", self.address), ("web_address", self.web_address)):
            host, colon, port = address.rpartition(":")
            if (address or name == "address") and not (colon and host and port.isdigit() and int(port) <= 65535):
                raise ValueError(f"{name} is invalid: {address!r}; use HOST:PORT, for example 127.0.0.1:50051")
        if self.web_url and not re.fullmatch(r"https?://(:[0-9]{1,5})?", self.web_url):
            raise ValueError(
                f"web_url is invalid: {self.web_url!r}; use a scheme and an optional port, for example https:// or "
                "https://:8443"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the sources in order of precedence: flags (constructor arguments), environment, settings file.

        Raises `FileNotFoundError` if the settings file does not exist.
        """
        del dotenv_settings, file_secret_settings
        named = init_settings().get("config") or os.environ.get(f"{ENV_PREFIX}CONFIG")
        if not named:
            return (init_settings, env_settings)
        if not Path(named).is_file():
            raise FileNotFoundError(
                f"the settings file {str(named)!r} does not exist; check --config or {ENV_PREFIX}CONFIG"
            )
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(named)))
