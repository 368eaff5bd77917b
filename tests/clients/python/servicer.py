"""A small server of the public contract that keeps everything in memory, for tests of the client alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from google.protobuf.duration_pb2 import Duration

from sandpool.v1 import (
    pool_pb2,
    pool_service_pb2,
    pool_service_pb2_grpc,
    process_service_pb2_grpc,
    sandbox_pb2,
    sandbox_service_pb2,
    sandbox_service_pb2_grpc,
    secret_pb2,
    secret_service_pb2,
    secret_service_pb2_grpc,
    template_pb2,
    template_service_pb2,
    template_service_pb2_grpc,
)
from tests.clients.python.processes import Processes
from tests.clients.python.state import State, assign, page


class Pools(pool_service_pb2_grpc.PoolServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def CreatePool(self, request, context):
        def work():
            pool = pool_pb2.Pool(
                pool_id=self.state.next_id("pool"),
                name=request.name,
                template_name=request.template_name,
                image=request.image or "template-image",
                cpus=request.cpus if request.HasField("cpus") else 1.0,
                memory_mb=request.memory_mb or 512,
                ephemeral_disk_mb=request.ephemeral_disk_mb or 1024,
                warm_containers=request.warm_containers,
                timeout_secs=request.timeout_secs,
                secret_names=request.secret_names,
                entrypoint=request.entrypoint,
                env=request.env,
                readiness_command=request.readiness_command,
                readiness_interval_secs=request.readiness_interval_secs or 0.5,
                readiness_timeout_secs=request.readiness_timeout_secs or 5.0,
                readiness_retries=request.readiness_retries or 20,
                pull_policy=request.pull_policy or pool_pb2.PULL_POLICY_MISSING,
                image_check_secs=request.image_check_secs,
                max_age_secs=request.max_age_secs,
                paused=request.paused,
                drain=request.drain,
                etag="e1",
                status=pool_pb2.PoolStatus(
                    state=pool_pb2.POOL_STATE_FILLING,
                    wanted=request.warm_containers,
                    hits=2**40,
                ),
            )
            pool.create_time.FromJsonString("2026-11-22T10:00:00.123456Z")
            if request.HasField("max_containers"):
                pool.max_containers = request.max_containers
            self.state.pools[pool.pool_id] = pool
            return pool_service_pb2.CreatePoolResponse(pool=pool)

        return self.state.answer("CreatePool", request, context, work)

    def GetPool(self, request, context):
        def work():
            return pool_service_pb2.GetPoolResponse(
                pool=self.state.find("pool", self.state.pools, request.pool_id, context)
            )

        return self.state.answer("GetPool", request, context, work)

    def ListPools(self, request, context):
        def work():
            items, token = page(self.state.pools, request)
            return pool_service_pb2.ListPoolsResponse(pools=items, next_page_token=token)

        return self.state.answer("ListPools", request, context, work)

    def UpdatePool(self, request, context):
        def work():
            pool = self.state.find("pool", self.state.pools, request.pool_id, context)
            assign(pool, request)
            return pool_service_pb2.UpdatePoolResponse(pool=pool)

        return self.state.answer("UpdatePool", request, context, work)

    def DeletePool(self, request, context):
        def work():
            pool = self.state.find("pool", self.state.pools, request.pool_id, context)
            del self.state.pools[pool.pool_id]
            return pool_service_pb2.DeletePoolResponse()

        return self.state.answer("DeletePool", request, context, work)

    def WatchPools(self, request, context):
        self.state.answer("WatchPools", request, context, lambda: None)
        event = pool_service_pb2.WatchPoolsResponse
        for pool in self.state.pools.values():
            yield event(pool=pool, type=pool_service_pb2.WATCH_EVENT_TYPE_PRESENT)
            for status in self.state.pool_steps:
                pool.status.CopyFrom(status)
                yield event(pool=pool, type=pool_service_pb2.WATCH_EVENT_TYPE_CHANGED)
        if request.bookmark:
            yield event(type=pool_service_pb2.WATCH_EVENT_TYPE_BOOKMARK)
        ended = threading.Event()
        context.add_callback(ended.set)
        ended.wait(30)


class Templates(template_service_pb2_grpc.TemplateServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def CreateTemplate(self, request, context):
        def work():
            template = template_pb2.Template(
                template_id=self.state.next_id("tpl"),
                name=request.name,
                image=request.image,
                cpus=request.cpus if request.HasField("cpus") else 1.0,
                memory_mb=request.memory_mb or 512,
                ephemeral_disk_mb=request.ephemeral_disk_mb or 1024,
                env=request.env,
                readiness_command=request.readiness_command,
                readiness_interval_secs=request.readiness_interval_secs or 0.5,
                readiness_timeout_secs=request.readiness_timeout_secs or 5.0,
                readiness_retries=request.readiness_retries or 20,
                etag="t1",
            )
            self.state.templates[template.template_id] = template
            return template_service_pb2.CreateTemplateResponse(template=template)

        return self.state.answer("CreateTemplate", request, context, work)

    def GetTemplate(self, request, context):
        def work():
            found = self.state.find("template", self.state.templates, request.template_name, context)
            return template_service_pb2.GetTemplateResponse(template=found)

        return self.state.answer("GetTemplate", request, context, work)

    def ListTemplates(self, request, context):
        def work():
            items, token = page(self.state.templates, request)
            return template_service_pb2.ListTemplatesResponse(templates=items, next_page_token=token)

        return self.state.answer("ListTemplates", request, context, work)

    def UpdateTemplate(self, request, context):
        def work():
            found = self.state.find("template", self.state.templates, request.template_name, context)
            assign(found, request)
            return template_service_pb2.UpdateTemplateResponse(template=found)

        return self.state.answer("UpdateTemplate", request, context, work)

    def DeleteTemplate(self, request, context):
        def work():
            found = self.state.find("template", self.state.templates, request.template_name, context)
            del self.state.templates[found.template_id]
            return template_service_pb2.DeleteTemplateResponse()

        return self.state.answer("DeleteTemplate", request, context, work)


class Sandboxes(sandbox_service_pb2_grpc.SandboxServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def _make(self, request):
        sandbox = sandbox_pb2.Sandbox(
            sandbox_id=self.state.next_id("sbx"),
            name=request.name,
            state=sandbox_pb2.SANDBOX_STATE_RUNNING,
            pool_id=request.pool_id,
            template_name=request.template_name,
            image=request.image or "inherited",
            env=request.env if request.image else {"FROM": "pool"},
            metadata=request.metadata,
            timeout_secs=request.timeout_secs,
            start=sandbox_pb2.SANDBOX_START_COLD if request.image else sandbox_pb2.SANDBOX_START_WARM,
            start_duration=Duration(nanos=2_500_000),
            etag="s1",
        )
        self.state.sandboxes[sandbox.sandbox_id] = sandbox
        return sandbox

    def CreateSandbox(self, request, context):
        def work():
            return sandbox_service_pb2.CreateSandboxResponse(sandbox=self._make(request))

        return self.state.answer("CreateSandbox", request, context, work)

    def BatchCreateSandboxes(self, request, context):
        def work():
            made = [self._make(request.sandbox) for _ in range(request.count)]
            return sandbox_service_pb2.BatchCreateSandboxesResponse(sandboxes=made)

        return self.state.answer("BatchCreateSandboxes", request, context, work)

    def GetSandbox(self, request, context):
        def work():
            found = self.state.find("sandbox", self.state.sandboxes, request.sandbox_id, context)
            return sandbox_service_pb2.GetSandboxResponse(sandbox=found)

        return self.state.answer("GetSandbox", request, context, work)

    def ListSandboxes(self, request, context):
        def work():
            items, token = page(self.state.sandboxes, request)
            return sandbox_service_pb2.ListSandboxesResponse(sandboxes=items, next_page_token=token)

        return self.state.answer("ListSandboxes", request, context, work)

    def UpdateSandbox(self, request, context):
        def work():
            found = self.state.find("sandbox", self.state.sandboxes, request.sandbox_id, context)
            assign(found, request)
            return sandbox_service_pb2.UpdateSandboxResponse(sandbox=found)

        return self.state.answer("UpdateSandbox", request, context, work)

    def DeleteSandbox(self, request, context):
        def work():
            found = self.state.find("sandbox", self.state.sandboxes, request.sandbox_id, context)
            found.state = sandbox_pb2.SANDBOX_STATE_TERMINATED
            found.end_reason = sandbox_pb2.SANDBOX_END_REASON_DELETED
            return sandbox_service_pb2.DeleteSandboxResponse(sandbox=found)

        return self.state.answer("DeleteSandbox", request, context, work)

    def WatchSandbox(self, request, context):
        found = self.state.find("sandbox", self.state.sandboxes, request.sandbox_id, context)
        yield sandbox_service_pb2.WatchSandboxResponse(sandbox=found)
        for state in self.state.next_states:
            later = sandbox_pb2.Sandbox()
            later.CopyFrom(found)
            later.state = state
            yield sandbox_service_pb2.WatchSandboxResponse(sandbox=later)

    def RunCommand(self, request, context):
        return self.state.answer("RunCommand", request, context, lambda: self.state.command)


class Secrets(secret_service_pb2_grpc.SecretServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def CreateSecret(self, request, context):
        def work():
            secret = secret_pb2.Secret(name=request.name)
            secret.create_time.FromJsonString("2026-11-22T10:00:00Z")
            self.state.secrets[request.name] = secret
            self.state.values[request.name] = request.value
            return secret_service_pb2.CreateSecretResponse(secret=secret)

        return self.state.answer("CreateSecret", request, context, work)

    def UpdateSecret(self, request, context):
        def work():
            secret = self.state.find("secret", self.state.secrets, request.name, context)
            secret.update_time.FromJsonString("2026-11-22T11:00:00Z")
            self.state.values[request.name] = request.value
            return secret_service_pb2.UpdateSecretResponse(secret=secret)

        return self.state.answer("UpdateSecret", request, context, work)

    def ListSecrets(self, request, context):
        def work():
            items, token = page(dict(sorted(self.state.secrets.items())), request)
            return secret_service_pb2.ListSecretsResponse(secrets=items, next_page_token=token)

        return self.state.answer("ListSecrets", request, context, work)

    def DeleteSecret(self, request, context):
        def work():
            self.state.find("secret", self.state.secrets, request.name, context)
            del self.state.secrets[request.name]
            return secret_service_pb2.DeleteSecretResponse()

        return self.state.answer("DeleteSecret", request, context, work)


@contextmanager
def serving(state: State, address: str = "127.0.0.1:0", *, processes: Processes | None = None) -> Iterator[str]:
    """A server on loopback; gives its address."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    processes = processes or Processes(state)
    process_service_pb2_grpc.add_ProcessServiceServicer_to_server(processes, server)
    pool_service_pb2_grpc.add_PoolServiceServicer_to_server(Pools(state), server)
    template_service_pb2_grpc.add_TemplateServiceServicer_to_server(Templates(state), server)
    sandbox_service_pb2_grpc.add_SandboxServiceServicer_to_server(Sandboxes(state), server)
    secret_service_pb2_grpc.add_SecretServiceServicer_to_server(Secrets(state), server)
    port = server.add_insecure_port(address)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        state.hang.set()
        server.stop(grace=None).wait()
        processes.let_go()
