"""The command-line client `grpcurl`, which the setup of the project builds."""

import asyncio
import json
from pathlib import Path

GRPCURL = Path(__file__).resolve().parents[2] / "build" / "bin" / "grpcurl"


async def grpcurl(address: str, *arguments: str, data: dict[str, object] | None = None) -> str:
    """Run grpcurl against a server without TLS. Return its standard output, followed by its standard error."""
    request = ["-d", json.dumps(data)] if data is not None else []
    process = await asyncio.create_subprocess_exec(
        GRPCURL,
        "-plaintext",
        *request,
        address,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        out, errors = await process.communicate()
    return (out + errors).decode()
