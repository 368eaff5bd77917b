"""Warm means ready: what counts as capacity is alive, warmed up, and as its owner wants it.

The rows named are those of docs/user-demands.md.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from sandpool import (
    PoolErrorReason,
    PoolState,
    ResourceTimeoutError,
    SandboxClient,
    SandboxEndReason,
    SandboxNotFoundError,
    SandboxStart,
    SandboxState,
)
from tests.e2e.conftest import MakePool
from tests.support.callers import together
from tests.support.engine_events import EngineEvents
from tests.support.engine_view import EngineView, engine_view
from tests.support.pool_members import container, members_of
from tests.support.server_process import ServerProcess
from tests.support.waiting import WAIT_SECS, wait_for_pool, wait_for_sandbox, wait_until_warm

pytestmark = pytest.mark.engine

PYTHON = "python:3.11-slim"

TRY_THREE_TIMES = """
n=$(($(cat /tmp/tries 2>/dev/null || echo 0) + 1)); echo $n > /tmp/tries
[ $n -ge 3 ] || { echo "not yet, try $n" >&2; exit 1; }
"""


@pytest.fixture(scope="module", autouse=True)
def frozen(server: ServerProcess) -> Iterator[tuple[str, str]]:
    """A pool with one member whose first process is stopped, and that member: the probes look every ten seconds only.

    Made at the begin of the module and looked at by its last test, so that nobody waits for them.
    """
    with SandboxClient(server.address) as client:
        pool_id = client.create_pool(image="busybox:latest", warm_containers=1).pool_id
        wait_until_warm(client, pool_id, 1)
        with engine_view() as engine:
            (member,) = members_of(engine, pool_id)
            engine.api.kill(container(member), signal="SIGSTOP")
        yield pool_id, member
        client.delete_pool(pool_id, force=True)


def test_an_interpreter_is_up_and_imports_are_done(client: SandboxClient, make_pool: MakePool):
    """Row 9: with a readiness command a member is warm only after it has succeeded in that very container."""
    command = ["python3", "-c", "import asyncio, json; open('/tmp/imported', 'w').write(json.dumps('done'))"]
    pool = make_pool(image=PYTHON, warm_containers=1, readiness_command=command)
    wait_until_warm(client, pool.pool_id, 1)
    sandbox = client.create(pool_id=pool.pool_id)
    assert sandbox.start is SandboxStart.WARM
    assert sandbox.run(["cat", "/tmp/imported"]).stdout == '"done"'


def test_readiness_is_tried_until_it_succeeds(client: SandboxClient, make_pool: MakePool):
    """Row 9: the command may fail at first; cold starts wait for it as well."""
    pool = make_pool(warm_containers=1, readiness_command=["sh", "-c", TRY_THREE_TIMES], readiness_interval_secs=0.05)
    wait_until_warm(client, pool.pool_id, 1)
    for sandbox in client.create_batch(2, pool_id=pool.pool_id):
        assert sandbox.run(["cat", "/tmp/tries"]).stdout == "3\n", sandbox.start


def test_a_member_that_never_is_ready_is_never_warm(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 3, 9, 17: the pool says what its command said; another pool does not notice; a cold start fails alike."""
    never = ["sh", "-c", "echo the model is not loaded >&2; exit 3"]
    pool = make_pool(warm_containers=2, readiness_command=never, readiness_interval_secs=0.05, readiness_retries=2)
    failing = wait_for_pool(client, pool.pool_id, lambda seen: seen.status.last_error is not None)
    assert failing.status.last_error is not None
    assert failing.status.last_error.reason is PoolErrorReason.NOT_READY
    assert "the model is not loaded" in failing.status.last_error.message
    assert (failing.status.state, failing.status.warm) == (PoolState.DEGRADED, 0)

    other = make_pool(warm_containers=1)
    wait_until_warm(client, other.pool_id, 1)
    assert client.create(pool_id=other.pool_id).start is SandboxStart.WARM
    assert client.get_pool(other.pool_id).status.last_error is None

    with pytest.raises(ResourceTimeoutError) as late:
        client.create(pool_id=pool.pool_id)
    assert late.value.reason == "NOT_READY"
    client.pause_pool(pool.pool_id)
    engine.wait_until(lambda seen: not members_of(seen, pool.pool_id))
    assert client.get_pool(pool.pool_id).status.hits == 0


def test_the_order_of_environments(client: SandboxClient, make_pool: MakePool):
    """Row 15: the command's over the sandbox's over the pool's over the image's, in commands and in the entrypoint."""
    pool = make_pool(
        image=PYTHON,
        warm_containers=1,
        env={"LANG": "pool", "HOME": "/pool", "KEPT": "pool"},
        entrypoint=["sh", "-c", "echo $LANG > /tmp/entrypoint; exec sleep 3600"],
        readiness_command=["grep", "-q", "pool", "/tmp/entrypoint"],
        readiness_interval_secs=0.05,
    )
    wait_until_warm(client, pool.pool_id, 1)
    sandbox = client.create(pool_id=pool.pool_id, env={"LANG": "sandbox", "HOME": "/sandbox"})
    assert sandbox.start is SandboxStart.WARM
    shown = sandbox.run("echo $LANG $HOME $KEPT", env={"HOME": "/command"})
    assert shown.stdout == "sandbox /command pool\n"
    assert sandbox.run(["cat", "/tmp/entrypoint"]).stdout == "pool\n"
    assert sandbox.run("echo $PATH").stdout.startswith("/usr/local/bin"), "the image's"
    cold = client.create(pool_id=pool.pool_id, env={"LANG": "other"})
    assert cold.run("echo $LANG $HOME").stdout == "other /pool\n", "each has its own"


def test_the_environment_of_a_template(client: SandboxClient, make_pool: MakePool):
    """Row 15: a template's environment reaches sandboxes of its pools, and those without a pool."""
    client.create_template("with-env", "busybox:latest", env={"A": "template", "B": "template"})
    alone = client.create(template_name="with-env", env={"B": "sandbox"})
    assert (alone.start, alone.run("echo $A $B").stdout) == (SandboxStart.COLD, "template sandbox\n")
    alone.delete()
    pool = make_pool(template_name="with-env", warm_containers=1)
    wait_until_warm(client, pool.pool_id, 1)
    warm = client.create(template_name="with-env", env={"B": "sandbox"})
    assert (warm.start, warm.run("echo $A $B").stdout) == (SandboxStart.WARM, "template sandbox\n")
    listed = client.list_sandboxes(template_name="with-env", states=["running"])
    assert [found.sandbox_id for found in listed] == [warm.sandbox_id]


def test_what_is_given_for_one_sandbox_still_draws_warm(client: SandboxClient, make_pool: MakePool):
    """Rows 15, 16: name, env, metadata and lifetime at the creation; and lists by metadata, state and pool."""
    pool = make_pool(warm_containers=3)
    wait_until_warm(client, pool.pool_id, 3)
    given = client.create(
        pool_id=pool.pool_id, name="given", env={"A": "1"}, metadata={"team": "red", "n": "1"}, timeout_secs=3000
    )
    other = client.create(pool_id=pool.pool_id, metadata={"team": "red", "n": "2"})
    plain = client.create(pool_id=pool.pool_id)
    assert [one.start for one in (given, other, plain)] == [SandboxStart.WARM] * 3
    assert (given.name, given.metadata["n"], given.timeout_secs) == ("given", "1", 3000)
    assert given.expire_time is not None
    assert given.run("echo $A").stdout == "1\n"
    assert other.run("echo $A").stdout == "\n"
    assert client.get_pool(pool.pool_id).status.hits == 3

    def listed(**filters: object) -> list[str]:
        found = client.list_sandboxes(pool_id=pool.pool_id, **filters)  # type: ignore[arg-type]
        return [sandbox.sandbox_id for sandbox in found]

    assert listed(metadata={"team": "red"}) == [given.sandbox_id, other.sandbox_id]
    assert listed(metadata={"team": "red", "n": "2"}) == [other.sandbox_id]
    other.delete()
    wait_for_sandbox(client, other.sandbox_id, lambda seen: seen.state is SandboxState.TERMINATED)
    assert listed(metadata={"team": "red"}, states=["running"]) == [given.sandbox_id]
    assert listed(metadata={"team": "red"}, states=["terminated"]) == [other.sandbox_id]


@pytest.mark.parametrize("how", ["stopped", "killed", "removed"])
def test_a_member_that_is_dead_when_it_is_claimed(
    client: SandboxClient, make_pool: MakePool, engine: EngineView, how: str
):
    """Rows 4, 9: the caller gets another one without noticing; the dead one is nobody's sandbox, and is replaced."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    dead, alive = sorted(members_of(engine, pool.pool_id))
    match how:
        case "stopped":
            engine.api.kill(container(dead), signal="SIGSTOP")
        case "killed":
            engine.api.kill(container(dead))
        case _:
            engine.api.remove_container(container(dead), force=True)
    sandbox = client.create(pool_id=pool.pool_id)
    assert (sandbox.sandbox_id, sandbox.start) == (alive, SandboxStart.WARM)
    assert sandbox.run(["echo", "alive"]).stdout == "alive\n"
    with pytest.raises(SandboxNotFoundError):
        client.get_sandbox(dead)
    wait_until_warm(client, pool.pool_id, 2)
    assert dead not in members_of(engine, pool.pool_id)
    status = client.get_pool(pool.pool_id).status
    assert (status.hits, status.misses, status.active) == (1, 0, 1)


def test_callers_and_deaths_at_once(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 1, 4, 9: members are killed while many claim; each caller has a living sandbox of its own."""
    pool = make_pool(warm_containers=4)
    wait_until_warm(client, pool.pool_id, 4)
    doomed = sorted(members_of(engine, pool.pool_id))[:2]

    def one(number: int) -> str:
        if number < len(doomed):
            engine.api.kill(container(doomed[number]))
            return ""
        sandbox = client.create(pool_id=pool.pool_id)
        # Whoever got a doomed one before it was killed lost it afterwards, and is told so; that is row 10's.
        return sandbox.sandbox_id

    answers = together(len(doomed) + 4, one)
    got = [answer for answer in answers if answer]
    assert len(set(got)) == 4, answers
    for sandbox_id in set(got) - set(doomed):
        assert client.get(sandbox_id).run("true").success
    for sandbox_id in set(got) & set(doomed):
        wait_for_sandbox(client, sandbox_id, lambda seen: seen.end_reason is SandboxEndReason.LOST)


def test_what_happens_to_members_behind_our_back(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 4, 11: those that are removed, killed or paused by somebody else are replaced, by the engine's events."""
    pool = make_pool(warm_containers=3)
    wait_until_warm(client, pool.pool_id, 3)
    before = members_of(engine, pool.pool_id)
    removed, killed, paused = sorted(before)
    with EngineEvents(pool.pool_id) as events:
        engine.api.remove_container(container(removed), force=True)
        events.wait(lambda seen: len(seen.of("create")) == 1)
        engine.api.kill(container(killed))
        events.wait(lambda seen: len(seen.of("create")) == 2)
        engine.api.pause(container(paused))
        events.wait(lambda seen: len(seen.of("create")) == 3)
        wait_until_warm(client, pool.pool_id, 3)
        # Less than the half minute after which everything is compared anyway; a busy machine needs seconds for a start.
        for gone, action in ((removed, "destroy"), (killed, "die"), (paused, "pause")):
            (happened,) = [event for event in events.of(action) if event.member_id == gone]
            replaced = events.of("create", after=happened.time)[0]
            assert replaced.time - happened.time < 20, f"{action}: {events.seen}"
    after = members_of(engine, pool.pool_id)
    assert len(after) == 3
    assert not after & before


def test_what_happens_behind_our_back_is_noticed_within_a_second(tmp_path: Path, engine: EngineView):
    """Row 11: by the engine's own time of the event and the server's of its log line, in one clock of one machine."""
    with (
        ServerProcess(tmp_path / "data", log_format="json") as server,
        SandboxClient(server.address) as client,
    ):
        pool = client.create_pool(image="busybox:latest", warm_containers=3)
        wait_until_warm(client, pool.pool_id, 3)
        removed, killed, paused = sorted(members_of(engine, pool.pool_id))
        with EngineEvents(pool.pool_id) as events:
            engine.api.remove_container(container(removed), force=True)
            engine.api.kill(container(killed))
            engine.api.pause(container(paused))
            events.wait(lambda seen: len(seen.of("create")) == 3)
        wait_until_warm(client, pool.pool_id, 3)
        lines = [json.loads(line) for line in server.log.splitlines() if '"member_ended"' in line]
    noticed = {line["member"]: datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines}
    for member, action in ((removed, "die"), (killed, "die"), (paused, "pause")):
        (happened,) = [event for event in events.of(action) if event.member_id == member][:1]
        assert noticed[member] - happened.time < 1, f"{action}: {events.seen}, {lines}"


def test_a_sandbox_in_use_that_dies_says_so(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Row 10: its reason and exit code are told, and no other container ever stands in for it."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    killed, removed = (client.create(pool_id=pool.pool_id) for _ in range(2))
    engine.api.kill(container(killed.sandbox_id))
    engine.api.remove_container(container(removed.sandbox_id), force=True)
    wait_until_warm(client, pool.pool_id, 2)
    ended = wait_for_sandbox(client, killed.sandbox_id, lambda seen: seen.state is SandboxState.TERMINATED)
    assert (ended.end_reason, ended.exit_code) == (SandboxEndReason.LOST, 137)
    ended = wait_for_sandbox(client, removed.sandbox_id, lambda seen: seen.state is SandboxState.TERMINATED)
    assert ended.end_reason is SandboxEndReason.LOST
    assert ended.end_time is not None
    assert not {killed.sandbox_id, removed.sandbox_id} & members_of(engine, pool.pool_id)
    assert client.get_pool(pool.pool_id).status.active == 0


def test_members_grow_old_one_by_one(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Row 25: past their age members are replaced while never more than one is missing; sandboxes do not age."""
    pool = make_pool(warm_containers=3)
    wait_until_warm(client, pool.pool_id, 3)
    sandbox = client.create(pool_id=pool.pool_id)
    wait_until_warm(client, pool.pool_id, 3)
    first = members_of(engine, pool.pool_id) - {sandbox.sandbox_id}
    client.update_pool(pool.pool_id, max_age_secs=2)
    fewest = 3
    for event in client.watch_pools([pool.pool_id], timeout=WAIT_SECS):
        fewest = min(fewest, event.pool.status.warm)
        if event.pool.status.warm == 3 and not first & members_of(engine, pool.pool_id):
            break
    assert fewest == 2
    assert sandbox.run("true").success


def test_probes_find_a_member_that_is_frozen(client: SandboxClient, engine: EngineView, frozen: tuple[str, str]):
    """Rows 4, 19: one that no event tells of is found by asking it, and replaced."""
    pool_id, member = frozen
    engine.wait_until(lambda seen: member not in members_of(seen, pool_id))
    wait_until_warm(client, pool_id, 1)
    assert client.create(pool_id=pool_id).run("true").success
    assert client.get_pool(pool_id).status.hits == 1
