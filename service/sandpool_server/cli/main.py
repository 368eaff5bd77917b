"""The `sandpool-server` command."""

import argparse
import asyncio
import contextlib
import ctypes
import sys
from collections.abc import Sequence
from typing import Any

import uvloop
from pydantic import SecretStr, ValidationError
from pydantic_core import PydanticUndefined

from sandpool_server.app import App, StartError, purge, rotate_secrets_key
from sandpool_server.logs import configure_logs
from sandpool_server.settings import ENV_PREFIX, Settings

_COMMANDS = {
    "serve": "Run the server in the foreground until SIGINT or SIGTERM; containers stay for the next start.",
    "rotate-secrets-key": "Encrypt all secrets anew, with a new key or the first of those in the settings. "
    "Stop the server first.",
    "purge": "Remove every container and network that the server with this data folder made, and end its sandboxes.",
}

_M_ARENA_MAX = -8
"""The parameter's number in malloc.h."""

_PRECEDENCE = "A flag wins over the environment, that over the settings file, that over the default."


def _parser() -> argparse.ArgumentParser:
    """The parser, with a flag for each setting."""
    parser = argparse.ArgumentParser(
        prog="sandpool-server",
        description="Hands out container sandboxes in milliseconds, from pools of warm containers, over gRPC.",
        epilog=_PRECEDENCE,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, text in _COMMANDS.items():
        sub = commands.add_parser(command, help=text, description=text, epilog=_PRECEDENCE)
        for name, field in Settings.model_fields.items():
            if field.annotation is SecretStr:
                # A flag can be seen by every user of the machine.
                sub.epilog = f"{sub.epilog} {ENV_PREFIX}{name.upper()} (no flag): {field.description}"
                continue
            default = "" if field.default in (None, "", PydanticUndefined) else f"; default {field.default}"
            sub.add_argument(
                f"--{name.replace('_', '-')}",
                default=argparse.SUPPRESS,
                metavar=name.rpartition("_")[2].upper(),
                help=f"{field.description} [{ENV_PREFIX}{name.upper()}{default}]",
            )
    return parser


def _settings(flags: dict[str, Any]) -> Settings:
    """Read the settings; ends the process with a readable message when they are wrong."""
    try:
        return Settings(**flags)
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in e['loc']) or 'settings'}: {e['msg']}" for e in error.errors()]
        sys.exit("sandpool-server: these settings are wrong:\n" + "\n".join(lines))
    except (OSError, ValueError) as error:
        sys.exit(f"sandpool-server: the settings cannot be read: {error}")


def _bound_arenas() -> None:
    """Let all threads share two arenas of memory.

    glibc gives threads their own and keeps there what they have freed: with some twenty threads tens of MB. Other C
    libraries have no such call and no such arenas.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _say(line: str) -> None:
    """One line for whoever started it, in one piece: others may write to the same terminal."""
    print(f"{line}\n", end="", flush=True)  # noqa: T201


async def _serve(settings: Settings) -> None:
    async with App(settings) as app:
        _say(f"listening on {app.address}")
        _say(f"engine at {app.engine}")
        if app.web_address:
            _say(f"web at http://{app.web_address}")
        await app.run_until_signalled()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    flags = vars(_parser().parse_args(argv))
    command = flags.pop("command")
    settings = _settings(flags)
    configure_logs(settings.log_level, settings.log_format)
    try:
        if command == "serve":
            _bound_arenas()
            uvloop.run(_serve(settings))
        elif command == "rotate-secrets-key":
            count = asyncio.run(rotate_secrets_key(settings))
            print(f"encrypted {count} secrets anew")  # noqa: T201
        else:
            removed = asyncio.run(purge(settings))
            print(f"removed {removed} containers")  # noqa: T201
    except StartError as error:
        print(f"sandpool-server: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0
