"""Implementation of TemplateService on the use cases."""

from sandpool.v1 import template_service_pb2 as messages
from sandpool_server.gen.v1 import template_service_pb2_grpc as stubs
from sandpool_server.rpc.calls import Context
from sandpool_server.rpc.converters import template_message
from sandpool_server.rpc.fingerprints import fingerprint_of
from sandpool_server.rpc.paging import page_of
from sandpool_server.rpc.requests import new_template, template_changes
from sandpool_server.usecases.templates import Templates


class TemplateServicer(stubs.TemplateServiceServicer):
    """Implements TemplateService. `Calls` validates requests and converts domain errors to statuses."""

    def __init__(self, templates: Templates) -> None:
        self._templates = templates

    async def CreateTemplate(
        self, request: messages.CreateTemplateRequest, context: Context
    ) -> messages.CreateTemplateResponse:
        """Create a template."""
        fingerprint = fingerprint_of(request, request.request_id)
        template = await self._templates.create(new_template(request), request.request_id, fingerprint)
        return messages.CreateTemplateResponse(template=template_message(template))

    async def GetTemplate(self, request: messages.GetTemplateRequest, context: Context) -> messages.GetTemplateResponse:
        """Return a template."""
        template = await self._templates.get(request.template_name)
        return messages.GetTemplateResponse(template=template_message(template))

    async def ListTemplates(
        self, request: messages.ListTemplatesRequest, context: Context
    ) -> messages.ListTemplatesResponse:
        """List templates, oldest first."""
        templates, token = await page_of(request).fetch(self._templates.list, lambda template: template.id)
        return messages.ListTemplatesResponse(
            templates=[template_message(template) for template in templates], next_page_token=token
        )

    async def UpdateTemplate(
        self, request: messages.UpdateTemplateRequest, context: Context
    ) -> messages.UpdateTemplateResponse:
        """Update a template."""
        fingerprint = fingerprint_of(request, request.request_id)
        template = await self._templates.update(
            request.template_name, template_changes(request), request.etag, request.request_id, fingerprint
        )
        return messages.UpdateTemplateResponse(template=template_message(template))

    async def DeleteTemplate(
        self, request: messages.DeleteTemplateRequest, context: Context
    ) -> messages.DeleteTemplateResponse:
        """Delete a template."""
        fingerprint = fingerprint_of(request, request.request_id)
        await self._templates.delete(request.template_name, request.etag, request.request_id, fingerprint)
        return messages.DeleteTemplateResponse()
