"""The use cases in memory, for tests of the RPC server, with configurable faults.

They have the signatures of the real use cases (a test compares them) and a small part of their behaviour: a missing
resource is not found, a name is unique, an etag is compared.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf import symbol_database
from google.protobuf.message_factory import GetMessageClass

from sandpool_server.domain.errors import Aborted, AlreadyExists, NotFound
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import (
    DEFAULT_NAMESPACE,
    Claim,
    Command,
    CommandResult,
    ExitReason,
    ExposedPort,
    Instance,
    Pool,
    PoolCounts,
    PoolView,
    Secret,
    StartType,
    Template,
    Termination,
    TerminationReason,
)
from sandpool_server.domain.spec import ContainerSpec
from sandpool_server.interfaces import SandboxFilter
from sandpool_server.usecases.etags import version_of
from sandpool_server.usecases.values import (
    UNSET,
    NewPool,
    NewSandbox,
    NewTemplate,
    PoolChanges,
    SandboxChanges,
    SpecFields,
    TemplateChanges,
    WatchEvent,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, 890123, tzinfo=UTC)


def numbered_id(prefix: str, number: int) -> str:
    """Return a valid identifier. Identifiers sort in the order of their numbers."""
    return f"{prefix}-{number:020d}"


def spec_of(given: SpecFields) -> ContainerSpec:
    """Return the specification with the defaults of the domain."""
    return ContainerSpec(**dict(given))  # type: ignore[arg-type]


def changed(old: Any, **changes: Any) -> Any:
    """Return `old` with the changes that are set. None becomes the empty value of the type of the old value."""
    return replace(
        old,
        **{
            name: type(getattr(old, name))() if value is None else value
            for name, value in changes.items()
            if value is not UNSET
        },
    )


class Signal:
    """Notifies tasks that wait for a condition."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Make all waiting tasks check their condition again."""
        self._event.set()
        self._event = asyncio.Event()

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Return when the predicate holds. Raise `TimeoutError` after five seconds."""
        async with asyncio.timeout(5):
            while not predicate():
                await self._event.wait()


@dataclass
class Faults:
    """The steps of every fake at the start of a call: record the call, wait at the gate, raise the configured error."""

    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    error: BaseException | None = None
    gate: asyncio.Event | None = None
    entered: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    signal: Signal = field(default_factory=Signal)
    """Notified at each call, and when a watch begins and ends."""

    async def enter(self, name: str, *args: Any) -> None:
        self.calls.append((name, args))
        self.entered.set()
        self.signal.notify()
        if self.gate is not None:
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        if self.error is not None:
            raise self.error

    @property
    def last(self) -> tuple[Any, ...]:
        """The arguments of the last call."""
        return self.calls[-1][1]


def _find(kind: str, ref: str, found: dict[str, Any], name_of: Any) -> Any:
    for key, value in found.items():
        if ref in (key, name_of(value)):
            return value
    raise NotFound(kind, ref)


class FakeTemplates:
    """Templates in a dictionary."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.stored: dict[str, Template] = {}

    def find(self, ref: str) -> Template:
        return _find("template", ref, self.stored, lambda template: template.name)

    async def create(self, new: NewTemplate, request_id: str, fingerprint: str) -> Template:
        await self.faults.enter("templates.create", new, request_id, fingerprint)
        if any(template.name == new.name for template in self.stored.values()):
            raise AlreadyExists("template", new.name)
        template = Template(
            id=numbered_id("tpl", len(self.stored) + 1),
            namespace=DEFAULT_NAMESPACE,
            name=new.name,
            spec=spec_of(new.spec),
            timeout_secs=new.timeout_secs,
            version=1,
            create_time=NOW,
            update_time=NOW,
        )
        self.stored[template.id] = template
        return template

    async def get(self, ref: str) -> Template:
        await self.faults.enter("templates.get", ref)
        return self.find(ref)

    async def list(self, limit: int, after: str) -> list[Template]:
        await self.faults.enter("templates.list", limit, after)
        return [template for key, template in sorted(self.stored.items()) if key > after][:limit]

    async def update(
        self, ref: str, changes: TemplateChanges, etag: str, request_id: str, fingerprint: str
    ) -> Template:
        await self.faults.enter("templates.update", ref, changes, etag, request_id, fingerprint)
        old = self.find(ref)
        if version_of(etag) not in (None, old.version):
            raise Aborted("template", ref)
        new = changed(old, name=changes.name, timeout_secs=changes.timeout_secs)
        self.stored[old.id] = replace(new, spec=_changed_spec(old.spec, changes.spec), version=old.version + 1)
        return self.stored[old.id]

    async def delete(self, ref: str, etag: str, request_id: str, fingerprint: str) -> None:
        await self.faults.enter("templates.delete", ref, etag, request_id, fingerprint)
        if version_of(etag) not in (None, self.find(ref).version):
            raise Aborted("template", ref)
        del self.stored[self.find(ref).id]


class FakePools:
    """Pools in a dictionary; `publish` sends events to watches."""

    def __init__(self, faults: Faults, templates: FakeTemplates) -> None:
        self.faults = faults
        self.templates = templates
        self.stored: dict[str, PoolView] = {}
        self.watchers: list[asyncio.Queue[tuple[WatchEvent, PoolView]]] = []

    def find(self, ref: str) -> PoolView:
        return _find("pool", ref, self.stored, lambda view: view.pool.name)

    def publish(self, event: WatchEvent, view: PoolView) -> None:
        for watcher in self.watchers:
            watcher.put_nowait((event, view))

    async def create(self, new: NewPool, request_id: str, fingerprint: str) -> PoolView:
        await self.faults.enter("pools.create", new, request_id, fingerprint)
        if new.name and any(view.pool.name == new.name for view in self.stored.values()):
            raise AlreadyExists("pool", new.name)
        template = self.templates.find(new.template_name) if new.template_name else None
        pool = Pool(
            id=numbered_id("pool", len(self.stored) + 1),
            namespace=DEFAULT_NAMESPACE,
            name=new.name,
            template_id=template.id if template else "",
            template_name=template.name if template else "",
            spec=template.spec if template else spec_of(new.spec),
            timeout_secs=new.timeout_secs or 0,
            own_timeout_secs=new.timeout_secs,
            warm_containers=new.warm_containers,
            max_containers=new.max_containers,
            paused=new.paused,
            version=1,
            image_refresh_interval_secs=new.image_refresh_interval_secs,
            warm_ttl_secs=new.warm_ttl_secs,
            drained=new.drained,
            create_time=NOW,
            update_time=NOW,
        )
        self.stored[pool.id] = PoolView(pool, PoolCounts())
        return self.stored[pool.id]

    async def get(self, ref: str) -> PoolView:
        await self.faults.enter("pools.get", ref)
        return self.find(ref)

    async def list(self, limit: int, after: str) -> list[PoolView]:
        await self.faults.enter("pools.list", limit, after)
        return [view for key, view in sorted(self.stored.items()) if key > after][:limit]

    async def update(self, ref: str, changes: PoolChanges, etag: str, request_id: str, fingerprint: str) -> PoolView:
        await self.faults.enter("pools.update", ref, changes, etag, request_id, fingerprint)
        old = self.find(ref).pool
        if version_of(etag) not in (None, old.version):
            raise Aborted("pool", ref)
        new = changed(
            old,
            name=changes.name,
            timeout_secs=changes.timeout_secs,
            paused=changes.paused,
            image_refresh_interval_secs=changes.image_refresh_interval_secs,
            warm_ttl_secs=changes.warm_ttl_secs,
            drained=changes.drained,
        )
        most = old.max_containers if changes.max_containers is UNSET else changes.max_containers
        warm = old.warm_containers if changes.warm_containers is UNSET else changes.warm_containers
        spec = _changed_spec(old.spec, changes.spec)
        self.stored[old.id] = PoolView(
            replace(new, warm_containers=warm, max_containers=most, spec=spec, version=old.version + 1),
            self.stored[old.id].counts,
        )
        return self.stored[old.id]

    async def delete(self, ref: str, etag: str, request_id: str, fingerprint: str, force: bool) -> None:
        await self.faults.enter("pools.delete", ref, etag, request_id, fingerprint, force)
        if version_of(etag) not in (None, self.find(ref).pool.version):
            raise Aborted("pool", ref)
        del self.stored[self.find(ref).pool.id]

    async def watch(self, refs: tuple[str, ...]) -> AsyncGenerator[tuple[WatchEvent, PoolView | None], None]:
        await self.faults.enter("pools.watch", refs)
        queue: asyncio.Queue[tuple[WatchEvent, PoolView]] = asyncio.Queue()
        self.watchers.append(queue)
        self.faults.signal.notify()
        try:
            for view in [self.find(ref) for ref in refs] if refs else list(self.stored.values()):
                yield WatchEvent.CURRENT, view
            yield WatchEvent.BOOKMARK, None
            while True:
                yield await queue.get()
        finally:
            self.watchers.remove(queue)
            self.faults.signal.notify()


class FakeSandboxes:
    """Sandboxes in a dictionary; `publish` sends events to watches."""

    def __init__(self, faults: Faults, pools: FakePools, templates: FakeTemplates) -> None:
        self.faults = faults
        self.pools = pools
        self.templates = templates
        self.stored: dict[str, Instance] = {}
        self.watchers: list[asyncio.Queue[Instance]] = []
        self.result = CommandResult(b"out\n", b"", 0, None, ExitReason.EXITED, 0.25)

    def find(self, ref: str) -> Instance:
        return _find("sandbox", ref, self.stored, lambda instance: instance.claim.name)

    def publish(self, instance: Instance) -> None:
        self.stored[instance.id] = instance
        for watcher in self.watchers:
            watcher.put_nowait(instance)

    async def create(
        self, new: NewSandbox, request_id: str, fingerprint: str, received: float, deadline: float | None = None
    ) -> Instance:
        await self.faults.enter("sandboxes.create", new, request_id, fingerprint, received)
        return self._make(new)

    async def create_batch(
        self,
        new: NewSandbox,
        count: int,
        request_id: str,
        fingerprint: str,
        received: float,
        deadline: float | None = None,
    ) -> tuple[Instance, ...]:
        await self.faults.enter("sandboxes.create_batch", new, count, request_id, fingerprint, received)
        return tuple(self._make(new) for _ in range(count))

    def _make(self, new: NewSandbox) -> Instance:
        pool = self.pools.find(new.pool_id).pool if new.pool_id else None
        template = self.templates.find(new.template_name) if new.template_name else None
        spec = pool.spec if pool else template.spec if template else spec_of(new.spec)
        instance = Instance(
            id=numbered_id("sbx", len(self.stored) + 1),
            namespace=DEFAULT_NAMESPACE,
            pool_id=pool.id if pool else "",
            template_id=template.id if template else "",
            template_name=template.name if template else "",
            spec=spec,
            state=InstanceState.ACTIVE,
            version=1,
            create_time=NOW,
            claim=Claim(NOW, new.timeout_secs or 0, StartType.WARM, new.name, dict(new.metadata)),
            start_secs=0.0015,
        )
        self.stored[instance.id] = instance
        return instance

    async def get(self, ref: str) -> Instance:
        await self.faults.enter("sandboxes.get", ref)
        return self.find(ref)

    async def list(self, which: SandboxFilter, limit: int, after: str) -> list[Instance]:
        await self.faults.enter("sandboxes.list", which, limit, after)
        if which.pool_ref:
            self.pools.find(which.pool_ref)
        if which.template_ref:
            self.templates.find(which.template_ref)
        return [instance for key, instance in sorted(self.stored.items()) if key > after][:limit]

    async def update(self, ref: str, changes: SandboxChanges, etag: str, request_id: str, fingerprint: str) -> Instance:
        await self.faults.enter("sandboxes.update", ref, changes, etag, request_id, fingerprint)
        old = self.find(ref)
        if version_of(etag) not in (None, old.version):
            raise Aborted("sandbox", ref)
        claim = changed(old.claim, name=changes.name, metadata=changes.metadata, timeout_secs=changes.timeout_secs)
        self.stored[old.id] = replace(old, claim=claim, version=old.version + 1)
        return self.stored[old.id]

    async def delete(self, ref: str, request_id: str, fingerprint: str) -> Instance:
        await self.faults.enter("sandboxes.delete", ref, request_id, fingerprint)
        old = self.find(ref)
        self.stored[old.id] = replace(
            old, state=InstanceState.REMOVING, end=Termination(TerminationReason.DELETED, NOW)
        )
        return self.stored[old.id]

    async def watch(self, ref: str) -> AsyncGenerator[Instance, None]:
        await self.faults.enter("sandboxes.watch", ref)
        queue: asyncio.Queue[Instance] = asyncio.Queue()
        self.watchers.append(queue)
        self.faults.signal.notify()
        try:
            instance = self.find(ref)
            yield instance
            while instance.state is not InstanceState.REMOVED:
                instance = await queue.get()
                yield instance
        finally:
            self.watchers.remove(queue)
            self.faults.signal.notify()

    async def run(self, ref: str, command: Command) -> CommandResult:
        await self.faults.enter("sandboxes.run", ref, command)
        self.find(ref)
        return self.result


class FakeSecrets:
    """Secrets in a dictionary, and their values in another dictionary."""

    def __init__(self, faults: Faults) -> None:
        self.faults = faults
        self.stored: dict[str, Secret] = {}
        self.values: dict[str, str] = {}

    async def create(self, name: str, value: str, request_id: str, fingerprint: str) -> Secret:
        await self.faults.enter("secrets.create", name, value, request_id, fingerprint)
        if name in self.stored:
            raise AlreadyExists("secret", name)
        self.stored[name] = Secret(DEFAULT_NAMESPACE, name, NOW, NOW)
        self.values[name] = value
        return self.stored[name]

    async def update(self, name: str, value: str, request_id: str, fingerprint: str) -> Secret:
        await self.faults.enter("secrets.update", name, value, request_id, fingerprint)
        self.stored[name] = replace(self.find(name), update_time=NOW + timedelta(seconds=1))
        self.values[name] = value
        return self.stored[name]

    async def get(self, name: str) -> Secret:
        await self.faults.enter("secrets.get", name)
        return self.find(name)

    async def list(self, limit: int, after: str) -> list[Secret]:
        await self.faults.enter("secrets.list", limit, after)
        return [secret for name, secret in sorted(self.stored.items()) if name > after][:limit]

    async def delete(self, name: str, force: bool, request_id: str, fingerprint: str) -> None:
        await self.faults.enter("secrets.delete", name, force, request_id, fingerprint)
        del self.stored[self.find(name).name]

    def find(self, name: str) -> Secret:
        return _find("secret", name, self.stored, lambda secret: secret.name)


def _changed_spec(spec: ContainerSpec, changes: SpecFields) -> ContainerSpec:
    defaults = ContainerSpec(spec.image)
    return replace(
        spec, **{name: getattr(defaults, name) if value is None else value for name, value in changes.items()}
    )


class FakeDataPlane:
    """Fake of `usecases.data_plane.DataPlane`: each call reads all its requests and returns one empty response."""

    def __init__(self, faults: Faults, sandboxes: FakeSandboxes) -> None:
        self.faults = faults
        self._sandboxes = sandboxes
        self.calls: list[tuple[str, str, list[object]]] = []
        """The sandbox, the method and the requests of each call."""

    async def call(self, ref: str, method: str, requests: AsyncIterator[object], timeout_secs: float) -> object:
        await self.faults.enter("data_plane.call", ref, method, requests, timeout_secs)
        self._sandboxes.find(ref)
        self.calls.append((ref, method, [request async for request in requests]))
        return _empty_response(method)

    async def stream(self, ref: str, method: str, requests: AsyncIterator[object]) -> AsyncGenerator[object, None]:
        await self.faults.enter("data_plane.stream", ref, method, requests)
        self._sandboxes.find(ref)
        self.calls.append((ref, method, [request async for request in requests]))
        yield _empty_response(method)

    async def disk(self, ref: str) -> tuple[int | None, int]:
        await self.faults.enter("data_plane.disk", ref)
        return 1000, 2000


class FakeExposedPorts:
    """Fake of `usecases.exposed_ports.ExposedPorts`."""

    def __init__(self, faults: Faults, sandboxes: FakeSandboxes) -> None:
        self.faults = faults
        self._sandboxes = sandboxes
        self._stored: dict[tuple[str, int], ExposedPort] = {}

    async def expose(self, ref: str, port: int) -> tuple[ExposedPort, str]:
        await self.faults.enter("ports.expose", ref, port)
        instance = self._sandboxes.find(ref)
        exposed = self._stored.setdefault((instance.id, port), ExposedPort(instance.id, port, NOW))
        return exposed, f"http://{port}-{instance.id}.localhost:1"

    async def unexpose(self, ref: str, port: int) -> None:
        await self.faults.enter("ports.unexpose", ref, port)
        self._stored.pop((self._sandboxes.find(ref).id, port), None)

    async def list(self, ref: str) -> list[tuple[ExposedPort, str]]:
        await self.faults.enter("ports.list", ref)
        instance = self._sandboxes.find(ref)
        return [(port, f"http://{number}") for (owner, number), port in self._stored.items() if owner == instance.id]


def _empty_response(path: str) -> object:
    service, _, method = path.removeprefix("/").rpartition("/")
    found = symbol_database.Default().pool.FindServiceByName(service).methods_by_name[method]
    return GetMessageClass(found.output_type)()


class FakeUseCases:
    """All fakes with one set of faults."""

    def __init__(self) -> None:
        self.faults = Faults()
        self.templates = FakeTemplates(self.faults)
        self.pools = FakePools(self.faults, self.templates)
        self.sandboxes = FakeSandboxes(self.faults, self.pools, self.templates)
        self.secrets = FakeSecrets(self.faults)
        self.data_plane = FakeDataPlane(self.faults, self.sandboxes)
        self.ports = FakeExposedPorts(self.faults, self.sandboxes)
