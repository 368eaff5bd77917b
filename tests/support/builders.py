"""Builders of domain values: each sets every field; a test passes the relevant fields as keyword arguments.

Identifiers are unique in a process and sort in the order of their creation.
"""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sandpool_server.domain import ids
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import (
    DEFAULT_NAMESPACE,
    Claim,
    Instance,
    Pool,
    PoolFailure,
    Secret,
    StartType,
    Template,
    Termination,
    TerminationReason,
)
from sandpool_server.domain.spec import ContainerSpec
from sandpool_server.interfaces import ClaimRequest, PoolDraft, RequestKey

T0 = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
"""The current time of a test that does not advance its clock."""

_numbers = itertools.count(1)


class ManualClock:
    """Implements `interfaces.Clock`. Only `advance` changes the time."""

    def __init__(self, now: datetime = T0) -> None:
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._monotonic

    def random_bits(self) -> int:
        return next(_numbers)

    def advance(self, seconds: float) -> datetime:
        """Advance the clock and return the new time."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
        return self._now


def new_id(prefix: str) -> str:
    """Return a new identifier."""
    return ids.new_id(prefix, T0, next(_numbers))


def pool_id() -> str:
    return new_id(ids.POOL)


def template_id() -> str:
    return new_id(ids.TEMPLATE)


def sandbox_id() -> str:
    return new_id(ids.SANDBOX)


def sandbox_ids(number: int) -> list[str]:
    return [sandbox_id() for _ in range(number)]


def spec(image: str = "python:3.11-slim", **fields: Any) -> ContainerSpec:
    return ContainerSpec(image=image, **fields)


def template(name: str = "base", **fields: Any) -> Template:
    return replace(
        Template(
            id=template_id(),
            namespace=DEFAULT_NAMESPACE,
            name=name,
            spec=spec(),
            timeout_secs=0,
            version=1,
            create_time=T0,
            update_time=T0,
        ),
        **fields,
    )


def pool_draft(name: str = "", **fields: Any) -> PoolDraft:
    """Return a pool with its own specification, or with `template_ref`, a pool of a template."""
    return replace(
        PoolDraft(
            id=pool_id(),
            namespace=DEFAULT_NAMESPACE,
            name=name,
            template_ref="",
            spec=None if fields.get("template_ref") else spec(),
            timeout_secs=None,
            warm_containers=2,
            max_containers=None,
            paused=False,
            create_time=T0,
        ),
        **fields,
    )


def pool(name: str = "", **fields: Any) -> Pool:
    return replace(
        Pool(
            id=pool_id(),
            namespace=DEFAULT_NAMESPACE,
            name=name,
            template_id="",
            template_name="",
            spec=spec(),
            timeout_secs=0,
            own_timeout_secs=0,
            warm_containers=2,
            max_containers=None,
            paused=False,
            version=1,
            create_time=T0,
            update_time=T0,
        ),
        **fields,
    )


def claim(**fields: Any) -> Claim:
    return replace(Claim(claim_time=T0, timeout_secs=0, start_type=StartType.WARM), **fields)


def instance(state: InstanceState = InstanceState.WARM, **fields: Any) -> Instance:
    """Return an instance. An instance in use has a claim by default."""
    used = state in (InstanceState.STARTING, InstanceState.ACTIVE)
    fields.setdefault("spec_digest", fields.get("spec", spec()).digest())
    return replace(
        Instance(
            id=sandbox_id(),
            namespace=DEFAULT_NAMESPACE,
            pool_id="",
            template_id="",
            template_name="",
            spec=spec(),
            state=state,
            version=1,
            create_time=T0,
            claim=claim() if used else None,
        ),
        **fields,
    )


def claim_request(count: int = 1, **fields: Any) -> ClaimRequest:
    """Return a claim request. Without a source in the keyword arguments, the sandbox belongs to no pool."""
    if not fields.keys() & {"pool_ref", "template_ref", "spec"}:
        fields["spec"] = spec()
    return replace(
        ClaimRequest(namespace=DEFAULT_NAMESPACE, count=count, ids=tuple(sandbox_ids(count)), now=T0, received=1000.0),
        **fields,
    )


def secret(name: str = "TOKEN", **fields: Any) -> Secret:
    return replace(Secret(namespace=DEFAULT_NAMESPACE, name=name, create_time=T0, update_time=T0), **fields)


def request_key(request_id: str = "request-1", method: str = "Method", fingerprint: str = "f") -> RequestKey:
    return RequestKey(method, request_id, fingerprint)


def end(reason: TerminationReason = TerminationReason.DELETED, **fields: Any) -> Termination:
    return replace(Termination(reason=reason, time=T0), **fields)


def failure(reason: FailureReason = FailureReason.START_FAILED, **fields: Any) -> PoolFailure:
    return replace(
        PoolFailure(
            reason=reason,
            message="it did not start",
            time=T0,
            next_attempt_time=T0 + timedelta(seconds=1),
            consecutive=1,
        ),
        **fields,
    )
