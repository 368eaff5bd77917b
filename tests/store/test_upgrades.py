"""Databases that earlier versions of the server have written: they open, migrate, and keep what is in them."""

import json
import sqlite3
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import make_url

from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import PoolCounts, PullPolicy
from sandpool_server.store import SqlStore
from tests.store.steps import ADDRESS, NS, claim_one, counts, make_pool, make_secrets, migrate_to
from tests.support import builders as b

_FIRST_SPEC: dict[str, Any] = {
    "image": "python:3.11-slim",
    "cpus": 1.0,
    "memory_mb": 512,
    "ephemeral_disk_mb": 1024,
    "secret_names": [],
    "entrypoint": ["sleep", "9"],
}
_FIRST_DIGEST = "0123456789abcdef"
_OTHER_DIGEST = "fedcba9876543210"
_MICROSECONDS = int(b.T0.timestamp()) * 1_000_000 + b.T0.microsecond


def execute(url: str, sql: str, *values: object) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(str(make_url(url).database))
    with connection:
        found = connection.execute(sql, values).fetchall()
    connection.close()
    return found


def insert(url: str, table: str, **values: object) -> None:
    execute(url, f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})", *values.values())


@pytest.fixture
def first(url: str) -> dict[str, str]:
    """A database of the first schema: a pool that follows a template, with members in several situations."""
    migrate_to(url, "0001")
    ids = {"template": b.template_id(), "pool": b.pool_id()}
    ids |= {name: b.sandbox_id() for name in ("warm", "stale", "active")}
    times = {"create_time": _MICROSECONDS, "update_time": _MICROSECONDS}
    insert(
        url,
        "templates",
        **times,
        id=ids["template"],
        namespace=NS,
        name="base",
        spec=json.dumps(_FIRST_SPEC),
        timeout_secs=60,
        version=1,
    )
    insert(
        url,
        "pools",
        **times,
        id=ids["pool"],
        namespace=NS,
        name="web",
        template_id=ids["template"],
        template_name="base",
        spec=json.dumps(_FIRST_SPEC),
        spec_digest=_FIRST_DIGEST,
        timeout_secs=60,
        warm_containers=1,
        max_containers=9,
        paused=0,
        version=3,
        hits=7,
        misses=8,
    )
    member = {
        "namespace": NS,
        "pool_id": ids["pool"],
        "template_id": ids["template"],
        "template_name": "base",
        "version": 1,
        "create_time": _MICROSECONDS,
        "address": ADDRESS,
        "timeout_secs": 0,
        "name": "",
        "metadata": "{}",
        "request_id": "",
        "request_fingerprint": "",
        "end_message": "",
    }
    present = {"spec": json.dumps(_FIRST_SPEC), "spec_digest": _FIRST_DIGEST}
    earlier = {"spec": json.dumps({**_FIRST_SPEC, "image": "old"}), "spec_digest": _OTHER_DIGEST}
    insert(url, "members", **member, **present, id=ids["warm"], state="warm")
    insert(url, "members", **member, **earlier, id=ids["stale"], state="warm")
    claimed = {"claim_time": _MICROSECONDS, "start": "warm", "start_secs": 0.5, "name": "mine"}
    insert(url, "members", **{**member, **claimed}, **present, id=ids["active"], state="active")
    return ids


async def test_a_database_of_the_first_schema_keeps_its_rows(
    first: dict[str, str], url: str, clock: b.ManualClock
) -> None:
    store = SqlStore(url, lambda _: None, clock)
    await store.open()
    spec = b.spec(entrypoint=("sleep", "9"))

    template = b.template("base", id=first["template"], spec=spec, timeout_secs=60)
    assert await store.get_template(NS, "base") == template
    view = await store.get_pool(NS, "web")
    assert view.pool == b.pool(
        "web",
        id=first["pool"],
        template_id=first["template"],
        template_name="base",
        spec=spec,
        timeout_secs=60,
        own_timeout_secs=None,
        warm_containers=1,
        max_containers=9,
        version=3,
        hits=7,
        misses=8,
    )
    assert view.counts == PoolCounts(warm=1, stale=1, active=1)
    active = await store.get_sandbox(NS, "mine")
    assert active == b.member(
        MemberState.ACTIVE,
        id=first["active"],
        pool_id=first["pool"],
        template_id=first["template"],
        template_name="base",
        spec=spec,
        address=ADDRESS,
        pull_policy=PullPolicy.MISSING,
        claim=b.claim(name="mine"),
        start_secs=0.5,
    )
    [snapshot] = await store.snapshot(frozenset({first["pool"]}))
    digests = {member.id: member.spec_digest for member in snapshot.members}
    assert snapshot.spec_digest == view.pool.member_digest() == digests[first["warm"]] == digests[first["active"]]
    assert digests[first["stale"]] == replace(spec, image="old").digest()

    # A change that does not touch the specification leaves ready what is ready, and it is handed out.
    await store.update_pool(NS, "web", None, lambda p: replace(p, max_containers=8), None)
    assert await counts(store, "web") == PoolCounts(warm=1, stale=1, active=1)
    assert (await claim_one(store, pool_ref="web")).id == first["warm"]
    assert (await claim_one(store, pool_ref="web")).state is MemberState.STARTING
    await make_secrets(store, "A")
    await store.close()


async def test_the_second_schema_can_be_undone(first: dict[str, str], url: str, clock: b.ManualClock) -> None:
    before = execute(url, "SELECT * FROM members ORDER BY id"), execute(url, "SELECT * FROM pools")
    assert first["pool"] == before[1][0][0]
    for _ in range(2):
        store = SqlStore(url, lambda _: None, clock)
        await store.open()
        await make_pool(store, 1, spec=b.spec(env=(("A", "1"),)))
        await store.close()
        migrate_to(url, "0001", down=True)
        members = execute(url, "SELECT * FROM members WHERE pool_id = ? ORDER BY id", first["pool"])
        pools = execute(url, "SELECT * FROM pools WHERE id = ?", first["pool"])
        # The same but for the digests, which the fixture made up.
        assert [row[:6] + row[7:] for row in members] == [row[:6] + row[7:] for row in before[0]]
        assert [row[:6] + row[7:] for row in pools] == [row[:6] + row[7:] for row in before[1]]
        assert members[0][6] == members[2][6] == pools[0][6] != members[1][6]
