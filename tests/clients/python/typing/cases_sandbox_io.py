"""Calls that the types of processes, files and ports accept or reject, blocking and with asyncio: see cases.py."""

from collections.abc import AsyncGenerator, Generator
from typing import assert_type

import sandpool
from sandpool import (
    AsyncProcess,
    AsyncSandbox,
    AsyncSandboxClient,
    CommandResult,
    FileInfo,
    LogEntry,
    OutputChunk,
    Pool,
    Process,
    ProcessInfo,
    ProcessOutput,
    Sandbox,
    SandboxClient,
    SandboxMetrics,
)


def commands(box: Sandbox) -> None:
    """`run` returns a result, `processes.start` a handle."""
    assert_type(box.run("x"), CommandResult)
    assert_type(box.run(["x"], on_stdout=print, stdin=b"data", timeout=None), CommandResult)
    assert_type(box.run("x", resumable=False), CommandResult)
    box.run("x", ["y"])  # type: ignore[call-arg, arg-type]
    box.run("x", wait=False)  # type: ignore[call-arg]
    box.run("x", working_dir="/")  # type: ignore[call-arg]
    box.run(3)  # type: ignore[arg-type]
    process = box.processes.start("x", restart_policy="always", name="n")
    assert_type(process, Process)
    assert_type(process.wait(), CommandResult)
    assert_type(process.pid, int | None)
    for chunk in process:
        assert_type(chunk, OutputChunk)
        assert_type(chunk.dropped_bytes, int)
    box.processes.start("x", restart_policy="sometimes")  # type: ignore[arg-type]
    box.processes.start("x", stdin="open")  # type: ignore[arg-type]
    assert_type(box.processes.attach("p", stdout_offset=3), Process)
    assert_type(box.processes.get("p"), ProcessInfo)
    box.processes.get(3)  # type: ignore[arg-type]
    assert_type(box.processes.list(states=["running"]), Generator[ProcessInfo, None, None])
    assert_type(box.processes.output("p"), ProcessOutput)
    assert_type(box.processes.follow("p"), Generator[OutputChunk, None, None])


def files_and_ports(box: Sandbox) -> None:
    """Content is written as text or bytes and read as bytes."""
    assert_type(box.files.read("/f"), bytes)
    assert_type(box.files.read_text("/f"), str)
    assert_type(box.files.write("/f", "text"), FileInfo)
    assert_type(box.files.stream("/f"), Generator[bytes, None, None])
    box.files.write("/f", 3)  # type: ignore[arg-type]
    box.files.write("/f", b"", write_mode="sometimes")  # type: ignore[arg-type]
    assert_type(box.files.list("/", depth=2), Generator[FileInfo, None, None])
    with box.ports.tunnel(80) as tunnel:
        assert_type(tunnel, sandpool.Tunnel)
        assert_type(tunnel.local_port, int)
    with box.terminals.create(on_data=print) as terminal:
        assert_type(terminal.wait(), int)
    assert_type(box.ports.expose(80), sandpool.ExposedPort)
    assert_type(box.logs(), Generator[LogEntry, None, None])
    assert_type(box.metrics(), SandboxMetrics)


async def with_asyncio(client: AsyncSandboxClient) -> None:
    """The same with asyncio. The result of `create` and `tunnel` can be awaited and used with `async with`."""
    assert_type(await client.create_pool(image="i"), Pool)
    await client.create_pool(image="i", template_name="t")  # type: ignore[call-overload]
    await client.create_pool(template_name="t", cpus=1)  # type: ignore[call-overload]
    assert_type(await client.create(pool_id="p"), AsyncSandbox)
    client.create(pool_id="p", template_name="t")  # type: ignore[call-overload]
    client.create()  # type: ignore[call-overload]
    async with client.create(template_name="t") as box, await client.get_sandbox("s") as other:
        assert_type(box, AsyncSandbox)
        assert_type(other, AsyncSandbox)
        assert_type(await box.run("x"), CommandResult)
        process = await box.processes.start("x")
        assert_type(process, AsyncProcess)
        assert_type(await process.wait(), CommandResult)
        async for chunk in process:
            assert_type(chunk, OutputChunk)
        assert_type(await box.files.read("/f"), bytes)
        assert_type(box.files.stream("/f"), AsyncGenerator[bytes, None])
        assert_type(await box.files.watch("/f"), AsyncGenerator[sandpool.FileEvent, None])
        async with box.ports.tunnel(80) as tunnel:
            assert_type(tunnel, sandpool.AsyncTunnel)
        assert_type([one async for one in client.list_sandboxes()], list[AsyncSandbox])
        await client.list_pools()  # type: ignore[misc]
    with client:  # type: ignore[attr-defined]
        pass


def not_mixed(client: SandboxClient) -> None:
    """The blocking client returns objects directly."""
    assert_type(client.create(pool_id="p"), Sandbox)
