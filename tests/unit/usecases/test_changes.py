"""The change hub: a slow subscriber receives at most one entry for each resource and loses no change."""

import asyncio

from sandpool_server.usecases.changes import ChangeHub


async def test_merges_changes_between_two_reads() -> None:
    hub = ChangeHub()
    with hub.subscribe() as subscription:
        hub.publish(frozenset({"a"}))
        hub.publish(frozenset({"a", "b"}))
        assert await subscription.next() == {"a", "b"}


async def test_next_waits_for_a_change() -> None:
    hub = ChangeHub()
    with hub.subscribe() as subscription:
        waiting = asyncio.create_task(subscription.next())
        await asyncio.sleep(0)
        assert not waiting.done()
        hub.publish(frozenset())
        await asyncio.sleep(0)
        assert not waiting.done(), "nothing changed"
        hub.publish(frozenset({"a"}))
        assert await waiting == {"a"}


async def test_cancelled_wait_loses_no_change() -> None:
    hub = ChangeHub()
    with hub.subscribe() as subscription:
        waiting = asyncio.create_task(subscription.next())
        await asyncio.sleep(0)
        hub.publish(frozenset({"a"}))
        waiting.cancel()
        await asyncio.wait({waiting})
        assert waiting.cancelled()
        assert await subscription.next() == {"a"}


def test_closed_subscription_records_no_change() -> None:
    hub = ChangeHub()
    with hub.subscribe() as subscription:
        pass
    hub.publish(frozenset({"a"}))
    assert not subscription._changed
