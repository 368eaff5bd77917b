"""Calls about pools."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sandpool._core import container_spec, methods
from sandpool._core import convert_resources as convert
from sandpool._core.arguments import (
    UNSET,
    Timeout,
    duration,
    is_given,
    new_request_id,
    present,
    reject,
    reject_unknown,
)
from sandpool._core.call import Call, Page
from sandpool._core.container_spec import lifetime, unchanged
from sandpool._core.options import AnyPoolOptions, PoolChanges, names
from sandpool._models.pool import Pool, PoolEvent
from sandpool.v1 import pool_service_pb2 as pb

_FIELDS: Final = {
    "name": ("name", unchanged),
    "warm_containers": ("warm_containers", unchanged),
    "max_containers": ("max_containers", unchanged),
    "timeout_secs": ("timeout", lifetime),
    "paused": ("paused", unchanged),
    "drained": ("drained", unchanged),
    "image_refresh_interval": (
        "image_refresh_interval",
        lambda value: duration("image_refresh_interval", value),
    ),
    "warm_ttl": ("warm_ttl", lambda value: duration("warm_ttl", value)),
}


def create_pool(
    name: str | None, image: str | None, template_name: str | None, options: Mapping[str, Any]
) -> Call[pb.CreatePoolResponse, Pool]:
    """Create a pool. Raise TypeError unless exactly one of `image` and `template_name` is given."""
    reject_unknown("create_pool", options, names(AnyPoolOptions))
    if image is None and template_name is None:
        raise TypeError("create_pool() needs image or template_name; the first positional argument is the pool's name")
    if template_name is not None:
        container_spec.reject_spec("template", {**options, "image": image}, "image", "env")
    else:
        reject("with an image, use warm_containers", size=options.get("size"))
    warm = options.get("warm_containers")
    if is_given(options.get("size")):
        if is_given(warm):
            raise TypeError("warm_containers and size mean the same; give one of them")
        warm = options["size"]
    request = pb.CreatePoolRequest(
        request_id=options.get("request_id") or new_request_id(),
        **present(
            name=name,
            spec=None if image is None else container_spec.message(image, options.get("env"), options),
            template_name=template_name,
            warm_containers=warm,
            max_containers=options.get("max_containers"),
            timeout=duration("timeout_secs", options.get("timeout_secs")),
            paused=options.get("paused"),
            drained=options.get("drained"),
            image_refresh_interval=duration("image_refresh_interval", options.get("image_refresh_interval")),
            warm_ttl=duration("warm_ttl", options.get("warm_ttl")),
        ),
    )
    return Call(
        methods.CREATE_POOL,
        request,
        lambda response: convert.pool(response.pool),
        timeout=options.get("request_timeout", UNSET),
    )


def get_pool(pool_id: str, timeout: Timeout) -> Call[pb.GetPoolResponse, Pool]:
    """Read a pool."""
    request = pb.GetPoolRequest(pool_id=pool_id)
    return Call(methods.GET_POOL, request, lambda response: convert.pool(response.pool), timeout=timeout)


def list_pools(page_size: int | None, token: str, timeout: Timeout) -> Call[pb.ListPoolsResponse, Page[Pool]]:
    """Read one page of pools."""
    request = pb.ListPoolsRequest(page_size=page_size or 0, page_token=token)
    return Call(
        methods.LIST_POOLS,
        request,
        lambda response: Page(convert.pools(response.pools), response.next_page_token),
        timeout=timeout,
    )


def update_pool(pool_id: str, changes: Mapping[str, Any]) -> Call[pb.UpdatePoolResponse, Pool]:
    """Update the given fields of a pool. Raise TypeError if none is given."""
    fields = container_spec.update("update_pool", PoolChanges, changes, _FIELDS)
    return Call(
        methods.UPDATE_POOL,
        pb.UpdatePoolRequest(pool_id=pool_id, **fields),
        lambda response: convert.pool(response.pool),
        timeout=changes.get("request_timeout", UNSET),
    )


def delete_pool(
    pool_id: str, force: bool, etag: str | None, request_id: str | None, timeout: Timeout
) -> Call[pb.DeletePoolResponse, None]:
    """Delete a pool."""
    request = pb.DeletePoolRequest(
        pool_id=pool_id, force=force, etag=etag or "", request_id=request_id or new_request_id()
    )
    return Call(methods.DELETE_POOL, request, lambda _: None, timeout=timeout)


def watch_pools(pool_ids: Iterable[str], timeout: Timeout) -> Call[pb.WatchPoolsResponse, PoolEvent]:
    """Watch some pools."""
    return Call(methods.WATCH_POOLS, pb.WatchPoolsRequest(pool_ids=pool_ids), convert.pool_event, timeout=timeout)


def watch_all_pools(timeout: Timeout) -> Call[pb.WatchPoolsResponse, PoolEvent | None]:
    """Watch all pools. The call yields None at the end of the initial state."""
    request = pb.WatchPoolsRequest(bookmark=True)

    def event(response: pb.WatchPoolsResponse) -> PoolEvent | None:
        return None if response.type == pb.WATCH_EVENT_TYPE_BOOKMARK else convert.pool_event(response)

    return Call(methods.WATCH_POOLS, request, event, timeout=timeout)
