"""Calls about secrets. Requests contain values; responses do not."""

from __future__ import annotations

from sandpool._core import convert_resources as convert
from sandpool._core import methods
from sandpool._core.arguments import Timeout, new_request_id, text
from sandpool._core.call import Call, Page
from sandpool._models.pool import Secret
from sandpool.v1 import secret_service_pb2 as pb


def create_secret(
    name: str, value: str, request_id: str | None, timeout: Timeout
) -> Call[pb.CreateSecretResponse, Secret]:
    """Create a secret."""
    request = pb.CreateSecretRequest(name=name, value=text("value", value), request_id=request_id or new_request_id())
    return Call(methods.CREATE_SECRET, request, lambda response: convert.secret(response.secret), timeout=timeout)


def get_secret(name: str, timeout: Timeout) -> Call[pb.GetSecretResponse, Secret]:
    """Read a secret."""
    request = pb.GetSecretRequest(name=name)
    return Call(methods.GET_SECRET, request, lambda response: convert.secret(response.secret), timeout=timeout)


def list_secrets(page_size: int | None, token: str, timeout: Timeout) -> Call[pb.ListSecretsResponse, Page[Secret]]:
    """Read one page of secrets."""
    request = pb.ListSecretsRequest(page_size=page_size or 0, page_token=token)
    return Call(
        methods.LIST_SECRETS,
        request,
        lambda response: Page(convert.secrets(response.secrets), response.next_page_token),
        timeout=timeout,
    )


def update_secret(
    name: str, value: str, request_id: str | None, timeout: Timeout
) -> Call[pb.UpdateSecretResponse, Secret]:
    """Update the value of a secret."""
    request = pb.UpdateSecretRequest(name=name, value=text("value", value), request_id=request_id or new_request_id())
    return Call(methods.UPDATE_SECRET, request, lambda response: convert.secret(response.secret), timeout=timeout)


def delete_secret(
    name: str, force: bool, request_id: str | None, timeout: Timeout
) -> Call[pb.DeleteSecretResponse, None]:
    """Delete a secret."""
    request = pb.DeleteSecretRequest(name=name, force=force, request_id=request_id or new_request_id())
    return Call(methods.DELETE_SECRET, request, lambda _: None, timeout=timeout)
