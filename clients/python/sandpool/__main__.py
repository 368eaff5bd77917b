"""`python -m sandpool`: long operations with a progress bar."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sandpool import SandboxClient, SandpoolError

_EPILOG = "The environment variables SANDPOOL_ADDRESS and SANDPOOL_API_KEY set the server and the API key."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sandpool", description="Run a long operation and show its progress.", epilog=_EPILOG
    )
    parser.add_argument("--quiet", action="store_true", help="show no progress bar; the default without a terminal")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wait = commands.add_parser("wait", help="wait until a pool has its warm containers", epilog=_EPILOG)
    wait.add_argument("pool", help="identifier or name of the pool")
    wait.add_argument(
        "--warm", type=int, help="number of warm containers to wait for; default: all that the pool aims at"
    )
    wait.add_argument("--timeout", type=float, default=300.0, help="time limit of the wait in seconds; default: 300")
    upload = commands.add_parser("upload", help="copy a local file into a sandbox", epilog=_EPILOG)
    upload.add_argument("sandbox", help="identifier or name of the sandbox")
    upload.add_argument("file", help="path of the local file")
    upload.add_argument("path", help="absolute path in the sandbox")
    download = commands.add_parser("download", help="copy a file of a sandbox to a local path", epilog=_EPILOG)
    download.add_argument("sandbox", help="identifier or name of the sandbox")
    download.add_argument("path", help="absolute path of the file in the sandbox")
    download.add_argument("file", help="local path")
    return parser


def _run(client: SandboxClient, given: argparse.Namespace, progress: bool) -> str:
    """Run the command and return the line to print at the end."""
    if given.command == "wait":
        pool = client.wait_for_pool(given.pool, warm=given.warm, timeout=given.timeout, progress=progress)
        return f"{pool.pool_id}: {pool.status.warm} warm"
    files = client.get_sandbox(given.sandbox).files
    if given.command == "upload":
        info = files.upload(given.file, given.path, progress=progress)
        return f"{info.path}: {info.size} bytes"
    info = files.download(given.path, given.file, progress=progress)
    return f"{given.file}: {info.size} bytes"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    given = _parser().parse_args(argv)
    try:
        with SandboxClient() as client:
            print(_run(client, given, progress=not given.quiet and sys.stderr.isatty()))  # noqa: T201
    except (SandpoolError, OSError, ModuleNotFoundError) as error:
        print(f"sandpool: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
