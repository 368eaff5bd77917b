"""TLS before a server on loopback, as a proxy of its operator would do it."""

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.support.certificates import Certificates, make_certificates

SECS = 10.0


@contextmanager
def tls_front(target: str, folder: Path) -> Iterator[tuple[str, Certificates]]:
    """Take TLS connections for `target`; gives where, `HOST:PORT`, and what clients are to trust."""
    certificates = make_certificates(folder, "127.0.0.1")
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

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection(host, int(port))
        await asyncio.gather(_pass(reader, to_server), _pass(from_server, writer))

    return await asyncio.start_server(carry, "127.0.0.1", 0, ssl=context)


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _end(serving: asyncio.Server) -> None:
    """Take no more connections, and let those that are left end."""
    serving.close()
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
