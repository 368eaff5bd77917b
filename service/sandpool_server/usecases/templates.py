"""The use cases of templates."""

from dataclasses import replace

from sandpool_server.domain.ids import TEMPLATE, new_id
from sandpool_server.domain.model import DEFAULT_NAMESPACE, Template
from sandpool_server.interfaces import Clock, RequestKey, Store
from sandpool_server.usecases.etags import version_of
from sandpool_server.usecases.specs import changed_spec, spec_of
from sandpool_server.usecases.values import UNSET, NewTemplate, TemplateChanges


def request_key(method: str, request_id: str, fingerprint: str) -> RequestKey | None:
    """Return the key of a request; None if the caller sent no request id."""
    return RequestKey(method, request_id, fingerprint) if request_id else None


class Templates:
    """Named specifications. The methods raise the domain errors that `interfaces.Store` documents."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, new: NewTemplate, request_id: str, fingerprint: str) -> Template:
        """Create a template and return it."""
        now = self._clock.now()
        template = Template(
            id=new_id(TEMPLATE, now, self._clock.random_bits()),
            namespace=DEFAULT_NAMESPACE,
            name=new.name,
            spec=spec_of(new.spec),
            timeout_secs=new.timeout_secs,
            version=1,
            create_time=now,
            update_time=now,
        )
        return await self._store.create_template(template, request_key("CreateTemplate", request_id, fingerprint))

    async def get(self, ref: str) -> Template:
        """Return a template."""
        return await self._store.get_template(DEFAULT_NAMESPACE, ref)

    async def list(self, limit: int, after: str) -> list[Template]:
        """Return up to `limit` templates whose id sorts after `after`, sorted by id."""
        return await self._store.list_templates(DEFAULT_NAMESPACE, limit, after)

    async def update(
        self, ref: str, changes: TemplateChanges, etag: str, request_id: str, fingerprint: str
    ) -> Template:
        """Change a template and the pools that use it, and return the template."""
        now = self._clock.now()

        def change(template: Template) -> Template:
            timeout = template.timeout_secs if changes.timeout_secs is UNSET else changes.timeout_secs or 0
            return replace(
                template,
                name=template.name if changes.name is UNSET or changes.name is None else changes.name,
                spec=changed_spec(template.spec, changes.spec),
                timeout_secs=timeout,
                update_time=now,
            )

        key = request_key("UpdateTemplate", request_id, fingerprint)
        return await self._store.update_template(DEFAULT_NAMESPACE, ref, version_of(etag), change, key)

    async def delete(self, ref: str, etag: str, request_id: str, fingerprint: str) -> None:
        """Delete a template that no pool uses."""
        key = request_key("DeleteTemplate", request_id, fingerprint)
        await self._store.delete_template(DEFAULT_NAMESPACE, ref, version_of(etag), self._clock.now(), key)
