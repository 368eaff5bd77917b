"""Every response of the public API that describes existing resources, as bytes."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from sandpool.v1 import pool_service_pb2 as pools
from sandpool.v1 import sandbox_service_pb2 as sandboxes
from sandpool.v1 import secret_service_pb2 as secrets
from sandpool.v1 import template_service_pb2 as templates
from sandpool.v1.sandbox_pb2 import SandboxState
from sandpool_server.gen.v1.pool_service_pb2_grpc import PoolServiceStub
from sandpool_server.gen.v1.sandbox_service_pb2_grpc import SandboxServiceStub
from sandpool_server.gen.v1.secret_service_pb2_grpc import SecretServiceStub
from sandpool_server.gen.v1.template_service_pb2_grpc import TemplateServiceStub

CALL_SECS = 30.0
_ALL_STATES = [number for number in SandboxState.values() if number]


class ApiWalk:
    """Reads every resource with List, then with Get and the first message of Watch."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.pools = PoolServiceStub(channel)
        self.sandboxes = SandboxServiceStub(channel)
        self.secrets = SecretServiceStub(channel)
        self.templates = TemplateServiceStub(channel)

    def responses(self) -> Iterator[tuple[str, bytes]]:
        """Yield each response with a description of its request."""
        listed = self._pages("ListPools", self.pools.ListPools, pools.ListPoolsRequest())
        for where, page in listed:
            yield where, page.SerializeToString()
            for pool in page.pools:
                one = self.pools.GetPool(pools.GetPoolRequest(pool_id=pool.pool_id), timeout=CALL_SECS)
                yield f"GetPool {pool.pool_id}", one.SerializeToString()
                request = pools.WatchPoolsRequest(pool_ids=[pool.pool_id])
                yield f"WatchPools {pool.pool_id}", _first(self.pools.WatchPools(request, timeout=CALL_SECS))
        all_states = sandboxes.ListSandboxesRequest(states=_ALL_STATES)
        for where, page in self._pages("ListSandboxes", self.sandboxes.ListSandboxes, all_states):
            yield where, page.SerializeToString()
            for sandbox in page.sandboxes:
                ref = sandbox.sandbox_id
                one = self.sandboxes.GetSandbox(sandboxes.GetSandboxRequest(sandbox_id=ref), timeout=CALL_SECS)
                yield f"GetSandbox {ref}", one.SerializeToString()
                request = sandboxes.WatchSandboxRequest(sandbox_id=ref)
                yield f"WatchSandbox {ref}", _first(self.sandboxes.WatchSandbox(request, timeout=CALL_SECS))
        for where, page in self._pages("ListTemplates", self.templates.ListTemplates, templates.ListTemplatesRequest()):
            yield where, page.SerializeToString()
            for template in page.templates:
                by_name = templates.GetTemplateRequest(template_name=template.name)
                one = self.templates.GetTemplate(by_name, timeout=CALL_SECS)
                yield f"GetTemplate {template.name}", one.SerializeToString()
        for where, page in self._pages("ListSecrets", self.secrets.ListSecrets, secrets.ListSecretsRequest()):
            yield where, page.SerializeToString()

    def _pages(self, name: str, call: Any, request: Any) -> Iterator[tuple[str, Any]]:
        while True:
            page = call(request, timeout=CALL_SECS)
            yield name, page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


def refusal(call: Any, request: Any) -> tuple[str, bytes]:
    """Return the error of a call, with its details. Fail if the call succeeds."""
    with pytest.raises(grpc.RpcError) as refused:
        call(request, timeout=CALL_SECS)
    error: Any = refused.value
    texts = [error.details(), *(str(pair) for pair in error.trailing_metadata())]
    return f"refusal {error.code().name} of {type(request).__name__}", "\n".join(texts).encode()


def _first(stream: Any) -> bytes:
    message: bytes = next(stream).SerializeToString()
    stream.cancel()
    return message
