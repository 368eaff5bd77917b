"""Builders of domain values: each has every field filled in, and takes what a test cares about by keyword.

Identifiers come out in the order in which they are made, and no two are alike in a process.
"""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sandpool_server.domain import ids
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import (
    DEFAULT_NAMESPACE,
    Claim,
    ContainerSpec,
    EndReason,
    Member,
    MemberEnd,
    Pool,
    PoolFailure,
    Secret,
    StartKind,
    Template,
)
from sandpool_server.ports import ClaimRequest, PoolDraft, RequestKey

T0 = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
"""The present moment of a test that does not move its clock."""

_numbers = itertools.count(1)


class ManualClock:
    """Implements `ports.Clock`: time passes by `advance` alone."""

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
        """Let time pass; returns the new present."""
        self._now += timedelta(seconds=seconds)
        self._monotonic += seconds
        return self._now


def new_id(prefix: str) -> str:
    """A new identifier."""
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
    """A pool with its own specification; with `template_ref`, one that follows a template."""
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
    return replace(Claim(claim_time=T0, timeout_secs=0, start=StartKind.WARM), **fields)


def member(state: MemberState = MemberState.WARM, **fields: Any) -> Member:
    """A member; one that is in use has a claim unless it is given another."""
    used = state in (MemberState.STARTING, MemberState.ACTIVE)
    fields.setdefault("spec_digest", fields.get("spec", spec()).digest())
    return replace(
        Member(
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
    """A claim; without a source in the keywords, of a sandbox that belongs to no pool."""
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


def end(reason: EndReason = EndReason.DELETED, **fields: Any) -> MemberEnd:
    return replace(MemberEnd(reason=reason, time=T0), **fields)


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
