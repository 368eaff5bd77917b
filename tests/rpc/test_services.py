"""Every method passes the values of its request to the use case and returns the values of the result."""

import inspect
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sandpool.v1 import container_pb2, pool_pb2, sandbox_pb2, template_pb2
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool.v1 import template_service_pb2 as t
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import InstanceState
from sandpool_server.domain.model import Command, DiskEnforcement, PoolCounts, PoolFailure, PullProgress
from sandpool_server.domain.spec import PullPolicy, ReadinessProbe
from sandpool_server.interfaces import SandboxFilter
from sandpool_server.usecases.data_plane import DataPlane
from sandpool_server.usecases.exposed_ports import ExposedPorts
from sandpool_server.usecases.pools import Pools
from sandpool_server.usecases.sandboxes import Sandboxes
from sandpool_server.usecases.secrets import Secrets
from sandpool_server.usecases.templates import Templates
from sandpool_server.usecases.values import NewPool, NewSandbox, NewTemplate, WatchEvent, WhenEmpty
from tests.rpc.conftest import Rig, refused
from tests.support.fake_usecases import (
    NOW,
    FakeDataPlane,
    FakeExposedPorts,
    FakePools,
    FakeSandboxes,
    FakeSecrets,
    FakeTemplates,
)

SPEC = {
    "image": "python:3.11-slim",
    "cpus": 2.5,
    "memory_mb": 256,
    "ephemeral_disk_mb": 2048,
    "env": (("A", "1"), ("B", "")),
    "entrypoint": ("sleep", "inf"),
    "secret_names": ("KEY",),
    "pull_policy": PullPolicy.ALWAYS,
    "readiness_probe": ReadinessProbe(("test", "-e", "/ready"), 0.25, 1.5, 7),
}
GIVEN = container_pb2.ContainerSpec(
    image="python:3.11-slim",
    cpus=2.5,
    memory_mb=256,
    ephemeral_disk_mb=2048,
    env={"B": "", "A": "1"},
    entrypoint=["sleep", "inf"],
    secret_names=["KEY"],
    pull_policy=container_pb2.PULL_POLICY_ALWAYS,
    readiness_probe=container_pb2.ReadinessProbe(
        command=["test", "-e", "/ready"],
        interval=Duration(nanos=250_000_000),
        timeout=Duration(seconds=1, nanos=500_000_000),
        failure_threshold=7,
    ),
)
"""The same specification as a message of the contract."""
IMAGE = container_pb2.ContainerSpec(image="i")

STAMP = Timestamp(seconds=int(NOW.timestamp()), nanos=890_123_000)


@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (FakePools, Pools),
        (FakeTemplates, Templates),
        (FakeSandboxes, Sandboxes),
        (FakeSecrets, Secrets),
        (FakeDataPlane, DataPlane),
        (FakeExposedPorts, ExposedPorts),
    ],
    ids=lambda c: c.__name__,
)
def test_fakes_have_signatures_of_real_use_cases(fake: type, real: type) -> None:
    def public(cls: type) -> dict[str, inspect.Signature]:
        methods = inspect.getmembers(cls, inspect.isfunction)
        return {name: inspect.signature(method) for name, method in methods if not name.startswith("_")}

    called = {name: shape for name, shape in public(fake).items() if name not in ("find", "publish")}
    assert called.items() <= public(real).items()
    assert set(public(real)) - set(called) <= {"close", "values", "is_exposed"}


async def test_create_pool_passes_and_returns_all_fields(rig: Rig) -> None:
    response = await rig.pools.CreatePool(
        p.CreatePoolRequest(
            name="web",
            warm_containers=3,
            max_containers=9,
            timeout=Duration(seconds=60),
            paused=True,
            image_refresh_interval=Duration(seconds=70),
            warm_ttl=Duration(seconds=80),
            drained=True,
            request_id="r-1",
            spec=GIVEN,
        )
    )
    new, request_id, fingerprint = rig.fakes.faults.last
    assert new == NewPool(SPEC, "", "web", 3, 9, 60.0, True, 70.0, 80.0, True)
    assert request_id == "r-1"
    assert len(fingerprint) == 32
    assert response.pool == pool_pb2.Pool(
        pool_id="pool-00000000000000000001",
        name="web",
        warm_containers=3,
        max_containers=9,
        timeout=Duration(seconds=60),
        paused=True,
        image_refresh_interval=Duration(seconds=70),
        warm_ttl=Duration(seconds=80),
        drained=True,
        etag="v1",
        create_time=STAMP,
        update_time=STAMP,
        status=pool_pb2.PoolStatus(state=pool_pb2.POOL_STATE_DRAINED),
        spec=GIVEN,
    )


async def test_create_pool_applies_defaults(rig: Rig) -> None:
    response = await rig.pools.CreatePool(
        p.CreatePoolRequest(spec=container_pb2.ContainerSpec(image="python:3.11-slim"), warm_containers=3)
    )
    new, request_id, fingerprint = rig.fakes.faults.last
    assert new == NewPool({"image": "python:3.11-slim"}, warm_containers=3)
    assert (request_id, fingerprint) == ("", "")
    assert not response.pool.HasField("max_containers")
    assert response.pool.spec == container_pb2.ContainerSpec(
        image="python:3.11-slim",
        cpus=1.0,
        memory_mb=512,
        ephemeral_disk_mb=1024,
        pull_policy=container_pb2.PULL_POLICY_MISSING,
    )
    assert not response.pool.HasField("timeout")


async def test_create_pool_from_template_inherits_spec(rig: Rig) -> None:
    await rig.templates.CreateTemplate(t.CreateTemplateRequest(name="py", spec=IMAGE))
    response = await rig.pools.CreatePool(p.CreatePoolRequest(template_name="py", timeout=Duration()))
    assert rig.fakes.faults.last[0] == NewPool(template_name="py", timeout_secs=0)
    assert (response.pool.template_name, response.pool.spec.image) == ("py", "i")


async def test_returns_status_of_failing_pool(rig: Rig) -> None:
    created = await rig.pools.CreatePool(p.CreatePoolRequest(spec=IMAGE, warm_containers=5, max_containers=6))
    view = rig.fakes.pools.find(created.pool.pool_id)
    failure = PoolFailure(FailureReason.PULL_FAILED, "failed: \udc80", NOW, NOW + timedelta(seconds=5), 3)
    rig.fakes.pools.stored[view.pool.id] = replace(
        view,
        pool=replace(view.pool, hits=7, misses=8, failure=failure, image_digest="sha256:12"),
        counts=PoolCounts(warm=1, starting=2, active=1, removing=4, stale=5),
        waiting=6,
        pull=PullProgress("i", 10, 2**40),
        disk_enforcement=DiskEnforcement.BEST_EFFORT,
    )
    status = (await rig.pools.GetPool(p.GetPoolRequest(pool_id=view.pool.id))).pool.status
    later = Timestamp(seconds=STAMP.seconds + 5, nanos=STAMP.nanos)
    assert status == pool_pb2.PoolStatus(
        state=pool_pb2.POOL_STATE_DEGRADED,
        warm=1,
        creating=2,
        active=1,
        removing=4,
        stale=5,
        desired=3,
        hits=7,
        misses=8,
        last_error=pool_pb2.PoolError(
            reason=pool_pb2.POOL_ERROR_REASON_PULL_FAILED,
            message="failed: ?",
            time=STAMP,
            next_attempt_time=later,
            consecutive_failures=3,
        ),
        image_digest="sha256:12",
        image_pull=pool_pb2.ImagePull(image="i", current_bytes=10, total_bytes=2**40),
        disk_enforcement=pool_pb2.DISK_ENFORCEMENT_BEST_EFFORT,
        waiting=6,
    )
    rig.fakes.pools.stored[view.pool.id] = replace(rig.fakes.pools.find(view.pool.id), counts=PoolCounts(creating=1))
    status = (await rig.pools.GetPool(p.GetPoolRequest(pool_id=view.pool.id))).pool.status
    assert not status.last_error.HasField("next_attempt_time"), "no next attempt while an attempt is running"


async def test_delete_pool_passes_etag_and_request_id(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", spec=IMAGE))
    response = await rig.pools.DeletePool(p.DeletePoolRequest(pool_id="web", etag="v1", request_id="r"))
    assert response == p.DeletePoolResponse()
    ref, etag, request_id, fingerprint, force = rig.fakes.faults.last
    assert (ref, etag, request_id, len(fingerprint), force) == ("web", "v1", "r", 32, False)
    assert not rig.fakes.pools.stored


async def test_delete_pool_passes_force(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", spec=IMAGE))
    await rig.pools.DeletePool(p.DeletePoolRequest(pool_id="web", force=True))
    assert rig.fakes.faults.last == ("web", "", "", "", True)


async def test_watch_pools_returns_events(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", spec=IMAGE))
    watch = rig.pools.WatchPools(p.WatchPoolsRequest(pool_ids=["web"]))
    first = await watch.read()
    assert (first.type, first.pool.name) == (p.WATCH_EVENT_TYPE_CURRENT, "web")
    for event, kind in (
        (WatchEvent.CHANGED, p.WATCH_EVENT_TYPE_CHANGED),
        (WatchEvent.DELETED, p.WATCH_EVENT_TYPE_DELETED),
    ):
        rig.fakes.pools.publish(event, rig.fakes.pools.find("web"))
        assert (await watch.read()).type == kind
    assert rig.fakes.faults.last == (("web",),)
    watch.cancel()


async def test_watch_pools_returns_bookmark_only_on_request(rig: Rig) -> None:
    view = await rig.pools.CreatePool(p.CreatePoolRequest(name="web", spec=IMAGE))
    second = {}
    for bookmark in (True, False):
        watch = rig.pools.WatchPools(p.WatchPoolsRequest(bookmark=bookmark))
        assert (await watch.read()).type == p.WATCH_EVENT_TYPE_CURRENT
        rig.fakes.pools.publish(WatchEvent.CHANGED, rig.fakes.pools.find(view.pool.pool_id))
        second[bookmark] = await watch.read()
        watch.cancel()
    assert second[True] == p.WatchPoolsResponse(type=p.WATCH_EVENT_TYPE_BOOKMARK)
    assert second[False].type == p.WATCH_EVENT_TYPE_CHANGED


async def test_creates_reads_and_deletes_templates(rig: Rig) -> None:
    response = await rig.templates.CreateTemplate(
        t.CreateTemplateRequest(name="py", timeout=Duration(seconds=60), spec=GIVEN)
    )
    assert rig.fakes.faults.last == (NewTemplate("py", SPEC, 60.0), "", "")
    template = response.template
    assert template == template_pb2.Template(
        template_id="tpl-00000000000000000001",
        name="py",
        timeout=Duration(seconds=60),
        etag="v1",
        create_time=STAMP,
        update_time=STAMP,
        spec=GIVEN,
    )
    assert (await rig.templates.GetTemplate(t.GetTemplateRequest(template_name="py"))).template == template
    assert list((await rig.templates.ListTemplates(t.ListTemplatesRequest())).templates) == [template]
    await rig.templates.DeleteTemplate(t.DeleteTemplateRequest(template_name="py", etag="v1"))
    assert not rig.fakes.templates.stored


async def test_create_sandbox_passes_and_returns_all_fields(rig: Rig) -> None:
    response = await rig.sandboxes.CreateSandbox(
        s.CreateSandboxRequest(
            timeout=Duration(seconds=60), name="one", metadata={"a": "b"}, request_id="r", spec=GIVEN
        )
    )
    new, request_id, fingerprint, received = rig.fakes.faults.last
    assert new == NewSandbox("", "", SPEC, 60.0, "one", {"a": "b"}, {})
    assert (request_id, len(fingerprint)) == ("r", 32)
    assert received > 0
    assert response.sandbox == sandbox_pb2.Sandbox(
        sandbox_id="sbx-00000000000000000001",
        name="one",
        state=sandbox_pb2.SANDBOX_STATE_RUNNING,
        spec=GIVEN,
        timeout=Duration(seconds=60),
        metadata={"a": "b"},
        start_type=sandbox_pb2.START_TYPE_WARM,
        start_duration=Duration(nanos=1_500_000),
        create_time=STAMP,
        expire_time=Timestamp(seconds=STAMP.seconds + 60, nanos=STAMP.nanos),
        etag="v1",
    )


async def test_create_sandbox_from_pool_passes_only_given_fields(rig: Rig) -> None:
    pool = (await rig.pools.CreatePool(p.CreatePoolRequest(spec=IMAGE))).pool
    response = await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(pool_id=pool.pool_id))
    assert rig.fakes.faults.last[0] == NewSandbox(pool_id=pool.pool_id)
    assert response.sandbox.pool_id == pool.pool_id
    assert not response.sandbox.HasField("expire_time")


async def test_create_sandbox_from_pool_passes_own_environment(rig: Rig) -> None:
    await rig.pools.CreatePool(
        p.CreatePoolRequest(name="web", spec=container_pb2.ContainerSpec(image="i", env={"A": "pool"}))
    )
    request = s.CreateSandboxRequest(pool_id="web", env={"A": "mine", "B": ""})
    response = await rig.sandboxes.CreateSandbox(request)
    assert rig.fakes.faults.last[0] == NewSandbox(pool_id="web", env={"A": "mine", "B": ""})
    assert dict(response.sandbox.spec.env) == {"A": "pool"}, (
        "the response does not contain the sandbox's own environment"
    )


@pytest.mark.parametrize(
    ("fields", "when_empty", "queue_timeout_secs"),
    [
        ({}, WhenEmpty.START_COLD, 30.0),
        ({"when_empty": s.WHEN_EMPTY_START_COLD}, WhenEmpty.START_COLD, 30.0),
        ({"when_empty": s.WHEN_EMPTY_WAIT}, WhenEmpty.WAIT, 30.0),
        ({"when_empty": s.WHEN_EMPTY_WAIT, "queue_timeout": Duration(nanos=500_000_000)}, WhenEmpty.WAIT, 0.5),
        ({"when_empty": s.WHEN_EMPTY_FAIL}, WhenEmpty.FAIL, 30.0),
    ],
)
async def test_passes_when_empty_and_queue_timeout(
    rig: Rig, fields: dict, when_empty: WhenEmpty, queue_timeout_secs: float
) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", spec=IMAGE))
    expected = NewSandbox(pool_id="web", when_empty=when_empty, queue_timeout_secs=queue_timeout_secs)
    request = s.CreateSandboxRequest(pool_id="web", **fields)
    await rig.sandboxes.CreateSandbox(request)
    assert rig.fakes.faults.last[0] == expected
    await rig.sandboxes.BatchCreateSandboxes(s.BatchCreateSandboxesRequest(sandbox=request, count=2))
    assert rig.fakes.faults.last[:2] == (expected, 2)


@pytest.mark.parametrize(
    "queue_timeout", [Duration(), Duration(nanos=900_000), Duration(seconds=3601), Duration(seconds=-1)]
)
async def test_rejects_invalid_queue_timeout(rig: Rig, queue_timeout: Duration) -> None:
    request = s.CreateSandboxRequest(pool_id="web", when_empty=s.WHEN_EMPTY_WAIT, queue_timeout=queue_timeout)
    assert set((await refused(rig.sandboxes.CreateSandbox(request))).fields) == {"queue_timeout"}
    batch = s.BatchCreateSandboxesRequest(sandbox=request, count=2)
    assert set((await refused(rig.sandboxes.BatchCreateSandboxes(batch))).fields) == {"sandbox.queue_timeout"}


async def test_batch_create_passes_count_and_returns_sandboxes(rig: Rig) -> None:
    request = s.BatchCreateSandboxesRequest(sandbox=s.CreateSandboxRequest(spec=IMAGE), count=3, request_id="r")
    response = await rig.sandboxes.BatchCreateSandboxes(request)
    new, count, request_id, _, received = rig.fakes.faults.last
    assert (new, count, request_id) == (NewSandbox(spec={"image": "i"}), 3, "r")
    assert received > 0
    assert len({sandbox.sandbox_id for sandbox in response.sandboxes}) == 3


async def test_list_sandboxes_passes_filters(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", spec=IMAGE))
    await rig.templates.CreateTemplate(t.CreateTemplateRequest(name="py", spec=IMAGE))
    await rig.sandboxes.ListSandboxes(
        s.ListSandboxesRequest(
            pool_id="web",
            template_name="py",
            states=[sandbox_pb2.SANDBOX_STATE_RUNNING, sandbox_pb2.SANDBOX_STATE_TERMINATED],
            metadata={"a": "b"},
        )
    )
    states = frozenset({InstanceState.ACTIVE, InstanceState.REMOVED})
    assert rig.fakes.faults.last == (SandboxFilter("web", "py", states, {"a": "b"}), 101, "")


async def test_gets_and_deletes_sandbox(rig: Rig) -> None:
    created = (await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(spec=IMAGE, name="one"))).sandbox
    assert (await rig.sandboxes.GetSandbox(s.GetSandboxRequest(sandbox_id="one"))).sandbox == created
    deleted = (await rig.sandboxes.DeleteSandbox(s.DeleteSandboxRequest(sandbox_id="one", request_id="r"))).sandbox
    assert rig.fakes.faults.last[:2] == ("one", "r")
    assert deleted.state == sandbox_pb2.SANDBOX_STATE_TERMINATING
    assert deleted.termination_reason == sandbox_pb2.TERMINATION_REASON_DELETED
    assert deleted.end_time == STAMP


async def test_watch_sandbox_ends_with_the_sandbox(rig: Rig) -> None:
    created = (await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(spec=IMAGE))).sandbox
    watch = rig.sandboxes.WatchSandbox(s.WatchSandboxRequest(sandbox_id=created.sandbox_id))
    assert (await watch.read()).sandbox == created
    rig.fakes.sandboxes.publish(replace(rig.fakes.sandboxes.find(created.sandbox_id), state=InstanceState.REMOVED))
    assert (await watch.read()).sandbox.state == sandbox_pb2.SANDBOX_STATE_TERMINATED
    assert await watch.read() is grpc.aio.EOF
    assert await watch.code() is grpc.StatusCode.OK
    assert not rig.fakes.sandboxes.watchers


async def test_run_command_passes_all_fields_and_returns_result(rig: Rig) -> None:
    await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(spec=IMAGE, name="one"))
    response = await rig.sandboxes.RunCommand(
        s.RunCommandRequest(
            sandbox_id="one",
            argv=["a", ""],
            env={"A": "1"},
            working_dir="/tmp",
            user="app",
            timeout=Duration(seconds=1, nanos=500_000_000),
        )
    )
    assert rig.fakes.faults.last == ("one", Command(1.5, "", ("a", ""), {"A": "1"}, "/tmp", "app"))
    assert response == s.RunCommandResponse(
        stdout="out\n", exit_code=0, reason=sandbox_pb2.EXIT_REASON_EXITED, duration=Duration(nanos=250_000_000)
    )
    assert response.WhichOneof("status") == "exit_code"


async def test_run_command_has_default_timeout_of_60_seconds(rig: Rig) -> None:
    await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(spec=IMAGE, name="one"))
    await rig.sandboxes.RunCommand(s.RunCommandRequest(sandbox_id="one", command="ls | wc"))
    assert rig.fakes.faults.last == ("one", Command(60.0, "ls | wc"))
