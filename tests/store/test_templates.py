"""The store's contract on templates."""

from dataclasses import replace
from datetime import timedelta

import pytest

from sandpool_server.domain.errors import (
    Aborted,
    AlreadyExists,
    FailedPrecondition,
    FieldViolation,
    InvalidArgument,
    NotFound,
)
from sandpool_server.domain.model import Template
from sandpool_server.store import SqlStore
from tests.store.steps import NS, make_pool, make_secrets
from tests.support import builders as b


def bigger(template: Template) -> Template:
    return replace(
        template, spec=replace(template.spec, memory_mb=2048), update_time=template.update_time + timedelta(1)
    )


async def test_what_is_written_is_read_by_id_and_by_name(store: SqlStore) -> None:
    spec = b.spec(
        "a/b:c",
        cpus=0.25,
        secret_names=("A", "B"),
        entrypoint=("sh", "-c", "ü \"'"),
        env=(("A", ""), ("B", "ü=1")),
        readiness_command=("true", ""),
        readiness_interval_secs=0.1,
        readiness_timeout_secs=1.5,
        readiness_retries=3,
    )
    await make_secrets(store, "A", "B")
    template = b.template("web", spec=spec, timeout_secs=60)
    assert await store.create_template(template, None) == template
    assert await store.get_template(NS, template.id) == template
    assert await store.get_template(NS, "web") == template


async def test_a_name_that_begins_like_an_id_is_a_name(store: SqlStore) -> None:
    template = await store.create_template(b.template("tpl-party"), None)
    assert await store.get_template(NS, "tpl-party") == template


@pytest.mark.parametrize("ref", ["nothing", "tpl-00000000000000000000"])
async def test_what_is_not_there_is_not_found(store: SqlStore, ref: str) -> None:
    with pytest.raises(NotFound) as caught:
        await store.get_template(NS, ref)
    assert (caught.value.resource_type, caught.value.resource_name) == ("template", ref)
    with pytest.raises(NotFound):
        await store.update_template(NS, ref, None, bigger, None)
    with pytest.raises(NotFound):
        await store.delete_template(NS, ref, None, b.T0, None)


async def test_namespaces_do_not_see_each_other(store: SqlStore) -> None:
    template = await store.create_template(b.template("web", namespace="other"), None)
    for ref in ("web", template.id):
        with pytest.raises(NotFound):
            await store.get_template(NS, ref)
    assert await store.list_templates(NS, 10, "") == []
    assert (await store.create_template(b.template("web"), None)).name == "web"


async def test_a_living_name_is_unique(store: SqlStore) -> None:
    await store.create_template(b.template("web"), None)
    other = await store.create_template(b.template("other"), None)
    with pytest.raises(AlreadyExists) as caught:
        await store.create_template(b.template("web"), None)
    assert (caught.value.resource_type, caught.value.resource_name) == ("template", "web")
    with pytest.raises(AlreadyExists):
        await store.update_template(NS, other.id, None, lambda t: replace(t, name="web"), None)
    await store.delete_template(NS, "web", None, b.T0, None)
    assert (await store.update_template(NS, other.id, None, lambda t: replace(t, name="web"), None)).name == "web"


async def test_pages_are_in_the_order_of_ids(store: SqlStore) -> None:
    made = [await store.create_template(b.template(f"t{i}"), None) for i in range(5)]
    await store.delete_template(NS, made[1].id, None, b.T0, None)
    living = [made[0], *made[2:]]
    first = await store.list_templates(NS, 2, "")
    assert first == living[:2]
    assert await store.list_templates(NS, 10, first[-1].id) == living[2:]
    assert await store.list_templates(NS, 10, living[-1].id) == []


async def test_an_update_counts_the_version_up_and_reaches_the_pools(
    store: SqlStore, notified: list[frozenset[str]]
) -> None:
    template = await store.create_template(b.template("web", timeout_secs=60), None)
    following = await make_pool(store, template_ref="web")
    own_timeout = await make_pool(store, template_ref=template.id, timeout_secs=5)
    unrelated = await make_pool(store)
    notified.clear()

    def change(old: Template) -> Template:
        return replace(bigger(old), name="shop", timeout_secs=90)

    changed = await store.update_template(NS, "web", 1, change, None)

    assert changed == replace(change(template), version=2)
    assert await store.get_template(NS, "shop") == changed
    pools = [(await store.get_pool(NS, pool.id)).pool for pool in (following, own_timeout, unrelated)]
    assert [pool.spec.memory_mb for pool in pools] == [2048, 2048, 512]
    assert [pool.timeout_secs for pool in pools] == [90, 5, 0]
    assert [pool.template_name for pool in pools] == ["shop", "shop", ""]
    assert [pool.version for pool in pools] == [2, 2, 1]
    assert pools[0].update_time == changed.update_time
    assert notified == [{following.id, own_timeout.id}]


async def test_another_version_aborts_and_writes_nothing(store: SqlStore) -> None:
    template = await store.create_template(b.template(), None)
    with pytest.raises(Aborted):
        await store.update_template(NS, template.id, 2, bigger, None)
    with pytest.raises(Aborted):
        await store.delete_template(NS, template.id, 2, b.T0, None)
    assert await store.get_template(NS, template.id) == template


async def test_what_the_change_raises_comes_back_and_nothing_is_written(store: SqlStore) -> None:
    template = await store.create_template(b.template(), None)

    def refuse(_: Template) -> Template:
        raise InvalidArgument(FieldViolation("cpus", "too many"))

    with pytest.raises(InvalidArgument, match="too many"):
        await store.update_template(NS, template.id, None, refuse, b.request_key())
    assert await store.get_template(NS, template.id) == template


async def test_the_pools_that_follow_a_template_are_found(store: SqlStore) -> None:
    template = await store.create_template(b.template("web"), None)
    assert await store.template_pool_ids(NS, "web") == ()
    pools = [await make_pool(store, template_ref="web") for _ in range(3)]
    await make_pool(store)
    await store.delete_pool(NS, pools[1].id, None, b.T0, None)
    for ref in ("web", template.id):
        assert await store.template_pool_ids(NS, ref) == (pools[0].id, pools[2].id)
    with pytest.raises(NotFound, match="template 'none'"):
        await store.template_pool_ids(NS, "none")


async def test_one_that_pools_follow_is_not_deleted(store: SqlStore) -> None:
    template = await store.create_template(b.template("web"), None)
    pools = [await make_pool(store, name=f"p{i}", template_ref="web") for i in range(12)]
    with pytest.raises(FailedPrecondition) as caught:
        await store.delete_template(NS, "web", None, b.T0, None)
    assert caught.value.reason == "TEMPLATE_IN_USE"
    assert "12 pools" in caught.value.message
    named = [pool.id for pool in pools if f"{pool.id} ({pool.name})" in caught.value.message]
    assert named == [pool.id for pool in pools[:10]]
    for pool in pools:
        await store.delete_pool(NS, pool.id, None, b.T0, None)
    await store.delete_template(NS, "web", None, b.T0, None)
    with pytest.raises(NotFound):
        await store.get_template(NS, template.id)


async def test_a_retry_is_answered_once(store: SqlStore) -> None:
    create, update, delete = (b.request_key("r", method) for method in ("Create", "Update", "Delete"))
    template = await store.create_template(b.template("web"), create)
    changed = await store.update_template(NS, "web", 1, bigger, update)
    assert await store.update_template(NS, "web", 1, bigger, update) == changed
    # As it is now, not as it was; and the second draft is not written.
    assert await store.create_template(b.template("web"), create) == changed
    await store.delete_template(NS, "web", None, b.T0, delete)
    second = await store.create_template(b.template("web"), None)
    await store.delete_template(NS, "web", None, b.T0, delete)
    assert await store.get_template(NS, "web") == second
    assert (await store.create_template(b.template("web"), create)).id == template.id


async def test_a_request_id_names_one_request_alone(store: SqlStore) -> None:
    await store.create_template(b.template("web"), b.request_key(fingerprint="one"))
    with pytest.raises(InvalidArgument) as caught:
        await store.create_template(b.template("shop"), b.request_key(fingerprint="two"))
    assert [violation.field for violation in caught.value.violations] == ["request_id"]
    with pytest.raises(NotFound):
        await store.get_template(NS, "shop")


async def test_a_refused_request_may_be_repeated_under_its_id(store: SqlStore) -> None:
    await store.create_template(b.template("web"), None)
    with pytest.raises(AlreadyExists):
        await store.create_template(b.template("web"), b.request_key())
    await store.delete_template(NS, "web", None, b.T0, None)
    again = b.template("web")
    assert await store.create_template(again, b.request_key()) == again
