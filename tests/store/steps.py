"""Steps that many tests of the store begin with."""

from typing import Any

from alembic import command
from alembic.config import Config

from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import DEFAULT_NAMESPACE, Member, Pool, PoolCounts
from sandpool_server.ports import SecretStore, Store
from sandpool_server.store import dialect, migrate
from tests.support import builders as b

NS = DEFAULT_NAMESPACE
ADDRESS = "10.0.0.2:10240"


def migrate_to(url: str, revision: str, *, down: bool = False) -> None:
    """Bring the database to that revision of its schema, from nothing as well."""
    config = Config()
    config.set_main_option("script_location", str(migrate.SCRIPTS))
    config.set_main_option("path_separator", "os")
    dialect.prepare(url)
    engine = dialect.make_engine(url, writes=True)
    with engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        (command.downgrade if down else command.upgrade)(config, revision)
    engine.dispose()


async def make_pool(store: Store, warm: int = 0, **fields: Any) -> Pool:
    """A pool with so many ready members (`warm_containers` is that number unless it is given)."""
    fields.setdefault("warm_containers", warm)
    pool = (await store.create_pool(b.pool_draft(**fields), None)).pool
    await add_warm(store, pool, warm)
    return pool


async def add_warm(store: Store, pool: Pool, number: int) -> list[str]:
    """Make so many members of the pool ready; returns their ids."""
    members = await store.add_members(pool.id, pool.member_digest(), b.sandbox_ids(number), b.T0)
    assert len(members) == number
    for member in members:
        ready = await store.member_ready(member.id, ADDRESS, b.T0, 0.5)
        assert ready is not None
        assert ready.state is MemberState.WARM
    return [member.id for member in members]


async def make_secrets(store: SecretStore, *names: str) -> None:
    """Secrets of these names."""
    for name in names:
        await store.create_secret(b.secret(name), name.encode(), None)


async def claim_one(store: Store, **fields: Any) -> Member:
    """Claim one sandbox."""
    return (await store.claim(b.claim_request(**fields))).members[0]


async def counts(store: Store, ref: str) -> PoolCounts:
    """How many members the pool has in which situation."""
    return (await store.get_pool(NS, ref)).counts
