"""Every method of the API, read from its descriptors."""

from __future__ import annotations

from typing import Any, Final, TypeVar, cast

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.message import Message

from sandpool._core.call import Method
from sandpool.v1 import file_service_pb2 as file
from sandpool.v1 import monitor_service_pb2 as monitor
from sandpool.v1 import pool_service_pb2 as pool
from sandpool.v1 import port_service_pb2 as port
from sandpool.v1 import process_service_pb2 as process
from sandpool.v1 import sandbox_service_pb2 as sandbox
from sandpool.v1 import secret_service_pb2 as secret
from sandpool.v1 import template_service_pb2 as template

ResponseT = TypeVar("ResponseT", bound=Message)


def _method(response: type[ResponseT]) -> Method[ResponseT]:
    """Return the method whose response has this type: `FooResponse` is the response of `Foo` only."""
    found = response.DESCRIPTOR
    (service,) = cast(FileDescriptor, found.file).services_by_name.values()
    method: Any = service.methods_by_name[found.name.removesuffix("Response")]
    return Method(
        f"/{service.full_name}/{method.name}",
        response,
        streams_requests=method.client_streaming,
        streams_responses=method.server_streaming,
    )


CREATE_POOL: Final = _method(pool.CreatePoolResponse)
GET_POOL: Final = _method(pool.GetPoolResponse)
LIST_POOLS: Final = _method(pool.ListPoolsResponse)
UPDATE_POOL: Final = _method(pool.UpdatePoolResponse)
DELETE_POOL: Final = _method(pool.DeletePoolResponse)
WATCH_POOLS: Final = _method(pool.WatchPoolsResponse)

CREATE_TEMPLATE: Final = _method(template.CreateTemplateResponse)
GET_TEMPLATE: Final = _method(template.GetTemplateResponse)
LIST_TEMPLATES: Final = _method(template.ListTemplatesResponse)
UPDATE_TEMPLATE: Final = _method(template.UpdateTemplateResponse)
DELETE_TEMPLATE: Final = _method(template.DeleteTemplateResponse)

CREATE_SECRET: Final = _method(secret.CreateSecretResponse)
GET_SECRET: Final = _method(secret.GetSecretResponse)
UPDATE_SECRET: Final = _method(secret.UpdateSecretResponse)
LIST_SECRETS: Final = _method(secret.ListSecretsResponse)
DELETE_SECRET: Final = _method(secret.DeleteSecretResponse)

CREATE_SANDBOX: Final = _method(sandbox.CreateSandboxResponse)
BATCH_CREATE_SANDBOXES: Final = _method(sandbox.BatchCreateSandboxesResponse)
GET_SANDBOX: Final = _method(sandbox.GetSandboxResponse)
LIST_SANDBOXES: Final = _method(sandbox.ListSandboxesResponse)
UPDATE_SANDBOX: Final = _method(sandbox.UpdateSandboxResponse)
DELETE_SANDBOX: Final = _method(sandbox.DeleteSandboxResponse)
WATCH_SANDBOX: Final = _method(sandbox.WatchSandboxResponse)
RUN_COMMAND: Final = _method(sandbox.RunCommandResponse)

START_PROCESS: Final = _method(process.StartProcessResponse)
ATTACH_PROCESS: Final = _method(process.AttachProcessResponse)
CONNECT_PROCESS: Final = _method(process.ConnectProcessResponse)
WRITE_PROCESS_INPUT: Final = _method(process.WriteProcessInputResponse)
RESIZE_PROCESS: Final = _method(process.ResizeProcessResponse)
SIGNAL_PROCESS: Final = _method(process.SignalProcessResponse)
KILL_PROCESS: Final = _method(process.KillProcessResponse)
GET_PROCESS: Final = _method(process.GetProcessResponse)
LIST_PROCESSES: Final = _method(process.ListProcessesResponse)
RESTART_PROCESS: Final = _method(process.RestartProcessResponse)

READ_FILE: Final = _method(file.ReadFileResponse)
WRITE_FILE: Final = _method(file.WriteFileResponse)
PUT_FILE: Final = _method(file.PutFileResponse)
GET_UPLOAD: Final = _method(file.GetUploadResponse)
STAT_FILE: Final = _method(file.StatFileResponse)
LIST_DIRECTORY: Final = _method(file.ListDirectoryResponse)
MAKE_DIRECTORY: Final = _method(file.MakeDirectoryResponse)
MOVE_FILE: Final = _method(file.MoveFileResponse)
COPY_FILE: Final = _method(file.CopyFileResponse)
REMOVE_FILE: Final = _method(file.RemoveFileResponse)
GLOB_FILES: Final = _method(file.GlobFilesResponse)
WATCH_FILES: Final = _method(file.WatchFilesResponse)
DOWNLOAD_DIRECTORY: Final = _method(file.DownloadDirectoryResponse)
UPLOAD_DIRECTORY: Final = _method(file.UploadDirectoryResponse)

OPEN_TUNNEL: Final = _method(port.OpenTunnelResponse)
EXPOSE_PORT: Final = _method(port.ExposePortResponse)
UNEXPOSE_PORT: Final = _method(port.UnexposePortResponse)
LIST_EXPOSED_PORTS: Final = _method(port.ListExposedPortsResponse)

READ_LOGS: Final = _method(monitor.ReadLogsResponse)
GET_METRICS: Final = _method(monitor.GetMetricsResponse)
WATCH_METRICS: Final = _method(monitor.WatchMetricsResponse)
