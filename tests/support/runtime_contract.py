"""Contract tests for implementations of `interfaces.Runtime`: the fake, and a real engine.

A subclass provides the fixture `runtime`: prepared, without containers, with the images `IMAGE` and `PYTHON_IMAGE`.
"""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sandpool_server.domain.errors import FailureReason, LaunchFailed
from sandpool_server.domain.spec import PullPolicy
from sandpool_server.interfaces import Runtime, RuntimeEvent, RuntimeEventKind
from tests.support.fake_runtime import IMAGE
from tests.support.instances import make_instance

TOKEN = "0" * 64
UNKNOWN_IMAGE = "sandpool-test/does-not-exist:1"


async def next_event(
    events: AsyncIterator[RuntimeEvent], kind: RuntimeEventKind, instance_id: str = "", secs: float = 10
) -> RuntimeEvent:
    """Return the next event of a kind and instance. Skip other events: an engine may repeat recent events."""
    async with asyncio.timeout(secs):
        async for event in events:
            if event.kind is kind and event.instance_id == instance_id:
                return event
    raise AssertionError(f"the events ended without {kind}")


class RuntimeContract:
    """The contract tests."""

    unknown_image = UNKNOWN_IMAGE

    async def test_ping_and_prepare_can_be_repeated(self, runtime: Runtime) -> None:
        await runtime.ping()
        await runtime.prepare()
        await runtime.prepare()
        assert await runtime.instances() == []

    async def test_lists_launched_instance_with_its_address(self, runtime: Runtime) -> None:
        instance = make_instance()
        address = await runtime.launch(instance, TOKEN)
        host, _, port = address.rpartition(":")
        assert host
        assert port.isdecimal()
        (found,) = await runtime.instances()
        assert (found.instance_id, found.running, found.address, found.paused) == (instance.id, True, address, False)

    async def test_instances_have_different_addresses(self, runtime: Runtime) -> None:
        instances = [make_instance() for _ in range(3)]
        addresses = await asyncio.gather(*(runtime.launch(instance, TOKEN) for instance in instances))
        assert len(set(addresses)) == 3
        found = {ref.instance_id: ref.address for ref in await runtime.instances()}
        assert found == {instance.id: address for instance, address in zip(instances, addresses, strict=True)}

    async def test_removes_instance_and_accepts_repeated_removal(self, runtime: Runtime) -> None:
        instance = make_instance()
        await runtime.launch(instance, TOKEN)
        await runtime.remove(instance.id)
        assert await runtime.instances() == []
        await runtime.remove(instance.id)
        await runtime.remove(make_instance().id)

    async def test_accepts_concurrent_removals(self, runtime: Runtime) -> None:
        instance = make_instance()
        await runtime.launch(instance, TOKEN)
        await asyncio.gather(runtime.remove(instance.id), runtime.remove(instance.id))
        assert await runtime.instances() == []

    async def test_second_launch_of_instance_fails_without_effect(self, runtime: Runtime) -> None:
        instance = make_instance()
        address = await runtime.launch(instance, TOKEN)
        with pytest.raises(LaunchFailed) as failed:
            await runtime.launch(instance, TOKEN)
        assert failed.value.reason is FailureReason.START_FAILED
        assert [ref.address for ref in await runtime.instances()] == [address]

    async def test_image_configuration_is_the_same_each_time(self, runtime: Runtime) -> None:
        first, second = await asyncio.gather(runtime.ensure_image(IMAGE), runtime.ensure_image(IMAGE))
        assert first == second
        assert first.digest.startswith("sha256:")
        assert first.working_dir.startswith("/")

    async def test_rejects_unknown_image(self, runtime: Runtime) -> None:
        with pytest.raises(LaunchFailed) as failed:
            await runtime.ensure_image(self.unknown_image)
        assert failed.value.reason is FailureReason.IMAGE_NOT_FOUND
        assert self.unknown_image in failed.value.message

    async def test_does_not_pull_with_policy_never(self, runtime: Runtime) -> None:
        assert await runtime.ensure_image(IMAGE, PullPolicy.NEVER) == await runtime.ensure_image(IMAGE)
        with pytest.raises(LaunchFailed, match="forbids") as failed:
            await runtime.ensure_image(self.unknown_image, PullPolicy.NEVER)
        assert failed.value.reason is FailureReason.IMAGE_NOT_FOUND

    async def test_failed_pull_is_not_listed(self, runtime: Runtime) -> None:
        calls = [runtime.ensure_image(self.unknown_image, PullPolicy.ALWAYS) for _ in range(2)]
        for failed in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(failed, LaunchFailed)
        assert runtime.pulls() == {}

    async def test_disk_enforcement_is_known_when_prepared(self, runtime: Runtime) -> None:
        assert runtime.disk_enforcement is not None

    async def test_measures_disk_usage_of_running_instances(self, runtime: Runtime) -> None:
        assert await runtime.disk_usage() == {}
        instances = [make_instance() for _ in range(2)]
        for instance in instances:
            await runtime.launch(instance, TOKEN)
        found = await runtime.disk_usage()
        assert set(found) == {instance.id for instance in instances}
        assert all(0 <= size < 1 << 20 for size in found.values())

    async def test_failed_launch_leaves_no_container(self, runtime: Runtime) -> None:
        with pytest.raises(LaunchFailed) as failed:
            await runtime.launch(make_instance(self.unknown_image), TOKEN)
        assert failed.value.reason is FailureReason.IMAGE_NOT_FOUND
        assert await runtime.instances() == []

    async def test_events_begin_with_resync_and_report_removal(self, runtime: Runtime) -> None:
        events = runtime.events()
        assert (await anext(events)).kind is RuntimeEventKind.RESYNC
        instance = make_instance()
        await runtime.launch(instance, TOKEN)
        await runtime.remove(instance.id)
        assert (await next_event(events, RuntimeEventKind.DIED, instance.id)).exit_code == 137
        await next_event(events, RuntimeEventKind.REMOVED, instance.id)

    async def test_two_readers_receive_the_same_events(self, runtime: Runtime) -> None:
        readers = [runtime.events(), runtime.events()]
        for events in readers:
            assert (await anext(events)).kind is RuntimeEventKind.RESYNC
        instance = make_instance()
        await runtime.launch(instance, TOKEN)
        await runtime.remove(instance.id)
        for events in readers:
            await next_event(events, RuntimeEventKind.REMOVED, instance.id)

    async def test_events_end_when_runtime_closes(self, runtime: Runtime) -> None:
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

    async def test_purge_removes_all_containers_and_returns_their_number(self, runtime: Runtime) -> None:
        for instance in (make_instance(), make_instance()):
            await runtime.launch(instance, TOKEN)
        assert await runtime.purge() == 2
        assert await runtime.purge() == 0
        assert await runtime.instances() == []
