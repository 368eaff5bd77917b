"""Every method of the public contract. A test compares this with the contract's descriptors."""

from __future__ import annotations

from typing import Final

from sandpool._core.call import Method
from sandpool.v1 import pool_service_pb2 as pool
from sandpool.v1 import sandbox_service_pb2 as sandbox
from sandpool.v1 import secret_service_pb2 as secret
from sandpool.v1 import template_service_pb2 as template

_POOLS = "/sandpool.v1.PoolService"
_TEMPLATES = "/sandpool.v1.TemplateService"
_SANDBOXES = "/sandpool.v1.SandboxService"
_SECRETS = "/sandpool.v1.SecretService"

CREATE_POOL: Final = Method(f"{_POOLS}/CreatePool", pool.CreatePoolResponse)
GET_POOL: Final = Method(f"{_POOLS}/GetPool", pool.GetPoolResponse)
LIST_POOLS: Final = Method(f"{_POOLS}/ListPools", pool.ListPoolsResponse)
UPDATE_POOL: Final = Method(f"{_POOLS}/UpdatePool", pool.UpdatePoolResponse)
DELETE_POOL: Final = Method(f"{_POOLS}/DeletePool", pool.DeletePoolResponse)
WATCH_POOLS: Final = Method(f"{_POOLS}/WatchPools", pool.WatchPoolsResponse)

CREATE_TEMPLATE: Final = Method(f"{_TEMPLATES}/CreateTemplate", template.CreateTemplateResponse)
GET_TEMPLATE: Final = Method(f"{_TEMPLATES}/GetTemplate", template.GetTemplateResponse)
LIST_TEMPLATES: Final = Method(f"{_TEMPLATES}/ListTemplates", template.ListTemplatesResponse)
UPDATE_TEMPLATE: Final = Method(f"{_TEMPLATES}/UpdateTemplate", template.UpdateTemplateResponse)
DELETE_TEMPLATE: Final = Method(f"{_TEMPLATES}/DeleteTemplate", template.DeleteTemplateResponse)

CREATE_SECRET: Final = Method(f"{_SECRETS}/CreateSecret", secret.CreateSecretResponse)
UPDATE_SECRET: Final = Method(f"{_SECRETS}/UpdateSecret", secret.UpdateSecretResponse)
LIST_SECRETS: Final = Method(f"{_SECRETS}/ListSecrets", secret.ListSecretsResponse)
DELETE_SECRET: Final = Method(f"{_SECRETS}/DeleteSecret", secret.DeleteSecretResponse)

CREATE_SANDBOX: Final = Method(f"{_SANDBOXES}/CreateSandbox", sandbox.CreateSandboxResponse)
BATCH_CREATE_SANDBOXES: Final = Method(f"{_SANDBOXES}/BatchCreateSandboxes", sandbox.BatchCreateSandboxesResponse)
GET_SANDBOX: Final = Method(f"{_SANDBOXES}/GetSandbox", sandbox.GetSandboxResponse)
LIST_SANDBOXES: Final = Method(f"{_SANDBOXES}/ListSandboxes", sandbox.ListSandboxesResponse)
UPDATE_SANDBOX: Final = Method(f"{_SANDBOXES}/UpdateSandbox", sandbox.UpdateSandboxResponse)
DELETE_SANDBOX: Final = Method(f"{_SANDBOXES}/DeleteSandbox", sandbox.DeleteSandboxResponse)
WATCH_SANDBOX: Final = Method(f"{_SANDBOXES}/WatchSandbox", sandbox.WatchSandboxResponse)
RUN_COMMAND: Final = Method(f"{_SANDBOXES}/RunCommand", sandbox.RunCommandResponse)
