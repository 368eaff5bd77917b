"""The conversion between rows and domain values. No other module depends on both."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from sqlalchemy import Row

from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import (
    Claim,
    Instance,
    Pool,
    PoolCounts,
    PoolFailure,
    Secret,
    StartType,
    Template,
    Termination,
    TerminationReason,
)
from sandpool_server.domain.spec import ContainerSpec

AnyRow = Row[*tuple[Any, ...]]
Values = dict[str, Any]

NO_FAILURE: Values = {
    "failure_reason": None,
    "failure_message": None,
    "failure_time": None,
    "failure_next_attempt_time": None,
    "failure_consecutive": None,
}


def spec_of(row: AnyRow) -> ContainerSpec:
    """Return the specification in a row."""
    return ContainerSpec.from_json(row.spec)


def respecified_values(pool: Pool, spec: ContainerSpec) -> Values:
    """Return the columns of the pool that depend on its specification, for the new specification `spec`.

    `pool.image_refresh_interval_secs` must have its new value already. If the image changes, the image digest is
    cleared, because it belongs to the old image.
    """
    new = replace(pool, spec=spec)
    if spec.image != pool.spec.image:
        new = replace(new, image_digest="", image_check_time=None)
    return {
        "spec": spec.to_json(),
        "spec_digest": new.instance_digest(),
        "image_digest": new.image_digest,
        "image_check_time": new.image_check_time,
    }


def template_of(row: AnyRow) -> Template:
    """Return the template in a row."""
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
    """Return the columns of a template that is not deleted."""
    return {
        "id": template.id,
        "namespace": template.namespace,
        "name": template.name,
        "spec": template.spec.to_json(),
        "timeout_secs": template.timeout_secs,
        "version": template.version,
        "create_time": template.create_time,
        "update_time": template.update_time,
        "delete_time": None,
    }


def failure_of(row: AnyRow) -> PoolFailure | None:
    """Return the failure in the row of a pool."""
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
    """Return the columns of a pool's failure."""
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
    """Return the pool in a row."""
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
        image_refresh_interval_secs=row.image_refresh_interval_secs,
        warm_ttl_secs=row.warm_ttl_secs,
        drained=row.drained,
        image_digest=row.image_digest,
        image_check_time=row.image_check_time,
        failure=failure_of(row),
        delete_time=row.delete_time,
    )


def pool_values(pool: Pool) -> Values:
    """Return the columns of a pool."""
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
        "image_refresh_interval_secs": pool.image_refresh_interval_secs,
        "warm_ttl_secs": pool.warm_ttl_secs,
        "drained": pool.drained,
        **failure_values(pool.failure),
    }


def counts_of(spec_digest: str, groups: Iterable[tuple[str, str, int]]) -> PoolCounts:
    """Return the counts of a pool. `groups` contains tuples of state, digest and number of instances."""
    counts = {"warm": 0, "creating": 0, "starting": 0, "active": 0, "removing": 0, "stale": 0}
    for state, digest, number in groups:
        unclaimed = state in (InstanceState.WARM, InstanceState.CREATING)
        counts["stale" if unclaimed and digest != spec_digest else state] += number
    return PoolCounts(**counts)


def instance_of(row: AnyRow, spec: ContainerSpec | None = None) -> Instance:
    """Return the instance in a row. If `spec` is set, the row may lack the specification."""
    return Instance(
        id=row.id,
        namespace=row.namespace,
        pool_id=row.pool_id or "",
        template_id=row.template_id or "",
        template_name=row.template_name,
        spec=spec or spec_of(row),
        state=InstanceState(row.state),
        version=row.version,
        create_time=row.create_time,
        spec_digest=row.spec_digest,
        address=row.address,
        claim=_claim_of(row),
        start_secs=row.start_secs,
        end=_termination_of(row),
        request_fingerprint=row.request_fingerprint,
    )


def _claim_of(row: AnyRow) -> Claim | None:
    if row.claim_time is None:
        return None
    return Claim(
        claim_time=row.claim_time,
        timeout_secs=row.timeout_secs,
        start_type=StartType(row.start_type),
        name=row.name,
        metadata=row.metadata,
        request_id=row.request_id,
    )


def _termination_of(row: AnyRow) -> Termination | None:
    if row.termination_reason is None:
        return None
    return Termination(
        reason=TerminationReason(row.termination_reason),
        time=row.end_time,
        message=row.termination_message,
        exit_code=row.exit_code,
    )


def claim_values(claim: Claim | None) -> Values:
    """Return the columns of a claim, or of an unclaimed instance."""
    return {
        "claim_time": claim.claim_time if claim else None,
        "timeout_secs": claim.timeout_secs if claim else 0,
        "expire_time": claim.expire_time if claim else None,
        "start_type": claim.start_type.value if claim else None,
        "name": claim.name if claim else "",
        "metadata": dict(claim.metadata) if claim else {},
        "request_id": claim.request_id if claim else "",
    }


def termination_values(end: Termination) -> Values:
    """Return the columns of a termination."""
    return {
        "termination_reason": end.reason.value,
        "end_time": end.time,
        "termination_message": end.message,
        "exit_code": end.exit_code,
    }


def instance_values(instance: Instance) -> Values:
    """Return the columns of a new instance."""
    return {
        "id": instance.id,
        "namespace": instance.namespace,
        "pool_id": instance.pool_id or None,
        "template_id": instance.template_id or None,
        "template_name": instance.template_name,
        "spec": instance.spec.to_json(),
        "spec_digest": instance.spec_digest,
        "state": instance.state.value,
        "version": instance.version,
        "create_time": instance.create_time,
        "address": instance.address,
        **claim_values(instance.claim),
        "request_fingerprint": instance.request_fingerprint,
        "start_secs": instance.start_secs,
        "termination_reason": None,
        "end_time": None,
        "termination_message": "",
        "exit_code": None,
        "removed_time": None,
    }


def secret_of(row: AnyRow) -> Secret:
    """Return the secret in a row, without its value."""
    return Secret(namespace=row.namespace, name=row.name, create_time=row.create_time, update_time=row.update_time)


def secret_values(secret: Secret, ciphertext: bytes) -> Values:
    """Return the columns of a secret."""
    return {
        "namespace": secret.namespace,
        "name": secret.name,
        "ciphertext": ciphertext,
        "create_time": secret.create_time,
        "update_time": secret.update_time,
    }
