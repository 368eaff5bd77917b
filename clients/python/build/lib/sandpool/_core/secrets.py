"""Calls about secrets. Values go out in a request and come back in nothing."""

from __future__ import annotations

from sandpool._core import convert, methods
from sandpool._core.arguments import fresh_request_id, text
from sandpool._core.call import Call, Page
from sandpool._core.model import Secret
from sandpool.v1 import secret_service_pb2 as pb


def create_secret(name: str, value: str, timeout: float | None) -> Call[pb.CreateSecretResponse, Secret]:
    """Keep a new secret."""
    request = pb.CreateSecretRequest(name=name, value=text("value", value), request_id=fresh_request_id())
    return Call(methods.CREATE_SECRET, request, lambda answer: convert.secret(answer.secret), timeout=timeout)


def update_secret(name: str, value: str, timeout: float | None) -> Call[pb.UpdateSecretResponse, Secret]:
    """Change a secret's value."""
    request = pb.UpdateSecretRequest(name=name, value=text("value", value), request_id=fresh_request_id())
    return Call(methods.UPDATE_SECRET, request, lambda answer: convert.secret(answer.secret), timeout=timeout)


def list_secrets(page_size: int, token: str, timeout: float | None) -> Call[pb.ListSecretsResponse, Page[Secret]]:
    """Read one page of secrets."""
    request = pb.ListSecretsRequest(page_size=page_size, page_token=token)
    return Call(
        methods.LIST_SECRETS,
        request,
        lambda answer: Page(convert.secrets(answer.secrets), answer.next_page_token),
        timeout=timeout,
    )


def delete_secret(name: str, force: bool, timeout: float | None) -> Call[pb.DeleteSecretResponse, None]:
    """Delete a secret."""
    request = pb.DeleteSecretRequest(name=name, force=force, request_id=fresh_request_id())
    return Call(methods.DELETE_SECRET, request, lambda _: None, timeout=timeout)
