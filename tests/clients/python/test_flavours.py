"""The blocking client and the one for asyncio are the same, but for the waiting."""

import asyncio
import inspect
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

import sandpool
from sandpool import AsyncSandbox, AsyncSandboxClient, RetryPolicy, SandboxClient, errors
from sandpool._core import files
from sandpool.v1 import pool_service_pb2
from tests.clients.python.conftest import FAST
from tests.clients.python.state import Failure, State
from tests.clients.python.test_retries import LOST, LOST_ANSWER
from tools.codegen import blocking_client

ROOT = Path(__file__).resolve().parents[3]
PAIRS = [
    (getattr(sandpool, name), getattr(sandpool, name.removeprefix("Async")))
    for name in sandpool.__all__
    if name.startswith("Async")
]


def shape(thing: object) -> str:
    """A signature as text, in the words of the blocking client."""
    return blocking_client.blocking(str(inspect.signature(thing)))  # type: ignore[arg-type]


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=lambda pair: pair.__name__)
def test_both_have_the_same_surface(ours: type, theirs: type):
    names = [name for name in dir(ours) if not name.startswith("_")]
    assert names == [name for name in dir(theirs) if not name.startswith("_")]
    assert len(names) > 1
    for name in names:
        one, other = getattr(ours, name), getattr(theirs, name)
        if isinstance(one, property):
            assert isinstance(other, property), name
        else:
            assert shape(one) == shape(other), name
            assert not inspect.iscoroutinefunction(other), name


def test_the_rules_of_the_derivation():
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


def test_the_blocking_client_is_what_the_rules_make(tmp_path: Path):
    blocking_client.derive(ROOT, tmp_path)
    made = {path.name: path.read_text() for path in tmp_path.glob("*.py")}
    kept = {path.name: path.read_text() for path in (ROOT / "clients/python/sandpool/_sync").glob("*.py")}
    assert made.keys() == kept.keys()
    for name, text in made.items():
        assert text == kept[name], f"{name}: run `make generate`"


@pytest.fixture
async def aclient(address: str):
    async with AsyncSandboxClient(address, timeout=5.0, retry=FAST) as made:
        yield made


async def test_a_sandbox_can_be_awaited_and_entered(aclient: AsyncSandboxClient, state: State):
    async with aclient.sandbox("t") as one, await aclient.create(pool_id="p") as two, aclient.claim("p") as three:
        assert {type(box) for box in (one, two, three)} == {AsyncSandbox}
        assert await aclient.get_sandbox_status(one.sandbox_id) == "running"
    assert [str(item.end_reason) for item in state.sandboxes.values()] == ["1"] * 3, "deleted at the end of the block"
    with pytest.raises(TypeError, match="exactly one"):
        await aclient.create()  # type: ignore[call-overload]


async def test_what_is_opened_can_be_a_task(aclient: AsyncSandboxClient):
    task = asyncio.create_task(aclient.create(pool_id="p"))
    others = await asyncio.gather(*[aclient.create(pool_id="p") for _ in range(3)])
    assert len({box.sandbox_id for box in [await task, *others]}) == 4
    aclient.create(pool_id="p").close()  # not opened, and nobody is warned


async def test_lists_are_read_page_by_page(aclient: AsyncSandboxClient, state: State):
    made = await aclient.create_batch(5, pool_id="p")
    assert [box.sandbox_id for box in await aclient.list(page_size=2)] == [box.sandbox_id for box in made]
    assert len(state.sent("ListSandboxes")) == 3


async def test_repetition_and_errors(aclient: AsyncSandboxClient, state: State):
    state.fail("CreatePool", LOST_ANSWER, LOST)
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
    state.next_states.clear()
    box = await aclient.create(pool_id="p")
    await box.delete()
    with pytest.raises(errors.SandboxNotReadyError):
        await aclient.wait_for_sandbox(box.sandbox_id, timeout=2)


async def test_a_call_under_way_ends_when_the_client_is_closed(aclient: AsyncSandboxClient, state: State):
    state.hanging.add("ListPools")
    call = asyncio.ensure_future(aclient.list_pools())
    await asyncio.to_thread(state.asked.wait, 10)
    await aclient.close()
    with pytest.raises(errors.ClientClosedError):
        await call
    with pytest.raises(errors.ClientClosedError, match="AsyncSandboxClient"):
        await aclient.list_pools()


async def test_a_cancelled_task_is_cancelled_and_nothing_else(aclient: AsyncSandboxClient, state: State):
    state.hanging.add("ListPools")
    call = asyncio.ensure_future(aclient.list_pools())
    await asyncio.to_thread(state.asked.wait, 10)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_an_end_that_grpc_hides_counts_as_a_lost_connection(aclient: AsyncSandboxClient):
    """What grpc.aio says when the server ends a call at the moment at which a message is sent; uploads go on then."""
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
    assert (found.code, found.reason) == ("UNAVAILABLE", "NO_ANSWER")
    assert "gRPC does not say how" in str(found)
    told = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, grpc.aio.Metadata(), grpc.aio.Metadata(), details="broken")
    assert type(aclient._transport._error(call, told)) is errors.RemoteAPIError


def test_a_second_event_loop_gets_a_channel_of_its_own(address: str):
    client = AsyncSandboxClient(address)
    for _ in range(3):
        assert asyncio.run(client.list_pools()) == []
    asyncio.run(client.close())


async def test_the_blocking_client_works_inside_a_running_loop(client: SandboxClient):
    """As in a notebook, whose cells run in an event loop; streams too."""
    pool = client.create_pool(image="i")
    with client.create(pool_id=pool.pool_id) as box:
        assert box.run("make").exit_code == 0
    async with AsyncSandboxClient(client.address) as other:
        assert len(await other.list_pools()) == len(client.list_pools()) == 1


def python(code: str, *arguments: str) -> str:
    """What a program of its own prints."""
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
        return len(await client.list_pools())

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
print(len(client.list_pools()))
"""


def test_a_client_works_after_a_fork_in_both_processes(address: str):
    assert python(FORKS, address).split() == ["1", "2", "2"]


UNANSWERED = """
import os, signal, sys
from sandpool import RetryPolicy, SandboxClient, errors

client = SandboxClient(sys.argv[1], timeout=5, retry=RetryPolicy(max_attempts=1))

def advice():
    try:
        client.list_pools()
    except errors.SandboxConnectionError as error:
        print("fork first" in str(error), flush=True)

advice()
child = os.fork()
if child == 0:
    signal.alarm(30)
    advice()
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


def test_no_answer_after_a_fork_says_what_may_be_wrong(unused_address: str):
    assert python(UNANSWERED, unused_address).split() == ["False", "True"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_amid_calls_is_told(address: str):
    """The server in memory runs in this process, so that gRPC is busy in other threads at the fork."""
    client = SandboxClient(address, timeout=1.0, retry=RetryPolicy(max_attempts=1))
    client.list_pools()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            client.list_pools()
            os.write(write, b"it works")
        except errors.SandpoolError as error:
            os.write(write, str(error).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    assert said == "it works" or "fork first" in said
    assert client.list_pools() == []
    client.close()


def test_an_answer_that_never_comes_blocks_no_other_thread(client: SandboxClient, state: State):
    state.hanging.add("GetPool")
    with ThreadPoolExecutor(1) as other:
        hanging = other.submit(client.get_pool, "p", timeout=1)
        state.asked.wait(10)
        assert client.list_pools() == []
        with pytest.raises(errors.ResourceTimeoutError):
            hanging.result()


async def test_what_the_server_does_not_know_is_told(aclient: AsyncSandboxClient, state: State):
    state.fail("ListPools", Failure(grpc.StatusCode.UNIMPLEMENTED, "what is that"))
    with pytest.raises(errors.RemoteAPIError, match="what is that"):
        await aclient.list_pools()
    assert isinstance(state.sent("ListPools")[0], pool_service_pb2.ListPoolsRequest)
