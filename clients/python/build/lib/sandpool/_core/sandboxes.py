"""Calls about sandboxes, and the commands in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from sandpool._core import convert, methods
from sandpool._core.arguments import fresh_request_id, given, one_of, pairs, refuse, words
from sandpool._core.call import Call, Page, Repeat
from sandpool._core.enums import SandboxState, WhenEmpty
from sandpool._core.model import CommandResult, SandboxInfo
from sandpool._core.specs import Spec, changes
from sandpool.v1 import sandbox_pb2
from sandpool.v1 import sandbox_service_pb2 as pb

CREATE_TIMEOUT: Final = 120.0
"""The least default for calls that may start a container, and pull its image first, in seconds.

The time to wait in line and that of a readiness command come on top.
"""
WAIT_SECS: Final = 30.0
"""How long the server lets a caller wait in line by default, in seconds."""
COMMAND_TIMEOUT: Final = 60.0
"""How long a command may run by default, in seconds."""
COMMAND_MARGIN: Final = 10.0
"""What the server may take beyond a command's timeout, to kill it and to answer, in seconds."""

WhenEmptyLike: TypeAlias = WhenEmpty | Literal["start_cold", "wait", "fail"]
"""What to do when no container is ready, or the word for it."""


@dataclass(frozen=True)
class Wanted:
    """Which sandbox to create, exactly one of pool, template and image, and what is its own."""

    pool_id: str | None = None
    template_name: str | None = None
    spec: Spec = field(default_factory=Spec)
    name: str | None = None
    metadata: Mapping[str, str] | None = None
    timeout_secs: int | None = None
    env: Mapping[str, str] | None = field(default=None, repr=False)
    when_empty: WhenEmptyLike | None = None
    wait_secs: float | None = None

    def least_timeout(self) -> float:
        """What the call needs at least where the caller says nothing: the wait in line and the start, in seconds."""
        waits = self.when_empty is not None and WhenEmpty(self.when_empty) is WhenEmpty.WAIT
        wait = (WAIT_SECS if self.wait_secs is None else self.wait_secs) if waits else 0.0
        return CREATE_TIMEOUT + wait + self.spec.readiness_secs()

    def request(self, request_id: str) -> pb.CreateSandboxRequest:
        """The request.

        Raises TypeError unless exactly one of pool_id, template_name and image is given, with what goes with it;
        ValueError for a `when_empty` that there is not.
        """
        sources = given(pool_id=self.pool_id, template_name=self.template_name, image=self.spec.image)
        if len(sources) != 1:
            raise TypeError(
                f"give exactly one of pool_id, template_name and image, not {' and '.join(sources) or 'none of them'}"
            )
        if self.spec.image is None:
            self.spec.refuse_all("pool" if self.pool_id is not None else "template")
        else:
            refuse("a sandbox from an image is always started cold; leave this out", when_empty=self.when_empty)
        when = None if self.when_empty is None else WhenEmpty(self.when_empty)
        if when is not WhenEmpty.WAIT:
            refuse('goes with when_empty="wait" only', wait_secs=self.wait_secs)
        return pb.CreateSandboxRequest(
            **self.spec.fields(),
            **given(
                pool_id=self.pool_id,
                template_name=self.template_name,
                name=self.name,
                metadata=pairs("metadata", self.metadata),
                timeout_secs=self.timeout_secs,
                env=pairs("env", self.env),
                when_empty=None if when is None else pb.WhenEmpty.Value(f"WHEN_EMPTY_{when.upper()}"),
                wait_secs=self.wait_secs,
            ),
            request_id=request_id,
        )


def create_sandbox(wanted: Wanted, timeout: float | None) -> Call[pb.CreateSandboxResponse, SandboxInfo]:
    """Create one sandbox."""
    return Call(
        methods.CREATE_SANDBOX,
        wanted.request(fresh_request_id()),
        lambda answer: convert.sandbox(answer.sandbox),
        timeout=timeout,
        least_timeout=wanted.least_timeout(),
    )


def create_batch(
    count: int, wanted: Wanted, timeout: float | None
) -> Call[pb.BatchCreateSandboxesResponse, list[SandboxInfo]]:
    """Create several sandboxes alike, all or none."""
    request = pb.BatchCreateSandboxesRequest(sandbox=wanted.request(""), count=count, request_id=fresh_request_id())
    return Call(
        methods.BATCH_CREATE_SANDBOXES,
        request,
        lambda answer: convert.sandboxes(answer.sandboxes),
        timeout=timeout,
        least_timeout=wanted.least_timeout(),
    )


def get_sandbox(sandbox_id: str, timeout: float | None) -> Call[pb.GetSandboxResponse, SandboxInfo]:
    """Read a sandbox."""
    request = pb.GetSandboxRequest(sandbox_id=sandbox_id)
    return Call(methods.GET_SANDBOX, request, lambda answer: convert.sandbox(answer.sandbox), timeout=timeout)


@dataclass(frozen=True)
class Filter:
    """Which sandboxes to list: those that meet all that is given. Without `states` all that have not terminated."""

    pool_id: str | None = None
    template_name: str | None = None
    states: Iterable[SandboxState | str] | None = None
    metadata: Mapping[str, str] | None = None

    def request(self, page_size: int) -> pb.ListSandboxesRequest:
        """The request for the first page. Raises ValueError for a state that there is not."""
        states = [
            sandbox_pb2.SandboxState.Value(f"SANDBOX_STATE_{str(state).upper()}")
            for state in words("states", self.states) or ()
        ]
        return pb.ListSandboxesRequest(
            page_size=page_size,
            states=states,
            **given(pool_id=self.pool_id, template_name=self.template_name, metadata=pairs("metadata", self.metadata)),
        )


def list_sandboxes(
    first: pb.ListSandboxesRequest, token: str, timeout: float | None
) -> Call[pb.ListSandboxesResponse, Page[SandboxInfo]]:
    """Read one page of sandboxes."""
    request = pb.ListSandboxesRequest()
    request.CopyFrom(first)
    request.page_token = token
    return Call(
        methods.LIST_SANDBOXES,
        request,
        lambda answer: Page(convert.sandboxes(answer.sandboxes), answer.next_page_token),
        timeout=timeout,
    )


def update_sandbox(
    sandbox_id: str, fields: Mapping[str, object], etag: str, timeout: float | None
) -> Call[pb.UpdateSandboxResponse, SandboxInfo]:
    """Change those fields of a sandbox that are not UNSET. Raises TypeError where nothing is given."""
    request = pb.UpdateSandboxRequest(
        sandbox_id=sandbox_id, **changes(**fields), etag=etag, request_id=fresh_request_id()
    )
    return Call(methods.UPDATE_SANDBOX, request, lambda answer: convert.sandbox(answer.sandbox), timeout=timeout)


def delete_sandbox(sandbox_id: str, timeout: float | None) -> Call[pb.DeleteSandboxResponse, SandboxInfo]:
    """End a sandbox."""
    request = pb.DeleteSandboxRequest(sandbox_id=sandbox_id, request_id=fresh_request_id())
    return Call(methods.DELETE_SANDBOX, request, lambda answer: convert.sandbox(answer.sandbox), timeout=timeout)


def watch_sandbox(sandbox_id: str, timeout: float | None) -> Call[pb.WatchSandboxResponse, SandboxInfo]:
    """Watch a sandbox until its end."""
    request = pb.WatchSandboxRequest(sandbox_id=sandbox_id)
    return Call(methods.WATCH_SANDBOX, request, lambda answer: convert.sandbox(answer.sandbox), timeout=timeout)


def run_command(
    sandbox_id: str,
    command: str | Sequence[str],
    args: Sequence[str] | None,
    *,
    timeout: float | None,
    env: Mapping[str, str] | None,
    cwd: str | None,
    working_dir: str | None,
    user: str | None,
) -> Call[pb.RunCommandResponse, CommandResult]:
    """Run a command: a line for the shell, a program with its arguments, or the two apart. It is never sent twice."""
    limit = COMMAND_TIMEOUT if timeout is None else timeout
    request = pb.RunCommandRequest(
        sandbox_id=sandbox_id,
        timeout_secs=limit,
        **given(
            env=pairs("env", env),
            working_dir=one_of(None, cwd=cwd, working_dir=working_dir),
            user=user,
        ),
    )
    if not isinstance(command, str):
        if args is not None:
            raise TypeError("args go with a command that is one string; add them to the list instead")
        request.argv.extend(command)
    elif args is not None:
        request.argv.extend([command, *(words("args", args) or ())])
    else:
        request.command = command
    return Call(
        methods.RUN_COMMAND,
        request,
        convert.command_result,
        repeat=Repeat.NEVER,
        timeout=limit + COMMAND_MARGIN,
        command_timeout=limit,
    )
