"""The client's methods about templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sandpool._core import quantities, templates
from sandpool._core.arguments import UNSET, Maybe, one_of, ref_and_name
from sandpool._core.model import Template
from sandpool._core.specs import Spec
from sandpool._io.aio import Transport


class TemplateMethods:
    """Named specifications of containers. The first argument takes the name or the identifier everywhere."""

    _transport: Transport

    async def create_template(
        self,
        name: str,
        image: str,
        *,
        cpus: float | None = None,
        memory_mb: int | None = None,
        ephemeral_disk_mb: int | None = None,
        disk_mb: int | None = None,
        cpu: str | float | None = None,
        memory: str | int | None = None,
        storage: str | int | None = None,
        timeout_secs: int | None = None,
        secret_names: Sequence[str] | None = None,
        entrypoint: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        readiness_command: Sequence[str] | None = None,
        readiness_interval_secs: float | None = None,
        readiness_timeout_secs: float | None = None,
        readiness_retries: int | None = None,
        timeout: float | None = None,
    ) -> Template:
        """Create a template.

        Args:
            name: Its name, unique among the templates.
            image: The container image.
            cpus: CPUs of each container; 1.0 by default.
            memory_mb: Memory in MiB; 512 by default.
            ephemeral_disk_mb: Disk in MiB; 1024 by default.
            disk_mb: Another name of `ephemeral_disk_mb`.
            cpu: Another way to say `cpus`: "500m", "2".
            memory: Another way to say `memory_mb`: "512Mi", "2Gi".
            storage: Another way to say `ephemeral_disk_mb`: "1Gi".
            timeout_secs: The lifetime of a sandbox from its claim, in seconds; 0, none, by default.
            secret_names: Names of secrets for each sandbox.
            entrypoint: A command that runs in each container beside the sandbox's commands; with secrets it starts when
                a sandbox is claimed, else when its container does. When it ends, so does the sandbox.
            env: Environment of the sandbox's processes and of the entrypoint, over the image's.
            readiness_command: A program and its arguments that must succeed in a container before it counts as ready;
                none by default: a container is ready when it runs commands.
            readiness_interval_secs: Seconds between two tries of it; 0.5 by default.
            readiness_timeout_secs: Seconds that one try may take; 5 by default.
            readiness_retries: How often it may fail before the container is given up; 20 by default.
            timeout: Seconds for this call; the client's by default.

        Raises:
            ResourceAlreadyExistsError: The name is taken.
            SecretNotFoundError: A secret does not exist.
            ValidationError: A value is out of its bounds.
        """
        spec = Spec(
            image,
            one_of(None, cpus=cpus, cpu=quantities.cpus(cpu)),
            one_of(None, memory_mb=memory_mb, memory=quantities.mebibytes("memory", memory)),
            one_of(None, ephemeral_disk_mb=ephemeral_disk_mb, storage=quantities.mebibytes("storage", storage)),
            disk_mb,
            secret_names,
            entrypoint,
            env=env,
            readiness_command=readiness_command,
            readiness_interval_secs=readiness_interval_secs,
            readiness_timeout_secs=readiness_timeout_secs,
            readiness_retries=readiness_retries,
        )
        return await self._transport.call(templates.create_template(name, spec, timeout_secs, timeout))

    async def get_template(self, name: str, *, timeout: float | None = None) -> Template:
        """Read one template. Raises TemplateNotFoundError."""
        return await self._transport.call(templates.get_template(name, timeout))

    async def list_templates(self, *, page_size: int = 0, timeout: float | None = None) -> list[Template]:
        """All templates, oldest first, read in pages of `page_size`, 100 by default; `timeout` is for a page."""
        return await self._transport.pages(lambda token: templates.list_templates(page_size, token, timeout))

    async def update_template(
        self,
        template_name: str | None = None,
        *,
        name: Maybe[str] = UNSET,
        new_name: Maybe[str] = UNSET,
        image: Maybe[str] = UNSET,
        cpus: Maybe[float | None] = UNSET,
        memory_mb: Maybe[int | None] = UNSET,
        ephemeral_disk_mb: Maybe[int | None] = UNSET,
        disk_mb: Maybe[int | None] = UNSET,
        timeout_secs: Maybe[int | None] = UNSET,
        secret_names: Maybe[Sequence[str] | None] = UNSET,
        entrypoint: Maybe[Sequence[str] | None] = UNSET,
        env: Maybe[Mapping[str, str] | None] = UNSET,
        readiness_command: Maybe[Sequence[str] | None] = UNSET,
        readiness_interval_secs: Maybe[float | None] = UNSET,
        readiness_timeout_secs: Maybe[float | None] = UNSET,
        readiness_retries: Maybe[int | None] = UNSET,
        etag: str = "",
        timeout: float | None = None,
    ) -> Template:
        """Change what is given of a template, and with it every pool that follows it; None puts a field back.

        `new_name` means `name`, which without `template_name` says which template is meant; `disk_mb` means
        `ephemeral_disk_mb`.

        Raises:
            TypeError: Nothing to change, or one field under two names.
            ResourceChangedError: `etag` is given and is not the template's present one.
        """
        template, own_name = ref_and_name("template_name", template_name, name)
        fields = {
            "name": one_of(UNSET, name=own_name, new_name=new_name),
            "image": image,
            "cpus": cpus,
            "memory_mb": memory_mb,
            "ephemeral_disk_mb": one_of(UNSET, ephemeral_disk_mb=ephemeral_disk_mb, disk_mb=disk_mb),
            "timeout_secs": timeout_secs,
            "secret_names": secret_names,
            "entrypoint": entrypoint,
            "env": env,
            "readiness_command": readiness_command,
            "readiness_interval_secs": readiness_interval_secs,
            "readiness_timeout_secs": readiness_timeout_secs,
            "readiness_retries": readiness_retries,
        }
        return await self._transport.call(templates.update_template(template, fields, etag, timeout))

    async def delete_template(self, name: str, *, etag: str = "", timeout: float | None = None) -> None:
        """Delete a template. Raises TemplateInUseError while pools follow it."""
        await self._transport.call(templates.delete_template(name, etag, timeout))
