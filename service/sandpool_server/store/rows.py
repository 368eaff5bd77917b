"""Rows to domain values and back: the only module that knows both shapes."""

from collections.abc import Iterable
from dataclasses import asdict, fields, replace
from typing import Any

from sqlalchemy import Row

from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import (
    Claim,
    ContainerSpec,
    EndReason,
    Member,
    MemberEnd,
    Pool,
    PoolCounts,
    PoolFailure,
    PullPolicy,
    Secret,
    StartKind,
    Template,
)

AnyRow = Row[*tuple[Any, ...]]
Values = dict[str, Any]

NO_FAILURE: Values = {
    "failure_reason": None,
    "failure_message": None,
    "failure_time": None,
    "failure_next_attempt_time": None,
    "failure_consecutive": None,
}


_SPEC_FIELDS = tuple(field.name for field in fields(ContainerSpec))


def spec_of(row: AnyRow) -> ContainerSpec:
    """The specification in a row. Fields that the row does not have yet have their defaults."""
    kept = row.spec
    given = {name: _frozen(kept[name]) for name in _SPEC_FIELDS if name in kept}
    return ContainerSpec(**given)


def _frozen(value: Any) -> Any:
    """A value out of JSON with tuples for lists, as specifications have them."""
    return tuple([_frozen(one) for one in value]) if isinstance(value, list) else value


def respecified_values(pool: Pool, spec: ContainerSpec) -> Values:
    """The pool's columns that depend on its specification, with `spec` for the present one.

    `pool.image_check_secs` must be the new one already. Of another image it is not known what its tag names.
    """
    new = replace(pool, spec=spec)
    if spec.image != pool.spec.image:
        new = replace(new, image_digest="", image_check_time=None)
    return {
        "spec": asdict(spec),
        "spec_digest": new.member_digest(),
        "image_digest": new.image_digest,
        "image_check_time": new.image_check_time,
    }


def template_of(row: AnyRow) -> Template:
    """The template in a row."""
    return Template(
        id=row.id,
        namespace=row.namespace,
        name=row.name,
        spec=spec_of(row),
        timeout_secs=row.timeout_secs,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
    )


def template_values(template: Template) -> Values:
    """A living template as a row."""
    return {
        "id": template.id,
        "namespace": template.namespace,
        "name": template.name,
        "spec": asdict(template.spec),
        "timeout_secs": template.timeout_secs,
        "version": template.version,
        "create_time": template.create_time,
        "update_time": template.update_time,
        "delete_time": None,
    }


def failure_of(row: AnyRow) -> PoolFailure | None:
    """The failure in a pool's row."""
    if row.failure_reason is None:
        return None
    return PoolFailure(
        reason=FailureReason(row.failure_reason),
        message=row.failure_message,
        time=row.failure_time,
        next_attempt_time=row.failure_next_attempt_time,
        consecutive=row.failure_consecutive,
    )


def failure_values(failure: PoolFailure | None) -> Values:
    """A pool's failure as the columns that hold it."""
    if failure is None:
        return NO_FAILURE
    return {
        "failure_reason": failure.reason.value,
        "failure_message": failure.message,
        "failure_time": failure.time,
        "failure_next_attempt_time": failure.next_attempt_time,
        "failure_consecutive": failure.consecutive,
    }


def pool_of(row: AnyRow) -> Pool:
    """The pool in a row."""
    return Pool(
        id=row.id,
        namespace=row.namespace,
        name=row.name,
        template_id=row.template_id or "",
        template_name=row.template_name,
        spec=spec_of(row),
        timeout_secs=row.timeout_secs,
        own_timeout_secs=row.own_timeout_secs,
        warm_containers=row.warm_containers,
        max_containers=row.max_containers,
        paused=row.paused,
        version=row.version,
        create_time=row.create_time,
        update_time=row.update_time,
        hits=row.hits,
        misses=row.misses,
        pull_policy=PullPolicy(row.pull_policy),
        image_check_secs=row.image_check_secs,
        max_age_secs=row.max_age_secs,
        drain=row.drain,
        image_digest=row.image_digest,
        image_check_time=row.image_check_time,
        failure=failure_of(row),
        delete_time=row.delete_time,
    )


def pool_values(pool: Pool) -> Values:
    """A pool as a row."""
    return {
        "id": pool.id,
        "namespace": pool.namespace,
        "name": pool.name,
        "template_id": pool.template_id or None,
        "template_name": pool.template_name,
        **respecified_values(pool, pool.spec),
        "timeout_secs": pool.timeout_secs,
        "own_timeout_secs": pool.own_timeout_secs,
        "warm_containers": pool.warm_containers,
        "max_containers": pool.max_containers,
        "paused": pool.paused,
        "version": pool.version,
        "create_time": pool.create_time,
        "update_time": pool.update_time,
        "delete_time": pool.delete_time,
        "hits": pool.hits,
        "misses": pool.misses,
        "pull_policy": pool.pull_policy.value,
        "image_check_secs": pool.image_check_secs,
        "max_age_secs": pool.max_age_secs,
        "drain": pool.drain,
        **failure_values(pool.failure),
    }


def counts_of(spec_digest: str, groups: Iterable[tuple[str, str, int]]) -> PoolCounts:
    """A pool's members counted: `groups` are numbers of members by state and specification."""
    counts = {"warm": 0, "creating": 0, "starting": 0, "active": 0, "removing": 0, "stale": 0}
    for state, digest, number in groups:
        unclaimed = state in (MemberState.WARM, MemberState.CREATING)
        counts["stale" if unclaimed and digest != spec_digest else state] += number
    return PoolCounts(**counts)


def member_of(row: AnyRow, spec: ContainerSpec | None = None) -> Member:
    """The member in a row; with `spec` given, the row need not hold one."""
    return Member(
        id=row.id,
        namespace=row.namespace,
        pool_id=row.pool_id or "",
        template_id=row.template_id or "",
        template_name=row.template_name,
        spec=spec or spec_of(row),
        state=MemberState(row.state),
        version=row.version,
        create_time=row.create_time,
        spec_digest=row.spec_digest,
        address=row.address,
        pull_policy=PullPolicy(row.pull_policy),
        claim=_claim_of(row),
        start_secs=row.start_secs,
        end=_end_of(row),
        request_fingerprint=row.request_fingerprint,
    )


def _claim_of(row: AnyRow) -> Claim | None:
    if row.claim_time is None:
        return None
    return Claim(
        claim_time=row.claim_time,
        timeout_secs=row.timeout_secs,
        start=StartKind(row.start),
        name=row.name,
        metadata=row.metadata,
        request_id=row.request_id,
    )


def _end_of(row: AnyRow) -> MemberEnd | None:
    if row.end_reason is None:
        return None
    return MemberEnd(
        reason=EndReason(row.end_reason), time=row.end_time, message=row.end_message, exit_code=row.end_exit_code
    )


def claim_values(claim: Claim | None) -> Values:
    """A claim, or that there is none, as the columns that hold it."""
    return {
        "claim_time": claim.claim_time if claim else None,
        "timeout_secs": claim.timeout_secs if claim else 0,
        "expire_time": claim.expire_time if claim else None,
        "start": claim.start.value if claim else None,
        "name": claim.name if claim else "",
        "metadata": dict(claim.metadata) if claim else {},
        "request_id": claim.request_id if claim else "",
    }


def end_values(end: MemberEnd) -> Values:
    """An end as the columns that hold it."""
    return {
        "end_reason": end.reason.value,
        "end_time": end.time,
        "end_message": end.message,
        "end_exit_code": end.exit_code,
    }


def member_values(member: Member) -> Values:
    """A new member as a row."""
    return {
        "id": member.id,
        "namespace": member.namespace,
        "pool_id": member.pool_id or None,
        "template_id": member.template_id or None,
        "template_name": member.template_name,
        "spec": asdict(member.spec),
        "spec_digest": member.spec_digest,
        "state": member.state.value,
        "version": member.version,
        "create_time": member.create_time,
        "address": member.address,
        "pull_policy": member.pull_policy.value,
        **claim_values(member.claim),
        "request_fingerprint": member.request_fingerprint,
        "start_secs": member.start_secs,
        "end_reason": None,
        "end_time": None,
        "end_message": "",
        "end_exit_code": None,
        "gone_time": None,
    }


def secret_of(row: AnyRow) -> Secret:
    """The secret in a row, without its value."""
    return Secret(namespace=row.namespace, name=row.name, create_time=row.create_time, update_time=row.update_time)


def secret_values(secret: Secret, ciphertext: bytes) -> Values:
    """A secret as a row."""
    return {
        "namespace": secret.namespace,
        "name": secret.name,
        "ciphertext": ciphertext,
        "create_time": secret.create_time,
        "update_time": secret.update_time,
    }
