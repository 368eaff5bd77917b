"""The server's settings: one object, read once at the start from flags, environment and file, and passed down.

A flag wins over the environment (`SANDPOOL_SERVER_…`), that over the file (TOML, the fields' names as keys), that over
the default.
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
    """The agent for this machine's architecture: inside the installed package, else a checkout's build folder."""
    machine = platform.machine()
    name = f"agent-linux-{_GO_ARCHITECTURES.get(machine, machine)}"
    package = Path(__file__).resolve().parent
    installed = package / "bin" / name
    return installed if installed.exists() else package.parents[1] / "build" / name


def default_data_dir() -> Path:
    """`$XDG_DATA_HOME/sandpool`, by default `~/.local/share/sandpool`."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "sandpool"


PositiveInt = Annotated[int, Field(ge=1)]
PositiveSeconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Settings(BaseSettings):
    """Everything that the server can be told. Times are in seconds."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    config: Path | None = Field(None, description="A TOML file with settings.")
    address: str = Field("127.0.0.1:50051", description="Where to listen, HOST:PORT; port 0 takes a free one.")
    web_address: str = Field(
        "",
        description="Where to serve HTTP, HOST:PORT: the API for browsers, and exposed ports of sandboxes. Default: "
        "nowhere.",
    )
    web_domain: str = Field(
        "localhost",
        description="What the host names of exposed ports end in, <port>-<sandbox>.<domain>. All names below it must "
        "lead to the web port, as those below localhost do in browsers.",
    )
    web_url: str = Field(
        "",
        description="How the web port looks from outside where something stands before it, such as https://:443. "
        "Default: http, at its own port.",
    )
    web_hosts: str = Field(
        "",
        description="Host names under which the API is served on the web port, separated by commas, besides addresses, "
        "localhost and the domain.",
    )
    web_cors_origins: str = Field(
        "",
        description="Origins whose pages may call the API on the web port, such as https://app.example, separated by "
        "commas. Default: none but its own.",
    )
    data_dir: Path = Field(
        default_factory=default_data_dir,
        description="The folder of the database and the keys; one server at a time.",
    )
    docker_host: str = Field(
        "", description="The engine, such as unix:///var/run/docker.sock. Default: $DOCKER_HOST, else that socket."
    )
    agent_binary: Path = Field(
        default_factory=default_agent_binary, description="The agent program that is mounted into each container."
    )
    oci_runtime: str = Field(
        "", description="The engine's runtime for containers, such as runsc. Default: the engine's."
    )
    refill_parallelism: PositiveInt = Field(
        2, description="How many containers are started at once to fill pools; kept small to leave CPU for claims."
    )
    cold_parallelism: PositiveInt = Field(4, description="How many containers are started at once for waiting callers.")
    route: Literal["auto", "direct", "published"] = Field(
        "auto",
        description="How agents are reached: by containers' addresses, by ports published on the engine's host, or "
        "whichever of them a probe at the start finds.",
    )
    secrets_keys: SecretStr = Field(
        SecretStr(""),
        description="Keys for secrets at rest, 32 bytes each in URL-safe base64, the present one first, separated by "
        "commas. Default: a file in the data folder, made at the first start.",
    )
    pids_limit: Annotated[int, Field(ge=16)] = Field(1024, description="The most processes in one sandbox.")
    ready_timeout: PositiveSeconds = Field(30.0, description="How long a started container may take to become ready.")
    drain_timeout: PositiveSeconds = Field(10.0, description="How long running calls may take to end at SIGTERM.")
    ended_retention: PositiveSeconds = Field(3600.0, description="How long ended sandboxes stay visible.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least level logged.")
    log_format: Literal["console", "json"] = Field("console", description="How log lines look.")

    @model_validator(mode="after")
    def _check_addresses(self) -> "Settings":
        for name, address in (("address", self.address), ("web_address", self.web_address)):
            host, colon, port = address.rpartition(":")
            if (address or name == "address") and not (colon and host and port.isdigit() and int(port) <= 65535):
                raise ValueError(f"{name}: {address!r} is not HOST:PORT, such as 127.0.0.1:50051")
        if self.web_url and not re.fullmatch(r"https?://(:[0-9]{1,5})?", self.web_url):
            raise ValueError(f"web_url: {self.web_url!r} is not a scheme and a port, such as https://:8443 or https://")
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
        """Flags (given to the constructor), then the environment, then the file that one of them names."""
        del dotenv_settings, file_secret_settings
        named = init_settings().get("config") or os.environ.get(f"{ENV_PREFIX}CONFIG")
        if not named:
            return (init_settings, env_settings)
        if not Path(named).is_file():
            raise FileNotFoundError(f"there is no settings file {str(named)!r}")
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls, Path(named)))
