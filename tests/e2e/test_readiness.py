"""Readiness and health: a warm instance runs, has passed its readiness probe, and has the current specification.

Row numbers refer to tests/user-demands.md.
"""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from sandpool import (
    PoolErrorReason,
    PoolState,
    ReadinessProbe,
    ResourceTimeoutError,
    SandboxClient,
    SandboxNotFoundError,
    SandboxState,
    StartType,
    TerminationReason,
)
from tests.e2e.conftest import MakePool
from tests.support.callers import together
from tests.support.engine_events import EngineEvents
from tests.support.engine_view import EngineView, engine_view
from tests.support.pool_instances import container, instances_of
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
    """Return a pool and its instance, whose first process is stopped.

    Health checks run every ten seconds. The fixture starts with the module and the last test uses it, so that no test
    waits for them.
    """
    with SandboxClient(server.address) as client:
        pool_id = client.create_pool(image="busybox:latest", warm_containers=1).pool_id
        wait_until_warm(client, pool_id, 1)
        with engine_view() as engine:
            (instance,) = instances_of(engine, pool_id)
            engine.api.kill(container(instance), signal="SIGSTOP")
        yield pool_id, instance
        client.delete_pool(pool_id, force=True)


def test_instance_is_warm_only_after_its_readiness_command(client: SandboxClient, make_pool: MakePool):
    """Row 9: the command must succeed in the container itself."""
    command = ["python3", "-c", "import asyncio, json; open('/tmp/imported', 'w').write(json.dumps('done'))"]
    pool = make_pool(image=PYTHON, warm_containers=1, readiness_probe=ReadinessProbe(command))
    wait_until_warm(client, pool.pool_id, 1)
    sandbox = client.create(pool_id=pool.pool_id)
    assert sandbox.start_type is StartType.WARM
    assert sandbox.run(["cat", "/tmp/imported"]).stdout == '"done"'


def test_repeats_the_readiness_command_until_it_succeeds(client: SandboxClient, make_pool: MakePool):
    """Row 9: the command can fail at first. Cold starts wait for it too."""
    probe = ReadinessProbe(["sh", "-c", TRY_THREE_TIMES], interval=0.05)
    pool = make_pool(warm_containers=1, readiness_probe=probe)
    wait_until_warm(client, pool.pool_id, 1)
    for sandbox in client.create_batch(2, pool_id=pool.pool_id):
        assert sandbox.run(["cat", "/tmp/tries"]).stdout == "3\n", sandbox.start_type


def test_instance_that_never_becomes_ready_is_never_warm(
    client: SandboxClient, make_pool: MakePool, engine: EngineView
):
    """Rows 3, 9, 17: the pool reports the output of the command; another pool is not affected; a cold start fails."""
    never = ["sh", "-c", "echo the model is not loaded >&2; exit 3"]
    probe = ReadinessProbe(never, interval=0.05, failure_threshold=2)
    pool = make_pool(warm_containers=2, readiness_probe=probe)
    failing = wait_for_pool(client, pool.pool_id, lambda seen: seen.status.last_error is not None)
    assert failing.status.last_error is not None
    assert failing.status.last_error.reason is PoolErrorReason.READINESS_TIMEOUT
    assert "the model is not loaded" in failing.status.last_error.message
    assert (failing.status.state, failing.status.warm) == (PoolState.DEGRADED, 0)

    other = make_pool(warm_containers=1)
    wait_until_warm(client, other.pool_id, 1)
    assert client.create(pool_id=other.pool_id).start_type is StartType.WARM
    assert client.get_pool(other.pool_id).status.last_error is None

    with pytest.raises(ResourceTimeoutError) as late:
        client.create(pool_id=pool.pool_id)
    assert late.value.reason == "READINESS_TIMEOUT"
    client.update_pool(pool.pool_id, paused=True)
    engine.wait_until(lambda seen: not instances_of(seen, pool.pool_id))
    assert client.get_pool(pool.pool_id).status.hits == 0


def test_environment_of_command_overrides_sandbox_pool_and_image(client: SandboxClient, make_pool: MakePool):
    """Row 15: the order of precedence is command, sandbox, pool, image; the entrypoint has the pool's environment."""
    pool = make_pool(
        image=PYTHON,
        warm_containers=1,
        env={"LANG": "pool", "HOME": "/pool", "SHARED": "pool"},
        entrypoint=["sh", "-c", "echo $LANG > /tmp/entrypoint; exec sleep 3600"],
        readiness_probe=ReadinessProbe(["grep", "-q", "pool", "/tmp/entrypoint"], interval=0.05),
    )
    wait_until_warm(client, pool.pool_id, 1)
    sandbox = client.create(pool_id=pool.pool_id, env={"LANG": "sandbox", "HOME": "/sandbox"})
    assert sandbox.start_type is StartType.WARM
    shown = sandbox.run("echo $LANG $HOME $SHARED", env={"HOME": "/command"})
    assert shown.stdout == "sandbox /command pool\n"
    assert sandbox.run(["cat", "/tmp/entrypoint"]).stdout == "pool\n"
    assert sandbox.run("echo $PATH").stdout.startswith("/usr/local/bin"), "the PATH of the image"
    cold = client.create(pool_id=pool.pool_id, env={"LANG": "other"})
    assert cold.run("echo $LANG $HOME").stdout == "other /pool\n", "each sandbox has a separate environment"


def test_sandboxes_receive_the_environment_of_their_template(client: SandboxClient, make_pool: MakePool):
    """Row 15: this includes sandboxes without a pool."""
    client.create_template("with-env", image="busybox:latest", env={"A": "template", "B": "template"})
    alone = client.create(template_name="with-env", env={"B": "sandbox"})
    assert (alone.start_type, alone.run("echo $A $B").stdout) == (StartType.COLD, "template sandbox\n")
    alone.delete()
    pool = make_pool(template_name="with-env", warm_containers=1)
    wait_until_warm(client, pool.pool_id, 1)
    warm = client.create(template_name="with-env", env={"B": "sandbox"})
    assert (warm.start_type, warm.run("echo $A $B").stdout) == (StartType.WARM, "template sandbox\n")
    listed = client.list_sandboxes(template_name="with-env", states=["running"])
    assert [found.sandbox_id for found in listed] == [warm.sandbox_id]


def test_sandbox_with_its_own_settings_starts_warm(client: SandboxClient, make_pool: MakePool):
    """Rows 15, 16: name, environment, metadata and lifetime; lists filter by metadata, state and pool."""
    pool = make_pool(warm_containers=3)
    wait_until_warm(client, pool.pool_id, 3)
    given = client.create(
        pool_id=pool.pool_id, name="given", env={"A": "1"}, metadata={"team": "red", "n": "1"}, timeout_secs=3000
    )
    other = client.create(pool_id=pool.pool_id, metadata={"team": "red", "n": "2"})
    plain = client.create(pool_id=pool.pool_id)
    assert [one.start_type for one in (given, other, plain)] == [StartType.WARM] * 3
    assert (given.name, given.info.metadata["n"], given.info.timeout_secs) == ("given", "1", 3000)
    assert given.info.expire_time is not None
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
def test_claim_skips_a_dead_instance(client: SandboxClient, make_pool: MakePool, engine: EngineView, how: str):
    """Rows 4, 9: the caller receives another warm instance; the dead one becomes no sandbox and is replaced."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    dead, alive = sorted(instances_of(engine, pool.pool_id))
    match how:
        case "stopped":
            engine.api.kill(container(dead), signal="SIGSTOP")
        case "killed":
            engine.api.kill(container(dead))
        case _:
            engine.api.remove_container(container(dead), force=True)
    sandbox = client.create(pool_id=pool.pool_id)
    assert (sandbox.sandbox_id, sandbox.start_type) == (alive, StartType.WARM)
    assert sandbox.run(["echo", "alive"]).stdout == "alive\n"
    with pytest.raises(SandboxNotFoundError):
        client.get_sandbox(dead)
    wait_until_warm(client, pool.pool_id, 2)
    assert dead not in instances_of(engine, pool.pool_id)
    status = client.get_pool(pool.pool_id).status
    assert (status.hits, status.misses, status.active) == (1, 0, 1)


def test_claims_succeed_while_instances_are_killed(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 1, 4, 9: each concurrent caller receives a separate sandbox that runs."""
    pool = make_pool(warm_containers=4)
    wait_until_warm(client, pool.pool_id, 4)
    killed = sorted(instances_of(engine, pool.pool_id))[:2]

    def one(number: int) -> str:
        if number < len(killed):
            engine.api.kill(container(killed[number]))
            return ""
        sandbox = client.create(pool_id=pool.pool_id)
        # A sandbox that was claimed before its instance was killed terminates afterwards with a reason (row 10).
        return sandbox.sandbox_id

    results = together(len(killed) + 4, one)
    got = [result for result in results if result]
    assert len(set(got)) == 4, results
    for sandbox_id in set(got) - set(killed):
        assert client.get_sandbox(sandbox_id).run("true").success
    for sandbox_id in set(got) & set(killed):
        wait_for_sandbox(client, sandbox_id, lambda seen: seen.termination_reason is TerminationReason.LOST)


def test_replaces_instances_changed_externally(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 4, 11: engine events report instances that another process removed, killed or paused."""
    pool = make_pool(warm_containers=3)
    wait_until_warm(client, pool.pool_id, 3)
    before = instances_of(engine, pool.pool_id)
    removed, killed, paused = sorted(before)
    with EngineEvents(pool.pool_id) as events:
        engine.api.remove_container(container(removed), force=True)
        events.wait(lambda seen: len(seen.of("create")) == 1)
        engine.api.kill(container(killed))
        events.wait(lambda seen: len(seen.of("create")) == 2)
        engine.api.pause(container(paused))
        events.wait(lambda seen: len(seen.of("create")) == 3)
        wait_until_warm(client, pool.pool_id, 3)
        # Shorter than the interval of the full comparison, 30 s; a start on a busy machine takes seconds.
        for instance, action in ((removed, "destroy"), (killed, "die"), (paused, "pause")):
            (happened,) = [event for event in events.of(action) if event.instance_id == instance]
            replaced = events.of("create", after=happened.time)[0]
            assert replaced.time - happened.time < 20, f"{action}: {events.seen}"
    after = instances_of(engine, pool.pool_id)
    assert len(after) == 3
    assert not after & before


def test_detects_external_changes_within_a_second(tmp_path: Path, engine: EngineView):
    """Row 11: compare the time of the engine event with the time of the server's log entry, on the same clock."""
    with (
        ServerProcess(tmp_path / "data", log_format="json") as server,
        SandboxClient(server.address) as client,
    ):
        pool = client.create_pool(image="busybox:latest", warm_containers=3)
        wait_until_warm(client, pool.pool_id, 3)
        removed, killed, paused = sorted(instances_of(engine, pool.pool_id))
        with EngineEvents(pool.pool_id) as events:
            engine.api.remove_container(container(removed), force=True)
            engine.api.kill(container(killed))
            engine.api.pause(container(paused))
            events.wait(lambda seen: len(seen.of("create")) == 3)
        wait_until_warm(client, pool.pool_id, 3)
        lines = [json.loads(line) for line in server.log.splitlines() if '"instance_terminated"' in line]
    detected = {line["instance"]: datetime.fromisoformat(line["timestamp"]).timestamp() for line in lines}
    for instance, action in ((removed, "die"), (killed, "die"), (paused, "pause")):
        (happened,) = [event for event in events.of(action) if event.instance_id == instance][:1]
        assert detected[instance] - happened.time < 1, f"{action}: {events.seen}, {lines}"


def test_killed_sandbox_reports_its_termination_reason(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Row 10: it reports reason and exit code, and is never bound to another container."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    killed, removed = (client.create(pool_id=pool.pool_id) for _ in range(2))
    engine.api.kill(container(killed.sandbox_id))
    engine.api.remove_container(container(removed.sandbox_id), force=True)
    wait_until_warm(client, pool.pool_id, 2)
    terminated = wait_for_sandbox(client, killed.sandbox_id, lambda seen: seen.state is SandboxState.TERMINATED)
    assert (terminated.termination_reason, terminated.exit_code) == (TerminationReason.LOST, 137)
    terminated = wait_for_sandbox(client, removed.sandbox_id, lambda seen: seen.state is SandboxState.TERMINATED)
    assert terminated.termination_reason is TerminationReason.LOST
    assert terminated.end_time is not None
    assert not {killed.sandbox_id, removed.sandbox_id} & instances_of(engine, pool.pool_id)
    assert client.get_pool(pool.pool_id).status.active == 0


def test_replaces_expired_instances_one_by_one(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Row 25: at most one instance is missing during the replacement; sandboxes do not expire with `warm_ttl`."""
    pool = make_pool(warm_containers=3)
    wait_until_warm(client, pool.pool_id, 3)
    sandbox = client.create(pool_id=pool.pool_id)
    wait_until_warm(client, pool.pool_id, 3)
    first = instances_of(engine, pool.pool_id) - {sandbox.sandbox_id}
    client.update_pool(pool.pool_id, warm_ttl=2)
    fewest = 3
    for event in client.watch_pools(pool.pool_id, timeout=WAIT_SECS):
        fewest = min(fewest, event.pool.status.warm)
        if event.pool.status.warm == 3 and not first & instances_of(engine, pool.pool_id):
            break
    assert fewest == 2
    assert sandbox.run("true").success


def test_health_check_replaces_a_frozen_instance(client: SandboxClient, engine: EngineView, frozen: tuple[str, str]):
    """Rows 4, 19: no engine event reports a frozen instance; the health check detects it."""
    pool_id, instance = frozen
    engine.wait_until(lambda seen: instance not in instances_of(seen, pool_id))
    wait_until_warm(client, pool_id, 1)
    assert client.create(pool_id=pool_id).run("true").success
    assert client.get_pool(pool_id).status.hits == 1
