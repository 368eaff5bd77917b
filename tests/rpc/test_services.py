"""Every method: what of a request reaches the use case, and what of its answer reaches the caller."""

import inspect
from dataclasses import fields, replace
from datetime import timedelta

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from sandpool.v1 import pool_pb2, sandbox_pb2
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool.v1 import template_service_pb2 as t
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.lifecycle import MemberState
from sandpool_server.domain.model import (
    Claim,
    Command,
    CommandEndReason,
    CommandResult,
    ContainerSpec,
    EndReason,
    Member,
    MemberEnd,
    PoolCondition,
    PoolCounts,
    PoolFailure,
    StartKind,
)
from sandpool_server.ports import SandboxFilter
from sandpool_server.rpc import converters
from sandpool_server.rpc.converters import run_command_answer, sandbox_message
from sandpool_server.usecases.pools import Pools
from sandpool_server.usecases.sandboxes import Sandboxes
from sandpool_server.usecases.templates import Templates
from sandpool_server.usecases.values import NewPool, NewSandbox, NewTemplate, SpecFields, WatchEvent
from tests.rpc.conftest import Rig
from tests.support.fake_usecases import NOW, FakePools, FakeSandboxes, FakeTemplates

SPEC = SpecFields("python:3.11-slim", 2.5, 256, 2048, (), ("sleep", "inf"))
STAMP = Timestamp(seconds=int(NOW.timestamp()), nanos=890_123_000)


@pytest.mark.parametrize(
    ("fake", "real"),
    [(FakePools, Pools), (FakeTemplates, Templates), (FakeSandboxes, Sandboxes)],
    ids=lambda c: c.__name__,
)
def test_the_fakes_have_the_signatures_of_the_real_use_cases(fake: type, real: type) -> None:
    def public(cls: type) -> dict[str, inspect.Signature]:
        methods = inspect.getmembers(cls, inspect.isfunction)
        return {name: inspect.signature(method) for name, method in methods if not name.startswith("_")}

    called = {name: shape for name, shape in public(fake).items() if name not in ("find", "publish")}
    assert called.items() <= public(real).items()
    assert set(public(real)) - set(called) <= {"close"}


async def test_create_pool(rig: Rig) -> None:
    answer = await rig.pools.CreatePool(
        p.CreatePoolRequest(
            name="web",
            image="python:3.11-slim",
            cpus=2.5,
            memory_mb=256,
            ephemeral_disk_mb=2048,
            warm_containers=3,
            max_containers=9,
            timeout_secs=60,
            entrypoint=["sleep", "inf"],
            paused=True,
            request_id="r-1",
        )
    )
    new, request_id, fingerprint = rig.fakes.faults.last
    assert new == NewPool(SPEC, "", "web", 3, 9, 60, True)
    assert request_id == "r-1"
    assert len(fingerprint) == 32
    assert answer.pool == pool_pb2.Pool(
        pool_id="pool-00000000000000000001",
        name="web",
        image="python:3.11-slim",
        cpus=2.5,
        memory_mb=256,
        ephemeral_disk_mb=2048,
        warm_containers=3,
        max_containers=9,
        timeout_secs=60,
        entrypoint=["sleep", "inf"],
        paused=True,
        etag="v1",
        create_time=STAMP,
        update_time=STAMP,
        status=pool_pb2.PoolStatus(state=pool_pb2.POOL_STATE_PAUSED),
    )


async def test_create_pool_with_little(rig: Rig) -> None:
    answer = await rig.pools.CreatePool(p.CreatePoolRequest(image="python:3.11-slim", warm_containers=3))
    new, request_id, fingerprint = rig.fakes.faults.last
    assert new == NewPool(SpecFields("python:3.11-slim"), warm_containers=3)
    assert (request_id, fingerprint) == ("", "")
    assert not answer.pool.HasField("max_containers")
    assert (answer.pool.cpus, answer.pool.memory_mb, answer.pool.ephemeral_disk_mb) == (1.0, 512, 1024)


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
        pool=replace(view.pool, hits=7, misses=8, failure=failure),
        counts=PoolCounts(warm=1, starting=2, active=1, removing=4, stale=5),
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
    )
    rig.fakes.pools.kept[view.pool.id] = replace(rig.fakes.pools.find(view.pool.id), counts=PoolCounts(creating=1))
    status = (await rig.pools.GetPool(p.GetPoolRequest(pool_id=view.pool.id))).pool.status
    assert not status.last_error.HasField("next_attempt_time"), "an attempt is under way"


async def test_delete_pool(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", image="i"))
    answer = await rig.pools.DeletePool(p.DeletePoolRequest(pool_id="web", etag="v1", request_id="r"))
    assert answer == p.DeletePoolResponse()
    assert rig.fakes.faults.last[:3] == ("web", "v1", "r")
    assert not rig.fakes.pools.kept


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


async def test_templates(rig: Rig) -> None:
    answer = await rig.templates.CreateTemplate(
        t.CreateTemplateRequest(
            name="py",
            image="python:3.11-slim",
            cpus=2.5,
            memory_mb=256,
            ephemeral_disk_mb=2048,
            timeout_secs=60,
            entrypoint=["sleep", "inf"],
        )
    )
    assert rig.fakes.faults.last == (NewTemplate("py", SPEC, 60), "", "")
    template = answer.template
    assert template.template_id == "tpl-00000000000000000001"
    assert (template.name, template.image, template.cpus) == ("py", "python:3.11-slim", 2.5)
    assert (template.memory_mb, template.ephemeral_disk_mb, template.timeout_secs) == (256, 2048, 60)
    assert (list(template.entrypoint), list(template.secret_names)) == (["sleep", "inf"], [])
    assert (template.etag, template.create_time, template.update_time) == ("v1", STAMP, STAMP)
    assert (await rig.templates.GetTemplate(t.GetTemplateRequest(template_name="py"))).template == template
    assert list((await rig.templates.ListTemplates(t.ListTemplatesRequest())).templates) == [template]
    await rig.templates.DeleteTemplate(t.DeleteTemplateRequest(template_name="py", etag="v1"))
    assert not rig.fakes.templates.kept


async def test_create_sandbox(rig: Rig) -> None:
    answer = await rig.sandboxes.CreateSandbox(
        s.CreateSandboxRequest(
            image="python:3.11-slim",
            cpus=2.5,
            memory_mb=256,
            ephemeral_disk_mb=2048,
            timeout_secs=60,
            entrypoint=["sleep", "inf"],
            name="one",
            metadata={"a": "b"},
            request_id="r",
        )
    )
    new, request_id, fingerprint, received = rig.fakes.faults.last
    assert new == NewSandbox("", "", SPEC, 60, "one", {"a": "b"})
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
        entrypoint=["sleep", "inf"],
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


def test_output_that_is_no_text_comes_as_both() -> None:
    answer = run_command_answer(
        CommandResult(b"a\xff\xfeb", "ü€".encode(), None, 9, CommandEndReason.OOM_KILLED, 61.5, 3, 4)
    )
    assert (answer.stdout, answer.stdout_bytes) == ("a\ufffd\ufffdb", b"a\xff\xfeb")
    assert (answer.stderr, answer.stderr_bytes) == ("ü€", b"")
    assert (answer.WhichOneof("exit"), answer.signal) == ("signal", 9)
    assert answer.duration == Duration(seconds=61, nanos=500_000_000)
    assert (answer.stdout_dropped_bytes, answer.stderr_dropped_bytes) == (3, 4)


def ended(state: MemberState, **more: object) -> Member:
    claim = Claim(NOW, 0, StartKind.COLD)
    return replace(
        Member("sbx-1", "default", "", "", "", ContainerSpec("i"), state, 1, NOW, claim=claim),
        **more,  # type: ignore[arg-type]
    )


def test_a_starting_sandbox_does_not_say_how_it_started() -> None:
    message = sandbox_message(ended(MemberState.STARTING))
    assert (message.state, message.start) == (sandbox_pb2.SANDBOX_STATE_STARTING, 0)
    assert not message.HasField("start_duration")


def test_an_ended_sandbox_says_why() -> None:
    end = MemberEnd(EndReason.EXITED, NOW, "bye", 0)
    message = sandbox_message(ended(MemberState.GONE, end=end))
    assert message.start == sandbox_pb2.SANDBOX_START_COLD
    assert (message.end_reason, message.end_message) == (sandbox_pb2.SANDBOX_END_REASON_EXITED, "bye")
    assert message.HasField("exit_code")
    assert not sandbox_message(ended(MemberState.GONE, end=replace(end, exit_code=None))).HasField("exit_code")


def test_a_member_that_nobody_claimed_is_never_shown_as_a_sandbox() -> None:
    with pytest.raises(ValueError, match="not a sandbox"):
        sandbox_message(ended(MemberState.WARM, claim=None))


@pytest.mark.parametrize(
    ("table", "words", "prefix"),
    [
        (converters.POOL_STATES, PoolCondition, "POOL_STATE"),
        (converters.POOL_ERROR_REASONS, FailureReason, "POOL_ERROR_REASON"),
        (converters.STARTS, StartKind, "SANDBOX_START"),
        (converters.END_REASONS, EndReason, "SANDBOX_END_REASON"),
        (converters.COMMAND_END_REASONS, CommandEndReason, "COMMAND_END_REASON"),
        (converters.WATCH_EVENT_TYPES, WatchEvent, "WATCH_EVENT_TYPE"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_word_of_the_domain_is_one_of_the_contract(table: dict, words: type, prefix: str) -> None:
    file = p.DESCRIPTOR if prefix == "WATCH_EVENT_TYPE" else pool_pb2.DESCRIPTOR
    values = {**file.enum_types_by_name, **sandbox_pb2.DESCRIPTOR.enum_types_by_name}
    enum = next(enum for enum in values.values() if enum.values[0].name == f"{prefix}_UNSPECIFIED")
    assert {f"{prefix}_{word.name}": number for word, number in table.items()} == {
        value.name: value.number for value in enum.values if value.number
    }
    assert set(table) == set(words)


def test_every_state_of_a_sandbox_is_one_of_the_contract() -> None:
    assert set(converters.SANDBOX_STATES) == set(MemberState) - {MemberState.CREATING, MemberState.WARM}
    assert len(set(converters.SANDBOX_STATES.values())) == len(sandbox_pb2.SandboxState.values()) - 1


def test_specifications_have_the_fields_of_the_contract() -> None:
    names = {field.name for field in fields(SpecFields)}
    for request in (p.CreatePoolRequest, p.UpdatePoolRequest, t.UpdateTemplateRequest, s.CreateSandboxRequest):
        assert names <= set(request.DESCRIPTOR.fields_by_name)
