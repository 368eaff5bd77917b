"""Every method: what of a request reaches the use case, and what of its answer reaches the caller."""

import inspect
from dataclasses import replace
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sandpool.v1 import pool_pb2, sandbox_pb2, template_pb2
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool.v1 import template_service_pb2 as t
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import (
    Command,
    DiskEnforcement,
    PoolCounts,
    PoolFailure,
    PullPolicy,
    PullProgress,
)
from sandpool_server.ports import SandboxFilter
from sandpool_server.usecases.exposed_ports import ExposedPorts
from sandpool_server.usecases.inside import Inside
from sandpool_server.usecases.pools import Pools
from sandpool_server.usecases.sandboxes import Sandboxes
from sandpool_server.usecases.secrets import Secrets
from sandpool_server.usecases.templates import Templates
from sandpool_server.usecases.values import NewPool, NewSandbox, NewTemplate, SpecFields, WatchEvent, WhenEmpty
from tests.rpc.conftest import Rig, refused
from tests.support.fake_usecases import (
    NOW,
    FakeExposedPorts,
    FakeInside,
    FakePools,
    FakeSandboxes,
    FakeSecrets,
    FakeTemplates,
)

SPEC = SpecFields(
    image="python:3.11-slim",
    cpus=2.5,
    memory_mb=256,
    ephemeral_disk_mb=2048,
    secret_names=("KEY",),
    entrypoint=("sleep", "inf"),
    env=(("A", "1"), ("B", "")),
    readiness_command=("test", "-e", "/ready"),
    readiness_interval_secs=0.25,
    readiness_timeout_secs=1.5,
    readiness_retries=7,
)
GIVEN = {
    "image": "python:3.11-slim",
    "cpus": 2.5,
    "memory_mb": 256,
    "ephemeral_disk_mb": 2048,
    "secret_names": ["KEY"],
    "entrypoint": ["sleep", "inf"],
    "env": {"B": "", "A": "1"},
    "readiness_command": ["test", "-e", "/ready"],
    "readiness_interval_secs": 0.25,
    "readiness_timeout_secs": 1.5,
    "readiness_retries": 7,
}
"""The same specification in a message of the contract."""

STAMP = Timestamp(seconds=int(NOW.timestamp()), nanos=890_123_000)


@pytest.mark.parametrize(
    ("fake", "real"),
    [
        (FakePools, Pools),
        (FakeTemplates, Templates),
        (FakeSandboxes, Sandboxes),
        (FakeSecrets, Secrets),
        (FakeInside, Inside),
        (FakeExposedPorts, ExposedPorts),
    ],
    ids=lambda c: c.__name__,
)
def test_the_fakes_have_the_signatures_of_the_real_use_cases(fake: type, real: type) -> None:
    def public(cls: type) -> dict[str, inspect.Signature]:
        methods = inspect.getmembers(cls, inspect.isfunction)
        return {name: inspect.signature(method) for name, method in methods if not name.startswith("_")}

    called = {name: shape for name, shape in public(fake).items() if name not in ("find", "publish")}
    assert called.items() <= public(real).items()
    assert set(public(real)) - set(called) <= {"close", "values", "is_exposed"}


async def test_create_pool(rig: Rig) -> None:
    answer = await rig.pools.CreatePool(
        p.CreatePoolRequest(
            name="web",
            warm_containers=3,
            max_containers=9,
            timeout_secs=60,
            paused=True,
            pull_policy=pool_pb2.PULL_POLICY_ALWAYS,
            image_check_secs=70,
            max_age_secs=80,
            drain=True,
            request_id="r-1",
            **GIVEN,
        )
    )
    new, request_id, fingerprint = rig.fakes.faults.last
    assert new == NewPool(SPEC, "", "web", 3, 9, 60, True, PullPolicy.ALWAYS, 70, 80, True)
    assert request_id == "r-1"
    assert len(fingerprint) == 32
    assert answer.pool == pool_pb2.Pool(
        pool_id="pool-00000000000000000001",
        name="web",
        warm_containers=3,
        max_containers=9,
        timeout_secs=60,
        paused=True,
        pull_policy=pool_pb2.PULL_POLICY_ALWAYS,
        image_check_secs=70,
        max_age_secs=80,
        drain=True,
        etag="v1",
        create_time=STAMP,
        update_time=STAMP,
        status=pool_pb2.PoolStatus(state=pool_pb2.POOL_STATE_DRAINED),
        **GIVEN,
    )


async def test_create_pool_with_little(rig: Rig) -> None:
    answer = await rig.pools.CreatePool(p.CreatePoolRequest(image="python:3.11-slim", warm_containers=3))
    new, request_id, fingerprint = rig.fakes.faults.last
    assert new == NewPool(SpecFields("python:3.11-slim"), warm_containers=3)
    assert (request_id, fingerprint) == ("", "")
    assert not answer.pool.HasField("max_containers")
    assert (answer.pool.cpus, answer.pool.memory_mb, answer.pool.ephemeral_disk_mb) == (1.0, 512, 1024)
    readiness = (
        answer.pool.readiness_interval_secs,
        answer.pool.readiness_timeout_secs,
        answer.pool.readiness_retries,
    )
    assert readiness == (0.5, 5.0, 20)
    assert answer.pool.pull_policy == pool_pb2.PULL_POLICY_MISSING


async def test_create_pool_from_a_template(rig: Rig) -> None:
    await rig.templates.CreateTemplate(t.CreateTemplateRequest(name="py", image="i"))
    answer = await rig.pools.CreatePool(p.CreatePoolRequest(template_name="py", timeout_secs=0))
    assert rig.fakes.faults.last[0] == NewPool(template_name="py", timeout_secs=0)
    assert (answer.pool.template_name, answer.pool.image) == ("py", "i")


async def test_a_pool_in_trouble_shows_its_status(rig: Rig) -> None:
    created = await rig.pools.CreatePool(p.CreatePoolRequest(image="i", warm_containers=5, max_containers=6))
    view = rig.fakes.pools.find(created.pool.pool_id)
    failure = PoolFailure(FailureReason.PULL_FAILED, "no \udc80 luck", NOW, NOW + timedelta(seconds=5), 3)
    rig.fakes.pools.kept[view.pool.id] = replace(
        view,
        pool=replace(view.pool, hits=7, misses=8, failure=failure, image_digest="sha256:12"),
        counts=PoolCounts(warm=1, starting=2, active=1, removing=4, stale=5),
        waiting=6,
        pull=PullProgress("i", 10, 2**40),
        disk_enforcement=DiskEnforcement.WATCHED,
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
        wanted=3,
        hits=7,
        misses=8,
        last_error=pool_pb2.PoolError(
            reason=pool_pb2.POOL_ERROR_REASON_PULL_FAILED,
            message="no ? luck",
            time=STAMP,
            next_attempt_time=later,
            consecutive_failures=3,
        ),
        image_digest="sha256:12",
        image_pull=pool_pb2.ImagePull(image="i", current_bytes=10, total_bytes=2**40),
        disk_enforcement=pool_pb2.DISK_ENFORCEMENT_WATCHED,
        waiting=6,
    )
    rig.fakes.pools.kept[view.pool.id] = replace(rig.fakes.pools.find(view.pool.id), counts=PoolCounts(creating=1))
    status = (await rig.pools.GetPool(p.GetPoolRequest(pool_id=view.pool.id))).pool.status
    assert not status.last_error.HasField("next_attempt_time"), "an attempt is under way"


async def test_delete_pool(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", image="i"))
    answer = await rig.pools.DeletePool(p.DeletePoolRequest(pool_id="web", etag="v1", request_id="r"))
    assert answer == p.DeletePoolResponse()
    ref, etag, request_id, fingerprint, force = rig.fakes.faults.last
    assert (ref, etag, request_id, len(fingerprint), force) == ("web", "v1", "r", 32, False)
    assert not rig.fakes.pools.kept


async def test_delete_pool_by_force(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", image="i"))
    await rig.pools.DeletePool(p.DeletePoolRequest(pool_id="web", force=True))
    assert rig.fakes.faults.last == ("web", "", "", "", True)


async def test_watch_pools(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", image="i"))
    watch = rig.pools.WatchPools(p.WatchPoolsRequest(pool_ids=["web"]))
    first = await watch.read()
    assert (first.type, first.pool.name) == (p.WATCH_EVENT_TYPE_PRESENT, "web")
    for event, kind in (
        (WatchEvent.CHANGED, p.WATCH_EVENT_TYPE_CHANGED),
        (WatchEvent.DELETED, p.WATCH_EVENT_TYPE_DELETED),
    ):
        rig.fakes.pools.publish(event, rig.fakes.pools.find("web"))
        assert (await watch.read()).type == kind
    assert rig.fakes.faults.last == (("web",),)
    watch.cancel()


async def test_a_watch_says_when_all_is_told_where_that_is_asked_for(rig: Rig) -> None:
    view = await rig.pools.CreatePool(p.CreatePoolRequest(name="web", image="i"))
    told = {}
    for bookmark in (True, False):
        watch = rig.pools.WatchPools(p.WatchPoolsRequest(bookmark=bookmark))
        assert (await watch.read()).type == p.WATCH_EVENT_TYPE_PRESENT
        rig.fakes.pools.publish(WatchEvent.CHANGED, rig.fakes.pools.find(view.pool.pool_id))
        told[bookmark] = await watch.read()
        watch.cancel()
    assert told[True] == p.WatchPoolsResponse(type=p.WATCH_EVENT_TYPE_BOOKMARK)
    assert told[False].type == p.WATCH_EVENT_TYPE_CHANGED


async def test_templates(rig: Rig) -> None:
    answer = await rig.templates.CreateTemplate(t.CreateTemplateRequest(name="py", timeout_secs=60, **GIVEN))
    assert rig.fakes.faults.last == (NewTemplate("py", SPEC, 60), "", "")
    template = answer.template
    assert template == template_pb2.Template(
        template_id="tpl-00000000000000000001",
        name="py",
        timeout_secs=60,
        etag="v1",
        create_time=STAMP,
        update_time=STAMP,
        **GIVEN,
    )
    assert (await rig.templates.GetTemplate(t.GetTemplateRequest(template_name="py"))).template == template
    assert list((await rig.templates.ListTemplates(t.ListTemplatesRequest())).templates) == [template]
    await rig.templates.DeleteTemplate(t.DeleteTemplateRequest(template_name="py", etag="v1"))
    assert not rig.fakes.templates.kept


async def test_create_sandbox(rig: Rig) -> None:
    answer = await rig.sandboxes.CreateSandbox(
        s.CreateSandboxRequest(timeout_secs=60, name="one", metadata={"a": "b"}, request_id="r", **GIVEN)
    )
    new, request_id, fingerprint, received = rig.fakes.faults.last
    assert new == NewSandbox("", "", SPEC, 60, "one", {"a": "b"}, {})
    assert (request_id, len(fingerprint)) == ("r", 32)
    assert received > 0
    assert answer.sandbox == sandbox_pb2.Sandbox(
        sandbox_id="sbx-00000000000000000001",
        name="one",
        state=sandbox_pb2.SANDBOX_STATE_RUNNING,
        image="python:3.11-slim",
        cpus=2.5,
        memory_mb=256,
        ephemeral_disk_mb=2048,
        timeout_secs=60,
        secret_names=["KEY"],
        entrypoint=["sleep", "inf"],
        env={"A": "1", "B": ""},
        metadata={"a": "b"},
        start=sandbox_pb2.SANDBOX_START_WARM,
        start_duration=Duration(nanos=1_500_000),
        create_time=STAMP,
        expire_time=Timestamp(seconds=STAMP.seconds + 60, nanos=STAMP.nanos),
        etag="v1",
    )


async def test_create_sandbox_from_a_pool_gives_what_is_given_and_no_more(rig: Rig) -> None:
    pool = (await rig.pools.CreatePool(p.CreatePoolRequest(image="i"))).pool
    answer = await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(pool_id=pool.pool_id))
    assert rig.fakes.faults.last[0] == NewSandbox(pool_id=pool.pool_id)
    assert answer.sandbox.pool_id == pool.pool_id
    assert not answer.sandbox.HasField("expire_time")


async def test_create_sandbox_from_a_pool_with_an_environment_of_its_own(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", image="i", env={"A": "pool"}))
    request = s.CreateSandboxRequest(pool_id="web", env={"A": "mine", "B": ""})
    answer = await rig.sandboxes.CreateSandbox(request)
    assert rig.fakes.faults.last[0] == NewSandbox(pool_id="web", env={"A": "mine", "B": ""})
    assert dict(answer.sandbox.env) == {"A": "pool"}, "what is given for one sandbox alone is not repeated"


@pytest.mark.parametrize(
    ("fields", "when_empty", "wait_secs"),
    [
        ({}, WhenEmpty.START_COLD, 30.0),
        ({"when_empty": s.WHEN_EMPTY_START_COLD}, WhenEmpty.START_COLD, 30.0),
        ({"when_empty": s.WHEN_EMPTY_WAIT}, WhenEmpty.WAIT, 30.0),
        ({"when_empty": s.WHEN_EMPTY_WAIT, "wait_secs": 0.5}, WhenEmpty.WAIT, 0.5),
        ({"when_empty": s.WHEN_EMPTY_FAIL}, WhenEmpty.FAIL, 30.0),
    ],
)
async def test_what_to_do_when_nothing_is_ready(
    rig: Rig, fields: dict, when_empty: WhenEmpty, wait_secs: float
) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", image="i"))
    expected = NewSandbox(pool_id="web", when_empty=when_empty, wait_secs=wait_secs)
    request = s.CreateSandboxRequest(pool_id="web", **fields)
    await rig.sandboxes.CreateSandbox(request)
    assert rig.fakes.faults.last[0] == expected
    await rig.sandboxes.BatchCreateSandboxes(s.BatchCreateSandboxesRequest(sandbox=request, count=2))
    assert rig.fakes.faults.last[:2] == (expected, 2)


@pytest.mark.parametrize("wait_secs", [0, 0.0009, 3601, -1, float("nan"), float("inf")])
async def test_a_wait_has_its_bounds(rig: Rig, wait_secs: float) -> None:
    request = s.CreateSandboxRequest(pool_id="web", when_empty=s.WHEN_EMPTY_WAIT, wait_secs=wait_secs)
    assert set((await refused(rig.sandboxes.CreateSandbox(request))).fields) == {"wait_secs"}
    batch = s.BatchCreateSandboxesRequest(sandbox=request, count=2)
    assert set((await refused(rig.sandboxes.BatchCreateSandboxes(batch))).fields) == {"sandbox.wait_secs"}


async def test_batch_create_sandboxes(rig: Rig) -> None:
    request = s.BatchCreateSandboxesRequest(sandbox=s.CreateSandboxRequest(image="i"), count=3, request_id="r")
    answer = await rig.sandboxes.BatchCreateSandboxes(request)
    new, count, request_id, _, received = rig.fakes.faults.last
    assert (new, count, request_id) == (NewSandbox(spec=SpecFields("i")), 3, "r")
    assert received > 0
    assert len({sandbox.sandbox_id for sandbox in answer.sandboxes}) == 3


async def test_list_sandboxes_passes_its_filters(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", image="i"))
    await rig.templates.CreateTemplate(t.CreateTemplateRequest(name="py", image="i"))
    await rig.sandboxes.ListSandboxes(
        s.ListSandboxesRequest(
            pool_id="web",
            template_name="py",
            states=[sandbox_pb2.SANDBOX_STATE_RUNNING, sandbox_pb2.SANDBOX_STATE_TERMINATED],
            metadata={"a": "b"},
        )
    )
    states = frozenset({MemberState.ACTIVE, MemberState.GONE})
    assert rig.fakes.faults.last == (SandboxFilter("web", "py", states, {"a": "b"}), 101, "")


async def test_get_and_delete_sandbox(rig: Rig) -> None:
    created = (await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(image="i", name="one"))).sandbox
    assert (await rig.sandboxes.GetSandbox(s.GetSandboxRequest(sandbox_id="one"))).sandbox == created
    ended = (await rig.sandboxes.DeleteSandbox(s.DeleteSandboxRequest(sandbox_id="one", request_id="r"))).sandbox
    assert rig.fakes.faults.last[:2] == ("one", "r")
    assert ended.state == sandbox_pb2.SANDBOX_STATE_TERMINATING
    assert ended.end_reason == sandbox_pb2.SANDBOX_END_REASON_DELETED
    assert ended.end_time == STAMP


async def test_watch_sandbox_ends_with_the_sandbox(rig: Rig) -> None:
    created = (await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(image="i"))).sandbox
    watch = rig.sandboxes.WatchSandbox(s.WatchSandboxRequest(sandbox_id=created.sandbox_id))
    assert (await watch.read()).sandbox == created
    rig.fakes.sandboxes.publish(replace(rig.fakes.sandboxes.find(created.sandbox_id), state=MemberState.GONE))
    assert (await watch.read()).sandbox.state == sandbox_pb2.SANDBOX_STATE_TERMINATED
    assert await watch.read() is grpc.aio.EOF
    assert await watch.code() is grpc.StatusCode.OK
    assert not rig.fakes.sandboxes.watchers


async def test_run_command(rig: Rig) -> None:
    await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(image="i", name="one"))
    answer = await rig.sandboxes.RunCommand(
        s.RunCommandRequest(
            sandbox_id="one", argv=["a", ""], env={"A": "1"}, working_dir="/tmp", user="nobody", timeout_secs=1.5
        )
    )
    assert rig.fakes.faults.last == ("one", Command(1.5, "", ("a", ""), {"A": "1"}, "/tmp", "nobody"))
    assert answer == s.RunCommandResponse(
        stdout="out\n", exit_code=0, reason=sandbox_pb2.COMMAND_END_REASON_EXITED, duration=Duration(nanos=250_000_000)
    )
    assert answer.WhichOneof("exit") == "exit_code"


async def test_run_command_has_a_minute_by_default(rig: Rig) -> None:
    await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(image="i", name="one"))
    await rig.sandboxes.RunCommand(s.RunCommandRequest(sandbox_id="one", command="ls | wc"))
    assert rig.fakes.faults.last == ("one", Command(60.0, "ls | wc"))
