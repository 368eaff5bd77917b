"""The database itself: opening, schema, permissions, what is left after a kill, what the indexes are good for."""

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
from sandpool_server.domain.lifecycle import IN_USE, MemberState
from sandpool_server.ports import SandboxFilter
from sandpool_server.store import SqlStore, dialect, migrate
from sandpool_server.store.tables import METADATA, UtcTime
from tests.store import writing_process
from tests.store.steps import ADDRESS, NS, claim_one, make_pool, migrate_to
from tests.support import builders as b


def path_of(url: str) -> Path:
    return Path(str(make_url(url).database))


def schema(path: Path) -> dict[str, object]:
    """Every index with the SQL that made it, and every table with its columns and keys, however it came to them."""
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT name, type, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
        tables = {
            name: [
                connection.execute(f"PRAGMA {what}({name})").fetchall() for what in ("table_xinfo", "foreign_key_list")
            ]
            for name, kind, _ in found
            if kind == "table" and name != "alembic_version"
        }
    connection.close()
    return tables | {name: " ".join(sql.split()) for name, kind, sql in found if kind == "index"}


async def test_the_migrated_schema_is_that_of_a_new_database(store: SqlStore, url: str, tmp_path: Path) -> None:
    migrated = f"sqlite:///{tmp_path / 'migrated.db'}"
    migrate_to(migrated, "head")
    engine = dialect.make_engine(migrated, writes=True)
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []
    engine.dispose()
    # Alembic does not look at the conditions of partial indexes: so the SQL itself as well.
    assert schema(path_of(url)) == schema(path_of(migrated))
    assert "uq_members_name" in schema(path_of(url))
    assert versions(url) == versions(migrated)


def versions(url: str) -> list[tuple[str, str]]:
    """The revision in the database, and how its table is made."""
    with sqlite3.connect(path_of(url)) as connection:
        columns = connection.execute("SELECT name, type, [notnull], pk FROM pragma_table_info('alembic_version')")
        found = [*columns.fetchall(), *connection.execute("SELECT version_num FROM alembic_version")]
    connection.close()
    return found


async def test_migrations_can_be_undone_and_repeated(url: str) -> None:
    dialect.prepare(url)
    engine = dialect.make_engine(url, writes=True)
    migrate.upgrade(engine)
    migrate_to(url, "base", down=True)
    assert schema(path_of(url)) == {}
    for _ in range(2):
        migrate.upgrade(engine)
        assert len(schema(path_of(url))) > 10
    engine.dispose()


async def test_alembic_is_loaded_only_to_migrate(url: str) -> None:
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
    migrate_to(url, "0001", down=True)
    assert [loaded(), loaded()] == ["True", "False"]


async def test_stores_that_open_a_new_database_at_once_take_turns(url: str, clock: b.ManualClock) -> None:
    stores = [SqlStore(url, lambda _: None, clock) for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    ids = await asyncio.gather(*(store.server_id(f"server-{i}") for i, store in enumerate(stores)))
    assert len(set(ids)) == 1
    await asyncio.gather(*(store.close() for store in stores))


async def test_only_the_owner_can_read_the_files(store: SqlStore, url: str) -> None:
    await claim_one(store)
    folder = path_of(url).parent
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"sandpool.db": 0o600, "sandpool.db-wal": 0o600, "sandpool.db-shm": 0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_the_pragmas_are_in_force(store: SqlStore, url: str) -> None:
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
async def test_databases_that_cannot_be_used_are_refused(url: str, clock: b.ManualClock) -> None:
    with pytest.raises((ValueError, ModuleNotFoundError)):
        await SqlStore(url, lambda _: None, clock).open()


async def test_a_file_that_is_no_database_is_unavailable(url: str, clock: b.ManualClock) -> None:
    path_of(url).parent.mkdir()
    path_of(url).write_bytes(b"not a database at all" * 100)
    with pytest.raises(Unavailable, match="not a database of this server"):
        await SqlStore(url, lambda _: None, clock).open()


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path, clock: b.ManualClock) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be made"):
        await SqlStore(f"sqlite:///{tmp_path}/file/x.db", lambda _: None, clock).open()


async def test_a_newer_database_is_refused(store: SqlStore, url: str, clock: b.ManualClock) -> None:
    with sqlite3.connect(path_of(url)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()
    with pytest.raises(Unavailable) as caught:
        await SqlStore(url, lambda _: None, clock).open()
    assert caught.value.reason == "DATABASE_NEWER"


async def test_errors_show_no_values(store: SqlStore) -> None:
    member = await claim_one(store, metadata={"password": "hunter2"})
    again = b.claim_request(metadata={"password": "hunter2"})
    with pytest.raises(IntegrityError) as caught:
        await store.claim(replace(again, ids=(member.id,)))
    assert "hunter2" not in str(caught.value)


async def test_the_servers_id_is_kept(store: SqlStore, url: str, clock: b.ManualClock) -> None:
    assert await store.server_id("first") == "first"
    assert await store.server_id("second") == "first"
    await store.close()
    again = SqlStore(url, lambda _: None, clock)
    await again.open()
    assert await again.server_id("third") == "first"
    await again.close()


async def test_ping_answers_only_while_the_store_is_open(store: SqlStore) -> None:
    await store.ping()
    await store.close()
    for call in (store.ping(), store.live_members(), store.server_id("x")):
        with pytest.raises(Unavailable) as caught:
            await call
        assert caught.value.reason == "DATABASE_CLOSED"


async def test_ping_notices_a_database_that_cannot_be_written(
    url: str, clock: b.ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dialect, "_LOCK_WAIT_SECS", 0.01)
    store = SqlStore(url, lambda _: None, clock)
    await store.open()
    holder = sqlite3.connect(path_of(url), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        await store.ping()
    assert await store.live_members() == []  # readers do not wait
    holder.close()
    await store.ping()
    await store.close()


async def test_a_broken_schema_is_unavailable_and_shows_no_sql(store: SqlStore, url: str) -> None:
    await claim_one(store)
    with sqlite3.connect(path_of(url)) as connection:
        connection.execute("ALTER TABLE members RENAME TO hidden")
    connection.close()
    for call in (store.live_members(), store.claim(b.claim_request()), store.get_sandbox(NS, "x")):
        with pytest.raises(Unavailable) as caught:
            await call
        assert not {"SELECT", "INSERT", "members"} & set(caught.value.message.split())
    with sqlite3.connect(path_of(url)) as connection:
        connection.execute("ALTER TABLE hidden RENAME TO members")
    connection.close()
    assert len(await store.live_members()) == 1
    await claim_one(store)


def write_and_be_killed(url: str, lines: int) -> list[tuple[str, str]]:
    """Run a process that writes, kill it when it has acknowledged so much, and return all that it has."""
    command = [sys.executable, writing_process.__file__, url]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    acknowledged: list[tuple[str, str]] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if not line.endswith("\n"):
                break  # the kill came in the middle of it
            kind, one = line.split()
            acknowledged.append((kind, one))
            if len(acknowledged) == lines:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return acknowledged


@pytest.mark.parametrize("lines", [3, 100])
async def test_what_was_acknowledged_survives_a_kill(url: str, clock: b.ManualClock, lines: int) -> None:
    acknowledged = await asyncio.to_thread(write_and_be_killed, url, lines)
    assert len(acknowledged) >= lines
    store = SqlStore(url, lambda _: None, clock)
    await store.open()
    living = {member.id: member.state for member in await store.live_members()}
    for kind, one in acknowledged:
        if kind == "pool":
            assert (await store.get_pool(NS, one)).pool.id == one
        else:
            assert living[one] is (MemberState.ACTIVE if kind == "warm" else MemberState.STARTING)
    # Exact also in what was not acknowledged: a claim is there with its count or not at all.
    for view in await store.list_pools(NS, 10, ""):
        assert view.pool.hits == view.counts.active
        assert view.pool.misses == view.counts.starting
    await store.close()


async def test_what_runs_often_searches_indexes(store: SqlStore, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    executed: list[tuple[str, object]] = []
    run_plain = dialect.run_plain

    def note_plain(connection, statement, parameters):
        note(connection, None, statement, parameters, None, many=False)
        return run_plain(connection, statement, parameters)

    def note(_connection, _cursor, statement, parameters, _context, many) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            executed.append((statement, parameters[0] if many else parameters))

    await store.create_template(b.template("base"), None)
    pool = await make_pool(store, 4, name="web", template_ref="base", max_containers=8)
    engines = [store._write_engine, store._read_engine]
    for engine in engines:
        event.listen(engine, "before_cursor_execute", note)
    monkeypatch.setattr(dialect, "run_plain", note_plain)

    one = await claim_one(store, pool_ref="web", name="mine", request_id="r", timeout_secs=1)
    await claim_one(store, pool_ref=pool.id, request_id="r")
    several = await store.claim(b.claim_request(4, template_ref="base", request_id="s"))
    await store.get_sandbox(NS, "mine")
    await store.get_sandbox(NS, one.id)
    await store.get_pool(NS, "web")
    await store.list_pools(NS, 10, "")
    await store.list_sandboxes(NS, SandboxFilter(pool_ref="web", template_ref="base"), 10, "")
    await store.update_sandbox(NS, "mine", None, lambda member: member, b.request_key("r"))
    await store.member_ready(several.members[-1].id, ADDRESS, b.T0, 1.0)
    await store.end_members([one.id], IN_USE, b.end(), expired_at=b.T0)
    await store.delete_sandbox(NS, several.members[0].id, b.T0, b.request_key("s"))
    await store.member_removed(several.members[0].id, b.T0)
    await store.add_members(pool.id, pool.spec.digest(), b.sandbox_ids(1), b.T0)
    await store.snapshot(frozenset({pool.id}))
    await store.template_pool_ids(NS, "base")
    await store.disown([several.members[1].id])
    await store.pool_failed(pool.id, pool.member_digest(), b.failure())
    await store.pool_image(pool.id, pool.spec.image, "sha256:one", b.T0)
    await store.secret_ciphertexts(NS, ["A", "B"])

    for engine in engines:
        event.remove(engine, "before_cursor_execute", note)
    assert len(executed) > 30
    assert any(statement.startswith("UPDATE members") and "LIMIT" in statement for statement, _ in executed)
    used = ""
    with sqlite3.connect(path_of(url)) as connection:
        for statement, parameters in executed:
            steps = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters)]
            # The only scans are those of an ephemeral list: of the values of an IN.
            assert not [step for step in steps if step.startswith("SCAN") and "SUBQUERY" not in step], statement
            used += " ".join(steps)
    connection.close()
    for index in ("ix_members_state", "uq_members_request", "ix_members_name", "uq_pools_name", "ix_pools_template"):
        assert index in used


@given(st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones()))  # noqa: DTZ001
def test_times_are_exact(moment: datetime) -> None:
    kept = UtcTime().process_bind_param(moment, sqlite.dialect())
    assert isinstance(kept, int)
    back = UtcTime().process_result_value(kept, sqlite.dialect())
    assert back == moment.astimezone(UTC)
    assert back is not None
    assert back.tzinfo is UTC


def test_naive_times_are_a_bug() -> None:
    with pytest.raises(TypeError):
        UtcTime().process_bind_param(b.T0.replace(tzinfo=None), sqlite.dialect())
