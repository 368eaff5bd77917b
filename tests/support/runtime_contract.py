"""What every implementation of `ports.Runtime` must do; run against the fake and against a real engine.

A subclass gives the fixture `runtime`: prepared, empty, with the images `IMAGE` and `PYTHON_IMAGE`.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sandpool_server.domain.errors import FailureReason, LaunchFailed
from sandpool_server.domain.model import PullPolicy
from sandpool_server.ports import Runtime, RuntimeEvent, RuntimeEventKind
from tests.support.fake_runtime import IMAGE
from tests.support.members import make_member

TOKEN = "0" * 64
UNKNOWN_IMAGE = "sandpool-test/does-not-exist:1"


async def next_event(
    events: AsyncIterator[RuntimeEvent], kind: RuntimeEventKind, member_id: str = "", secs: float = 10
) -> RuntimeEvent:
    """The next event of a kind and member; others are passed over, for an engine may repeat what has just happened."""
    async with asyncio.timeout(secs):
        async for event in events:
            if event.kind is kind and event.member_id == member_id:
                return event
    raise AssertionError(f"the events ended without {kind}")


class RuntimeContract:
    """The tests."""

    unknown_image = UNKNOWN_IMAGE

    async def test_ping_and_prepare_can_be_repeated(self, runtime: Runtime) -> None:
        await runtime.ping()
        await runtime.prepare()
        await runtime.prepare()
        assert await runtime.members() == []

    async def test_a_launched_member_is_listed_with_its_address(self, runtime: Runtime) -> None:
        member = make_member()
        address = await runtime.launch(member, TOKEN)
        host, _, port = address.rpartition(":")
        assert host
        assert port.isdecimal()
        (found,) = await runtime.members()
        assert (found.member_id, found.running, found.address, found.paused) == (member.id, True, address, False)

    async def test_members_have_addresses_of_their_own(self, runtime: Runtime) -> None:
        members = [make_member() for _ in range(3)]
        addresses = await asyncio.gather(*(runtime.launch(member, TOKEN) for member in members))
        assert len(set(addresses)) == 3
        found = {ref.member_id: ref.address for ref in await runtime.members()}
        assert found == {member.id: address for member, address in zip(members, addresses, strict=True)}

    async def test_removed_is_gone_and_removing_again_is_no_error(self, runtime: Runtime) -> None:
        member = make_member()
        await runtime.launch(member, TOKEN)
        await runtime.remove(member.id)
        assert await runtime.members() == []
        await runtime.remove(member.id)
        await runtime.remove(make_member().id)

    async def test_removing_twice_at_once(self, runtime: Runtime) -> None:
        member = make_member()
        await runtime.launch(member, TOKEN)
        await asyncio.gather(runtime.remove(member.id), runtime.remove(member.id))
        assert await runtime.members() == []

    async def test_a_second_launch_of_a_member_fails_and_spares_the_first(self, runtime: Runtime) -> None:
        member = make_member()
        address = await runtime.launch(member, TOKEN)
        with pytest.raises(LaunchFailed) as failed:
            await runtime.launch(member, TOKEN)
        assert failed.value.reason is FailureReason.START_FAILED
        assert [ref.address for ref in await runtime.members()] == [address]

    async def test_an_image_is_described_alike_each_time(self, runtime: Runtime) -> None:
        first, second = await asyncio.gather(runtime.ensure_image(IMAGE), runtime.ensure_image(IMAGE))
        assert first == second
        assert first.digest.startswith("sha256:")
        assert first.working_dir.startswith("/")

    async def test_an_unknown_image_is_not_found(self, runtime: Runtime) -> None:
        with pytest.raises(LaunchFailed) as failed:
            await runtime.ensure_image(self.unknown_image)
        assert failed.value.reason is FailureReason.IMAGE_NOT_FOUND
        assert self.unknown_image in failed.value.message

    async def test_no_pull_is_made_where_the_policy_forbids_it(self, runtime: Runtime) -> None:
        assert await runtime.ensure_image(IMAGE, PullPolicy.NEVER) == await runtime.ensure_image(IMAGE)
        with pytest.raises(LaunchFailed, match="forbids") as failed:
            await runtime.ensure_image(self.unknown_image, PullPolicy.NEVER)
        assert failed.value.reason is FailureReason.IMAGE_NOT_FOUND

    async def test_a_pull_that_failed_is_over(self, runtime: Runtime) -> None:
        calls = [runtime.ensure_image(self.unknown_image, PullPolicy.ALWAYS) for _ in range(2)]
        for failed in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(failed, LaunchFailed)
        assert runtime.pulls() == {}

    async def test_who_holds_disks_to_their_limit_is_known_when_prepared(self, runtime: Runtime) -> None:
        assert runtime.disk_enforcement is not None

    async def test_the_disks_of_running_members_are_measured(self, runtime: Runtime) -> None:
        assert await runtime.disk_usage() == {}
        members = [make_member() for _ in range(2)]
        for member in members:
            await runtime.launch(member, TOKEN)
        found = await runtime.disk_usage()
        assert set(found) == {member.id for member in members}
        assert all(0 <= size < 1 << 20 for size in found.values())

    async def test_a_launch_of_an_unknown_image_leaves_nothing(self, runtime: Runtime) -> None:
        with pytest.raises(LaunchFailed) as failed:
            await runtime.launch(make_member(self.unknown_image), TOKEN)
        assert failed.value.reason is FailureReason.IMAGE_NOT_FOUND
        assert await runtime.members() == []

    async def test_events_begin_with_resync_and_tell_of_an_end(self, runtime: Runtime) -> None:
        events = runtime.events()
        assert (await anext(events)).kind is RuntimeEventKind.RESYNC
        member = make_member()
        await runtime.launch(member, TOKEN)
        await runtime.remove(member.id)
        assert (await next_event(events, RuntimeEventKind.DIED, member.id)).exit_code == 137
        await next_event(events, RuntimeEventKind.REMOVED, member.id)

    async def test_two_readers_see_the_same_events(self, runtime: Runtime) -> None:
        readers = [runtime.events(), runtime.events()]
        for events in readers:
            assert (await anext(events)).kind is RuntimeEventKind.RESYNC
        member = make_member()
        await runtime.launch(member, TOKEN)
        await runtime.remove(member.id)
        for events in readers:
            await next_event(events, RuntimeEventKind.REMOVED, member.id)

    async def test_events_end_when_the_runtime_closes(self, runtime: Runtime) -> None:
        events = runtime.events()
        await anext(events)

        async def read_to_the_end() -> None:
            async for _ in events:
                pass

        reading = asyncio.create_task(read_to_the_end())
        await asyncio.sleep(0)
        assert not reading.done()
        await runtime.close()
        async with asyncio.timeout(5):
            await reading

    async def test_purge_removes_all_and_counts(self, runtime: Runtime) -> None:
        for member in (make_member(), make_member()):
            await runtime.launch(member, TOKEN)
        assert await runtime.purge() == 2
        assert await runtime.purge() == 0
        assert await runtime.members() == []
