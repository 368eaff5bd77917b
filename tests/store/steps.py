"""Common first steps of the tests of the store."""

from typing import Any

from alembic import command
from alembic.config import Config

from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import DEFAULT_NAMESPACE, Instance, Pool, PoolCounts
from sandpool_server.interfaces import SecretStore, Store
from sandpool_server.store import dialect, migrate
from tests.support import builders as b

NS = DEFAULT_NAMESPACE
ADDRESS = "10.0.0.2:10240"


def migrate_to(url: str, revision: str, *, down: bool = False) -> None:
    """Migrate the database to a revision of its schema. Create the database if it does not exist."""
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
    """Create a pool with `warm` warm instances. `warm` is also the default of `warm_containers`."""
    fields.setdefault("warm_containers", warm)
    pool = (await store.create_pool(b.pool_draft(**fields), None)).pool
    await add_warm(store, pool, warm)
    return pool


async def add_warm(store: Store, pool: Pool, number: int) -> list[str]:
    """Add warm instances to the pool and return their ids."""
    instances = await store.add_instances(pool.id, pool.instance_digest(), b.sandbox_ids(number), b.T0)
    assert len(instances) == number
    for instance in instances:
        ready = await store.instance_ready(instance.id, ADDRESS, b.T0, 0.5)
        assert ready is not None
        assert ready.state is InstanceState.WARM
    return [instance.id for instance in instances]


async def make_secrets(store: SecretStore, *names: str) -> None:
    """Create secrets with these names."""
    for name in names:
        await store.create_secret(b.secret(name), name.encode(), None)


async def claim_one(store: Store, **fields: Any) -> Instance:
    """Claim one sandbox."""
    return (await store.claim(b.claim_request(**fields))).instances[0]


async def counts(store: Store, ref: str) -> PoolCounts:
    """Return the numbers of instances of the pool."""
    return (await store.get_pool(NS, ref)).counts
