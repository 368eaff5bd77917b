"""Calls about templates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from sandpool._core import container_spec, methods
from sandpool._core import convert_resources as convert
from sandpool._core.arguments import UNSET, Timeout, duration, new_request_id, present, reject_unknown
from sandpool._core.call import Call, Page
from sandpool._core.container_spec import lifetime, unchanged
from sandpool._core.options import TemplateChanges, TemplateOptions, names
from sandpool._models.pool import Template
from sandpool.v1 import template_service_pb2 as pb

_FIELDS: Final = {"name": ("name", unchanged), "timeout_secs": ("timeout", lifetime)}


def create_template(name: str, image: str, options: Mapping[str, Any]) -> Call[pb.CreateTemplateResponse, Template]:
    """Create a template."""
    reject_unknown("create_template", options, names(TemplateOptions))
    request = pb.CreateTemplateRequest(
        name=name,
        spec=container_spec.message(image, options.get("env"), options),
        request_id=options.get("request_id") or new_request_id(),
        **present(timeout=duration("timeout_secs", options.get("timeout_secs"))),
    )
    return Call(
        methods.CREATE_TEMPLATE,
        request,
        lambda response: convert.template(response.template),
        timeout=options.get("request_timeout", UNSET),
    )


def get_template(template_name: str, timeout: Timeout) -> Call[pb.GetTemplateResponse, Template]:
    """Read a template."""
    request = pb.GetTemplateRequest(template_name=template_name)
    return Call(methods.GET_TEMPLATE, request, lambda response: convert.template(response.template), timeout=timeout)


def list_templates(
    page_size: int | None, token: str, timeout: Timeout
) -> Call[pb.ListTemplatesResponse, Page[Template]]:
    """Read one page of templates."""
    request = pb.ListTemplatesRequest(page_size=page_size or 0, page_token=token)
    return Call(
        methods.LIST_TEMPLATES,
        request,
        lambda response: Page(convert.templates(response.templates), response.next_page_token),
        timeout=timeout,
    )


def update_template(template_name: str, changes: Mapping[str, Any]) -> Call[pb.UpdateTemplateResponse, Template]:
    """Update the given fields of a template. Raise TypeError if none is given."""
    fields = container_spec.update("update_template", TemplateChanges, changes, _FIELDS)
    return Call(
        methods.UPDATE_TEMPLATE,
        pb.UpdateTemplateRequest(template_name=template_name, **fields),
        lambda response: convert.template(response.template),
        timeout=changes.get("request_timeout", UNSET),
    )


def delete_template(
    template_name: str, etag: str | None, request_id: str | None, timeout: Timeout
) -> Call[pb.DeleteTemplateResponse, None]:
    """Delete a template."""
    request = pb.DeleteTemplateRequest(
        template_name=template_name, etag=etag or "", request_id=request_id or new_request_id()
    )
    return Call(methods.DELETE_TEMPLATE, request, lambda _: None, timeout=timeout)
