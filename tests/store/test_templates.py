"""Templates in the store."""

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
from sandpool_server.domain.spec import PullPolicy, ReadinessProbe
from sandpool_server.store import SqlStore
from tests.store.steps import NS, make_pool, make_secrets
from tests.support import builders as b


def bigger(template: Template) -> Template:
    return replace(
        template, spec=replace(template.spec, memory_mb=2048), update_time=template.update_time + timedelta(1)
    )


async def test_reads_template_by_id_and_by_name(store: SqlStore) -> None:
    spec = b.spec(
        "a/b:c",
        cpus=0.25,
        secret_names=("A", "B"),
        entrypoint=("sh", "-c", "ü \"'"),
        env=(("A", ""), ("B", "ü=1")),
        pull_policy=PullPolicy.ALWAYS,
        readiness_probe=ReadinessProbe(("true", ""), interval_secs=0.1, timeout_secs=1.5, failure_threshold=3),
    )
    await make_secrets(store, "A", "B")
    template = b.template("web", spec=spec, timeout_secs=60)
    assert await store.create_template(template, None) == template
    assert await store.get_template(NS, template.id) == template
    assert await store.get_template(NS, "web") == template


async def test_name_can_begin_like_an_id(store: SqlStore) -> None:
    template = await store.create_template(b.template("tpl-party"), None)
    assert await store.get_template(NS, "tpl-party") == template


@pytest.mark.parametrize("ref", ["nothing", "tpl-00000000000000000000"])
async def test_rejects_unknown_template(store: SqlStore, ref: str) -> None:
    with pytest.raises(NotFound) as caught:
        await store.get_template(NS, ref)
    assert (caught.value.resource_type, caught.value.resource_name) == ("template", ref)
    with pytest.raises(NotFound):
        await store.update_template(NS, ref, None, bigger, None)
    with pytest.raises(NotFound):
        await store.delete_template(NS, ref, None, b.T0, None)


async def test_namespaces_are_separate(store: SqlStore) -> None:
    template = await store.create_template(b.template("web", namespace="other"), None)
    for ref in ("web", template.id):
        with pytest.raises(NotFound):
            await store.get_template(NS, ref)
    assert await store.list_templates(NS, 10, "") == []
    assert (await store.create_template(b.template("web"), None)).name == "web"


async def test_name_is_unique_among_existing_templates(store: SqlStore) -> None:
    await store.create_template(b.template("web"), None)
    other = await store.create_template(b.template("other"), None)
    with pytest.raises(AlreadyExists) as caught:
        await store.create_template(b.template("web"), None)
    assert (caught.value.resource_type, caught.value.resource_name) == ("template", "web")
    with pytest.raises(AlreadyExists):
        await store.update_template(NS, other.id, None, lambda t: replace(t, name="web"), None)
    await store.delete_template(NS, "web", None, b.T0, None)
    assert (await store.update_template(NS, other.id, None, lambda t: replace(t, name="web"), None)).name == "web"


async def test_lists_templates_in_order_of_ids(store: SqlStore) -> None:
    created = [await store.create_template(b.template(f"t{i}"), None) for i in range(5)]
    await store.delete_template(NS, created[1].id, None, b.T0, None)
    existing = [created[0], *created[2:]]
    first = await store.list_templates(NS, 2, "")
    assert first == existing[:2]
    assert await store.list_templates(NS, 10, first[-1].id) == existing[2:]
    assert await store.list_templates(NS, 10, existing[-1].id) == []


async def test_update_increments_version_and_updates_pools(store: SqlStore, notified: list[frozenset[str]]) -> None:
    template = await store.create_template(b.template("web", timeout_secs=60), None)
    inheriting = await make_pool(store, template_ref="web")
    own_timeout = await make_pool(store, template_ref=template.id, timeout_secs=5)
    unrelated = await make_pool(store)
    notified.clear()

    def change(old: Template) -> Template:
        return replace(bigger(old), name="shop", timeout_secs=90)

    changed = await store.update_template(NS, "web", 1, change, None)

    assert changed == replace(change(template), version=2)
    assert await store.get_template(NS, "shop") == changed
    pools = [(await store.get_pool(NS, pool.id)).pool for pool in (inheriting, own_timeout, unrelated)]
    assert [pool.spec.memory_mb for pool in pools] == [2048, 2048, 512]
    assert [pool.timeout_secs for pool in pools] == [90, 5, 0]
    assert [pool.template_name for pool in pools] == ["shop", "shop", ""]
    assert [pool.version for pool in pools] == [2, 2, 1]
    assert pools[0].update_time == changed.update_time
    assert notified == [{inheriting.id, own_timeout.id}]


async def test_rejects_wrong_version_without_changes(store: SqlStore) -> None:
    template = await store.create_template(b.template(), None)
    with pytest.raises(Aborted):
        await store.update_template(NS, template.id, 2, bigger, None)
    with pytest.raises(Aborted):
        await store.delete_template(NS, template.id, 2, b.T0, None)
    assert await store.get_template(NS, template.id) == template


async def test_propagates_error_of_update_without_changes(store: SqlStore) -> None:
    template = await store.create_template(b.template(), None)

    def refuse(_: Template) -> Template:
        raise InvalidArgument(FieldViolation("cpus", "too many"))

    with pytest.raises(InvalidArgument, match="too many"):
        await store.update_template(NS, template.id, None, refuse, b.request_key())
    assert await store.get_template(NS, template.id) == template


async def test_finds_pools_of_template(store: SqlStore) -> None:
    template = await store.create_template(b.template("web"), None)
    assert await store.template_pool_ids(NS, "web") == ()
    pools = [await make_pool(store, template_ref="web") for _ in range(3)]
    await make_pool(store)
    await store.delete_pool(NS, pools[1].id, None, b.T0, None)
    for ref in ("web", template.id):
        assert await store.template_pool_ids(NS, ref) == (pools[0].id, pools[2].id)
    with pytest.raises(NotFound, match="template 'none'"):
        await store.template_pool_ids(NS, "none")


async def test_rejects_deletion_of_template_in_use(store: SqlStore) -> None:
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


async def test_retry_is_executed_once(store: SqlStore) -> None:
    create, update, delete = (b.request_key("r", method) for method in ("Create", "Update", "Delete"))
    template = await store.create_template(b.template("web"), create)
    changed = await store.update_template(NS, "web", 1, bigger, update)
    assert await store.update_template(NS, "web", 1, bigger, update) == changed
    # The retry returns the current template; the second draft is not written.
    assert await store.create_template(b.template("web"), create) == changed
    await store.delete_template(NS, "web", None, b.T0, delete)
    second = await store.create_template(b.template("web"), None)
    await store.delete_template(NS, "web", None, b.T0, delete)
    assert await store.get_template(NS, "web") == second
    assert (await store.create_template(b.template("web"), create)).id == template.id


async def test_rejects_request_id_of_another_request(store: SqlStore) -> None:
    await store.create_template(b.template("web"), b.request_key(fingerprint="one"))
    with pytest.raises(InvalidArgument) as caught:
        await store.create_template(b.template("shop"), b.request_key(fingerprint="two"))
    assert [violation.field for violation in caught.value.violations] == ["request_id"]
    with pytest.raises(NotFound):
        await store.get_template(NS, "shop")


async def test_rejected_request_can_be_repeated_with_its_request_id(store: SqlStore) -> None:
    await store.create_template(b.template("web"), None)
    with pytest.raises(AlreadyExists):
        await store.create_template(b.template("web"), b.request_key())
    await store.delete_template(NS, "web", None, b.T0, None)
    again = b.template("web")
    assert await store.create_template(again, b.request_key()) == again
