"""What the types of commands, files and ports allow and refuse, blocking and with asyncio: see cases.py."""

from collections.abc import AsyncGenerator, Generator
from typing import assert_type

import sandpool
from sandpool import (
    AsyncCommandHandle,
    AsyncSandbox,
    AsyncSandboxClient,
    CommandHandle,
    CommandResult,
    FileInfo,
    LogEntry,
    OutputChunk,
    Pool,
    ProcessInfo,
    Sandbox,
    SandboxClient,
    SandboxStats,
)


def commands(box: Sandbox) -> None:
    """Waiting gives a result, not waiting a handle, each with what goes with it."""
    assert_type(box.run("x"), CommandResult)
    assert_type(box.run("x", wait=True, on_stdout=print), CommandResult)
    handle = box.run("x", wait=False)
    assert_type(handle, CommandHandle)
    assert_type(handle.result, CommandResult)
    for chunk in handle:
        assert_type(chunk, OutputChunk)
    box.run("x", wait=False, stdin=False)
    box.run("x", wait=False, on_stdout=print)  # type: ignore[call-overload]
    box.run("x", stdin=True)  # type: ignore[call-overload]
    box.run(3)  # type: ignore[call-overload]
    assert_type(box.run_once(["x"]), CommandResult)
    assert_type(box.start_process("x", restart="always", name="n"), ProcessInfo)
    box.start_process("x", restart="sometimes")  # type: ignore[arg-type]
    box.start_process("x", stdin_mode="open")  # type: ignore[arg-type]
    assert_type(box.reconnect("c", stdout_offset=3), CommandHandle)


def files_and_ports(box: Sandbox) -> None:
    """Content goes in as text or bytes and comes out as bytes."""
    assert_type(box.read("/f"), bytes)
    assert_type(box.write("/f", "text"), FileInfo)
    assert_type(box.files.stream("/f"), Generator[bytes, None, None])
    box.write("/f", 3)  # type: ignore[arg-type]
    box.files.write("/f", b"", write_mode="sometimes")  # type: ignore[arg-type]
    assert_type(box.list_directory("/").entries, tuple[FileInfo, ...])
    with box.tunnel(80) as tunnel:
        assert_type(tunnel, sandpool.Tunnel)
        assert_type(tunnel.local_port, int)
    with box.create_pty() as pty:
        assert_type(pty.wait(), int)
    assert_type(box.logs(), Generator[LogEntry, None, None])
    assert_type(box.stats(), SandboxStats)


async def with_asyncio(client: AsyncSandboxClient) -> None:
    """The same, awaited; what is opened can be awaited and entered."""
    assert_type(await client.create_pool(image="i"), Pool)
    await client.create_pool(image="i", template_name="t")  # type: ignore[call-overload]
    await client.create_pool("n", "t", 5, cpus=1)  # type: ignore[call-overload]
    assert_type(await client.create(pool_id="p"), AsyncSandbox)
    client.create(pool_id="p", template_name="t")  # type: ignore[call-overload]
    client.create()  # type: ignore[call-overload]
    async with client.sandbox("t") as box, await client.claim("p") as other:
        assert_type(box, AsyncSandbox)
        assert_type(other, AsyncSandbox)
        assert_type(await box.run("x"), CommandResult)
        handle = await box.run("x", wait=False)
        assert_type(handle, AsyncCommandHandle)
        assert_type(await handle.result, CommandResult)
        async for chunk in handle:
            assert_type(chunk, OutputChunk)
        await box.run("x", wait=False, on_stderr=print)  # type: ignore[call-overload]
        assert_type(await box.read("/f"), bytes)
        assert_type(box.files.stream("/f"), AsyncGenerator[bytes, None])
        async with box.tunnel(80) as tunnel:
            assert_type(tunnel, sandpool.AsyncTunnel)
        assert_type(await client.list(), list[AsyncSandbox])
    with client:  # type: ignore[attr-defined]
        pass


def not_mixed(client: SandboxClient) -> None:
    """The blocking client gives things themselves."""
    assert_type(client.create(pool_id="p"), Sandbox)
    assert_type(client.get_or_create("n", pool_id="p"), Sandbox)
    assert_type(client.create_and_connect("i"), Sandbox)
    client.create_and_connect("i", pool_id="p")  # type: ignore[call-overload]
    assert_type(SandboxClient.for_localhost(), SandboxClient)
