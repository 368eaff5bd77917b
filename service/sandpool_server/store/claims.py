"""The claim: the hot path of the store. Its statements are built once and do not use the ORM.

A claim of one warm instance executes two statements, the lookup of the pool and one `UPDATE … RETURNING`, and its share
of the write of the batch's hits and misses. A request id adds one lookup.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import bindparam, func, insert, select, update

from sandpool_server.domain.errors import Exhausted, FailedPrecondition
from sandpool_server.domain.lifecycle import COUNTED, InstanceState
from sandpool_server.domain.model import Claim, Instance, StartType, TerminationReason
from sandpool_server.domain.spec import ContainerSpec
from sandpool_server.interfaces import ClaimRequest, ClaimResult, Clock, claim_request_id
from sandpool_server.store import lookups, rows
from sandpool_server.store.errors import unique_name
from sandpool_server.store.lookups import EMPTY
from sandpool_server.store.prepared import Prepared
from sandpool_server.store.rows import AnyRow
from sandpool_server.store.tables import INSTANCES, POOLS
from sandpool_server.store.writer import Transaction

_RETRY_AFTER_SECS = 1.0
"""The recommended delay before a retry if a pool is at its limit or empty.

It is about the time that the removal or the creation of a container takes.
"""

_WARM_IDS = (
    select(INSTANCES.c.id)
    .where(
        INSTANCES.c.state == InstanceState.WARM.value,
        INSTANCES.c.pool_id == bindparam("pool"),
        INSTANCES.c.spec_digest == bindparam("digest"),
    )
    .order_by(INSTANCES.c.id)
    .limit(bindparam("number"))
    # In a database with row locks, concurrent claims skip the rows of each other. SQLite ignores this.
    .with_for_update(skip_locked=True)
)
_CLAIM_WARM = Prepared(
    update(INSTANCES)
    .where(INSTANCES.c.id.in_(_WARM_IDS))
    .values(
        state=InstanceState.ACTIVE.value,
        claim_time=bindparam("p_claim_time"),
        timeout_secs=bindparam("p_timeout_secs"),
        expire_time=bindparam("p_expire_time"),
        start_type=StartType.WARM.value,
        name=bindparam("p_name"),
        metadata=bindparam("p_metadata"),
        request_id=bindparam("p_request_id"),
        request_fingerprint=bindparam("p_fingerprint"),
        start_secs=bindparam("p_start_secs"),
    )
    .returning(
        INSTANCES.c.id,
        INSTANCES.c.template_id,
        INSTANCES.c.template_name,
        INSTANCES.c.version,
        INSTANCES.c.create_time,
        INSTANCES.c.address,
        INSTANCES.c.spec,
    )
)
_SET_REQUEST_ID = (
    update(INSTANCES).where(INSTANCES.c.id == bindparam("instance")).values(request_id=bindparam("p_request_id"))
)
_INSERT = insert(INSTANCES)
_COUNTED = (
    select(func.count())
    .select_from(INSTANCES)
    .where(INSTANCES.c.state.in_(sorted(COUNTED)), INSTANCES.c.pool_id == bindparam("pool"))
)
_TEMPLATE_POOLS = (
    select(POOLS)
    .where(
        POOLS.c.template_id == bindparam("template"),
        POOLS.c.namespace == bindparam("namespace"),
        POOLS.c.delete_time.is_(None),
    )
    .order_by(POOLS.c.id)
)
_EARLIER_CLAIM = Prepared(
    select(INSTANCES).where(
        INSTANCES.c.namespace == bindparam("namespace"),
        INSTANCES.c.request_id >= bindparam("first"),
        INSTANCES.c.request_id < bindparam("end"),
        INSTANCES.c.request_id != EMPTY,
    )
)


def claim(tx: Transaction, request: ClaimRequest, clock: Clock) -> ClaimResult:
    """See `Store.claim`."""
    if request.request_id and (earlier := _earlier_instances(tx, request)):
        return ClaimResult(earlier, replayed=True)
    with unique_name("sandbox", INSTANCES, request.name):
        if request.pool_ref:
            instances = _from_pool(tx, request, clock)
        elif request.template_ref:
            instances = _from_template(tx, request, clock)
        elif request.spec is not None:
            instances = _from_spec(tx, request, request.spec)
        else:
            raise ValueError("a claim must have a pool, a template or a specification")
    tx.touched.update(instance.id for instance in instances)
    return ClaimResult(tuple(instances))


def _from_pool(tx: Transaction, request: ClaimRequest, clock: Clock) -> list[Instance]:
    pool = lookups.find_pool(tx.connection, request.namespace, request.pool_ref)
    if _closed(pool):
        raise _closed_error(pool)
    instances = _claim_warm(tx, request, pool, 0, clock) if request.warm else []
    _check_cold_start(request, len(instances), f"pool {pool.name or pool.id!r}", f"pool:{pool.id}")
    return instances + _start_in_first_with_capacity(tx, request, [pool], len(instances))


def _from_template(tx: Transaction, request: ClaimRequest, clock: Clock) -> list[Instance]:
    template = lookups.find_template(tx.connection, request.namespace, request.template_ref)
    values = {"template": template.id, "namespace": request.namespace}
    pools = tx.connection.execute(_TEMPLATE_POOLS, values).all()
    source = f"template {template.name!r}", f"template:{template.id}"
    if not pools:
        _check_cold_start(request, 0, *source)
        timeout_secs = template.timeout_secs if request.timeout_secs is None else request.timeout_secs
        prototype = _cold_prototype(request, rows.spec_of(template), timeout_secs)
        prototype = replace(prototype, template_id=template.id, template_name=template.name)
        return _start(tx, request, prototype, request.count, 0)
    open_pools = [pool for pool in pools if not _closed(pool)]
    if not open_pools:
        raise _closed_error(pools[0])
    instances: list[Instance] = []
    for pool in open_pools if request.warm else ():
        if len(instances) < request.count:
            instances += _claim_warm(tx, request, pool, len(instances), clock)
    _check_cold_start(request, len(instances), *source)
    return instances + _start_in_first_with_capacity(tx, request, open_pools, len(instances))


def _from_spec(tx: Transaction, request: ClaimRequest, spec: ContainerSpec) -> list[Instance]:
    """Write `STARTING` instances of a specification, without a pool."""
    if not request.cold:
        raise ValueError("a sandbox without a pool or template requires a cold start")
    lookups.check_secrets(tx.connection, request.namespace, spec.secret_names)
    return _start(tx, request, _cold_prototype(request, spec, request.timeout_secs or 0), request.count, 0)


def _closed(pool: AnyRow) -> bool:
    """Return `Pool.closed` for the row of a pool that is not deleted."""
    return bool(pool.paused or pool.drained)


def _closed_error(pool: AnyRow) -> FailedPrecondition:
    """Return the error for a claim from a closed pool."""
    setting = "drained" if pool.drained else "paused"
    return FailedPrecondition(
        f"POOL_{setting.upper()}",
        f"pool {pool.name or pool.id!r} is {setting}; set {setting} to false, or use another pool",
        "pool",
        pool.id,
    )


def _check_cold_start(request: ClaimRequest, warm: int, source: str, subject: str) -> None:
    """Raise `Exhausted` if cold starts are necessary but not allowed.

    `warm` is the number of claimed warm instances. `source` is the pool or the template, for the message.
    """
    if warm < request.count and not request.cold:
        cause = (
            f"{source} has {warm} of the {request.count} requested sandboxes ready"
            if request.warm
            else f"the warm instances of {source} are reserved for earlier callers in the wait queue"
        )
        raise Exhausted(
            "POOL_EMPTY",
            f"{cause}; use WHEN_EMPTY_WAIT to wait, use WHEN_EMPTY_START_COLD for a cold start, or increase "
            "warm_containers",
            subject,
            _RETRY_AFTER_SECS,
        )


def _start_in_first_with_capacity(
    tx: Transaction, request: ClaimRequest, pools: Sequence[AnyRow], warm: int
) -> list[Instance]:
    """Write `STARTING` instances for the missing sandboxes, all in the first pool that has enough capacity.

    `warm` is the number of claimed warm instances.

    Raises:
        Exhausted: (POOL_LIMIT_REACHED) no pool has enough capacity within its `max_containers`.
    """
    missing = request.count - warm
    if not missing:
        return []
    largest = 0
    for pool in pools:
        capacity = _capacity(tx, pool)
        if capacity is None or capacity - request.reserved >= missing:
            return _start_in(tx, request, pool, missing, warm)
        largest = max(largest, capacity - request.reserved)
    first = pools[0]
    source = f"pool {first.name or first.id!r}" if len(pools) == 1 else f"the {len(pools)} pools of the template"
    raise Exhausted(
        "POOL_LIMIT_REACHED",
        f"{source} can provide {warm + largest} of the {request.count} requested sandboxes within max_containers; "
        "delete sandboxes, or increase max_containers",
        f"pool:{first.id}",
        _RETRY_AFTER_SECS,
    )


def _claim_warm(tx: Transaction, request: ClaimRequest, pool: AnyRow, index: int, clock: Clock) -> list[Instance]:
    """Claim warm instances of the pool, up to the number of missing sandboxes, and return them.

    `index` is the number of sandboxes that the claim has already.
    """
    timeout_secs = pool.timeout_secs if request.timeout_secs is None else request.timeout_secs
    claim = _claim(request, timeout_secs, StartType.WARM)
    start_secs = clock.monotonic() - request.received
    single_key = claim_request_id(request.request_id, 0, 1) if request.count == 1 else ""
    claimed = _CLAIM_WARM.all(
        tx.connection,
        {
            "pool": pool.id,
            "digest": pool.spec_digest,
            "number": request.count - index,
            "p_claim_time": claim.claim_time,
            "p_timeout_secs": timeout_secs,
            "p_expire_time": claim.expire_time,
            "p_name": request.name,
            "p_metadata": claim.metadata,
            "p_request_id": single_key,
            "p_fingerprint": request.fingerprint,
            "p_start_secs": start_secs,
        },
    )
    if not claimed:
        return []
    instances = [
        Instance(
            id=row.id,
            namespace=request.namespace,
            pool_id=pool.id,
            template_id=row.template_id or "",
            template_name=row.template_name,
            spec=rows.spec_of(row),
            state=InstanceState.ACTIVE,
            version=row.version,
            create_time=row.create_time,
            spec_digest=pool.spec_digest,
            address=row.address,
            claim=replace(claim, request_id=claim_request_id(request.request_id, position, request.count)),
            start_secs=start_secs,
            request_fingerprint=request.fingerprint,
        )
        for position, row in enumerate(sorted(claimed, key=lambda row: row.id), index)
    ]
    if request.request_id and request.count > 1:
        keys = [
            {"instance": instance.id, "p_request_id": claim_request_id(request.request_id, position, request.count)}
            for position, instance in enumerate(instances, index)
        ]
        tx.connection.execute(_SET_REQUEST_ID, keys)
    tx.hits[pool.id] += len(instances)
    tx.touched.add(pool.id)
    return instances


def _capacity(tx: Transaction, pool: AnyRow) -> int | None:
    """Return the number of containers that the pool can still create; None if it has no limit."""
    if pool.max_containers is None:
        return None
    counted: int = tx.connection.execute(_COUNTED, {"pool": pool.id}).scalar_one()
    return max(0, int(pool.max_containers) - counted)


def _start_in(tx: Transaction, request: ClaimRequest, pool: AnyRow, number: int, index: int) -> list[Instance]:
    """Write `number` `STARTING` instances of the pool. `index` is the position of the first one in the claim."""
    timeout_secs = pool.timeout_secs if request.timeout_secs is None else request.timeout_secs
    prototype = replace(
        _cold_prototype(request, rows.spec_of(pool), timeout_secs),
        pool_id=pool.id,
        template_id=pool.template_id or "",
        template_name=pool.template_name,
        spec_digest=pool.spec_digest,
    )
    tx.misses[pool.id] += number
    tx.touched.add(pool.id)
    return _start(tx, request, prototype, number, index)


def _start(tx: Transaction, request: ClaimRequest, prototype: Instance, number: int, index: int) -> list[Instance]:
    """Write `number` copies of the prototype. `index` is the position of the first one in the claim."""
    claim = prototype.claim
    if claim is None:
        raise ValueError("an instance in the state STARTING must have a claim")
    instances = [
        replace(
            prototype,
            id=instance_id,
            claim=replace(claim, request_id=claim_request_id(request.request_id, position, request.count)),
        )
        for position, instance_id in enumerate(request.ids[:number], index)
    ]
    tx.connection.execute(_INSERT, [rows.instance_values(instance) for instance in instances])
    return instances


def _cold_prototype(request: ClaimRequest, spec: ContainerSpec, timeout_secs: float) -> Instance:
    """Return a `STARTING` instance of the claim without id and pool."""
    return Instance(
        id="",
        namespace=request.namespace,
        pool_id="",
        template_id="",
        template_name="",
        spec=spec,
        state=InstanceState.STARTING,
        version=1,
        create_time=request.now,
        spec_digest=spec.digest(),
        claim=_claim(request, timeout_secs, StartType.COLD),
        request_fingerprint=request.fingerprint,
    )


def _claim(request: ClaimRequest, timeout_secs: float, start_type: StartType) -> Claim:
    return Claim(request.now, timeout_secs, start_type, request.name, dict(request.metadata))


def _earlier_instances(tx: Transaction, request: ClaimRequest) -> tuple[Instance, ...]:
    """Return the current instances of an earlier claim with this request id; empty if there is none.

    If all instances of the earlier claim have failed, their request id is cleared and the retry claims again.

    Raises:
        InvalidArgument: the request id was used for a request with a different content.
    """
    # The request ids of callers do not contain `#`, and `$` is the character after `#`. This range therefore contains
    # exactly the keys of this request.
    between = {"first": f"{request.request_id}#", "end": f"{request.request_id}$"}
    found = _EARLIER_CLAIM.all(tx.connection, {"namespace": request.namespace, **between})
    for row in found:
        lookups.check_fingerprint(row.request_fingerprint, request.fingerprint)
    if all(row.termination_reason == TerminationReason.FAILED.value for row in found):
        if found:
            tx.connection.execute(_SET_REQUEST_ID, [{"instance": row.id, "p_request_id": ""} for row in found])
        return ()
    return tuple(rows.instance_of(row) for row in sorted(found, key=_position))


def _position(row: AnyRow) -> int:
    """Return the position of the sandbox in its claim."""
    return int(row.request_id.rpartition("#")[2].partition("/")[0])
