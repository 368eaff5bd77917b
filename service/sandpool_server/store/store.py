"""The implementation of `interfaces.Store`, `interfaces.SecretStore` and `interfaces.PortStore` on a database.

`SqlStore` only passes each operation to the writer (changes) or to a reader (queries), whose threads do not block the
event loop. The operations are in the modules with the names of the resources.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime

from sqlalchemy import Engine, insert, select
from sqlalchemy.exc import DBAPIError

from sandpool_server.domain.errors import Unavailable
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import (
    DEFAULT_NAMESPACE,
    ExposedPort,
    Instance,
    Pool,
    PoolFailure,
    PoolView,
    Secret,
    Template,
    Termination,
)
from sandpool_server.domain.plan import PoolSnapshot
from sandpool_server.interfaces import (
    ClaimRequest,
    ClaimResult,
    Clock,
    PoolDraft,
    PortStore,
    RequestKey,
    SandboxFilter,
    SecretStore,
    Store,
)
from sandpool_server.store import (
    claims,
    dialect,
    exposed_ports,
    instances,
    migrate,
    pools,
    purging,
    sandboxes,
    secrets,
    templates,
)
from sandpool_server.store.errors import unavailable
from sandpool_server.store.readers import Readers
from sandpool_server.store.tables import META
from sandpool_server.store.writer import Transaction, Writer

_SERVER_ID = {"namespace": DEFAULT_NAMESPACE, "key": "server_id"}


class SqlStore(Store, SecretStore, PortStore):
    """A store in a database. Use it only on the event loop that opens it.

    Args:
        url: `sqlite:///` and the path of the file.
        notify: A function that is called on the event loop after each commit that changed pools or sandboxes, with
            their ids.
        clock: The source of time.
        reader_threads: The number of threads for reads.
        limit: The maximum number of waiting changes, and of waiting reads.
        deadline: The time limit in seconds for a change to start, and for a read to finish. A change that has started
            has no time limit.
    """

    def __init__(
        self,
        url: str,
        notify: Callable[[frozenset[str]], None],
        clock: Clock,
        *,
        reader_threads: int = 2,
        limit: int = 4096,
        deadline: float = 30.0,
    ) -> None:
        self._url = url
        self._clock = clock
        self._write_engine: Engine = dialect.make_engine(url, writes=True)
        self._read_engine: Engine = dialect.make_engine(url, writes=False)
        self._writer = Writer(self._write_engine, pools.write_tally, notify, limit, deadline)
        self._readers = Readers(self._read_engine, reader_threads, limit, deadline)

    # --- the database itself ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """See `Store.open`.

        Raises:
            Unavailable: the file cannot be created or opened, or the schema cannot be migrated.
            ValueError: the URL is not supported.
        """
        try:
            await asyncio.to_thread(dialect.prepare, self._url)
            await asyncio.to_thread(migrate.upgrade, self._write_engine)
        except OSError as error:
            raise Unavailable(
                "DATABASE_UNAVAILABLE",
                f"the database file {error.filename} cannot be created: {error.strerror}; check the path and its "
                "permissions",
            ) from error
        except DBAPIError as error:
            raise unavailable(error) from error
        self._writer.start()

    async def close(self) -> None:
        """See `Store.close`."""
        await self._writer.close()
        await self._readers.close()
        self._write_engine.dispose()
        self._read_engine.dispose()

    async def ping(self) -> None:
        """See `Store.ping`. The writer executes it, so it also checks that the database can be locked for writing."""
        await self._writer.run(lambda tx: tx.connection.execute(select(META.c.key).limit(1)).first())

    async def server_id(self, proposal: str) -> str:
        """See `Store.server_id`."""

        def get_or_store(tx: Transaction) -> str:
            stored = tx.connection.execute(select(META.c.value).filter_by(**_SERVER_ID)).scalar()
            if stored is None:
                tx.connection.execute(insert(META), {**_SERVER_ID, "value": proposal})
            return stored or proposal

        return await self._writer.run(get_or_store)

    # --- templates ----------------------------------------------------------------------------------------------------

    async def create_template(self, template: Template, request: RequestKey | None) -> Template:
        """See `Store.create_template`."""
        return await self._writer.run(lambda tx: templates.create(tx, template, request))

    async def get_template(self, namespace: str, ref: str) -> Template:
        """See `Store.get_template`."""
        return await self._readers.run(lambda connection: templates.get(connection, namespace, ref))

    async def list_templates(self, namespace: str, limit: int, after: str) -> list[Template]:
        """See `Store.list_templates`."""
        return await self._readers.run(lambda connection: templates.page(connection, namespace, limit, after))

    async def update_template(
        self,
        namespace: str,
        ref: str,
        version: int | None,
        change: Callable[[Template], Template],
        request: RequestKey | None,
    ) -> Template:
        """See `Store.update_template`."""
        now = self._clock.now()
        return await self._writer.run(lambda tx: templates.change(tx, namespace, ref, version, change, request, now))

    async def delete_template(
        self, namespace: str, ref: str, version: int | None, now: datetime, request: RequestKey | None
    ) -> None:
        """See `Store.delete_template`."""
        await self._writer.run(lambda tx: templates.delete(tx, namespace, ref, version, now, request))

    # --- pools --------------------------------------------------------------------------------------------------------

    async def create_pool(self, draft: PoolDraft, request: RequestKey | None) -> PoolView:
        """See `Store.create_pool`."""
        return await self._writer.run(lambda tx: pools.create(tx, draft, request))

    async def get_pool(self, namespace: str, ref: str) -> PoolView:
        """See `Store.get_pool`."""
        return await self._readers.run(lambda connection: pools.get(connection, namespace, ref))

    async def list_pools(self, namespace: str, limit: int, after: str) -> list[PoolView]:
        """See `Store.list_pools`."""
        return await self._readers.run(lambda connection: pools.page(connection, namespace, limit, after))

    async def update_pool(
        self,
        namespace: str,
        ref: str,
        version: int | None,
        change: Callable[[Pool], Pool],
        request: RequestKey | None,
    ) -> PoolView:
        """See `Store.update_pool`."""
        now = self._clock.now()
        return await self._writer.run(lambda tx: pools.change(tx, namespace, ref, version, change, request, now))

    async def delete_pool(
        self,
        namespace: str,
        ref: str,
        version: int | None,
        now: datetime,
        request: RequestKey | None,
        force: bool = False,
    ) -> None:
        """See `Store.delete_pool`."""
        await self._writer.run(lambda tx: pools.delete(tx, namespace, ref, version, now, request, force))

    async def pool_image(self, pool_id: str, image: str, digest: str | None, now: datetime) -> None:
        """See `Store.pool_image`."""
        await self._writer.run(lambda tx: pools.image(tx, pool_id, image, digest, now))

    async def pool_failed(self, pool_id: str, spec_digest: str, failure: PoolFailure) -> None:
        """See `Store.pool_failed`."""
        await self._writer.run(lambda tx: pools.set_failure(tx, pool_id, spec_digest, failure))

    async def template_pool_ids(self, namespace: str, ref: str) -> tuple[str, ...]:
        """See `Store.template_pool_ids`."""
        return await self._readers.run(lambda connection: templates.pool_ids(connection, namespace, ref))

    # --- sandboxes ----------------------------------------------------------------------------------------------------

    async def claim(self, request: ClaimRequest) -> ClaimResult:
        """See `Store.claim`."""
        return await self._writer.run(lambda tx: claims.claim(tx, request, self._clock))

    async def get_sandbox(self, namespace: str, ref: str) -> Instance:
        """See `Store.get_sandbox`."""
        return await self._readers.run(lambda connection: sandboxes.get(connection, namespace, ref))

    async def list_sandboxes(self, namespace: str, which: SandboxFilter, limit: int, after: str) -> list[Instance]:
        """See `Store.list_sandboxes`."""
        return await self._readers.run(lambda connection: sandboxes.page(connection, namespace, which, limit, after))

    async def update_sandbox(
        self,
        namespace: str,
        ref: str,
        version: int | None,
        change: Callable[[Instance], Instance],
        request: RequestKey | None,
    ) -> Instance:
        """See `Store.update_sandbox`."""
        now = self._clock.now()
        return await self._writer.run(lambda tx: sandboxes.change(tx, namespace, ref, version, change, request, now))

    async def delete_sandbox(self, namespace: str, ref: str, now: datetime, request: RequestKey | None) -> Instance:
        """See `Store.delete_sandbox`."""
        return await self._writer.run(lambda tx: sandboxes.delete(tx, namespace, ref, now, request))

    # --- secrets ------------------------------------------------------------------------------------------------------

    async def create_secret(self, secret: Secret, ciphertext: bytes, request: RequestKey | None) -> Secret:
        """See `SecretStore.create_secret`."""
        return await self._writer.run(lambda tx: secrets.create(tx, secret, ciphertext, request))

    async def update_secret(
        self, namespace: str, name: str, ciphertext: bytes, now: datetime, request: RequestKey | None
    ) -> Secret:
        """See `SecretStore.update_secret`."""
        return await self._writer.run(lambda tx: secrets.change(tx, namespace, name, ciphertext, now, request))

    async def get_secret(self, namespace: str, name: str) -> Secret:
        """See `SecretStore.get_secret`."""
        return await self._readers.run(lambda connection: secrets.get(connection, namespace, name))

    async def list_secrets(self, namespace: str, limit: int, after: str) -> list[Secret]:
        """See `SecretStore.list_secrets`."""
        return await self._readers.run(lambda connection: secrets.page(connection, namespace, limit, after))

    async def delete_secret(
        self, namespace: str, name: str, force: bool, now: datetime, request: RequestKey | None
    ) -> None:
        """See `SecretStore.delete_secret`."""
        await self._writer.run(lambda tx: secrets.remove(tx, namespace, name, force, now, request))

    async def secret_ciphertexts(self, namespace: str, names: Sequence[str]) -> dict[str, bytes]:
        """See `SecretStore.secret_ciphertexts`."""
        return await self._readers.run(lambda connection: secrets.ciphertexts(connection, namespace, names))

    async def rewrite_secrets(self, change: Callable[[bytes], bytes]) -> int:
        """See `SecretStore.rewrite_secrets`."""
        return await self._writer.run(lambda tx: secrets.rewrite(tx, change))

    # --- exposed ports ------------------------------------------------------------------------------------------------

    async def expose_port(self, namespace: str, instance_id: str, port: int, most: int, now: datetime) -> ExposedPort:
        """See `PortStore.expose_port`."""
        return await self._writer.run(lambda tx: exposed_ports.expose(tx, namespace, instance_id, port, most, now))

    async def unexpose_port(self, instance_id: str, port: int) -> None:
        """See `PortStore.unexpose_port`."""
        await self._writer.run(lambda tx: exposed_ports.remove(tx, instance_id, port))

    async def exposed_ports(self, instance_id: str) -> list[ExposedPort]:
        """See `PortStore.exposed_ports`."""
        return await self._readers.run(lambda connection: exposed_ports.page(connection, instance_id))

    async def exposed_port(self, instance_id: str, port: int) -> ExposedPort | None:
        """See `PortStore.exposed_port`."""
        return await self._readers.run(lambda connection: exposed_ports.find(connection, instance_id, port))

    # --- the control loop ---------------------------------------------------------------------------------------------

    async def snapshot(self, pool_ids: frozenset[str] | None) -> list[PoolSnapshot]:
        """See `Store.snapshot`."""
        return await self._readers.run(lambda connection: instances.snapshot(connection, pool_ids))

    async def add_instances(
        self, pool_id: str, spec_digest: str, ids: Sequence[str], now: datetime, waiting: int = 0
    ) -> list[Instance]:
        """See `Store.add_instances`."""
        return await self._writer.run(lambda tx: instances.add(tx, pool_id, spec_digest, ids, now, waiting))

    async def instance_ready(self, instance_id: str, address: str, now: datetime, start_secs: float) -> Instance | None:
        """See `Store.instance_ready`."""
        return await self._writer.run(lambda tx: instances.ready(tx, instance_id, address, start_secs))

    async def launch_failed(self, instance_id: str, end: Termination, failure: PoolFailure | None) -> Instance | None:
        """See `Store.launch_failed`."""
        return await self._writer.run(lambda tx: instances.launch_failed(tx, instance_id, end, failure))

    async def end_instances(
        self, ids: Sequence[str], states: frozenset[InstanceState], end: Termination, expired_at: datetime | None = None
    ) -> list[Instance]:
        """See `Store.end_instances`."""
        return await self._writer.run(lambda tx: instances.end(tx, ids, states, end, expired_at))

    async def release(self, ids: Sequence[str]) -> list[Instance]:
        """See `Store.release`."""
        return await self._writer.run(lambda tx: instances.release(tx, ids))

    async def instance_removed(self, instance_id: str, now: datetime) -> None:
        """See `Store.instance_removed`."""
        await self._writer.run(lambda tx: instances.removed(tx, instance_id, now))

    async def live_instances(self) -> list[Instance]:
        """See `Store.live_instances`."""
        return await self._readers.run(instances.live)

    async def purge(self, ended_before: datetime, requests_before: datetime) -> int:
        """See `Store.purge`."""
        return await self._writer.run(lambda tx: purging.purge(tx, ended_before, requests_before))
