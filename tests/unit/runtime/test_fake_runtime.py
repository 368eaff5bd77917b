"""The fake engine keeps the contract, and its variants fail as their names say."""

import asyncio
from dataclasses import replace

import pytest

from sandpool_server.domain.errors import FailureReason, LaunchFailed, Unavailable
from sandpool_server.domain.model import Command, PullPolicy
from sandpool_server.ports import Agents, Runtime, RuntimeEventKind
from tests.support.fake_agents import FakeAgents
from tests.support.fake_runtime import (
    IMAGE,
    BrokenRuntime,
    DyingRuntime,
    FakeRuntime,
    NeverAnsweringRuntime,
    SlowRuntime,
)
from tests.support.members import make_member
from tests.support.runtime_contract import TOKEN, RuntimeContract, next_event


class TestFakeRuntime(RuntimeContract):
    @pytest.fixture
    async def runtime(self) -> Runtime:
        runtime = FakeRuntime()
        await runtime.prepare()
        return runtime


async def test_a_tag_that_moved_is_pulled_once_for_all_and_each_step_is_told() -> None:
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


async def test_what_a_container_wrote_and_that_it_is_paused_can_be_seen() -> None:
    runtime = FakeRuntime()
    member = make_member()
    await runtime.launch(member, TOKEN)
    runtime.containers[member.id].written = 5
    runtime.pause(member.id)
    assert await runtime.disk_usage() == {member.id: 5}
    (ref,) = await runtime.members()
    assert (ref.running, ref.paused) == (True, True)
    runtime.die(member.id)
    assert await runtime.disk_usage() == {}


async def test_a_slow_launch_waits_and_its_cancellation_leaves_nothing() -> None:
    runtime = SlowRuntime()
    first, second = (asyncio.create_task(runtime.launch(make_member(), TOKEN)) for _ in range(2))
    while runtime.waiting < 2:  # noqa: ASYNC110 (turns of the loop, not time)
        await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    runtime.let()
    await second
    assert len(await runtime.members()) == 1
    assert runtime.peak == 2


async def test_an_engine_that_never_answers_keeps_the_deadline() -> None:
    runtime = NeverAnsweringRuntime(deadline_secs=0.001)
    with pytest.raises(Unavailable):
        await runtime.ping()
    with pytest.raises(LaunchFailed) as failed:
        await runtime.launch(make_member(), TOKEN)
    assert failed.value.reason is FailureReason.ENGINE_UNREACHABLE


async def test_a_broken_engine_fails_with_its_reason_until_mended() -> None:
    runtime = BrokenRuntime(FailureReason.DISK_FULL)
    with pytest.raises(LaunchFailed) as failed:
        await runtime.launch(make_member(), TOKEN)
    assert failed.value.reason is FailureReason.DISK_FULL
    assert await runtime.members() == []
    runtime.mend()
    await runtime.launch(make_member(), TOKEN)
    assert runtime.tries == 2


async def test_a_dying_container_is_told_of_and_its_agent_is_silent() -> None:
    runtime = DyingRuntime(exit_code=3)
    agents: Agents = FakeAgents(runtime)
    events = runtime.events()
    await anext(events)
    member = make_member()
    address = await runtime.launch(member, agents.token_sha256(member.id))
    assert (await next_event(events, RuntimeEventKind.DIED, member.id)).exit_code == 3
    with pytest.raises(Unavailable):
        await agents.run(member.id, address, Command(1.0, shell="true"))
    (ref,) = await runtime.members()
    assert (ref.running, ref.exit_code, ref.address) == (False, 3, "")


async def test_an_engine_out_of_reach_refuses_and_resyncs_when_back() -> None:
    runtime = FakeRuntime()
    events = runtime.events()
    await anext(events)
    runtime.available = False
    with pytest.raises(Unavailable):
        await runtime.members()
    with pytest.raises(LaunchFailed):
        await runtime.launch(make_member(), TOKEN)
    runtime.available = True
    await next_event(events, RuntimeEventKind.RESYNC)


async def test_an_agent_answers_only_with_the_right_token() -> None:
    runtime = FakeRuntime()
    agents = FakeAgents(runtime)
    member = make_member()
    address = await runtime.launch(member, TOKEN)
    with pytest.raises(LaunchFailed) as failed:
        await agents.wait_ready(member.id, address, 1.0)
    assert failed.value.reason is FailureReason.NOT_READY
