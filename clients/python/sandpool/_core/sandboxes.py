"""Calls about sandboxes, and short commands in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from sandpool._core import container_spec, methods
from sandpool._core import convert_resources as convert
from sandpool._core.arguments import (
    UNSET,
    Timeout,
    choice,
    duration,
    new_request_id,
    present,
    reject,
    reject_unknown,
    string_map,
    strings,
    text,
)
from sandpool._core.call import Call, Page, Repeat
from sandpool._core.container_spec import lifetime, unchanged
from sandpool._core.options import AnyBatchOptions, AnySandboxOptions, SandboxChanges, names
from sandpool._models.enums import SandboxState, WhenEmpty
from sandpool._models.sandbox import CommandResult, SandboxInfo
from sandpool.v1 import sandbox_pb2
from sandpool.v1 import sandbox_service_pb2 as pb

CREATE_TIMEOUT: Final = 120.0
"""The least default timeout in seconds of calls that may start a container and pull its image.

The time limits of the wait queue and of the readiness probe are added.
"""
QUEUE_TIMEOUT: Final = 30.0
"""The server's default of `queue_timeout`, in seconds."""
COMMAND_TIMEOUT: Final = 60.0
"""The default timeout of a command, in seconds."""
COMMAND_MARGIN: Final = 10.0
"""The time that the server may need after a command's timeout to kill the command and to respond, in seconds."""
LONGEST_COMMAND: Final = 86_400.0
"""The longest timeout of a command that RunCommand accepts, in seconds."""

_FIELDS: Final = {
    "name": ("name", unchanged),
    "metadata": ("metadata", lambda value: string_map("metadata", value)),
    "timeout_secs": ("timeout", lifetime),
}


@dataclass(frozen=True)
class SandboxDraft:
    """A sandbox to create: its source, exactly one of pool, template and image, and its options."""

    pool_id: str | None
    template_name: str | None
    image: str | None
    options: Mapping[str, Any] = field(repr=False)

    def minimum_timeout(self) -> float:
        """Return the least default timeout of the call: the time in the wait queue and of the start, in seconds."""
        queue = 0.0
        if self.options.get("when_empty") == WhenEmpty.WAIT:
            queue_timeout = self.options.get("queue_timeout")
            queue = QUEUE_TIMEOUT if queue_timeout is None else queue_timeout
        return CREATE_TIMEOUT + queue + container_spec.readiness_limit(self.options)

    def request(self, request_id: str) -> pb.CreateSandboxRequest:
        """Return the request.

        Raises:
            TypeError: Not exactly one source is given, or an argument does not apply to the source.
            ValueError: `when_empty` is not an allowed value.
        """
        options = self.options
        sources = present(pool_id=self.pool_id, template_name=self.template_name, image=self.image)
        if len(sources) != 1:
            given = " and ".join(sources) or "none of them"
            raise TypeError(f"give exactly one of pool_id, template_name and image, not {given}")
        when = options.get("when_empty")
        if self.image is None:
            container_spec.reject_spec("pool" if self.pool_id is not None else "template", options)
        else:
            reject("a sandbox from an image is always a cold start", when_empty=when)
        empty = None if when is None else choice("when_empty", WhenEmpty, when)
        if empty is not WhenEmpty.WAIT:
            reject('it requires when_empty="wait"', queue_timeout=options.get("queue_timeout"))
        # With an image, the variables belong to the specification, so that the entrypoint receives them as well.
        from_image = self.image is not None
        return pb.CreateSandboxRequest(
            request_id=request_id,
            **present(
                pool_id=self.pool_id,
                template_name=self.template_name,
                spec=container_spec.message(self.image, options.get("env"), options) if from_image else None,
                name=options.get("name"),
                metadata=string_map("metadata", options.get("metadata")),
                timeout=duration("timeout_secs", options.get("timeout_secs")),
                env=None if from_image else string_map("env", options.get("env")),
                when_empty=None if empty is None else pb.WhenEmpty.Value(f"WHEN_EMPTY_{empty.upper()}"),
                queue_timeout=duration("queue_timeout", options.get("queue_timeout")),
            ),
        )


def create_sandbox(draft: SandboxDraft) -> Call[pb.CreateSandboxResponse, SandboxInfo]:
    """Create one sandbox."""
    reject_unknown("create", draft.options, names(AnySandboxOptions))
    return Call(
        methods.CREATE_SANDBOX,
        draft.request(draft.options.get("request_id") or new_request_id()),
        lambda response: convert.sandbox(response.sandbox),
        timeout=draft.options.get("request_timeout", UNSET),
        minimum_timeout=draft.minimum_timeout(),
    )


def create_batch(count: int, draft: SandboxDraft) -> Call[pb.BatchCreateSandboxesResponse, list[SandboxInfo]]:
    """Create several identical sandboxes, all or none."""
    reject_unknown("create_batch", draft.options, names(AnyBatchOptions))
    request = pb.BatchCreateSandboxesRequest(
        sandbox=draft.request(""), count=count, request_id=draft.options.get("request_id") or new_request_id()
    )
    return Call(
        methods.BATCH_CREATE_SANDBOXES,
        request,
        lambda response: convert.sandboxes(response.sandboxes),
        timeout=draft.options.get("request_timeout", UNSET),
        minimum_timeout=draft.minimum_timeout(),
    )


def get_sandbox(sandbox_id: str, timeout: Timeout) -> Call[pb.GetSandboxResponse, SandboxInfo]:
    """Read a sandbox."""
    request = pb.GetSandboxRequest(sandbox_id=sandbox_id)
    return Call(methods.GET_SANDBOX, request, lambda response: convert.sandbox(response.sandbox), timeout=timeout)


def list_request(
    pool_id: str | None,
    template_name: str | None,
    states: Iterable[SandboxState | str] | None,
    metadata: Mapping[str, str] | None,
    page_size: int | None,
) -> pb.ListSandboxesRequest:
    """Return the request for the first page of a list. Raise ValueError for a state that does not exist."""
    members = [choice("states", SandboxState, state) for state in strings("states", states) or ()]
    return pb.ListSandboxesRequest(
        page_size=page_size or 0,
        states=[sandbox_pb2.SandboxState.Value(f"SANDBOX_STATE_{state.upper()}") for state in members],
        **present(pool_id=pool_id, template_name=template_name, metadata=string_map("metadata", metadata)),
    )


def list_sandboxes(
    first: pb.ListSandboxesRequest, token: str, timeout: Timeout
) -> Call[pb.ListSandboxesResponse, Page[SandboxInfo]]:
    """Read one page of sandboxes."""
    request = pb.ListSandboxesRequest()
    request.CopyFrom(first)
    request.page_token = token
    return Call(
        methods.LIST_SANDBOXES,
        request,
        lambda response: Page(convert.sandboxes(response.sandboxes), response.next_page_token),
        timeout=timeout,
    )


def update_sandbox(
    function: str, sandbox_id: str, changes: Mapping[str, Any]
) -> Call[pb.UpdateSandboxResponse, SandboxInfo]:
    """Update the given fields of a sandbox. Raise TypeError if none is given."""
    fields = container_spec.update(function, SandboxChanges, changes, _FIELDS)
    return Call(
        methods.UPDATE_SANDBOX,
        pb.UpdateSandboxRequest(sandbox_id=sandbox_id, **fields),
        lambda response: convert.sandbox(response.sandbox),
        timeout=changes.get("request_timeout", UNSET),
    )


def delete_sandbox(
    sandbox_id: str, request_id: str | None, timeout: Timeout
) -> Call[pb.DeleteSandboxResponse, SandboxInfo]:
    """Delete a sandbox."""
    request = pb.DeleteSandboxRequest(sandbox_id=sandbox_id, request_id=request_id or new_request_id())
    return Call(methods.DELETE_SANDBOX, request, lambda response: convert.sandbox(response.sandbox), timeout=timeout)


def watch_sandbox(sandbox_id: str, timeout: Timeout) -> Call[pb.WatchSandboxResponse, SandboxInfo]:
    """Watch a sandbox until it is terminated."""
    request = pb.WatchSandboxRequest(sandbox_id=sandbox_id)
    return Call(methods.WATCH_SANDBOX, request, lambda response: convert.sandbox(response.sandbox), timeout=timeout)


def run_command(
    sandbox_id: str,
    command: str | Sequence[str],
    *,
    timeout: float | None,
    env: Mapping[str, str] | None,
    cwd: str | None,
    user: str | None,
) -> Call[pb.RunCommandResponse, CommandResult]:
    """Run a command with one request and one response. It is never sent twice."""
    limit = LONGEST_COMMAND if timeout is None else timeout
    shell_command, argv = command_or_argv(command)
    request = pb.RunCommandRequest(
        sandbox_id=sandbox_id,
        command=shell_command,
        argv=argv,
        timeout=duration("timeout", limit),
        **present(env=string_map("env", env), working_dir=cwd, user=user),
    )
    return Call(
        methods.RUN_COMMAND,
        request,
        convert.command_result,
        repeat=Repeat.NEVER,
        timeout=None if timeout is None else limit + COMMAND_MARGIN,
        command_timeout=limit,
    )


def command_or_argv(command: str | Sequence[str]) -> tuple[str, list[str]]:
    """Return a shell command and an empty list, or an empty string and the program with its arguments."""
    if isinstance(command, str):
        return text("command", command), []
    return "", [text("command", part) for part in strings("command", command) or []]
