"""The database: opening, schema, permissions, durability after a kill, use of indexes."""

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, make_url
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError

from sandpool_server.domain.errors import Unavailable
from sandpool_server.domain.lifecycle import IN_USE, InstanceState
from sandpool_server.interfaces import SandboxFilter
from sandpool_server.store import SqlStore, dialect, migrate
from sandpool_server.store.tables import METADATA, UtcTime
from tests.store import writing_process
from tests.store.steps import ADDRESS, NS, claim_one, make_pool, migrate_to
from tests.support import builders as b


def path_of(url: str) -> Path:
    return Path(str(make_url(url).database))


def schema(path: Path) -> dict[str, object]:
    """Return every index with its SQL, and every table with its columns and keys."""
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT name, type, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        tables = {
            name: [
                connection.execute(f"PRAGMA {pragma}({name})").fetchall()
                for pragma in ("table_xinfo", "foreign_key_list")
            ]
            for name, kind, _ in found
            if kind == "table" and name != "alembic_version"
        }
    connection.close()
    return tables | {name: " ".join(sql.split()) for name, kind, sql in found if kind == "index"}


async def test_migrated_schema_equals_schema_of_new_database(store: SqlStore, url: str, tmp_path: Path) -> None:
    migrated = f"sqlite:///{tmp_path / 'migrated.db'}"
    migrate_to(migrated, "head")
    engine = dialect.make_engine(migrated, writes=True)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []
    engine.dispose()
    # Alembic ignores the conditions of partial indexes. Therefore compare the SQL too.
    assert schema(path_of(url)) == schema(path_of(migrated))
    assert "uq_instances_name" in schema(path_of(url))
    assert versions(url) == versions(migrated)


def versions(url: str) -> list[tuple[str, str]]:
    """Return the revision in the database and the columns of its table."""
    with sqlite3.connect(path_of(url)) as connection:
        columns = connection.execute("SELECT name, type, [notnull], pk FROM pragma_table_info('alembic_version')")
        found = [*columns.fetchall(), *connection.execute("SELECT version_num FROM alembic_version")]
    connection.close()
    return found


async def test_rejects_downgrade_to_older_api(url: str) -> None:
    dialect.prepare(url)
    engine = dialect.make_engine(url, writes=True)
    migrate.upgrade(engine)
    with pytest.raises(RuntimeError, match="restore the database from a backup"):
        migrate_to(url, "base", down=True)
    assert len(schema(path_of(url))) > 10
    engine.dispose()


async def test_older_migrations_can_be_downgraded_and_repeated(url: str) -> None:
    for _ in range(2):
        migrate_to(url, "0003")
        migrate_to(url, "base", down=True)
        assert schema(path_of(url)) == {}


async def test_loads_alembic_only_for_migrations(url: str) -> None:
    program = (
        "import sys; from sandpool_server.store import dialect, migrate; url = sys.argv[1]; dialect.prepare(url); "
        "migrate.upgrade(dialect.make_engine(url, writes=True)); print('alembic' in sys.modules)"
    )

    def loaded() -> str:
        run = subprocess.run(
            [sys.executable, "-c", program, url], capture_output=True, text=True, timeout=60, check=True
        )
        return run.stdout.strip()

    assert [loaded(), loaded()] == ["False", "False"]
    await asyncio.to_thread(path_of(url).unlink)
    migrate_to(url, "0003")
    assert [loaded(), loaded()] == ["True", "False"]


async def test_stores_open_new_database_concurrently(url: str, clock: b.ManualClock) -> None:
    stores = [SqlStore(url, lambda _: None, clock) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    ids = await asyncio.gather(*(store.server_id(f"server-{i}") for i, store in enumerate(stores)))
    assert len(set(ids)) == 1
    await asyncio.gather(*(store.close() for store in stores))


async def test_only_owner_can_read_database_files(store: SqlStore, url: str) -> None:
    await claim_one(store)
    directory = path_of(url).parent
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert modes == {"sandpool.db": 0o600, "sandpool.db-wal": 0o600, "sandpool.db-shm": 0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_pragmas_are_set(store: SqlStore, url: str) -> None:
    for writes in (True, False):
        engine = dialect.make_engine(url, writes=writes)
        with engine.connect() as connection:
            values = {
                name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "query_only", "busy_timeout")
            }
            assert values == {"journal_mode": "wal", "query_only": int(not writes), "busy_timeout": 5000}
            if writes:
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
                assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar_one() == 1
        engine.dispose()


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "postgresql://localhost/x"])
async def test_rejects_unsupported_database_urls(url: str, clock: b.ManualClock) -> None:
    with pytest.raises((ValueError, ModuleNotFoundError)):
        await SqlStore(url, lambda _: None, clock).open()


async def test_file_that_is_not_a_database_is_unavailable(url: str, clock: b.ManualClock) -> None:
    path_of(url).parent.mkdir()
    path_of(url).write_bytes(b"not a database at all" * 100)
    with pytest.raises(Unavailable, match="not a database of this server"):
        await SqlStore(url, lambda _: None, clock).open()


async def test_directory_that_cannot_be_created_is_unavailable(tmp_path: Path, clock: b.ManualClock) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be created"):
        await SqlStore(f"sqlite:///{tmp_path}/file/x.db", lambda _: None, clock).open()


async def test_rejects_newer_database(store: SqlStore, url: str, clock: b.ManualClock) -> None:
    with sqlite3.connect(path_of(url)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(Unavailable) as caught:
        await SqlStore(url, lambda _: None, clock).open()
    assert caught.value.reason == "DATABASE_NEWER"


async def test_errors_contain_no_values(store: SqlStore) -> None:
    instance = await claim_one(store, metadata={"password": "hunter2"})
    again = b.claim_request(metadata={"password": "hunter2"})
    with pytest.raises(IntegrityError) as caught:
        await store.claim(replace(again, ids=(instance.id,)))
    assert "hunter2" not in str(caught.value)


async def test_server_id_is_stored_once(store: SqlStore, url: str, clock: b.ManualClock) -> None:
    assert await store.server_id("first") == "first"
    assert await store.server_id("second") == "first"
    await store.close()
    again = SqlStore(url, lambda _: None, clock)
    await again.open()
    assert await again.server_id("third") == "first"
    await again.close()


async def test_ping_succeeds_only_while_store_is_open(store: SqlStore) -> None:
    await store.ping()
    await store.close()
    for call in (store.ping(), store.live_instances(), store.server_id("x")):
        with pytest.raises(Unavailable) as caught:
            await call
        assert caught.value.reason == "DATABASE_CLOSED"


async def test_ping_fails_when_database_is_locked(
    url: str, clock: b.ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect, "_LOCK_WAIT_SECS", 0.01)
    store = SqlStore(url, lambda _: None, clock)
    await store.open()
    holder = sqlite3.connect(path_of(url), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        await store.ping()
    assert await store.live_instances() == []  # readers do not wait
    holder.close()
    await store.ping()
    await store.close()


async def test_broken_schema_is_unavailable_and_error_contains_no_sql(store: SqlStore, url: str) -> None:
    await claim_one(store)
    with sqlite3.connect(path_of(url)) as connection:
        connection.execute("ALTER TABLE instances RENAME TO hidden")
    connection.close()
    for call in (store.live_instances(), store.claim(b.claim_request()), store.get_sandbox(NS, "x")):
        with pytest.raises(Unavailable) as caught:
            await call
        assert not {"SELECT", "INSERT", "instances"} & set(caught.value.message.split())
    with sqlite3.connect(path_of(url)) as connection:
        connection.execute("ALTER TABLE hidden RENAME TO instances")
    connection.close()
    assert len(await store.live_instances()) == 1
    await claim_one(store)


def write_and_be_killed(url: str, lines: int) -> list[tuple[str, str]]:
    """Run a process that writes, kill it after `lines` acknowledged writes, and return all acknowledged writes."""
    command = [sys.executable, writing_process.__file__, url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    acknowledged: list[tuple[str, str]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.endswith("\n"):
                break  # the process was killed while it wrote the line
            kind, one = line.split()
            acknowledged.append((kind, one))
            if len(acknowledged) == lines:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return acknowledged


@pytest.mark.parametrize("lines", [3, 100])
async def test_acknowledged_writes_survive_kill(url: str, clock: b.ManualClock, lines: int) -> None:
    acknowledged = await asyncio.to_thread(write_and_be_killed, url, lines)
    assert len(acknowledged) >= lines
    store = SqlStore(url, lambda _: None, clock)
    await store.open()
    existing = {instance.id: instance.state for instance in await store.live_instances()}
    for kind, one in acknowledged:
        if kind == "pool":
            assert (await store.get_pool(NS, one)).pool.id == one
        else:
            assert existing[one] is (InstanceState.ACTIVE if kind == "warm" else InstanceState.STARTING)
    # Writes without acknowledgement are also atomic: a claim and its count exist together or not at all.
    for view in await store.list_pools(NS, 10, ""):
        assert view.pool.hits == view.counts.active
        assert view.pool.misses == view.counts.starting
    await store.close()


async def test_frequent_statements_use_indexes(store: SqlStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[tuple[str, object]] = []
    run_plain = dialect.run_plain

    def record_plain(connection, statement, parameters):
        record(connection, None, statement, parameters, None, many=False)
        return run_plain(connection, statement, parameters)

    def record(_connection, _cursor, statement, parameters, _context, many) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            executed.append((statement, parameters[0] if many else parameters))

    await store.create_template(b.template("base"), None)
    pool = await make_pool(store, 4, name="web", template_ref="base", max_containers=8)
    engines = [store._write_engine, store._read_engine]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", record)
    monkeypatch.setattr(dialect, "run_plain", record_plain)

    one = await claim_one(store, pool_ref="web", name="mine", request_id="r", timeout_secs=1)
    await claim_one(store, pool_ref=pool.id, request_id="r")
    several = await store.claim(b.claim_request(4, template_ref="base", request_id="s"))
    await store.get_sandbox(NS, "mine")
    await store.get_sandbox(NS, one.id)
    await store.get_pool(NS, "web")
    await store.list_pools(NS, 10, "")
    await store.list_sandboxes(NS, SandboxFilter(pool_ref="web", template_ref="base"), 10, "")
    await store.update_sandbox(NS, "mine", None, lambda instance: instance, b.request_key("r"))
    await store.instance_ready(several.instances[-1].id, ADDRESS, b.T0, 1.0)
    await store.end_instances([one.id], IN_USE, b.end(), expired_at=b.T0)
    await store.delete_sandbox(NS, several.instances[0].id, b.T0, b.request_key("s"))
    await store.instance_removed(several.instances[0].id, b.T0)
    await store.add_instances(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    await store.snapshot(frozenset({pool.id}))
    await store.template_pool_ids(NS, "base")
    await store.release([several.instances[1].id])
    await store.pool_failed(pool.id, pool.instance_digest(), b.failure())
    await store.pool_image(pool.id, pool.spec.image, "sha256:one", b.T0)
    await store.secret_ciphertexts(NS, ["A", "B"])

    for engine in engines:
        event.remove(engine, "before_cursor_execute", record)
    assert len(executed) > 30
    assert any(statement.startswith("UPDATE instances") and "LIMIT" in statement for statement, _ in executed)
    used = ""
    with sqlite3.connect(path_of(url)) as connection:
        for statement, parameters in executed:
            steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            # The only allowed scans read the values of an IN list.
            assert not [step for step in steps if step.startswith("SCAN") and "SUBQUERY" not in step], statement
            used += " ".join(steps)
    connection.close()
    for index in (
        "ix_instances_state",
        "uq_instances_request",
        "ix_instances_name",
        "uq_pools_name",
        "ix_pools_template",
    ):
        assert index in used


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_times_keep_microseconds(moment: datetime) -> None:
    stored = UtcTime().process_bind_param(moment, sqlite.dialect())
    assert isinstance(stored, int)
    loaded = UtcTime().process_result_value(stored, sqlite.dialect())
    assert loaded == moment.astimezone(UTC)
    assert loaded is not None
    assert loaded.tzinfo is UTC


def test_rejects_naive_times() -> None:
    with pytest.raises(TypeError):
        UtcTime().process_bind_param(b.T0.replace(tzinfo=None), sqlite.dialect())
