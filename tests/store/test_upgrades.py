"""Databases of earlier versions of the server: the store migrates them and keeps their rows."""

import json
import sqlite3
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import make_url

from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import PoolCounts, Termination, TerminationReason
from sandpool_server.domain.spec import PullPolicy, ReadinessProbe
from sandpool_server.store import SqlStore
from tests.store.steps import ADDRESS, NS, claim_one, counts, make_secrets, migrate_to
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
    """Create a database of the first schema: a pool of a template, with instances in several states."""
    migrate_to(url, "0001")
    ids = {"template": b.template_id(), "pool": b.pool_id()}
    ids |= {name: b.sandbox_id() for name in ("warm", "outdated", "active")}
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
    current = {"spec": json.dumps(_FIRST_SPEC), "spec_digest": _FIRST_DIGEST}
    earlier = {"spec": json.dumps({**_FIRST_SPEC, "image": "old"}), "spec_digest": _OTHER_DIGEST}
    insert(url, "members", **member, **current, id=ids["warm"], state="warm")
    insert(url, "members", **member, **earlier, id=ids["outdated"], state="warm")
    claimed = {"claim_time": _MICROSECONDS, "start": "warm", "start_secs": 0.5, "name": "mine"}
    insert(url, "members", **{**member, **claimed}, **current, id=ids["active"], state="active")
    return ids


async def test_migration_keeps_rows_of_first_schema(first: dict[str, str], url: str, clock: b.ManualClock) -> None:
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
    assert active == b.instance(
        InstanceState.ACTIVE,
        id=first["active"],
        pool_id=first["pool"],
        template_id=first["template"],
        template_name="base",
        spec=spec,
        address=ADDRESS,
        claim=b.claim(name="mine"),
        start_secs=0.5,
    )
    [snapshot] = await store.snapshot(frozenset({first["pool"]}))
    digests = {instance.id: instance.spec_digest for instance in snapshot.instances}
    assert snapshot.spec_digest == view.pool.instance_digest() == digests[first["warm"]] == digests[first["active"]]
    assert digests[first["outdated"]] == replace(spec, image="old").digest()

    # After a change that does not affect the specification, the warm instance is still warm and can be claimed.
    await store.update_pool(NS, "web", None, lambda p: replace(p, max_containers=8), None)
    assert await counts(store, "web") == PoolCounts(warm=1, stale=1, active=1)
    assert (await claim_one(store, pool_ref="web")).id == first["warm"]
    assert (await claim_one(store, pool_ref="web")).state is InstanceState.STARTING
    await make_secrets(store, "A")
    await store.close()


async def test_second_schema_can_be_downgraded(first: dict[str, str], url: str) -> None:
    before = execute(url, "SELECT * FROM members ORDER BY id"), execute(url, "SELECT * FROM pools")
    assert first["pool"] == before[1][0][0]
    for _ in range(2):
        migrate_to(url, "0003")
        migrate_to(url, "0001", down=True)
        members = execute(url, "SELECT * FROM members WHERE pool_id = ? ORDER BY id", first["pool"])
        pools = execute(url, "SELECT * FROM pools WHERE id = ?", first["pool"])
        # The rows are equal except for the digests, which are arbitrary values of the fixture.
        assert [row[:6] + row[7:] for row in members] == [row[:6] + row[7:] for row in before[0]]
        assert [row[:6] + row[7:] for row in pools] == [row[:6] + row[7:] for row in before[1]]


async def test_fourth_schema_keeps_specifications_and_claimable_instances(url: str, clock: b.ManualClock) -> None:
    migrate_to(url, "0003")
    old = {
        **_FIRST_SPEC,
        "cpus": 0.5,
        "env": [["A", "1"]],
        "readiness_command": ["test", "-e", "/ready"],
        "readiness_interval_secs": 0.25,
        "readiness_timeout_secs": 5.0,
        "readiness_retries": 7,
    }
    ids = {name: b.sandbox_id() for name in ("warm", "outdated", "removed")}
    pool_id = b.pool_id()
    times = {"create_time": _MICROSECONDS, "update_time": _MICROSECONDS}
    pool = {"name": "web", "template_name": "", "timeout_secs": 60, "warm_containers": 0, "paused": 0, "version": 1}
    image_fields = {
        "image_check_secs": 30,
        "max_age_secs": 40,
        "image_digest": "sha256:1",
        "image_check_time": _MICROSECONDS,
    }
    failure = {
        "failure_reason": "not_ready",
        "failure_message": "m",
        "failure_time": _MICROSECONDS,
        "failure_next_attempt_time": _MICROSECONDS,
        "failure_consecutive": 2,
    }
    content = {"spec": json.dumps(old), "spec_digest": _FIRST_DIGEST, "pull_policy": "always"}
    insert(
        url,
        "pools",
        **times,
        **pool,
        **image_fields,
        **failure,
        **content,
        id=pool_id,
        namespace=NS,
        hits=1,
        misses=2,
        drain=1,
    )
    member = {
        "namespace": NS,
        "pool_id": pool_id,
        "template_name": "",
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
    insert(url, "members", **member, **content, id=ids["warm"], state="warm")
    insert(url, "members", **member, **{**content, "spec_digest": _OTHER_DIGEST}, id=ids["outdated"], state="warm")
    end = {"claim_time": _MICROSECONDS, "start": "cold", "end_reason": "deleted", "end_time": _MICROSECONDS}
    end |= {"end_message": "by hand", "end_exit_code": 3, "gone_time": _MICROSECONDS}
    insert(url, "members", **{**member, **content, **end}, id=ids["removed"], state="gone")
    insert(url, "exposed_ports", namespace=NS, member_id=ids["warm"], port=80, create_time=_MICROSECONDS)

    store = SqlStore(url, lambda _: None, clock)
    await store.open()
    probe = ReadinessProbe(("test", "-e", "/ready"), interval_secs=0.25, failure_threshold=7)
    spec = b.spec(
        cpus=0.5, env=(("A", "1"),), entrypoint=("sleep", "9"), pull_policy=PullPolicy.ALWAYS, readiness_probe=probe
    )
    view = await store.get_pool(NS, "web")
    assert (view.pool.spec, view.pool.drained) == (spec, True)
    assert (view.pool.image_refresh_interval_secs, view.pool.warm_ttl_secs) == (30.0, 40.0)
    assert view.pool.failure is not None
    assert view.pool.failure.reason is FailureReason.READINESS_TIMEOUT
    assert view.counts == PoolCounts(warm=1, stale=1)
    [snapshot] = await store.snapshot(frozenset({pool_id}))
    digests = {instance.id: instance.spec_digest for instance in snapshot.instances}
    assert digests[ids["warm"]] == snapshot.spec_digest == view.pool.instance_digest()
    removed = await store.get_sandbox(NS, ids["removed"])
    assert removed.state is InstanceState.REMOVED
    assert removed.end == Termination(TerminationReason.DELETED, b.T0, "by hand", 3)
    assert [port.port for port in await store.exposed_ports(ids["warm"])] == [80]
    await store.close()
