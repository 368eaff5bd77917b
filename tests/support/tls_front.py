"""A TLS proxy in front of a server on the loopback interface, like the proxy of an operator."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.certificates import Certificates, make_certificates

SECS = 10.0


@contextmanager
def tls_front(target: str, directory: Path) -> Iterator[tuple[str, Certificates]]:
    """Accept TLS connections for `target`. Yield the address, HOST:PORT, and the certificates for clients."""
    certificates = make_certificates(directory, "127.0.0.1")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server / "cert.pem", certificates.server / "key.pem")
    context.set_alpn_protocols(["h2"])
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        serving = asyncio.run_coroutine_threadsafe(_serve(target, context), loop).result(SECS)
        port = serving.sockets[0].getsockname()[1]
        yield f"127.0.0.1:{port}", certificates
        asyncio.run_coroutine_threadsafe(_end(serving), loop).result(SECS)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(SECS)
        loop.close()


async def _serve(target: str, context: ssl.SSLContext) -> asyncio.Server:
    host, _, port = target.rpartition(":")

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_copy(reader, to_server), _copy(from_server, writer))

    return await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _end(serving: asyncio.Server) -> None:
    """Accept no more connections, and end the open ones."""
    serving.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
