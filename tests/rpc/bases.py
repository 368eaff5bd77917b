"""One valid request of each type, and data for rules that descriptors do not explain.

A test checks that each table is complete: a new request type, message rule, custom rule or field without a rule fails
the tests of invalid input until it is added here.
"""

from collections.abc import Callable
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from sandpool.v1 import container_pb2 as c
from sandpool.v1 import file_service_pb2 as f
from sandpool.v1 import monitor_service_pb2 as m
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import port_service_pb2 as o
from sandpool.v1 import process_pb2
from sandpool.v1 import process_service_pb2 as x
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool.v1 import secret_service_pb2 as k
from sandpool.v1 import template_service_pb2 as t

_SPEC = c.ContainerSpec(image="python:3.11-slim")

_SECOND = Duration(seconds=1)
_SIZE = process_pb2.TerminalSize(rows=24, cols=80)
_START = x.StartProcessRequest(sandbox_id="existing", process_id="p", command="true")
_TARGET = f.WriteFileTarget(sandbox_id="existing", path="/a")

_ALL: tuple[Message, ...] = (
    p.CreatePoolRequest(spec=_SPEC),
    p.GetPoolRequest(pool_id="existing"),
    p.ListPoolsRequest(),
    p.UpdatePoolRequest(pool_id="existing"),
    p.DeletePoolRequest(pool_id="existing"),
    p.WatchPoolsRequest(),
    t.CreateTemplateRequest(name="new", spec=_SPEC),
    t.GetTemplateRequest(template_name="existing"),
    t.ListTemplatesRequest(),
    t.UpdateTemplateRequest(template_name="existing"),
    t.DeleteTemplateRequest(template_name="existing"),
    s.CreateSandboxRequest(spec=_SPEC),
    s.BatchCreateSandboxesRequest(sandbox=s.CreateSandboxRequest(spec=_SPEC), count=2),
    s.GetSandboxRequest(sandbox_id="existing"),
    s.ListSandboxesRequest(),
    s.UpdateSandboxRequest(sandbox_id="existing"),
    s.DeleteSandboxRequest(sandbox_id="existing"),
    s.WatchSandboxRequest(sandbox_id="existing"),
    s.RunCommandRequest(sandbox_id="existing", command="true"),
    k.CreateSecretRequest(name="NEW", value="hush"),
    k.UpdateSecretRequest(name="EXISTING", value="hush"),
    k.GetSecretRequest(name="EXISTING"),
    k.ListSecretsRequest(),
    k.DeleteSecretRequest(name="EXISTING"),
    _START,
    x.AttachProcessRequest(sandbox_id="existing", process_id="p"),
    x.ConnectProcessRequest(start=_START),
    x.WriteProcessInputRequest(sandbox_id="existing", process_id="p", input=x.ProcessInput(data=b"a")),
    x.ResizeProcessRequest(sandbox_id="existing", process_id="p", terminal=_SIZE),
    x.SignalProcessRequest(sandbox_id="existing", process_id="p", signal=9),
    x.KillProcessRequest(sandbox_id="existing", process_id="p"),
    x.GetProcessRequest(sandbox_id="existing", process_id="p"),
    x.ListProcessesRequest(sandbox_id="existing"),
    x.RestartProcessRequest(sandbox_id="existing", process_id="p"),
    f.ReadFileRequest(sandbox_id="existing", path="/a"),
    f.WriteFileRequest(target=_TARGET),
    f.PutFileRequest(target=_TARGET, data=b"a"),
    f.GetUploadRequest(sandbox_id="existing", upload_id="u"),
    f.StatFileRequest(sandbox_id="existing", path="/a"),
    f.ListDirectoryRequest(sandbox_id="existing", path="/a"),
    f.MakeDirectoryRequest(sandbox_id="existing", path="/a"),
    f.MoveFileRequest(sandbox_id="existing", source="/a", destination="/b"),
    f.CopyFileRequest(sandbox_id="existing", source="/a", destination="/b"),
    f.RemoveFileRequest(sandbox_id="existing", path="/a"),
    f.GlobFilesRequest(sandbox_id="existing", pattern="/*"),
    f.WatchFilesRequest(sandbox_id="existing", path="/a"),
    f.DownloadDirectoryRequest(sandbox_id="existing", path="/a"),
    f.UploadDirectoryRequest(target=f.UploadDirectoryTarget(sandbox_id="existing", path="/a")),
    o.OpenTunnelRequest(target=o.TunnelTarget(sandbox_id="existing", port=80)),
    o.ExposePortRequest(sandbox_id="existing", port=80),
    o.UnexposePortRequest(sandbox_id="existing", port=80),
    o.ListExposedPortsRequest(sandbox_id="existing"),
    m.ReadLogsRequest(sandbox_id="existing"),
    m.GetMetricsRequest(sandbox_id="existing"),
    m.WatchMetricsRequest(sandbox_id="existing"),
)

BASES: dict[str, Message] = {message.DESCRIPTOR.full_name: message for message in _ALL}

UNCONSTRAINED = {
    # Both values of a bool are valid.
    "sandpool.v1.CreatePoolRequest.paused",
    "sandpool.v1.CreatePoolRequest.drained",
    "sandpool.v1.UpdatePoolRequest.paused",
    "sandpool.v1.UpdatePoolRequest.drained",
    "sandpool.v1.DeletePoolRequest.force",
    "sandpool.v1.WatchPoolsRequest.bookmark",
    "sandpool.v1.DeleteSecretRequest.force",
    "sandpool.v1.StartProcessRequest.stdin",
    "sandpool.v1.StartProcessRequest.kill_on_disconnect",
    "sandpool.v1.ProcessInput.close",
    "sandpool.v1.SignalProcessRequest.tree",
    "sandpool.v1.PutFileRequest.more",
    "sandpool.v1.StatFileRequest.follow_symlinks",
    "sandpool.v1.MoveFileRequest.overwrite",
    "sandpool.v1.CopyFileRequest.overwrite",
    "sandpool.v1.RemoveFileRequest.recursive",
    "sandpool.v1.RemoveFileRequest.missing_ok",
    "sandpool.v1.WatchFilesRequest.recursive",
    "sandpool.v1.ReadLogsRequest.follow",
    # Every time is valid.
    "sandpool.v1.ReadLogsRequest.since",
    # Checked by the server against the fields of the request: see `test_updates.py`.
    "sandpool.v1.UpdatePoolRequest.update_mask",
    "sandpool.v1.UpdateTemplateRequest.update_mask",
    "sandpool.v1.UpdateSandboxRequest.update_mask",
}
"""The fields without a rule."""

FIELD_RULES: dict[str, tuple[str, ...]] = {
    "http_check.path": ("a", "/a b", "/ü", "/\n", "/" + "x" * 2048),
}
"""Invalid values for fields with their own CEL rule, by the id of the rule."""

MESSAGE_RULES: dict[str, tuple[Callable[[Any], None], ...]] = {
    "create_pool.spec": (
        lambda m: m.ClearField("spec"),
        lambda m: m.MergeFrom(p.CreatePoolRequest(template_name="existing")),
    ),
    "create_pool.spec.image": (
        lambda m: m.spec.ClearField("image"),
        lambda m: m.spec.CopyFrom(c.ContainerSpec(cpus=2)),
    ),
    "create_template.spec.image": (lambda m: m.ClearField("spec"), lambda m: m.spec.ClearField("image")),
    "readiness_probe.command": (
        lambda m: m.CopyFrom(c.ReadinessProbe(failure_threshold=3)),
        lambda m: m.CopyFrom(c.ReadinessProbe(command=["", "x"])),
    ),
    "create_pool.warm_containers": (lambda m: m.MergeFrom(p.CreatePoolRequest(warm_containers=3, max_containers=2)),),
    "create_sandbox.pool_id": (
        lambda m: m.ClearField("spec"),
        lambda m: m.MergeFrom(s.CreateSandboxRequest(pool_id="existing")),
        lambda m: m.MergeFrom(s.CreateSandboxRequest(template_name="existing")),
        lambda m: (
            m.ClearField("spec"),
            m.MergeFrom(s.CreateSandboxRequest(pool_id="existing", template_name="existing")),
        ),
    ),
    "create_sandbox.spec.image": (lambda m: m.spec.ClearField("image"),),
    "create_sandbox.when_empty": tuple(
        lambda m, when=when: m.MergeFrom(s.CreateSandboxRequest(when_empty=when))
        for when in (s.WHEN_EMPTY_WAIT, s.WHEN_EMPTY_FAIL)
    ),
    "create_sandbox.queue_timeout": tuple(
        lambda m, when=when: (
            m.ClearField("spec"),
            m.MergeFrom(s.CreateSandboxRequest(pool_id="existing", queue_timeout=_SECOND, when_empty=when)),
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
            x.StartProcessRequest(timeout=_SECOND),
            x.StartProcessRequest(idle_timeout=_SECOND),
            x.StartProcessRequest(kill_on_disconnect=True),
        )
    ),
    "write_file.offset": (lambda m: m.MergeFrom(f.WriteFileTarget(sandbox_id="existing", path="/a", offset=1)),),
    "put_file.more": (lambda m: m.MergeFrom(f.PutFileRequest(more=True)),),
    "run_command.argv": (lambda m: (m.ClearField("command"), m.argv.extend(["", "x"])),),
}
"""Ways to break each message rule, by its id, based on the valid request of the message with the rule."""

MASKED: dict[str, frozenset[str]] = {
    "UpdatePool": frozenset({"pool_id", "update_mask", "etag", "request_id"}),
    "UpdateTemplate": frozenset({"template_name", "update_mask", "etag", "request_id"}),
    "UpdateSandbox": frozenset({"sandbox_id", "update_mask", "etag", "request_id"}),
}
"""The update methods, and the fields of their requests that a mask must not contain."""
