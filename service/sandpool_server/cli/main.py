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
    "serve": "Run the server in the foreground until SIGINT or SIGTERM. Containers keep running for the next start.",
    "rotate-secrets-key": "Re-encrypt all secrets with a new key, or with the first key in the settings. "
    "Stop the server first.",
    "purge": "Remove all containers and networks of the server that uses this data directory and terminate its "
    "sandboxes. Stop the server first.",
}

_M_ARENA_MAX = -8
"""Value of `M_ARENA_MAX` in malloc.h."""

_PRECEDENCE = "Precedence: flag, environment variable, settings file, default."


def _parser() -> argparse.ArgumentParser:
    """Return the parser, with one flag for each setting."""
    parser = argparse.ArgumentParser(
        prog="sandpool-server",
        description="Provides container sandboxes in milliseconds from pools of warm containers, over gRPC.",
        epilog=_PRECEDENCE,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command, text in _COMMANDS.items():
        sub = commands.add_parser(command, help=text, description=text, epilog=_PRECEDENCE)
        for name, field in Settings.model_fields.items():
            if field.annotation is SecretStr:
                # No flag: all users of the machine can read the command lines of processes.
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
    """Return the settings. Exits the process with a message if they are invalid."""
    try:
        return Settings(**flags)
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in e['loc']) or 'settings'}: {e['msg']}" for e in error.errors()]
        sys.exit("sandpool-server: invalid settings:\n" + "\n".join(lines))
    except (OSError, ValueError) as error:
        sys.exit(f"sandpool-server: cannot read the settings: {error}")


def _bound_arenas() -> None:
    """Limit the C library to two memory arenas for all threads.

    By default glibc creates an arena for each thread and retains freed memory in it. With about twenty threads, this
    adds tens of MB. Other C libraries have neither `mallopt` nor arenas.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)


def _print_line(line: str) -> None:
    """Print a line with a single write, because other processes may write to the same terminal."""
    print(f"{line}\n", end="", flush=True)  # noqa: T201


async def _serve(settings: Settings) -> None:
    async with App(settings) as app:
        _print_line(f"listening on {app.address}")
        _print_line(f"engine at {app.engine}")
        if app.web_address:
            _print_line(f"web at http://{app.web_address}")
        await app.run_until_signalled()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return the exit code."""
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
            print(f"re-encrypted {count} secrets")  # noqa: T201
        else:
            removed = asyncio.run(purge(settings))
            print(f"removed {removed} containers")  # noqa: T201
    except StartError as error:
        print(f"sandpool-server: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0
