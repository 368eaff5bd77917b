"""Calls about templates."""

from __future__ import annotations

from collections.abc import Mapping

from sandpool._core import convert, methods
from sandpool._core.arguments import fresh_request_id, given
from sandpool._core.call import Call, Page
from sandpool._core.model import Template
from sandpool._core.specs import Spec, changes
from sandpool.v1 import template_service_pb2 as pb


def create_template(
    name: str, spec: Spec, timeout_secs: int | None, timeout: float | None
) -> Call[pb.CreateTemplateResponse, Template]:
    """Create a template."""
    request = pb.CreateTemplateRequest(
        name=name, **spec.fields(), **given(timeout_secs=timeout_secs), request_id=fresh_request_id()
    )
    return Call(methods.CREATE_TEMPLATE, request, lambda answer: convert.template(answer.template), timeout=timeout)


def get_template(name: str, timeout: float | None) -> Call[pb.GetTemplateResponse, Template]:
    """Read a template."""
    request = pb.GetTemplateRequest(template_name=name)
    return Call(methods.GET_TEMPLATE, request, lambda answer: convert.template(answer.template), timeout=timeout)


def list_templates(page_size: int, token: str, timeout: float | None) -> Call[pb.ListTemplatesResponse, Page[Template]]:
    """Read one page of templates."""
    request = pb.ListTemplatesRequest(page_size=page_size, page_token=token)
    return Call(
        methods.LIST_TEMPLATES,
        request,
        lambda answer: Page(convert.templates(answer.templates), answer.next_page_token),
        timeout=timeout,
    )


def update_template(
    template_name: str, fields: Mapping[str, object], etag: str, timeout: float | None
) -> Call[pb.UpdateTemplateResponse, Template]:
    """Change those fields of a template that are not UNSET. Raises TypeError where nothing is given."""
    request = pb.UpdateTemplateRequest(
        template_name=template_name, **changes(**fields), etag=etag, request_id=fresh_request_id()
    )
    return Call(methods.UPDATE_TEMPLATE, request, lambda answer: convert.template(answer.template), timeout=timeout)


def delete_template(name: str, etag: str, timeout: float | None) -> Call[pb.DeleteTemplateResponse, None]:
    """Delete a template."""
    request = pb.DeleteTemplateRequest(template_name=name, etag=etag, request_id=fresh_request_id())
    return Call(methods.DELETE_TEMPLATE, request, lambda _: None, timeout=timeout)
