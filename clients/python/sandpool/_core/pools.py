"""Calls about pools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from sandpool._core import convert, methods
from sandpool._core.arguments import fresh_request_id, given, one_of, refuse, words
from sandpool._core.call import Call, Page
from sandpool._core.model import Pool, PoolEvent
from sandpool._core.specs import Spec, changes, pull_policy
from sandpool.v1 import pool_service_pb2 as pb


def create_pool(
    *,
    name: str | None,
    template_name: str | None,
    spec: Spec,
    warm_containers: int | None,
    size: int | None,
    replicas: int | None,
    options: Mapping[str, Any],
    timeout: float | None,
) -> Call[pb.CreatePoolResponse, Pool]:
    """Create a pool in one of the two styles. Raises TypeError where they are mixed."""
    options = {**options, "pull_policy": pull_policy(options.get("pull_policy"))}
    if template_name is None:
        if spec.image is None:
            raise TypeError(
                "give either image or template_name; the first argument without a keyword is the pool's name"
            )
        refuse("goes with template_name; with an image say warm_containers", size=size, replicas=replicas)
    else:
        spec.refuse_all("template")
    request = pb.CreatePoolRequest(
        **spec.fields(),
        **given(
            name=name,
            template_name=template_name,
            warm_containers=one_of(None, warm_containers=warm_containers, size=size, replicas=replicas),
            **options,
        ),
        request_id=fresh_request_id(),
    )
    return Call(methods.CREATE_POOL, request, lambda answer: convert.pool(answer.pool), timeout=timeout)


def get_pool(pool_id: str, timeout: float | None) -> Call[pb.GetPoolResponse, Pool]:
    """Read a pool."""
    request = pb.GetPoolRequest(pool_id=pool_id)
    return Call(methods.GET_POOL, request, lambda answer: convert.pool(answer.pool), timeout=timeout)


def list_pools(page_size: int, token: str, timeout: float | None) -> Call[pb.ListPoolsResponse, Page[Pool]]:
    """Read one page of pools."""
    request = pb.ListPoolsRequest(page_size=page_size, page_token=token)
    return Call(
        methods.LIST_POOLS,
        request,
        lambda answer: Page(convert.pools(answer.pools), answer.next_page_token),
        timeout=timeout,
    )


def update_pool(
    pool_id: str, fields: Mapping[str, object], etag: str, timeout: float | None
) -> Call[pb.UpdatePoolResponse, Pool]:
    """Change those fields of a pool that are not UNSET. Raises TypeError where nothing is given."""
    request = pb.UpdatePoolRequest(pool_id=pool_id, **changes(**fields), etag=etag, request_id=fresh_request_id())
    return Call(methods.UPDATE_POOL, request, lambda answer: convert.pool(answer.pool), timeout=timeout)


def delete_pool(pool_id: str, force: bool, etag: str, timeout: float | None) -> Call[pb.DeletePoolResponse, None]:
    """Delete a pool."""
    request = pb.DeletePoolRequest(pool_id=pool_id, force=force, etag=etag, request_id=fresh_request_id())
    return Call(methods.DELETE_POOL, request, lambda _: None, timeout=timeout)


def watch_pools(pool_ids: Iterable[str], timeout: float | None) -> Call[pb.WatchPoolsResponse, PoolEvent]:
    """Watch some pools."""
    request = pb.WatchPoolsRequest(pool_ids=words("pool_ids", pool_ids))
    return Call(methods.WATCH_POOLS, request, convert.pool_event, timeout=timeout)


def watch_all_pools(timeout: float | None) -> Call[pb.WatchPoolsResponse, PoolEvent | None]:
    """Watch all pools. None comes when all that was there at the beginning has been told."""
    request = pb.WatchPoolsRequest(bookmark=True)

    def event(answer: pb.WatchPoolsResponse) -> PoolEvent | None:
        return None if answer.type == pb.WATCH_EVENT_TYPE_BOOKMARK else convert.pool_event(answer)

    return Call(methods.WATCH_POOLS, request, event, timeout=timeout)
