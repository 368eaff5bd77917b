"""What the types of the compatibility modules accept and reject. test_typing.py checks this file; it never runs."""

from typing import assert_type

from sandpool import AsyncTunnel, CommandResult, ExposedPort, OutputChunk, SandboxState, Tunnel
from sandpool.compat import langsmith, tensorlake


def tensorlake_calls(client: tensorlake.SandboxClient) -> None:
    """Methods return the types of the module."""
    assert_type(client.create_pool("i", cpus=1.0, memory_mb=512, disk_mb=64, warm_containers=3).pool_id, str)
    assert_type(client.list_pools(), list[tensorlake.SandboxPoolInfo])
    assert_type(client.create("i"), tensorlake.Sandbox)
    assert_type(client.create_and_connect(pool_id="p", when_empty="wait"), tensorlake.Sandbox)
    assert_type(client.claim("p"), tensorlake.Sandbox)
    assert_type(client.get_sandbox("s"), tensorlake.Sandbox)
    assert_type(client.get("s"), tensorlake.SandboxInfo)
    assert_type(client.list(), list[tensorlake.SandboxInfo])
    assert_type(client.update_sandbox("s", "n").status, SandboxState)
    assert_type(client.expose_ports("s", [80]), list[ExposedPort])
    with client as again, again.get_or_create("n", image="i") as sandbox:
        assert_type(again, tensorlake.SandboxClient)
        assert_type(sandbox, tensorlake.Sandbox)
        assert_type(sandbox.run("sh", ["-c", "true"], {"A": "b"}, "/tmp", 5), CommandResult)
        assert_type(sandbox.info, tensorlake.SandboxInfo)
        assert_type(sandbox.start_process("cat", stdin_mode="pipe"), tensorlake.ProcessInfo)
        assert_type(sandbox.create_pty("top"), tensorlake.Pty)
        assert_type(sandbox.create_tunnel(80), Tunnel)
    client.create("i", gpus=1)  # type: ignore[call-arg]
    client.create("i", when_empty="never")  # type: ignore[arg-type]
    client.claim()  # type: ignore[call-arg]


def langsmith_calls(client: langsmith.SandboxClient) -> None:
    """Methods return the types of the module."""
    assert_type(client.create_template("t", "i", cpu="500m", memory="512Mi"), langsmith.SandboxTemplate)
    assert_type(client.create_pool("p", "t", 5), langsmith.Pool)
    assert_type(client.create_pool(name="p", template_name="t", size=5).replicas, int | None)
    assert_type(client.list_templates(), list[langsmith.SandboxTemplate])
    assert_type(client.list_sandboxes(), list[langsmith.Sandbox])
    assert_type(client.get_sandbox_status("s"), SandboxState)
    with client as again, again.sandbox("t", name="n") as sandbox:
        assert_type(again, langsmith.SandboxClient)
        assert_type(sandbox, langsmith.Sandbox)
        assert_type(sandbox.name, str)
        assert_type(sandbox.run("true"), CommandResult)
        assert_type(sandbox.run("true", wait=False), langsmith.CommandHandle)
        assert_type(list(sandbox.reconnect("c")), list[OutputChunk])
        assert_type(sandbox.reconnect("c").result, CommandResult)
        sandbox.run("true", wait=False, on_stdout=print)  # type: ignore[call-overload]
    client.create_template("t")  # type: ignore[call-arg]


async def asyncio_calls(lake: tensorlake.AsyncSandboxClient, smith: langsmith.AsyncSandboxClient) -> None:
    """The asyncio variants await the same results."""
    async with lake as again, again.create("i") as one, again.claim("p") as two:
        assert_type(again, tensorlake.AsyncSandboxClient)
        assert_type(one, tensorlake.AsyncSandbox)
        assert_type(two, tensorlake.AsyncSandbox)
        assert_type(await one.create_tunnel(80), AsyncTunnel)
    assert_type(await lake.list(), list[tensorlake.SandboxInfo])
    assert_type([sandbox async for sandbox in lake.list_sandboxes()], list[tensorlake.AsyncSandbox])
    async with smith.create(image="i") as sandbox, await smith.create_sandbox("t") as other:
        assert_type(sandbox, langsmith.AsyncSandbox)
        assert_type(other, langsmith.AsyncSandbox)
        handle = await sandbox.run("true", wait=False)
        assert_type(handle, langsmith.AsyncCommandHandle)
        assert_type(await handle.result, CommandResult)
