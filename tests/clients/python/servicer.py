"""A server that keeps everything in memory, for tests of the client without an engine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
from google.protobuf.duration_pb2 import Duration

from sandpool.v1 import (
    container_pb2,
    pool_pb2,
    pool_service_pb2,
    sandbox_pb2,
    sandbox_service_pb2,
    secret_pb2,
    secret_service_pb2,
    template_pb2,
    template_service_pb2,
)
from sandpool_server.gen.v1 import (
    pool_service_pb2_grpc,
    process_service_pb2_grpc,
    sandbox_service_pb2_grpc,
    secret_service_pb2_grpc,
    template_service_pb2_grpc,
)
from tests.clients.python.processes import Processes
from tests.clients.python.state import State, assign, page


def effective(spec: container_pb2.ContainerSpec) -> container_pb2.ContainerSpec:
    """Return a specification with the server's defaults filled in."""
    found = container_pb2.ContainerSpec(
        cpus=1.0, memory_mb=512, ephemeral_disk_mb=1024, pull_policy=container_pb2.PULL_POLICY_MISSING
    )
    found.MergeFrom(spec)
    if spec.HasField("readiness_probe"):
        probe = container_pb2.ReadinessProbe(failure_threshold=20)
        probe.interval.FromMilliseconds(500)
        probe.timeout.FromSeconds(5)
        probe.MergeFrom(spec.readiness_probe)
        found.readiness_probe.CopyFrom(probe)
    return found


class Pools(pool_service_pb2_grpc.PoolServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def CreatePool(self, request, context):
        def work():
            spec = request.spec if request.HasField("spec") else container_pb2.ContainerSpec(image="template-image")
            pool = pool_pb2.Pool(
                pool_id=self.state.next_id("pool"),
                name=request.name,
                template_name=request.template_name,
                spec=effective(spec),
                paused=request.paused,
                drained=request.drained,
                etag="e1",
                status=pool_pb2.PoolStatus(
                    state=pool_pb2.POOL_STATE_FILLING,
                    desired=request.warm_containers,
                    hits=2**40,
                ),
            )
            for name in ("timeout", "image_refresh_interval", "warm_ttl"):
                if request.HasField(name):
                    getattr(pool, name).CopyFrom(getattr(request, name))
            if request.HasField("warm_containers"):
                pool.warm_containers = request.warm_containers
            pool.create_time.FromJsonString("2026-11-22T10:00:00.123456Z")
            if request.HasField("max_containers"):
                pool.max_containers = request.max_containers
            self.state.pools[pool.pool_id] = pool
            return pool_service_pb2.CreatePoolResponse(pool=pool)

        return self.state.respond("CreatePool", request, context, work)

    def GetPool(self, request, context):
        def work():
            return pool_service_pb2.GetPoolResponse(
                pool=self.state.find("pool", self.state.pools, request.pool_id, context)
            )

        return self.state.respond("GetPool", request, context, work)

    def ListPools(self, request, context):
        def work():
            items, token = page(self.state.pools, request)
            return pool_service_pb2.ListPoolsResponse(pools=items, next_page_token=token)

        return self.state.respond("ListPools", request, context, work)

    def UpdatePool(self, request, context):
        def work():
            pool = self.state.find("pool", self.state.pools, request.pool_id, context)
            assign(pool, request)
            return pool_service_pb2.UpdatePoolResponse(pool=pool)

        return self.state.respond("UpdatePool", request, context, work)

    def DeletePool(self, request, context):
        def work():
            pool = self.state.find("pool", self.state.pools, request.pool_id, context)
            del self.state.pools[pool.pool_id]
            return pool_service_pb2.DeletePoolResponse()

        return self.state.respond("DeletePool", request, context, work)

    def WatchPools(self, request, context):
        self.state.respond("WatchPools", request, context, lambda: None)
        event = pool_service_pb2.WatchPoolsResponse
        for pool in self.state.pools.values():
            yield event(pool=pool, type=pool_service_pb2.WATCH_EVENT_TYPE_CURRENT)
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
                spec=effective(request.spec),
                etag="t1",
            )
            if request.HasField("timeout"):
                template.timeout.CopyFrom(request.timeout)
            self.state.templates[template.template_id] = template
            return template_service_pb2.CreateTemplateResponse(template=template)

        return self.state.respond("CreateTemplate", request, context, work)

    def GetTemplate(self, request, context):
        def work():
            found = self.state.find("template", self.state.templates, request.template_name, context)
            return template_service_pb2.GetTemplateResponse(template=found)

        return self.state.respond("GetTemplate", request, context, work)

    def ListTemplates(self, request, context):
        def work():
            items, token = page(self.state.templates, request)
            return template_service_pb2.ListTemplatesResponse(templates=items, next_page_token=token)

        return self.state.respond("ListTemplates", request, context, work)

    def UpdateTemplate(self, request, context):
        def work():
            found = self.state.find("template", self.state.templates, request.template_name, context)
            assign(found, request)
            return template_service_pb2.UpdateTemplateResponse(template=found)

        return self.state.respond("UpdateTemplate", request, context, work)

    def DeleteTemplate(self, request, context):
        def work():
            found = self.state.find("template", self.state.templates, request.template_name, context)
            del self.state.templates[found.template_id]
            return template_service_pb2.DeleteTemplateResponse()

        return self.state.respond("DeleteTemplate", request, context, work)


class Sandboxes(sandbox_service_pb2_grpc.SandboxServiceServicer):
    def __init__(self, state: State) -> None:
        self.state = state

    def _make(self, request):
        own = request.HasField("spec")
        spec = request.spec if own else container_pb2.ContainerSpec(image="inherited", env={"FROM": "pool"})
        sandbox = sandbox_pb2.Sandbox(
            sandbox_id=self.state.next_id("sbx"),
            name=request.name,
            state=sandbox_pb2.SANDBOX_STATE_RUNNING,
            pool_id=request.pool_id,
            template_name=request.template_name,
            spec=effective(spec),
            metadata=request.metadata,
            start_type=sandbox_pb2.START_TYPE_COLD if own else sandbox_pb2.START_TYPE_WARM,
            start_duration=Duration(nanos=2_500_000),
            etag="s1",
        )
        if request.HasField("timeout"):
            sandbox.timeout.CopyFrom(request.timeout)
        self.state.sandboxes[sandbox.sandbox_id] = sandbox
        return sandbox

    def CreateSandbox(self, request, context):
        def work():
            return sandbox_service_pb2.CreateSandboxResponse(sandbox=self._make(request))

        return self.state.respond("CreateSandbox", request, context, work)

    def BatchCreateSandboxes(self, request, context):
        def work():
            made = [self._make(request.sandbox) for _ in range(request.count)]
            return sandbox_service_pb2.BatchCreateSandboxesResponse(sandboxes=made)

        return self.state.respond("BatchCreateSandboxes", request, context, work)

    def GetSandbox(self, request, context):
        def work():
            found = self.state.find("sandbox", self.state.sandboxes, request.sandbox_id, context)
            return sandbox_service_pb2.GetSandboxResponse(sandbox=found)

        return self.state.respond("GetSandbox", request, context, work)

    def ListSandboxes(self, request, context):
        def work():
            items, token = page(self.state.sandboxes, request)
            return sandbox_service_pb2.ListSandboxesResponse(sandboxes=items, next_page_token=token)

        return self.state.respond("ListSandboxes", request, context, work)

    def UpdateSandbox(self, request, context):
        def work():
            found = self.state.find("sandbox", self.state.sandboxes, request.sandbox_id, context)
            assign(found, request)
            return sandbox_service_pb2.UpdateSandboxResponse(sandbox=found)

        return self.state.respond("UpdateSandbox", request, context, work)

    def DeleteSandbox(self, request, context):
        def work():
            found = self.state.find("sandbox", self.state.sandboxes, request.sandbox_id, context)
            found.state = sandbox_pb2.SANDBOX_STATE_TERMINATED
            found.termination_reason = sandbox_pb2.TERMINATION_REASON_DELETED
            return sandbox_service_pb2.DeleteSandboxResponse(sandbox=found)

        return self.state.respond("DeleteSandbox", request, context, work)

    def WatchSandbox(self, request, context):
        found = self.state.find("sandbox", self.state.sandboxes, request.sandbox_id, context)
        yield sandbox_service_pb2.WatchSandboxResponse(sandbox=found)
        for state in self.state.next_states:
            later = sandbox_pb2.Sandbox()
            later.CopyFrom(found)
            later.state = state
            yield sandbox_service_pb2.WatchSandboxResponse(sandbox=later)

    def RunCommand(self, request, context):
        return self.state.respond("RunCommand", request, context, lambda: self.state.command)


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

        return self.state.respond("CreateSecret", request, context, work)

    def GetSecret(self, request, context):
        def work():
            secret = self.state.find("secret", self.state.secrets, request.name, context)
            return secret_service_pb2.GetSecretResponse(secret=secret)

        return self.state.respond("GetSecret", request, context, work)

    def UpdateSecret(self, request, context):
        def work():
            secret = self.state.find("secret", self.state.secrets, request.name, context)
            secret.update_time.FromJsonString("2026-11-22T11:00:00Z")
            self.state.values[request.name] = request.value
            return secret_service_pb2.UpdateSecretResponse(secret=secret)

        return self.state.respond("UpdateSecret", request, context, work)

    def ListSecrets(self, request, context):
        def work():
            items, token = page(dict(sorted(self.state.secrets.items())), request)
            return secret_service_pb2.ListSecretsResponse(secrets=items, next_page_token=token)

        return self.state.respond("ListSecrets", request, context, work)

    def DeleteSecret(self, request, context):
        def work():
            self.state.find("secret", self.state.secrets, request.name, context)
            del self.state.secrets[request.name]
            return secret_service_pb2.DeleteSecretResponse()

        return self.state.respond("DeleteSecret", request, context, work)


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
        processes.stop()
