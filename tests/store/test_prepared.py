"""Statements on the driver's own cursor: they do what Core does with them, and nothing else."""

import sqlite3
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.store import claims, dialect, lookups, rows
from sandpool_server.store.prepared import Prepared
from sandpool_server.store.tables import MEMBERS, METADATA, POOLS
from tests.support import builders as b


@pytest.fixture
def connection(url: str) -> Iterator[Connection]:
    """A transaction on a database with a pool and two members."""
    dialect.prepare(url)
    engine = dialect.make_engine(url, writes=True)
    METADATA.create_all(engine)
    with engine.connect() as connection, connection.begin():
        pool = b.pool(
            "web", max_containers=3, image_check_time=b.T0, failure=b.failure(), spec=b.spec(env=(("A", "ü"),))
        )
        connection.execute(insert(POOLS), rows.pool_values(pool))
        for _ in range(2):
            member = b.member(pool_id=pool.id, spec=pool.spec)
            connection.execute(insert(MEMBERS), rows.member_values(member))
        yield connection
    engine.dispose()


def take_values(connection: Connection) -> dict[str, object]:
    """The parameters of the claim's statement, for one member."""
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
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How prepared statements are run."""
    if request.param == "Core":
        monkeypatch.setattr(dialect, "has_plain_cursor", lambda _: False)
    return str(request.param)


def test_rows_are_the_same_either_way(connection: Connection, way: str) -> None:
    expected = connection.execute(select(POOLS)).one()
    found = Prepared(select(POOLS)).first(connection, {})
    assert tuple(found) == tuple(expected)
    assert found._fields == expected._fields
    assert rows.pool_of(found) == rows.pool_of(expected)
    assert lookups.find_pool(connection, b.DEFAULT_NAMESPACE, "web").id == expected.id
    assert Prepared(select(POOLS).where(POOLS.c.id == bindparam("id"))).first(connection, {"id": "none"}) is None


def test_a_claim_writes_the_same_either_way(connection: Connection, way: str) -> None:
    [taken] = claims._TAKE.all(connection, take_values(connection))
    written = connection.execute(select(MEMBERS).where(MEMBERS.c.state == MemberState.ACTIVE.value)).one()
    assert taken.id == written.id
    assert (taken.create_time, taken.version, taken.pull_policy) == (b.T0, 1, "missing")
    member = rows.member_of(written)
    claim = b.claim(timeout_secs=5, name="mine", metadata={"a": "ü"}, request_id="r#0/1")
    assert (member.claim, member.start_secs, member.request_fingerprint) == (claim, 0.25, "f")
    assert written.expire_time == b.T0 + timedelta(seconds=5)


def test_what_returns_no_rows_is_run(connection: Connection, way: str) -> None:
    more = Prepared(
        update(POOLS).where(POOLS.c.name == bindparam("called")).values(hits=POOLS.c.hits + bindparam("more"))
    )
    more.run(connection, {"called": "web", "more": 3})
    more.run(connection, {"called": "none", "more": 3})
    assert connection.execute(select(POOLS.c.hits)).scalar_one() == 3


def test_errors_are_the_same_either_way(connection: Connection, way: str) -> None:
    claims._TAKE.all(connection, take_values(connection))
    with pytest.raises(IntegrityError) as taken:
        claims._TAKE.all(connection, {**take_values(connection), "p_request_id": ""})
    assert dialect.violates_unique(taken.value, MEMBERS, "name")
    assert "mine" not in str(taken.value)
    named = Prepared(select(POOLS.c.id).where(POOLS.c.name == bindparam("called")))
    with pytest.raises(ProgrammingError):
        named.all(connection, {"called": object()})
    connection.exec_driver_sql("ALTER TABLE pools RENAME TO hidden")
    with pytest.raises(OperationalError) as broken:
        named.all(connection, {"called": "web"})
    assert isinstance(broken.value.orig, sqlite3.OperationalError)


def test_a_parameter_that_is_not_given_is_a_bug(connection: Connection) -> None:
    with pytest.raises(KeyError):
        Prepared(select(POOLS.c.id).where(POOLS.c.name == bindparam("called"))).all(connection, {})
