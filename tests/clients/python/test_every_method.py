"""Every method of the contract can be reached through the client that is written by hand, in both flavours."""

import inspect
from collections.abc import AsyncIterable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from sandpool import AsyncSandbox, AsyncSandboxClient, RetryPolicy, Sandbox, SandboxClient, SandpoolError
from sandpool._core import convert, methods
from sandpool._core.call import Method
from sandpool.v1 import sandbox_pb2

CONTRACT = {method.path: method for method in vars(methods).values() if isinstance(method, Method)}

SERVICES: dict[str, dict[str, Callable[[Any, Any, Any], Any]]] = {
    "PoolService": {
        "CreatePool": lambda c, _b, _h: c.create_pool(image="i"),
        "GetPool": lambda c, _b, _h: c.get_pool("p"),
        "ListPools": lambda c, _b, _h: c.list_pools(),
        "UpdatePool": lambda c, _b, _h: c.update_pool("p", cpus=1),
        "DeletePool": lambda c, _b, _h: c.delete_pool("p"),
        "WatchPools": lambda c, _b, _h: c.watch_pools(),
    },
    "TemplateService": {
        "CreateTemplate": lambda c, _b, _h: c.create_template("t", "i"),
        "GetTemplate": lambda c, _b, _h: c.get_template("t"),
        "ListTemplates": lambda c, _b, _h: c.list_templates(),
        "UpdateTemplate": lambda c, _b, _h: c.update_template("t", image="j"),
        "DeleteTemplate": lambda c, _b, _h: c.delete_template("t"),
    },
    "SecretService": {
        "CreateSecret": lambda c, _b, _h: c.create_secret("S", "v"),
        "UpdateSecret": lambda c, _b, _h: c.update_secret("S", "v"),
        "ListSecrets": lambda c, _b, _h: c.list_secrets(),
        "DeleteSecret": lambda c, _b, _h: c.delete_secret("S"),
    },
    "SandboxService": {
        "CreateSandbox": lambda c, _b, _h: c.create(pool_id="p"),
        "BatchCreateSandboxes": lambda c, _b, _h: c.create_batch(2, pool_id="p"),
        "GetSandbox": lambda _c, b, _h: b.refresh(),
        "ListSandboxes": lambda c, _b, _h: c.list(),
        "UpdateSandbox": lambda _c, b, _h: b.update("n"),
        "DeleteSandbox": lambda _c, b, _h: b.terminate(),
        "WatchSandbox": lambda _c, b, _h: b.watch(),
        "RunCommand": lambda _c, b, _h: b.run_once("x"),
    },
    "ProcessService": {
        "StartProcess": lambda _c, b, _h: b.run("x", wait=False),
        "AttachProcess": lambda _c, b, _h: b.follow_output("p"),
        "ConnectProcess": lambda _c, b, _h: b.run("x"),
        "WriteProcessInput": lambda _c, b, _h: b.write_stdin("p", "x"),
        "ResizeProcess": lambda _c, _b, h: h.resize(30, 90),
        "SignalProcess": lambda _c, b, _h: b.send_signal("p", 15),
        "KillProcess": lambda _c, b, _h: b.kill_process("p"),
        "GetProcess": lambda _c, b, _h: b.get_process("p"),
        "ListProcesses": lambda _c, b, _h: b.list_processes(),
        "RestartProcess": lambda _c, b, _h: b.restart_process("p"),
    },
    "FileService": {
        "ReadFile": lambda _c, b, _h: b.read("/f"),
        "WriteFile": lambda _c, b, _h: b.upload_file(__file__, "/f"),
        "PutFile": lambda _c, b, _h: b.write("/f", "x"),
        "GetUpload": lambda _c, b, _h: b.upload_file(__file__, "/f"),
        "StatFile": lambda _c, b, _h: b.files.stat("/f"),
        "ListDirectory": lambda _c, b, _h: b.list_directory("/"),
        "MakeDirectory": lambda _c, b, _h: b.files.mkdir("/d"),
        "MoveFile": lambda _c, b, _h: b.files.move("/a", "/b"),
        "CopyFile": lambda _c, b, _h: b.files.copy("/a", "/b"),
        "RemoveFile": lambda _c, b, _h: b.delete_file("/a"),
        "GlobFiles": lambda _c, b, _h: b.files.glob("/*"),
        "WatchFiles": lambda _c, b, _h: b.files.watch("/"),
        "DownloadFolder": lambda _c, b, _h: b.download_folder("/d", "/nowhere"),
        "UploadFolder": lambda _c, b, _h: b.upload_folder(Path(__file__).parent, "/d"),
    },
    "PortService": {
        "OpenTunnel": lambda _c, b, _h: b.connect_port(80),
        "ExposePort": lambda _c, b, _h: b.expose_ports([80]),
        "UnexposePort": lambda _c, b, _h: b.unexpose_ports(80),
        "ListExposedPorts": lambda _c, b, _h: b.get_port_access(),
    },
    "MonitorService": {
        "ReadLogs": lambda _c, b, _h: b.get_logs(),
        "GetStats": lambda _c, b, _h: b.stats(),
        "WatchStats": lambda _c, b, _h: b.watch_stats(),
    },
}
REACHED = {
    f"/sandpool.v1.{service}/{name}": reach for service, found in SERVICES.items() for name, reach in found.items()
}


def test_none_is_missing():
    assert REACHED.keys() == CONTRACT.keys()


class Recorder(grpc.GenericRpcHandler):
    """Refuses every call and remembers which method it was of; a file cannot be sent, so that it is asked for again."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        path = str(details.method)
        self.called.append(path)
        code = grpc.StatusCode.UNAVAILABLE if path.endswith("/WriteFile") else grpc.StatusCode.PERMISSION_DENIED
        method = CONTRACT[path]
        kind = ("stream" if method.streams_requests else "unary", "stream" if method.streams_answers else "unary")

        def refuse(_request: object, context: grpc.ServicerContext) -> None:
            context.abort(code, "no")

        def refuse_all(_request: object, context: grpc.ServicerContext) -> Iterator[object]:
            context.abort(code, "no")
            yield

        make = getattr(grpc, f"{kind[0]}_{kind[1]}_rpc_method_handler")
        return make(refuse_all if method.streams_answers else refuse)  # type: ignore[no-any-return]


@contextmanager
def recording() -> Iterator[tuple[Recorder, str]]:
    recorder = Recorder()
    server = grpc.server(ThreadPoolExecutor(4), handlers=(recorder,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield recorder, f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()


FAST = RetryPolicy(max_attempts=2, initial_delay=0.001, max_delay=0.001)


async def exhaust(found: Any) -> None:
    """Wait for an answer, or for the first item of an iterator."""
    if inspect.isawaitable(found):
        found = await found
    if isinstance(found, AsyncIterable):
        async for _ in found:
            return
    elif isinstance(found, Iterator):
        next(found, None)


@pytest.mark.parametrize("path", REACHED)
@pytest.mark.parametrize("flavour", [SandboxClient, AsyncSandboxClient], ids=["blocking", "asyncio"])
async def test_each_is_called(flavour: type, path: str):
    info = convert.sandbox(sandbox_pb2.Sandbox(sandbox_id="s"))
    with recording() as (recorder, address):
        client = flavour(address, retry=FAST)
        kind = AsyncSandbox if flavour is AsyncSandboxClient else Sandbox
        box = kind(info, client._transport, created=False)
        handle = None
        if path.endswith("/ResizeProcess"):
            from sandpool._async.command import AsyncCommandHandle
            from sandpool._core.following import Following
            from sandpool._sync.command import CommandHandle

            made = AsyncCommandHandle if flavour is AsyncSandboxClient else CommandHandle
            handle = made(client._transport, Following("s", "p", lambda: 0.0))
        with suppress(SandpoolError):
            await exhaust(REACHED[path](client, box, handle))
        closed = client.close()
        if closed is not None:
            await closed
    assert path in recorder.called
