"""`python -m sandpool`: what takes long, with a bar that shows how far it is."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from sandpool import SandboxClient, SandpoolError

_EPILOG = "The server is the one that SANDPOOL_ADDRESS names, with the key in SANDPOOL_API_KEY."


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sandpool", description=__doc__, epilog=_EPILOG)
    parser.add_argument("--quiet", action="store_true", help="show no bar; there is none either without a terminal")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    wait = commands.add_parser("wait", help="wait until a pool has its containers ready", epilog=_EPILOG)
    wait.add_argument("pool", help="its identifier or name")
    wait.add_argument("--warm", type=int, help="how many are enough; as many as the pool wants by default")
    wait.add_argument("--timeout", type=float, default=300.0, help="seconds to wait at most, 300 by default")
    upload = commands.add_parser("upload", help="copy a file of this machine into a sandbox", epilog=_EPILOG)
    upload.add_argument("sandbox", help="its identifier or name")
    upload.add_argument("file", help="the file on this machine")
    upload.add_argument("path", help="where it is to be in the sandbox, an absolute path")
    download = commands.add_parser("download", help="copy a file of a sandbox to this machine", epilog=_EPILOG)
    download.add_argument("sandbox", help="its identifier or name")
    download.add_argument("path", help="the file in the sandbox, an absolute path")
    download.add_argument("file", help="where it is to be on this machine")
    return parser


def _run(client: SandboxClient, given: argparse.Namespace, progress: bool) -> str:
    """Do what was asked for; gives the line to end with."""
    if given.command == "wait":
        pool = client.wait_for_pool(given.pool, warm=given.warm, timeout=given.timeout, progress=progress)
        return f"{pool.pool_id}: {pool.status.warm} ready"
    sandbox = client.get_sandbox(given.sandbox)
    if given.command == "upload":
        info = sandbox.upload_file(given.file, given.path, progress=progress)
        return f"{info.path}: {info.size} bytes"
    info = sandbox.download_file(given.path, given.file, progress=progress)
    return f"{given.file}: {info.size} bytes"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
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
