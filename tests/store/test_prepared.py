"""Prepared statements on the cursor of the driver: they have the same effect as with SQLAlchemy Core."""

import sqlite3
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.store import claims, dialect, lookups, rows
from sandpool_server.store.prepared import Prepared
from sandpool_server.store.tables import INSTANCES, METADATA, POOLS
from tests.support import builders as b


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    """Yield a transaction on a database with a pool and two instances."""
    dialect.prepare(url)
    engine = dialect.make_engine(url, writes=True)
    METADATA.create_all(engine)
    with engine.connect() as connection, connection.begin():
        pool = b.pool(
            "web", max_containers=3, image_check_time=b.T0, failure=b.failure(), spec=b.spec(env=(("A", "ü"),))
        )
        connection.execute(insert(POOLS), rows.pool_values(pool))
        for _ in range(2):
            instance = b.instance(pool_id=pool.id, spec=pool.spec)
            connection.execute(insert(INSTANCES), rows.instance_values(instance))
        yield connection
    engine.dispose()


def claim_values(connection: Connection) -> dict[str, object]:
    """Return the parameters of the claim statement for one instance."""
    pool = connection.execute(select(POOLS)).one()
    return {
        "pool": pool.id,
        "digest": pool.spec_digest,
        "number": 1,
        "p_claim_time": b.T0,
        "p_timeout_secs": 5,
        "p_expire_time": b.T0 + timedelta(seconds=5),
        "p_name": "mine",
        "p_metadata": {"a": "ü"},
        "p_request_id": "r#0/1",
        "p_fingerprint": "f",
        "p_start_secs": 0.25,
    }


@pytest.fixture(params=["Core", "the driver's cursor"])
def cursor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Select how prepared statements are executed."""
    if request.param == "Core":
        monkeypatch.setattr(dialect, "has_plain_cursor", lambda _: False)
    return str(request.param)


def test_rows_are_the_same_with_both_cursors(connection: Connection, cursor: str) -> None:
    expected = connection.execute(select(POOLS)).one()
    found = Prepared(select(POOLS)).first(connection, {})
    assert tuple(found) == tuple(expected)
    assert found._fields == expected._fields
    assert rows.pool_of(found) == rows.pool_of(expected)
    assert lookups.find_pool(connection, b.DEFAULT_NAMESPACE, "web").id == expected.id
    assert Prepared(select(POOLS).where(POOLS.c.id == bindparam("id"))).first(connection, {"id": "none"}) is None


def test_claim_writes_the_same_with_both_cursors(connection: Connection, cursor: str) -> None:
    [claimed] = claims._CLAIM_WARM.all(connection, claim_values(connection))
    written = connection.execute(select(INSTANCES).where(INSTANCES.c.state == InstanceState.ACTIVE.value)).one()
    assert claimed.id == written.id
    assert (claimed.create_time, claimed.version, claimed.spec) == (b.T0, 1, written.spec)
    instance = rows.instance_of(written)
    claim = b.claim(timeout_secs=5, name="mine", metadata={"a": "ü"}, request_id="r#0/1")
    assert (instance.claim, instance.start_secs, instance.request_fingerprint) == (claim, 0.25, "f")
    assert written.expire_time == b.T0 + timedelta(seconds=5)


def test_runs_statement_without_rows(connection: Connection, cursor: str) -> None:
    more = Prepared(
        update(POOLS).where(POOLS.c.name == bindparam("called")).values(hits=POOLS.c.hits + bindparam("more"))
    )
    more.run(connection, {"called": "web", "more": 3})
    more.run(connection, {"called": "none", "more": 3})
    assert connection.execute(select(POOLS.c.hits)).scalar_one() == 3


def test_errors_are_the_same_with_both_cursors(connection: Connection, cursor: str) -> None:
    claims._CLAIM_WARM.all(connection, claim_values(connection))
    with pytest.raises(IntegrityError) as failed:
        claims._CLAIM_WARM.all(connection, {**claim_values(connection), "p_request_id": ""})
    assert dialect.violates_unique(failed.value, INSTANCES, "name")
    assert "mine" not in str(failed.value)
    named = Prepared(select(POOLS.c.id).where(POOLS.c.name == bindparam("called")))
    with pytest.raises(ProgrammingError):
        named.all(connection, {"called": object()})
    connection.exec_driver_sql("ALTER TABLE pools RENAME TO hidden")
    with pytest.raises(OperationalError) as broken:
        named.all(connection, {"called": "web"})
    assert isinstance(broken.value.orig, sqlite3.OperationalError)


def test_rejects_missing_parameter(connection: Connection) -> None:
    with pytest.raises(KeyError):
        Prepared(select(POOLS.c.id).where(POOLS.c.name == bindparam("called"))).all(connection, {})
