"""Secrets in the store. Ciphertexts are opaque to the store."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from sandpool_server.domain.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from sandpool_server.store import SqlStore
from tests.store.steps import NS, claim_one, make_pool, make_secrets
from tests.support import builders as b

LATER = b.T0 + timedelta(hours=1)
ANY_BYTES = bytes(range(256))


async def test_creates_updates_and_deletes_secret(store: SqlStore, notified: list[frozenset[str]]) -> None:
    secret = b.secret("TOKEN")
    assert await store.create_secret(secret, ANY_BYTES, None) == secret
    assert await store.list_secrets(NS, 10, "") == [secret]
    assert await store.secret_ciphertexts(NS, ["TOKEN", "NONE"]) == {"TOKEN": ANY_BYTES}
    changed = await store.update_secret(NS, "TOKEN", b"new", LATER, None)
    assert changed == replace(secret, update_time=LATER)
    assert await store.list_secrets(NS, 10, "") == [changed]
    assert await store.secret_ciphertexts(NS, ["TOKEN"]) == {"TOKEN": b"new"}
    await store.delete_secret(NS, "TOKEN", False, b.T0, None)
    assert await store.list_secrets(NS, 10, "") == []
    assert await store.secret_ciphertexts(NS, ["TOKEN"]) == {}
    assert await store.secret_ciphertexts(NS, []) == {}
    assert notified == []


async def test_rejects_existing_and_unknown_names(store: SqlStore) -> None:
    await make_secrets(store, "A")
    with pytest.raises(AlreadyExists) as existing:
        await store.create_secret(b.secret("A"), b"x", None)
    assert (existing.value.resource_type, existing.value.resource_name) == ("secret", "A")
    assert await store.secret_ciphertexts(NS, ["A"]) == {"A": b"A"}
    for call in (store.update_secret(NS, "B", b"x", b.T0, None), store.delete_secret(NS, "B", True, b.T0, None)):
        with pytest.raises(NotFound) as missing:
            await call
        assert (missing.value.resource_type, missing.value.resource_name) == ("secret", "B")


async def test_lists_secrets_in_order_of_names(store: SqlStore) -> None:
    await make_secrets(store, "b", "A", "_", "C", "a")
    pages = [await store.list_secrets(NS, 2, after) for after in ("", "C", "a")]
    assert [[secret.name for secret in page] for page in pages] == [["A", "C"], ["_", "a"], ["b"]]


async def test_namespaces_are_separate(store: SqlStore) -> None:
    await store.create_secret(b.secret("A", namespace="other"), b"other", None)
    assert await store.list_secrets(NS, 10, "") == []
    assert await store.secret_ciphertexts(NS, ["A"]) == {}
    with pytest.raises(NotFound):
        await make_pool(store, spec=b.spec(secret_names=("A",)))
    await make_secrets(store, "A")
    await make_pool(store, spec=b.spec(secret_names=("A",)))
    await store.delete_secret("other", "A", False, b.T0, None)
    assert await store.secret_ciphertexts(NS, ["A"]) == {"A": b"A"}


async def test_rewrites_all_secrets_or_none(store: SqlStore) -> None:
    assert await store.rewrite_secrets(lambda old: old) == 0
    await make_secrets(store, "A", "B")
    await store.create_secret(b.secret("A", namespace="other"), b"C", None)
    assert await store.rewrite_secrets(lambda old: old + b"!") == 3
    assert await store.secret_ciphertexts(NS, ["A", "B"]) == {"A": b"A!", "B": b"B!"}
    assert await store.secret_ciphertexts("other", ["A"]) == {"A": b"C!"}
    assert {secret.update_time for secret in await store.list_secrets(NS, 10, "")} == {b.T0}

    def refuse(old: bytes) -> bytes:
        if old == b"B!":
            raise InterruptedError
        return b"lost"

    with pytest.raises(InterruptedError):
        await store.rewrite_secrets(refuse)
    assert await store.secret_ciphertexts(NS, ["A", "B"]) == {"A": b"A!", "B": b"B!"}


async def test_retry_is_executed_once(store: SqlStore) -> None:
    create, update, delete = (b.request_key("r", method) for method in ("Create", "Update", "Delete"))
    secret = await store.create_secret(b.secret("A"), b"1", create)
    changed = await store.update_secret(NS, "A", b"2", LATER, update)
    assert await store.update_secret(NS, "A", b"3", LATER + timedelta(1), update) == changed
    assert await store.create_secret(b.secret("A"), b"4", create) == changed != secret
    assert await store.secret_ciphertexts(NS, ["A"]) == {"A": b"2"}
    await store.delete_secret(NS, "A", False, b.T0, delete)
    with pytest.raises(NotFound):
        await store.create_secret(b.secret("A"), b"5", create)
    await make_secrets(store, "A")
    await store.delete_secret(NS, "A", False, b.T0, delete)
    assert await store.secret_ciphertexts(NS, ["A"]) == {"A": b"A"}
    with pytest.raises(InvalidArgument, match="request_id"):
        await store.create_secret(b.secret("A"), b"6", replace(create, fingerprint="another"))


# --- references -------------------------------------------------------------------------------------------------------


async def test_rejects_references_to_unknown_secrets(store: SqlStore, notified: list[frozenset[str]]) -> None:
    await make_secrets(store, "A")
    spec = b.spec(secret_names=("A", "B", "C"))
    pool = await make_pool(store)
    await store.create_template(b.template("base"), None)
    notified.clear()
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.create_pool(b.pool_draft(spec=spec), b.request_key("1")),
        lambda: store.create_template(b.template("other", spec=spec), b.request_key("2")),
        lambda: store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=spec), b.request_key("3")),
        lambda: store.update_template(NS, "base", None, lambda t: replace(t, spec=spec), b.request_key("4")),
        lambda: store.claim(b.claim_request(spec=spec, request_id="5")),
    ]
    for call in calls:
        with pytest.raises(NotFound) as caught:
            await call()
        assert (caught.value.resource_type, caught.value.resource_name) == ("secret", "B")
    assert notified == []
    assert (await store.get_pool(NS, pool.id)).pool == pool
    await make_secrets(store, "B", "C")
    for call in calls:
        await call()


async def test_pool_requires_secrets_of_its_template(store: SqlStore) -> None:
    await make_secrets(store, "A")
    await store.create_template(b.template("base", spec=b.spec(secret_names=("A",))), None)
    await store.delete_secret(NS, "A", True, b.T0, None)
    with pytest.raises(NotFound, match="secret 'A'"):
        await store.create_pool(b.pool_draft(template_ref="base"), None)


async def test_rejects_deletion_of_referenced_secret(store: SqlStore) -> None:
    await make_secrets(store, "A", "AB")
    spec = b.spec(secret_names=("A",))
    template = await store.create_template(b.template("base", spec=spec), None)
    pools = [await make_pool(store, name=f"p{i}", spec=spec) for i in range(11)]
    template_pool = await make_pool(store, template_ref="base")
    with pytest.raises(FailedPrecondition) as caught:
        await store.delete_secret(NS, "A", False, b.T0, None)
    assert (caught.value.reason, caught.value.resource_type, caught.value.resource_name) == (
        "SECRET_IN_USE",
        "secret",
        "A",
    )
    assert "12 pools" in caught.value.message
    assert "1 template:" in caught.value.message
    assert "2 more" in caught.value.message
    assert f"{template.id} (base)" in caught.value.message
    assert [pool.id for pool in pools if f"{pool.id} ({pool.name})" in caught.value.message] == [
        pool.id for pool in pools[:10]
    ]
    # A similar name and an equal value in another field are not references.
    await store.delete_secret(NS, "AB", False, b.T0, None)

    for pool in (*pools[1:], template_pool):
        await store.delete_pool(NS, pool.id, None, b.T0, None)
    with pytest.raises(FailedPrecondition, match=r"1 pool: .* and 1 template:"):
        await store.delete_secret(NS, "A", False, b.T0, None)
    await store.update_template(NS, "base", None, lambda t: replace(t, spec=b.spec("A", env=(("A", "A"),))), None)
    with pytest.raises(FailedPrecondition, match="1 pool: "):
        await store.delete_secret(NS, "A", False, b.T0, None)
    await store.update_pool(NS, "p0", None, lambda p: replace(p, spec=b.spec()), None)
    await store.delete_secret(NS, "A", False, b.T0, None)


async def test_sandbox_does_not_prevent_deletion_of_secret(store: SqlStore) -> None:
    await make_secrets(store, "A")
    await claim_one(store, spec=b.spec(secret_names=("A",)))
    await store.delete_secret(NS, "A", False, b.T0, None)


async def test_forced_deletion_of_secret_allows_other_updates(store: SqlStore) -> None:
    await make_secrets(store, "A")
    spec = b.spec(secret_names=("A",))
    await store.create_template(b.template("base", spec=spec), None)
    pool = await make_pool(store, 1, spec=spec)
    await store.delete_secret(NS, "A", True, b.T0, None)
    larger = replace(spec, memory_mb=1024)
    view = await store.update_pool(NS, pool.id, None, lambda p: replace(p, warm_containers=5, spec=larger), None)
    assert view.pool.spec == larger
    changed = await store.update_template(NS, "base", None, lambda t: replace(t, spec=larger), None)
    assert changed.spec == larger
    await make_secrets(store, "B")
    both = replace(larger, secret_names=("A", "B"))
    with pytest.raises(NotFound, match="secret 'A'"):
        await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=both), None)
    # A reference to a deleted secret can always be removed.
    await store.update_pool(NS, pool.id, None, lambda p: replace(p, spec=replace(larger, secret_names=("B",))), None)


async def test_concurrent_reference_and_deletion_never_both_succeed(store: SqlStore) -> None:
    for attempt in range(10):
        name = f"S{attempt}"
        await make_secrets(store, name)
        created, deleted = await asyncio.gather(
            store.create_pool(b.pool_draft(spec=b.spec(secret_names=(name,))), None),
            store.delete_secret(NS, name, False, b.T0, None),
            return_exceptions=True,
        )
        assert isinstance(created, Exception) != isinstance(deleted, Exception)
