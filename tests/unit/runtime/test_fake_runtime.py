"""The fake engine satisfies the contract, and its variants fail as specified."""

import asyncio
from dataclasses import replace

import pytest

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command
from sandpool_server.domain.spec import PullPolicy
from sandpool_server.interfaces import Agents, Runtime, RuntimeEventKind
from tests.support.fake_agents import FakeAgents
from tests.support.fake_runtime import (
    IMAGE,
    BrokenRuntime,
    DyingRuntime,
    FakeRuntime,
    SlowRuntime,
    UnresponsiveRuntime,
)
from tests.support.instances import make_instance
from tests.support.runtime_contract import TOKEN, RuntimeContract, next_event


class TestFakeRuntime(RuntimeContract):
    @pytest.fixture
    async def runtime(self) -> Runtime:
        runtime = FakeRuntime()
        await runtime.prepare()
        return runtime


async def test_pulls_moved_tag_once_and_reports_each_step() -> None:
    seen: list[tuple[str, int]] = []
    runtime = FakeRuntime(pull_changed=lambda image: seen.append((image, len(runtime.pulls()))))
    old = await runtime.ensure_image(IMAGE)
    runtime.registry[IMAGE] = replace(old, digest="sha256:new")
    assert await runtime.ensure_image(IMAGE) == old
    runtime.pulling.clear()
    pulls = [asyncio.create_task(runtime.ensure_image(IMAGE, PullPolicy.ALWAYS)) for _ in range(2)]
    await asyncio.sleep(0)
    assert list(runtime.pulls()) == [IMAGE]
    runtime.pulling.set()
    assert {config.digest for config in await asyncio.gather(*pulls)} == {"sha256:new"}
    assert runtime.pulled == [IMAGE]
    assert seen == [(IMAGE, 1), (IMAGE, 0)]


async def test_reports_disk_usage_and_paused_state() -> None:
    runtime = FakeRuntime()
    instance = make_instance()
    await runtime.launch(instance, TOKEN)
    runtime.containers[instance.id].written = 5
    runtime.pause(instance.id)
    assert await runtime.disk_usage() == {instance.id: 5}
    (ref,) = await runtime.instances()
    assert (ref.running, ref.paused) == (True, True)
    runtime.die(instance.id)
    assert await runtime.disk_usage() == {}


async def test_cancelled_slow_launch_leaves_no_container() -> None:
    runtime = SlowRuntime()
    first, second = (asyncio.create_task(runtime.launch(make_instance(), TOKEN)) for _ in range(2))
    while runtime.waiting < 2:  # noqa: ASYNC110 (turns of the loop, not time)
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    runtime.permit()
    await second
    assert len(await runtime.instances()) == 1
    assert runtime.peak == 2


async def test_unresponsive_engine_fails_at_deadline() -> None:
    runtime = UnresponsiveRuntime(deadline_secs=0.001)
    with pytest.raises(Unavailable):
        await runtime.ping()
    with pytest.raises(LaunchFailed) as failed:
        await runtime.launch(make_instance(), TOKEN)
    assert failed.value.reason is FailureReason.ENGINE_UNREACHABLE


async def test_broken_engine_fails_with_its_reason_until_repaired() -> None:
    runtime = BrokenRuntime(FailureReason.DISK_FULL)
    with pytest.raises(LaunchFailed) as failed:
        await runtime.launch(make_instance(), TOKEN)
    assert failed.value.reason is FailureReason.DISK_FULL
    assert await runtime.instances() == []
    runtime.repair()
    await runtime.launch(make_instance(), TOKEN)
    assert runtime.tries == 2


async def test_reports_dying_container_and_its_agent_is_unavailable() -> None:
    runtime = DyingRuntime(exit_code=3)
    agents: Agents = FakeAgents(runtime)
    events = runtime.events()
    await anext(events)
    instance = make_instance()
    address = await runtime.launch(instance, agents.token_sha256(instance.id))
    assert (await next_event(events, RuntimeEventKind.DIED, instance.id)).exit_code == 3
    with pytest.raises(Unavailable):
        await agents.run(instance.id, address, Command(1.0, shell="true"))
    (ref,) = await runtime.instances()
    assert (ref.running, ref.exit_code, ref.address) == (False, 3, "")


async def test_unavailable_engine_refuses_calls_and_resyncs_afterwards() -> None:
    runtime = FakeRuntime()
    events = runtime.events()
    await anext(events)
    runtime.available = False
    with pytest.raises(Unavailable):
        await runtime.instances()
    with pytest.raises(LaunchFailed):
        await runtime.launch(make_instance(), TOKEN)
    runtime.available = True
    await next_event(events, RuntimeEventKind.RESYNC)


async def test_agent_accepts_only_its_token() -> None:
    runtime = FakeRuntime()
    agents = FakeAgents(runtime)
    instance = make_instance()
    address = await runtime.launch(instance, TOKEN)
    with pytest.raises(LaunchFailed) as failed:
        await agents.wait_ready(instance.id, address, 1.0)
    assert failed.value.reason is FailureReason.READINESS_TIMEOUT
