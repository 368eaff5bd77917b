"""Both variants of the client reach every method of the contract."""

import inspect
from collections.abc import AsyncIterable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from sandpool import AsyncSandbox, AsyncSandboxClient, RetryPolicy, Sandbox, SandboxClient, SandpoolError
from sandpool._core import convert_resources, methods
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
        "CreateTemplate": lambda c, _b, _h: c.create_template("t", image="i"),
        "GetTemplate": lambda c, _b, _h: c.get_template("t"),
        "ListTemplates": lambda c, _b, _h: c.list_templates(),
        "UpdateTemplate": lambda c, _b, _h: c.update_template("t", image="j"),
        "DeleteTemplate": lambda c, _b, _h: c.delete_template("t"),
    },
    "SecretService": {
        "CreateSecret": lambda c, _b, _h: c.create_secret("S", "v"),
        "GetSecret": lambda c, _b, _h: c.get_secret("S"),
        "UpdateSecret": lambda c, _b, _h: c.update_secret("S", "v"),
        "ListSecrets": lambda c, _b, _h: c.list_secrets(),
        "DeleteSecret": lambda c, _b, _h: c.delete_secret("S"),
    },
    "SandboxService": {
        "CreateSandbox": lambda c, _b, _h: c.create(pool_id="p"),
        "BatchCreateSandboxes": lambda c, _b, _h: c.create_batch(2, pool_id="p"),
        "GetSandbox": lambda _c, b, _h: b.refresh(),
        "ListSandboxes": lambda c, _b, _h: c.list_sandboxes(),
        "UpdateSandbox": lambda _c, b, _h: b.update(name="n"),
        "DeleteSandbox": lambda _c, b, _h: b.delete(),
        "WatchSandbox": lambda _c, b, _h: b.watch(),
        "RunCommand": lambda _c, b, _h: b.run("x", resumable=False),
    },
    "ProcessService": {
        "StartProcess": lambda _c, b, _h: b.processes.start("x"),
        "AttachProcess": lambda _c, b, _h: b.processes.follow("p"),
        "ConnectProcess": lambda _c, b, _h: b.run("x"),
        "WriteProcessInput": lambda _c, b, _h: b.processes.write_stdin("p", "x"),
        "ResizeProcess": lambda _c, _b, h: h.resize(30, 90),
        "SignalProcess": lambda _c, b, _h: b.processes.signal("p", 15),
        "KillProcess": lambda _c, b, _h: b.processes.kill("p"),
        "GetProcess": lambda _c, b, _h: b.processes.get("p"),
        "ListProcesses": lambda _c, b, _h: b.processes.list(),
        "RestartProcess": lambda _c, b, _h: b.processes.restart("p"),
    },
    "FileService": {
        "ReadFile": lambda _c, b, _h: b.files.read("/f"),
        "WriteFile": lambda _c, b, _h: b.files.upload(__file__, "/f"),
        "PutFile": lambda _c, b, _h: b.files.write("/f", "x"),
        "GetUpload": lambda _c, b, _h: b.files.upload(__file__, "/f"),
        "StatFile": lambda _c, b, _h: b.files.stat("/f"),
        "ListDirectory": lambda _c, b, _h: b.files.list("/"),
        "MakeDirectory": lambda _c, b, _h: b.files.mkdir("/d"),
        "MoveFile": lambda _c, b, _h: b.files.move("/a", "/b"),
        "CopyFile": lambda _c, b, _h: b.files.copy("/a", "/b"),
        "RemoveFile": lambda _c, b, _h: b.files.remove("/a"),
        "GlobFiles": lambda _c, b, _h: b.files.glob("/*"),
        "WatchFiles": lambda _c, b, _h: b.files.watch("/"),
        "DownloadDirectory": lambda _c, b, _h: b.files.download_directory("/d", "/nowhere"),
        "UploadDirectory": lambda _c, b, _h: b.files.upload_directory(Path(__file__).parent, "/d"),
    },
    "PortService": {
        "OpenTunnel": lambda _c, b, _h: b.ports.connect(80),
        "ExposePort": lambda _c, b, _h: b.ports.expose(80),
        "UnexposePort": lambda _c, b, _h: b.ports.unexpose(80),
        "ListExposedPorts": lambda _c, b, _h: b.ports.list(),
    },
    "MonitorService": {
        "ReadLogs": lambda _c, b, _h: b.logs(),
        "GetMetrics": lambda _c, b, _h: b.metrics(),
        "WatchMetrics": lambda _c, b, _h: b.watch_metrics(),
    },
}
REACHED = {
    f"/sandpool.v1.{service}/{name}": reach for service, found in SERVICES.items() for name, reach in found.items()
}


def test_no_method_is_missing():
    assert REACHED.keys() == CONTRACT.keys()


class Recorder(grpc.GenericRpcHandler):
    """Rejects every call and records its method. WriteFile fails so that the client reads the state of the upload."""

    def __init__(self) -> None:
        self.called: list[str] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        path = str(details.method)
        self.called.append(path)
        code = grpc.StatusCode.UNAVAILABLE if path.endswith("/WriteFile") else grpc.StatusCode.PERMISSION_DENIED
        method = CONTRACT[path]
        kind = ("stream" if method.streams_requests else "unary", "stream" if method.streams_responses else "unary")

        def refuse(_request: object, context: grpc.ServicerContext) -> None:
            context.abort(code, "no")

        def refuse_all(_request: object, context: grpc.ServicerContext) -> Iterator[object]:
            context.abort(code, "no")
            yield

        make = getattr(grpc, f"{kind[0]}_{kind[1]}_rpc_method_handler")
        return make(refuse_all if method.streams_responses else refuse)  # type: ignore[no-any-return]


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
    """Wait for a response, or for the first item of an iterator."""
    if inspect.isawaitable(found):
        found = await found
    if isinstance(found, AsyncIterable):
        async for _ in found:
            return
    elif isinstance(found, Iterator):
        next(found, None)


@pytest.mark.parametrize("path", REACHED)
@pytest.mark.parametrize("variant", [SandboxClient, AsyncSandboxClient], ids=["blocking", "asyncio"])
async def test_each_method_is_called(variant: type, path: str):
    info = convert_resources.sandbox(sandbox_pb2.Sandbox(sandbox_id="s"))
    with recording() as (recorder, address):
        client = variant(address, retry=FAST)
        kind = AsyncSandbox if variant is AsyncSandboxClient else Sandbox
        box = kind(info, client._transport, created=False)
        handle = None
        if path.endswith("/ResizeProcess"):
            from sandpool import AsyncProcess, Process
            from sandpool._core.output_stream import OutputReader

            made = AsyncProcess if variant is AsyncSandboxClient else Process
            handle = made(client._transport, OutputReader("s", "p", lambda: 0.0))
        with suppress(SandpoolError):
            await exhaust(REACHED[path](client, box, handle))
        closed = client.close()
        if closed is not None:
            await closed
    assert path in recorder.called
