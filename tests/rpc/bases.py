"""One valid request of each type, and what is known of the rules that descriptors do not explain.

Each table is complete by test: a new request type, whole-message rule, custom rule or field without a rule fails the
test of bad input until it is entered here.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from sandpool.v1 import file_service_pb2 as f
from sandpool.v1 import monitor_service_pb2 as m
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import port_service_pb2 as o
from sandpool.v1 import process_pb2
from sandpool.v1 import process_service_pb2 as x
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool.v1 import secret_service_pb2 as k
from sandpool.v1 import template_service_pb2 as t

_IMAGE = "python:3.11-slim"

_SIZE = process_pb2.TerminalSize(rows=24, cols=80)
_START = x.StartProcessRequest(sandbox_id="kept", process_id="p", command="true")
_TARGET = f.WriteFileTarget(sandbox_id="kept", path="/a")

_ALL: tuple[Message, ...] = (
    p.CreatePoolRequest(image=_IMAGE),
    p.GetPoolRequest(pool_id="kept"),
    p.ListPoolsRequest(),
    p.UpdatePoolRequest(pool_id="kept"),
    p.DeletePoolRequest(pool_id="kept"),
    p.WatchPoolsRequest(),
    t.CreateTemplateRequest(name="new", image=_IMAGE),
    t.GetTemplateRequest(template_name="kept"),
    t.ListTemplatesRequest(),
    t.UpdateTemplateRequest(template_name="kept"),
    t.DeleteTemplateRequest(template_name="kept"),
    s.CreateSandboxRequest(image=_IMAGE),
    s.BatchCreateSandboxesRequest(sandbox=s.CreateSandboxRequest(image=_IMAGE), count=2),
    s.GetSandboxRequest(sandbox_id="kept"),
    s.ListSandboxesRequest(),
    s.UpdateSandboxRequest(sandbox_id="kept"),
    s.DeleteSandboxRequest(sandbox_id="kept"),
    s.WatchSandboxRequest(sandbox_id="kept"),
    s.RunCommandRequest(sandbox_id="kept", command="true"),
    k.CreateSecretRequest(name="NEW", value="hush"),
    k.UpdateSecretRequest(name="KEPT", value="hush"),
    k.ListSecretsRequest(),
    k.DeleteSecretRequest(name="KEPT"),
    _START,
    x.AttachProcessRequest(sandbox_id="kept", process_id="p"),
    x.ConnectProcessRequest(start=_START),
    x.WriteProcessInputRequest(sandbox_id="kept", process_id="p", input=x.ProcessInput(data=b"a")),
    x.ResizeProcessRequest(sandbox_id="kept", process_id="p", terminal=_SIZE),
    x.SignalProcessRequest(sandbox_id="kept", process_id="p", signal=9),
    x.KillProcessRequest(sandbox_id="kept", process_id="p"),
    x.GetProcessRequest(sandbox_id="kept", process_id="p"),
    x.ListProcessesRequest(sandbox_id="kept"),
    x.RestartProcessRequest(sandbox_id="kept", process_id="p"),
    f.ReadFileRequest(sandbox_id="kept", path="/a"),
    f.WriteFileRequest(target=_TARGET),
    f.PutFileRequest(target=_TARGET, data=b"a"),
    f.GetUploadRequest(sandbox_id="kept", upload_id="u"),
    f.StatFileRequest(sandbox_id="kept", path="/a"),
    f.ListDirectoryRequest(sandbox_id="kept", path="/a"),
    f.MakeDirectoryRequest(sandbox_id="kept", path="/a"),
    f.MoveFileRequest(sandbox_id="kept", source="/a", destination="/b"),
    f.CopyFileRequest(sandbox_id="kept", source="/a", destination="/b"),
    f.RemoveFileRequest(sandbox_id="kept", path="/a"),
    f.GlobFilesRequest(sandbox_id="kept", pattern="/*"),
    f.WatchFilesRequest(sandbox_id="kept", path="/a"),
    f.DownloadFolderRequest(sandbox_id="kept", path="/a"),
    f.UploadFolderRequest(target=f.UploadFolderTarget(sandbox_id="kept", path="/a")),
    o.OpenTunnelRequest(target=o.TunnelTarget(sandbox_id="kept", port=80)),
    o.ExposePortRequest(sandbox_id="kept", port=80),
    o.UnexposePortRequest(sandbox_id="kept", port=80),
    o.ListExposedPortsRequest(sandbox_id="kept"),
    m.ReadLogsRequest(sandbox_id="kept"),
    m.GetStatsRequest(sandbox_id="kept"),
    m.WatchStatsRequest(sandbox_id="kept"),
)

BASES: dict[str, Message] = {message.DESCRIPTOR.full_name: message for message in _ALL}

UNCONSTRAINED = {
    # Both values of a bool are right.
    "sandpool.v1.CreatePoolRequest.paused",
    "sandpool.v1.CreatePoolRequest.drain",
    "sandpool.v1.UpdatePoolRequest.paused",
    "sandpool.v1.UpdatePoolRequest.drain",
    "sandpool.v1.DeletePoolRequest.force",
    "sandpool.v1.WatchPoolsRequest.bookmark",
    "sandpool.v1.DeleteSecretRequest.force",
    "sandpool.v1.StartProcessRequest.stdin",
    "sandpool.v1.StartProcessRequest.kill_on_disconnect",
    "sandpool.v1.ProcessInput.close",
    "sandpool.v1.SignalProcessRequest.tree",
    "sandpool.v1.PutFileRequest.more",
    "sandpool.v1.StatFileRequest.follow",
    "sandpool.v1.MoveFileRequest.overwrite",
    "sandpool.v1.CopyFileRequest.overwrite",
    "sandpool.v1.RemoveFileRequest.recursive",
    "sandpool.v1.RemoveFileRequest.missing_ok",
    "sandpool.v1.WatchFilesRequest.recursive",
    "sandpool.v1.ReadLogsRequest.follow",
    # Any moment is right.
    "sandpool.v1.ReadLogsRequest.since",
    # Checked by the server against the fields of the request: see `test_updates.py`.
    "sandpool.v1.UpdatePoolRequest.update_mask",
    "sandpool.v1.UpdateTemplateRequest.update_mask",
    "sandpool.v1.UpdateSandboxRequest.update_mask",
}
"""The fields that no rule is about."""

FIELD_RULES: dict[str, tuple[str, ...]] = {
    "http_check.path": ("a", "/a b", "/ü", "/\n", "/" + "x" * 2048),
    "run_command.user": ("a b", ":users", "root:", "a:b:c", "-x", "x" * 66, "a\0", "ü"),
}
"""Wrong values for fields with a CEL rule of their own, by the rule's id."""

MESSAGE_RULES: dict[str, tuple[Callable[[Any], None], ...]] = {
    "create_pool.image": (
        lambda m: m.ClearField("image"),
        lambda m: m.MergeFrom(p.CreatePoolRequest(template_name="kept")),
    ),
    "create_pool.template_name": tuple(
        lambda m, extra=extra: (m.ClearField("image"), m.MergeFrom(extra))
        for extra in (
            p.CreatePoolRequest(template_name="kept", cpus=2),
            p.CreatePoolRequest(template_name="kept", memory_mb=512),
            p.CreatePoolRequest(template_name="kept", ephemeral_disk_mb=512),
            p.CreatePoolRequest(template_name="kept", secret_names=["A"]),
            p.CreatePoolRequest(template_name="kept", entrypoint=["a"]),
            p.CreatePoolRequest(template_name="kept", env={"A": "1"}),
            p.CreatePoolRequest(template_name="kept", readiness_command=["a"]),
            p.CreatePoolRequest(template_name="kept", readiness_interval_secs=1),
            p.CreatePoolRequest(template_name="kept", readiness_timeout_secs=1),
            p.CreatePoolRequest(template_name="kept", readiness_retries=1),
        )
    ),
    "create_pool.warm_containers": (lambda m: m.MergeFrom(p.CreatePoolRequest(warm_containers=3, max_containers=2)),),
    "create_sandbox.pool_id": (
        lambda m: m.ClearField("image"),
        lambda m: m.MergeFrom(s.CreateSandboxRequest(pool_id="kept")),
        lambda m: m.MergeFrom(s.CreateSandboxRequest(template_name="kept")),
    ),
    "create_sandbox.image": tuple(
        lambda m, extra=extra: (m.ClearField("image"), m.MergeFrom(extra))
        for extra in (
            s.CreateSandboxRequest(pool_id="kept", cpus=2),
            s.CreateSandboxRequest(pool_id="kept", memory_mb=512),
            s.CreateSandboxRequest(template_name="kept", ephemeral_disk_mb=512),
            s.CreateSandboxRequest(template_name="kept", secret_names=["A"]),
            s.CreateSandboxRequest(pool_id="kept", entrypoint=["a"]),
            s.CreateSandboxRequest(pool_id="kept", readiness_command=["a"]),
            s.CreateSandboxRequest(pool_id="kept", readiness_interval_secs=1),
            s.CreateSandboxRequest(template_name="kept", readiness_timeout_secs=1),
            s.CreateSandboxRequest(template_name="kept", readiness_retries=1),
        )
    ),
    "create_sandbox.when_empty": tuple(
        lambda m, when=when: m.MergeFrom(s.CreateSandboxRequest(when_empty=when))
        for when in (s.WHEN_EMPTY_WAIT, s.WHEN_EMPTY_FAIL)
    ),
    "create_sandbox.wait_secs": tuple(
        lambda m, when=when: (
            m.ClearField("image"),
            m.MergeFrom(s.CreateSandboxRequest(pool_id="kept", wait_secs=3, when_empty=when)),
        )
        for when in (s.WHEN_EMPTY_UNSPECIFIED, s.WHEN_EMPTY_START_COLD, s.WHEN_EMPTY_FAIL)
    ),
    "batch_create_sandboxes.sandbox": (
        lambda m: m.sandbox.MergeFrom(s.CreateSandboxRequest(name="one")),
        lambda m: m.sandbox.MergeFrom(s.CreateSandboxRequest(request_id="one")),
    ),
    "run_command.command": (
        lambda m: m.ClearField("command"),
        lambda m: m.argv.append("true"),
    ),
    "start_process.command": (
        lambda m: m.ClearField("command"),
        lambda m: m.argv.append("true"),
    ),
    "start_process.argv": (lambda m: (m.ClearField("command"), m.argv.extend(["", "x"])),),
    "start_process.service": tuple(
        lambda m, extra=extra: (m.service.MergeFrom(x.Service(name="web")), m.MergeFrom(extra))
        for extra in (
            x.StartProcessRequest(stdin=True),
            x.StartProcessRequest(terminal=_SIZE),
            x.StartProcessRequest(timeout_secs=1),
            x.StartProcessRequest(idle_timeout_secs=1),
            x.StartProcessRequest(kill_on_disconnect=True),
        )
    ),
    "write_file.offset": (lambda m: m.MergeFrom(f.WriteFileTarget(sandbox_id="kept", path="/a", offset=1)),),
    "put_file.more": (lambda m: m.MergeFrom(f.PutFileRequest(more=True)),),
    "run_command.argv": (lambda m: (m.ClearField("command"), m.argv.extend(["", "x"])),),
}
"""Ways to break each whole-message rule, by its id, starting from the base request of the message that has the rule."""

MASKED: dict[str, frozenset[str]] = {
    "UpdatePool": frozenset({"pool_id", "update_mask", "etag", "request_id"}),
    "UpdateTemplate": frozenset({"template_name", "update_mask", "etag", "request_id"}),
    "UpdateSandbox": frozenset({"sandbox_id", "update_mask", "etag", "request_id"}),
}
"""The updates, and the fields of their requests that no mask may name."""
