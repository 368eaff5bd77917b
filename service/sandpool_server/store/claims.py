"""The claim, the hot path: statements built once, no ORM, one pass where the pool has enough ready members.

A warm claim of one is: find the pool, one `UPDATE … RETURNING`, and its share of the batch's tally; a request id adds
one lookup.
"""

from collections.abc import Sequence
from dataclasses import replace

from sqlalchemy import bindparam, func, insert, select, update

from sandpool_server.domain.errors import Exhausted, FailedPrecondition
from sandpool_server.domain.lifecycle import COUNTED, MemberState
from sandpool_server.domain.model import Claim, ContainerSpec, EndReason, Member, PullPolicy, StartKind
from sandpool_server.ports import ClaimRequest, ClaimResult, Clock, claim_request_id
from sandpool_server.store import lookups, rows
from sandpool_server.store.errors import unique_name
from sandpool_server.store.lookups import EMPTY
from sandpool_server.store.prepared import Prepared
from sandpool_server.store.rows import AnyRow
from sandpool_server.store.tables import MEMBERS, POOLS
from sandpool_server.store.writer import Transaction

_RETRY_AFTER_SECS = 1.0
"""When a pool that is at its limit or empty is worth another try: about as long as it takes to remove a container, or
to make one.
"""

_READY = (
    select(MEMBERS.c.id)
    .where(
        MEMBERS.c.state == MemberState.WARM.value,
        MEMBERS.c.pool_id == bindparam("pool"),
        MEMBERS.c.spec_digest == bindparam("digest"),
    )
    .order_by(MEMBERS.c.id)
    .limit(bindparam("number"))
    # Where a database has locks of rows, claims of several servers step around each other; SQLite leaves this out.
    .with_for_update(skip_locked=True)
)
_TAKE = Prepared(
    update(MEMBERS)
    .where(MEMBERS.c.id.in_(_READY))
    .values(
        state=MemberState.ACTIVE.value,
        claim_time=bindparam("p_claim_time"),
        timeout_secs=bindparam("p_timeout_secs"),
        expire_time=bindparam("p_expire_time"),
        start=StartKind.WARM.value,
        name=bindparam("p_name"),
        metadata=bindparam("p_metadata"),
        request_id=bindparam("p_request_id"),
        request_fingerprint=bindparam("p_fingerprint"),
        start_secs=bindparam("p_start_secs"),
    )
    .returning(
        MEMBERS.c.id,
        MEMBERS.c.template_id,
        MEMBERS.c.template_name,
        MEMBERS.c.version,
        MEMBERS.c.create_time,
        MEMBERS.c.address,
        MEMBERS.c.pull_policy,
    )
)
_KEEP_REQUEST_ID = (
    update(MEMBERS).where(MEMBERS.c.id == bindparam("member")).values(request_id=bindparam("p_request_id"))
)
_ADD = insert(MEMBERS)
_COUNTED = (
    select(func.count())
    .select_from(MEMBERS)
    .where(MEMBERS.c.state.in_(sorted(COUNTED)), MEMBERS.c.pool_id == bindparam("pool"))
)
_FOLLOWING = (
    select(POOLS)
    .where(
        POOLS.c.template_id == bindparam("template"),
        POOLS.c.namespace == bindparam("namespace"),
        POOLS.c.delete_time.is_(None),
    )
    .order_by(POOLS.c.id)
)
_EARLIER = Prepared(
    select(MEMBERS).where(
        MEMBERS.c.namespace == bindparam("namespace"),
        MEMBERS.c.request_id >= bindparam("first"),
        MEMBERS.c.request_id < bindparam("end"),
        MEMBERS.c.request_id != EMPTY,
    )
)


def claim(tx: Transaction, request: ClaimRequest, clock: Clock) -> ClaimResult:
    """See `Store.claim`."""
    if request.request_id and (earlier := _earlier(tx, request)):
        return ClaimResult(earlier, replayed=True)
    with unique_name("sandbox", MEMBERS, request.name):
        if request.pool_ref:
            members = _from_pool(tx, request, clock)
        elif request.template_ref:
            members = _from_template(tx, request, clock)
        elif request.spec is not None:
            members = _alone(tx, request, request.spec)
        else:
            raise ValueError("a claim names a pool, a template or a specification")
    tx.touched.update(member.id for member in members)
    return ClaimResult(tuple(members))


def _from_pool(tx: Transaction, request: ClaimRequest, clock: Clock) -> list[Member]:
    pool = lookups.find_pool(tx.connection, request.namespace, request.pool_ref)
    if _closed(pool):
        raise _refusal(pool)
    members = _take(tx, request, pool, 0, clock) if request.warm else []
    _check_cold(request, len(members), f"pool {pool.name or pool.id!r}", f"pool:{pool.id}")
    return members + _start_in_first_with_room(tx, request, [pool], len(members))


def _from_template(tx: Transaction, request: ClaimRequest, clock: Clock) -> list[Member]:
    template = lookups.find_template(tx.connection, request.namespace, request.template_ref)
    values = {"template": template.id, "namespace": request.namespace}
    pools = tx.connection.execute(_FOLLOWING, values).all()
    whose = f"template {template.name!r}", f"template:{template.id}"
    if not pools:
        _check_cold(request, 0, *whose)
        timeout_secs = template.timeout_secs if request.timeout_secs is None else request.timeout_secs
        like = _cold(request, rows.spec_of(template), timeout_secs)
        like = replace(like, template_id=template.id, template_name=template.name)
        return _start(tx, request, like, request.count, 0)
    open_pools = [pool for pool in pools if not _closed(pool)]
    if not open_pools:
        raise _refusal(pools[0])
    members: list[Member] = []
    for pool in open_pools if request.warm else ():
        if len(members) < request.count:
            members += _take(tx, request, pool, len(members), clock)
    _check_cold(request, len(members), *whose)
    return members + _start_in_first_with_room(tx, request, open_pools, len(members))


def _alone(tx: Transaction, request: ClaimRequest, spec: ContainerSpec) -> list[Member]:
    """Start sandboxes of a specification in no pool."""
    if not request.cold:
        raise ValueError("a sandbox of a specification alone can only be started cold")
    lookups.check_secrets(tx.connection, request.namespace, spec.secret_names)
    return _start(tx, request, _cold(request, spec, request.timeout_secs or 0), request.count, 0)


def _closed(pool: AnyRow) -> bool:
    """`Pool.closed` of a living pool's row."""
    return bool(pool.paused or pool.drain)


def _refusal(pool: AnyRow) -> FailedPrecondition:
    """Why nothing can be taken from a closed pool."""
    setting, word = ("drain", "drained") if pool.drain else ("paused", "paused")
    return FailedPrecondition(
        f"POOL_{word.upper()}",
        f"pool {pool.name or pool.id!r} is {word}; set {setting} to false, or use another pool",
        "pool",
        pool.id,
    )


def _check_cold(request: ClaimRequest, ready: int, whose: str, subject: str) -> None:
    """Raise `Exhausted` when something is missing beyond the `ready` members and may not be started."""
    if ready < request.count and not request.cold:
        has = (
            f"{whose} has {ready} of the {request.count} sandboxes asked for ready"
            if request.warm
            else f"the ready sandboxes of {whose} are for callers who came before and wait in line"
        )
        raise Exhausted(
            "POOL_EMPTY",
            f"{has}; wait for one (WHEN_EMPTY_WAIT), let what is missing start cold (WHEN_EMPTY_START_COLD), or raise "
            "warm_containers",
            subject,
            _RETRY_AFTER_SECS,
        )


def _start_in_first_with_room(
    tx: Transaction, request: ClaimRequest, pools: Sequence[AnyRow], ready: int
) -> list[Member]:
    """Write `STARTING` members for what is missing beyond the `ready` ones, all in one pool. Raises `Exhausted`."""
    missing = request.count - ready
    if not missing:
        return []
    most = 0
    for pool in pools:
        room = _room(tx, pool)
        if room is None or room - request.reserved >= missing:
            return _start_in(tx, request, pool, missing, ready)
        most = max(most, room - request.reserved)
    first = pools[0]
    whose = (
        f"pool {first.name or first.id!r} has" if len(pools) == 1 else f"the {len(pools)} pools of the template have"
    )
    raise Exhausted(
        "POOL_AT_MAX",
        f"{whose} room for {ready + most} of the {request.count} sandboxes asked for, within max_containers; delete "
        "sandboxes, or raise max_containers",
        f"pool:{first.id}",
        _RETRY_AFTER_SECS,
    )


def _take(tx: Transaction, request: ClaimRequest, pool: AnyRow, index: int, clock: Clock) -> list[Member]:
    """Claim ready members of the pool, as many as are still missing or there are; the first is the index-th."""
    timeout_secs = pool.timeout_secs if request.timeout_secs is None else request.timeout_secs
    claim = _claim(request, timeout_secs, StartKind.WARM)
    start_secs = clock.monotonic() - request.received
    one_key = claim_request_id(request.request_id, 0, 1) if request.count == 1 else ""
    taken = _TAKE.all(
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
            "p_request_id": one_key,
            "p_fingerprint": request.fingerprint,
            "p_start_secs": start_secs,
        },
    )
    if not taken:
        return []
    spec = rows.spec_of(pool)  # the members' too: their digest is the same
    members = [
        Member(
            id=row.id,
            namespace=request.namespace,
            pool_id=pool.id,
            template_id=row.template_id or "",
            template_name=row.template_name,
            spec=spec,
            state=MemberState.ACTIVE,
            version=row.version,
            create_time=row.create_time,
            spec_digest=pool.spec_digest,
            address=row.address,
            pull_policy=PullPolicy(row.pull_policy),
            claim=replace(claim, request_id=claim_request_id(request.request_id, place, request.count)),
            start_secs=start_secs,
            request_fingerprint=request.fingerprint,
        )
        for place, row in enumerate(sorted(taken, key=lambda row: row.id), index)
    ]
    if request.request_id and request.count > 1:
        keys = [
            {"member": member.id, "p_request_id": claim_request_id(request.request_id, place, request.count)}
            for place, member in enumerate(members, index)
        ]
        tx.connection.execute(_KEEP_REQUEST_ID, keys)
    tx.hits[pool.id] += len(members)
    tx.touched.add(pool.id)
    return members


def _room(tx: Transaction, pool: AnyRow) -> int | None:
    """How many more containers the pool may have; None for any number."""
    if pool.max_containers is None:
        return None
    counted: int = tx.connection.execute(_COUNTED, {"pool": pool.id}).scalar_one()
    return max(0, int(pool.max_containers) - counted)


def _start_in(tx: Transaction, request: ClaimRequest, pool: AnyRow, number: int, index: int) -> list[Member]:
    """Write `STARTING` members of the pool."""
    timeout_secs = pool.timeout_secs if request.timeout_secs is None else request.timeout_secs
    like = replace(
        _cold(request, rows.spec_of(pool), timeout_secs),
        pool_id=pool.id,
        template_id=pool.template_id or "",
        template_name=pool.template_name,
        spec_digest=pool.spec_digest,
        pull_policy=PullPolicy(pool.pull_policy),
    )
    tx.misses[pool.id] += number
    tx.touched.add(pool.id)
    return _start(tx, request, like, number, index)


def _start(tx: Transaction, request: ClaimRequest, like: Member, number: int, index: int) -> list[Member]:
    """Write `number` members that look like `like`; the first is the claim's index-th."""
    claim = like.claim
    if claim is None:
        raise ValueError("a member that starts for a caller has a claim")
    members = [
        replace(
            like,
            id=member_id,
            claim=replace(claim, request_id=claim_request_id(request.request_id, place, request.count)),
        )
        for place, member_id in enumerate(request.ids[:number], index)
    ]
    tx.connection.execute(_ADD, [rows.member_values(member) for member in members])
    return members


def _cold(request: ClaimRequest, spec: ContainerSpec, timeout_secs: int) -> Member:
    """A sandbox of the claim that is to be started, without id and pool."""
    return Member(
        id="",
        namespace=request.namespace,
        pool_id="",
        template_id="",
        template_name="",
        spec=spec,
        state=MemberState.STARTING,
        version=1,
        create_time=request.now,
        spec_digest=spec.digest(),
        claim=_claim(request, timeout_secs, StartKind.COLD),
        request_fingerprint=request.fingerprint,
    )


def _claim(request: ClaimRequest, timeout_secs: int, start: StartKind) -> Claim:
    return Claim(request.now, timeout_secs, start, request.name, dict(request.metadata))


def _earlier(tx: Transaction, request: ClaimRequest) -> tuple[Member, ...]:
    """What an earlier claim of the same request got, as it is now; empty for a new request.

    A claim of which nothing came, because every start failed or was given up, is as good as none: it is forgotten, and
    the retry claims anew. Raises `InvalidArgument` when the earlier request was another one.
    """
    # `$` is the character after `#`, which a caller's request id does not hold: exactly the keys of this request.
    between = {"first": f"{request.request_id}#", "end": f"{request.request_id}$"}
    found = _EARLIER.all(tx.connection, {"namespace": request.namespace, **between})
    for row in found:
        lookups.check_fingerprint(row.request_fingerprint, request.fingerprint)
    if all(row.end_reason == EndReason.FAILED.value for row in found):
        if found:
            tx.connection.execute(_KEEP_REQUEST_ID, [{"member": row.id, "p_request_id": ""} for row in found])
        return ()
    return tuple(rows.member_of(row) for row in sorted(found, key=_place))


def _place(row: AnyRow) -> int:
    """Which of its claim's sandboxes this is."""
    return int(row.request_id.rpartition("#")[2].partition("/")[0])
