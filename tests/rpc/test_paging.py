"""Pages and page tokens, and fingerprints of requests."""

import base64

import grpc
import pytest

from sandpool.v1 import container_pb2
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool.v1 import template_service_pb2 as t
from sandpool_server.rpc.fingerprints import fingerprint_of
from tests.rpc.conftest import Rig, refused


async def make_pools(rig: Rig, count: int) -> None:
    for number in range(count):
        await rig.pools.CreatePool(
            p.CreatePoolRequest(name=f"pool{number}", spec=container_pb2.ContainerSpec(image="i"))
        )


async def test_pages_contain_every_pool_once(rig: Rig) -> None:
    await make_pools(rig, 5)
    seen, token, sizes = [], "", []
    while True:
        page = await rig.pools.ListPools(p.ListPoolsRequest(page_size=2, page_token=token))
        seen += [pool.name for pool in page.pools]
        sizes.append(len(page.pools))
        token = page.next_page_token
        if not token:
            break
    assert seen == [f"pool{number}" for number in range(5)]
    assert sizes == [2, 2, 1]


async def test_full_last_page_has_no_token(rig: Rig) -> None:
    await make_pools(rig, 2)
    page = await rig.pools.ListPools(p.ListPoolsRequest(page_size=2))
    assert (len(page.pools), page.next_page_token) == (2, "")


async def test_default_page_size_is_100(rig: Rig) -> None:
    await rig.pools.ListPools(p.ListPoolsRequest())
    assert rig.fakes.faults.last == (101, "")
    await rig.templates.ListTemplates(t.ListTemplatesRequest(page_size=1000))
    assert rig.fakes.faults.last == (1001, "")


async def make_token(rig: Rig) -> str:
    await make_pools(rig, 2)
    return (await rig.pools.ListPools(p.ListPoolsRequest(page_size=1))).next_page_token


async def test_token_is_valid_for_another_page_size(rig: Rig) -> None:
    token = await make_token(rig)
    page = await rig.pools.ListPools(p.ListPoolsRequest(page_size=7, page_token=token))
    assert [pool.name for pool in page.pools] == ["pool1"]


def forged(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "???",
        "ü",
        "=",
        "A" * 512,
        forged("2:000000000000:pool-00000000000000000001"),
        forged("1:000000000000:"),
        forged("1:000000000000:pool-00000000000000000001"),
        forged("1:000000000000:' OR 1=1"),
        forged("1:000000000000:" + "A" * 129),
    ],
)
async def test_rejects_invalid_token(rig: Rig, token: str) -> None:
    reported = await refused(rig.pools.ListPools(p.ListPoolsRequest(page_token=token)))
    assert (reported.code, reported.fields) == (grpc.StatusCode.INVALID_ARGUMENT, ["page_token"])


async def test_rejects_token_of_another_list(rig: Rig) -> None:
    token = await make_token(rig)
    reported = await refused(rig.templates.ListTemplates(t.ListTemplatesRequest(page_token=token)))
    assert reported.fields == ["page_token"]
    assert "another list" in reported.message


async def test_rejects_token_of_other_filters(rig: Rig) -> None:
    for name in ("one", "two"):
        await rig.sandboxes.CreateSandbox(
            s.CreateSandboxRequest(
                spec=container_pb2.ContainerSpec(image="i"), name=name, metadata={"a": "b", "c": "d"}
            )
        )
    filters = {"metadata": {"a": "b", "c": "d"}, "states": [2]}
    token = (await rig.sandboxes.ListSandboxes(s.ListSandboxesRequest(page_size=1, **filters))).next_page_token
    again = await rig.sandboxes.ListSandboxes(s.ListSandboxesRequest(page_token=token, **filters))
    assert [sandbox.name for sandbox in again.sandboxes] == ["two"]
    reported = await refused(rig.sandboxes.ListSandboxes(s.ListSandboxesRequest(page_token=token, metadata={"a": "b"})))
    assert reported.fields == ["page_token"]


def test_fingerprint_depends_only_on_requested_values() -> None:
    request = s.CreateSandboxRequest(pool_id="p", metadata={"a": "1", "b": "2"}, request_id="r")
    first = fingerprint_of(request, request.request_id)
    assert len(first) == 32
    same = s.CreateSandboxRequest(pool_id="p", metadata={"b": "2", "a": "1"}, request_id="other")
    assert fingerprint_of(same, same.request_id) == first
    other = s.CreateSandboxRequest(pool_id="p", metadata={"a": "1"}, request_id="r")
    assert fingerprint_of(other, other.request_id) != first
    later = s.CreateSandboxRequest.FromString(request.SerializeToString() + b"\xf2\x3f\x03new")
    assert fingerprint_of(later, "r") == first
    assert request.request_id == "r"


def test_fingerprint_is_empty_without_request_id() -> None:
    assert fingerprint_of(s.CreateSandboxRequest(pool_id="p"), "") == ""
