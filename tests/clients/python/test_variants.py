"""The blocking and the asyncio variant of the client have the same surface and the same behaviour."""

import asyncio
import inspect
import os
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import grpc
import pytest

import sandpool
from sandpool import AsyncSandbox, AsyncSandboxClient, RetryPolicy, SandboxClient, errors
from sandpool._core import files
from sandpool.compat import langsmith, tensorlake
from sandpool.v1 import pool_service_pb2, sandbox_pb2
from tests.clients.python.conftest import FAST
from tests.clients.python.processes import Processes, Script
from tests.clients.python.state import Failure, State
from tests.clients.python.test_retries import LOST, LOST_RESPONSE
from tests.support.counting_proxy import CountingProxy
from tools.codegen import blocking_client

ROOT = Path(__file__).resolve().parents[3]
PAIRS = [
    (getattr(module, name), getattr(module, name.removeprefix("Async")))
    for module in (sandpool, langsmith, tensorlake)
    for name in module.__all__
    if name.startswith("Async")
]


def shape(thing: object) -> str:
    """A signature as text, with the names of the blocking variant."""
    return blocking_client.blocking(str(inspect.signature(thing)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda pair: pair.__name__)
def test_both_variants_have_the_same_surface(ours: type, theirs: type):
    names = [name for name in dir(ours) if not name.startswith("_")]
    assert names == [name for name in dir(theirs) if not name.startswith("_")]
    assert len(names) > 1
    for name in names:
        one, other = getattr(ours, name), getattr(theirs, name)
        if isinstance(one, (property, cached_property)):
            assert type(one) is type(other), name
        else:
            assert shape(one) == shape(other), name
            assert not inspect.iscoroutinefunction(other), name


def test_the_derivation_rules():
    source = '''
async def read(it: AsyncGenerator[dict[str, int], None]) -> Opening[AsyncSandbox]:
    """`async with await client.create() as sandbox` is what `AsyncSandbox` is for; asynchronous it stays."""
    async with aclosing(it) as items:
        return [await one(item) async for item in items]
'''
    assert (
        blocking_client.blocking(source)
        == '''
def read(it: Generator[dict[str, int], None, None]) -> Sandbox:
    """`with client.create() as sandbox` is what `Sandbox` is for; asynchronous it stays."""
    with closing(it) as items:
        return [one(item) for item in items]
'''
    )


def texts(root: Path, directories: list[Path]) -> dict[str, str]:
    """Return the modules in some directories, by their paths below `root`."""
    paths = [path for directory in directories for path in directory.glob("*.py")]
    return {path.relative_to(root).as_posix(): path.read_text() for path in paths}


def test_the_committed_blocking_client_is_generated(tmp_path: Path):
    made = texts(tmp_path, blocking_client.derive(ROOT, tmp_path))
    client = ROOT / "clients/python"
    kept = texts(client, [client / "sandpool/_sync", client / "sandpool/compat/_sync"])
    assert made.keys() == kept.keys()
    for name, text in made.items():
        assert text == kept[name], f"{name}: run `make generate`"


@pytest.fixture
async def aclient(address: str):
    async with AsyncSandboxClient(address, request_timeout=5.0, retry=FAST) as made:
        yield made


async def test_a_sandbox_can_be_awaited_and_entered(aclient: AsyncSandboxClient, state: State):
    async with aclient.create(template_name="t") as one, await aclient.create(pool_id="p") as two:
        assert {type(box) for box in (one, two)} == {AsyncSandbox}
        assert (await one.refresh()).state == "running"
    reasons = [item.termination_reason for item in state.sandboxes.values()]
    assert reasons == [sandbox_pb2.TERMINATION_REASON_DELETED] * 2, "deleted at the end of the block"
    with pytest.raises(TypeError, match="exactly one"):
        await aclient.create()  # type: ignore[call-overload]


async def test_a_creation_can_be_a_task(aclient: AsyncSandboxClient):
    task = asyncio.create_task(aclient.create(pool_id="p"))
    others = await asyncio.gather(*[aclient.create(pool_id="p") for _ in range(3)])
    assert len({box.sandbox_id for box in [await task, *others]}) == 4
    aclient.create(pool_id="p").close()  # A creation that is not started causes no warning.


async def test_lists_read_pages_as_they_are_needed(aclient: AsyncSandboxClient, state: State):
    made = await aclient.create_batch(5, pool_id="p")
    found = aclient.list_sandboxes(page_size=2)
    assert (await anext(found)).sandbox_id == made[0].sandbox_id
    assert len(state.sent("ListSandboxes")) == 1
    assert [box.sandbox_id async for box in found] == [box.sandbox_id for box in made[1:]]
    assert len(state.sent("ListSandboxes")) == 3


async def test_retries_and_errors(aclient: AsyncSandboxClient, state: State):
    state.fail("CreatePool", LOST_RESPONSE, LOST)
    pool = await aclient.create_pool(image="i")
    assert list(state.pools) == [pool.pool_id]
    with pytest.raises(errors.PoolNotFoundError) as caught:
        await aclient.get_pool("other")
    assert (caught.value.reason, caught.value.resource_name) == ("POOL_NOT_FOUND", "other")


async def test_a_watch_ends_when_it_is_closed(aclient: AsyncSandboxClient, state: State):
    await aclient.create_pool(image="i", name="n")
    events = aclient.watch_pools()
    assert (await anext(events)).pool.name == "n"
    await events.aclose()
    with pytest.raises(errors.ResourceTimeoutError):
        async for _ in aclient.watch_pools(timeout=0.2):
            pass


async def test_closing_ends_a_call_in_progress(aclient: AsyncSandboxClient, state: State):
    state.hanging.add("GetPool")
    call = asyncio.ensure_future(aclient.get_pool("p"))
    await asyncio.to_thread(state.called.wait, 10)
    await aclient.close()
    with pytest.raises(errors.ClientClosedError):
        await call
    with pytest.raises(errors.ClientClosedError, match="AsyncSandboxClient"):
        await aclient.get_pool("p")


async def test_a_cancelled_task_raises_only_its_cancellation(aclient: AsyncSandboxClient, state: State):
    state.hanging.add("GetPool")
    call = asyncio.ensure_future(aclient.get_pool("p"))
    await asyncio.to_thread(state.called.wait, 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_cancelled_run_kills_the_command(aclient: AsyncSandboxClient, processes: Processes, state: State):
    processes.scripts["sleep"] = Script(exit_code=None)
    sandbox = await aclient.create(pool_id="p")
    running = asyncio.create_task(sandbox.run("sleep"))
    await asyncio.sleep(0.2)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert len(state.sent("KillProcess")) == 1


async def test_a_status_that_grpc_hides_counts_as_a_lost_connection(aclient: AsyncSandboxClient):
    """grpc.aio reports this when the server ends a call while a message is sent. Uploads are resumed then."""
    hidden = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(),
        details="Internal error from Core",
        debug_error_string='Failed "execute_batch": (<SendMessageOperation object at 0x7f5fbba5fb30>,)',
    )
    call = files.get_upload("s", "u")
    found = aclient._transport._error(call, hidden)
    assert type(found) is errors.SandboxConnectionError
    assert (found.code, found.reason) == ("UNAVAILABLE", "NO_RESPONSE")
    assert "gRPC does not report the status" in str(found)
    reported = grpc.aio.AioRpcError(
        grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), details="broken"
    )
    assert type(aclient._transport._error(call, reported)) is errors.ServerError


async def count(client: AsyncSandboxClient) -> int:
    return len([pool async for pool in client.list_pools()])


def test_each_event_loop_gets_its_own_channel(address: str):
    client = AsyncSandboxClient(address)
    for _ in range(3):
        assert asyncio.run(count(client)) == 0
        assert len(client._transport._connections) == 1, "the channel of a closed loop is dropped"
    asyncio.run(client.close())
    assert len(client._transport._connections) == 0


def test_two_threads_open_two_connections(address: str):
    """Calls of two event loops alternate. Each loop keeps its channel."""
    with CountingProxy(address) as proxy:
        client = AsyncSandboxClient(proxy.address)
        barrier = threading.Barrier(2)

        async def calls() -> None:
            for _ in range(20):
                await asyncio.to_thread(barrier.wait, 30)
                await count(client)

        threads = [threading.Thread(target=lambda: asyncio.run(calls())) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        asyncio.run(client.close())
        assert proxy.connections <= 2


def test_closing_in_one_event_loop_ends_calls_of_another(address: str, state: State):
    state.hanging.add("GetPool")
    client = AsyncSandboxClient(address)
    with ThreadPoolExecutor(1) as other:
        call = other.submit(lambda: asyncio.run(client.get_pool("p")))
        assert state.called.wait(10)
        asyncio.run(client.close())
        with pytest.raises(errors.ClientClosedError):
            call.result(10)


async def test_the_blocking_client_works_in_a_running_loop(client: SandboxClient):
    """As in a notebook, whose cells run in an event loop. Streams work too."""
    pool = client.create_pool(image="i")
    with client.create(pool_id=pool.pool_id) as box:
        assert box.run("make").exit_code == 0
    async with AsyncSandboxClient(client.address) as other:
        assert await count(other) == len(list(client.list_pools())) == 1


def python(code: str, *arguments: str) -> str:
    """The output of a new Python process."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


FORKS = """
import asyncio, os, signal, sys
from sandpool import AsyncSandboxClient, SandboxClient

async def count(address):
    async with AsyncSandboxClient(address) as client:
        return len([pool async for pool in client.list_pools()])

client = SandboxClient(sys.argv[1])
client.create_pool(image="i")
print(asyncio.run(count(sys.argv[1])), flush=True)
child = os.fork()
if child == 0:
    signal.alarm(30)
    client.create_pool(image="j")
    client.close()
    print(asyncio.run(count(sys.argv[1])), flush=True)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(len(list(client.list_pools())))
"""


def test_a_client_works_after_a_fork_in_both_processes(address: str):
    assert python(FORKS, address).split() == ["1", "2", "2"]


UNANSWERED = """
import os, signal, sys
from sandpool import RetryPolicy, SandboxClient, errors

client = SandboxClient(sys.argv[1], request_timeout=5, retry=RetryPolicy(max_attempts=1))

def advice():
    try:
        list(client.list_pools())
    except errors.SandboxConnectionError as error:
        print("fork before" in str(error), flush=True)

advice()
child = os.fork()
if child == 0:
    signal.alarm(30)
    advice()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_an_error_after_a_fork_names_the_possible_cause(unused_address: str):
    assert python(UNANSWERED, unused_address).split() == ["False", "True"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_during_calls_is_reported(address: str):
    """The server in memory runs in this process, so that other threads of gRPC are active at the fork."""
    client = SandboxClient(address, request_timeout=1.0, retry=RetryPolicy(max_attempts=1))
    list(client.list_pools())
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            list(client.list_pools())
            os.write(write, b"it works")
        except errors.SandpoolError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        printed = pipe.read()
    os.waitpid(child, 0)
    assert printed == "it works" or "fork before" in printed
    assert list(client.list_pools()) == []
    client.close()


def test_a_hanging_call_blocks_no_other_thread(client: SandboxClient, state: State):
    state.hanging.add("GetPool")
    with ThreadPoolExecutor(1) as other:
        hanging = other.submit(client.get_pool, "p", request_timeout=1)
        state.called.wait(10)
        assert list(client.list_pools()) == []
        with pytest.raises(errors.ResourceTimeoutError):
            hanging.result()


async def test_a_method_that_the_server_does_not_know_raises(aclient: AsyncSandboxClient, state: State):
    state.fail("ListPools", Failure(grpc.StatusCode.UNIMPLEMENTED, "unknown method"))
    with pytest.raises(errors.ServerError, match="unknown method"):
        await count(aclient)
    assert isinstance(state.sent("ListPools")[0], pool_service_pb2.ListPoolsRequest)
