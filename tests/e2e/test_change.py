"""Changing pools: nothing stale is handed out, what is in use is left alone, and the maximum holds throughout.

The rows named are those of docs/user-demands.md.
"""

from collections.abc import Callable

import pytest

from sandpool import (
    Pool,
    PoolErrorReason,
    PoolInUseError,
    PoolNotFoundError,
    PoolPausedError,
    PoolState,
    Sandbox,
    SandboxClient,
    SandboxEndReason,
    SandboxNotReadyError,
    SandboxStart,
    SandboxState,
)
from tests.e2e.conftest import MakePool
from tests.support.callers import behind, together
from tests.support.engine_view import EngineView
from tests.support.own_images import OwnImages
from tests.support.pool_members import container, members_of, wait_until_no_container
from tests.support.waiting import WAIT_SECS, wait_for_pool, wait_for_sandbox, wait_until_warm
from tests.support.watcher import Watcher

pytestmark = pytest.mark.engine

MIB = 1024 * 1024


def settled(client: SandboxClient, pool_id: str, warm: int) -> Pool:
    """The pool once it has that many ready members, no stale ones, and is busy with nothing."""
    return wait_for_pool(
        client,
        pool_id,
        lambda pool: (
            (pool.status.warm, pool.status.stale, pool.status.creating, pool.status.removing) == (warm, 0, 0, 0)
        ),
    )


def variable(sandbox: Sandbox, name: str) -> str:
    """What a command in the sandbox sees of a variable."""
    return sandbox.run(f"echo ${name}").stdout.strip()


def test_a_burst_right_after_an_update_gets_none_of_the_old(client: SandboxClient, make_pool: MakePool):
    """Rows 2, 12, 24: from the answer on nobody gets a stale member; the maximum holds; what is in use stays."""
    pool = make_pool(warm_containers=4, max_containers=8, env={"GENERATION": "1"})
    wait_until_warm(client, pool.pool_id, 4)
    in_use = client.create(pool_id=pool.pool_id)
    wait_until_warm(client, pool.pool_id, 4)
    with Watcher(pool.pool_id) as watcher:
        updated = client.update_pool(pool.pool_id, env={"GENERATION": "2"})
        burst = together(3, lambda _: variable(client.create(pool_id=pool.pool_id), "GENERATION"))
        settled(client, pool.pool_id, 4)
    assert burst == ["2"] * 3
    assert (updated.status.stale, updated.status.warm, updated.status.active) == (4, 0, 1)
    assert max(watcher.seen.most_polled, watcher.seen.most_by_events) <= 8
    assert variable(in_use, "GENERATION") == "1"
    assert in_use.refresh().env == {"GENERATION": "1"}
    warm = client.create(pool_id=pool.pool_id)
    assert (warm.start, variable(warm, "GENERATION")) == (SandboxStart.WARM, "2")


@pytest.mark.parametrize(
    ("change", "old", "new", "look"),
    [
        ({"image": "python:3.11-slim"}, "", "6", lambda box, _: box.run("python3 -c 'print(2 * 3)'").stdout.strip()),
        (
            {"memory_mb": 128},
            f"{64 * MIB}",
            f"{128 * MIB}",
            lambda box, engine: str(engine.api.inspect_container(container(box.sandbox_id))["HostConfig"]["Memory"]),
        ),
        (
            {"entrypoint": ["sh", "-c", "hostname > /tmp/started; exec sleep 3600"]},
            "",
            "True",
            lambda box, _: str(box.run("cat /tmp/started").success or ""),
        ),
        (
            {"readiness_command": ["touch", "/tmp/was-asked"]},
            "",
            "True",
            lambda box, _: str(box.run("test -e /tmp/was-asked").success or ""),
        ),
    ],
    ids=["image", "resources", "entrypoint", "readiness"],
)
def test_each_part_of_the_specification_makes_stale(
    client: SandboxClient,
    make_pool: MakePool,
    engine: EngineView,
    change: dict[str, object],
    old: str,
    new: str,
    look: Callable[[Sandbox, EngineView], str],
):
    """Row 12: whatever of the specification changes, the next caller has it; who had the old one keeps it."""
    pool = make_pool(warm_containers=1, memory_mb=64)
    wait_until_warm(client, pool.pool_id, 1)
    before = client.create(pool_id=pool.pool_id)
    wait_until_warm(client, pool.pool_id, 1)
    updated = client.update_pool(pool.pool_id, **change)  # type: ignore[arg-type]
    after = client.create(pool_id=pool.pool_id)
    assert (updated.status.warm, updated.status.stale) == (0, 1)
    assert (look(before, engine), look(after, engine)) == (old, new)
    settled(client, pool.pool_id, 1)
    warm = client.create(pool_id=pool.pool_id)
    assert (warm.start, look(warm, engine)) == (SandboxStart.WARM, new)


def test_what_is_no_part_of_the_specification_makes_nothing_stale(
    client: SandboxClient, make_pool: MakePool, engine: EngineView
):
    """Rows 12, 24: a change of numbers, lifetime or name replaces no member."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    before = members_of(engine, pool.pool_id)
    updated = client.update_pool(pool.pool_id, name="renamed", timeout_secs=600, max_containers=9, warm_containers=3)
    assert (updated.status.stale, updated.status.warm) == (0, 2)
    settled(client, pool.pool_id, 3)
    assert before < members_of(engine, pool.pool_id)


def test_a_template_changes_every_pool_that_follows_it(client: SandboxClient, make_pool: MakePool):
    """Row 12: from the answer of UpdateTemplate on no pool of it gives a stale member."""
    client.create_template("generations", "busybox:latest", env={"GENERATION": "1"})
    pools = [make_pool(template_name="generations", warm_containers=1) for _ in range(2)]
    for pool in pools:
        wait_until_warm(client, pool.pool_id, 1)
    client.update_template("generations", env={"GENERATION": "2"})
    assert [client.get_pool(pool.pool_id).status.warm for pool in pools] == [0, 0]
    assert variable(client.create(template_name="generations"), "GENERATION") == "2"
    for pool in pools:
        settled(client, pool.pool_id, 1)
        warm = client.create(pool_id=pool.pool_id)
        assert (warm.start, variable(warm, "GENERATION")) == (SandboxStart.WARM, "2")


def test_a_roll_over_at_the_maximum_shows_its_progress(client: SandboxClient, make_pool: MakePool):
    """Rows 2, 5, 12: where there is no room for new ones beside the old, they make room one by one."""
    pool = make_pool(warm_containers=3, max_containers=3, env={"GENERATION": "1"})
    wait_until_warm(client, pool.pool_id, 3)
    progress = []
    with Watcher(pool.pool_id) as watcher:
        client.update_pool(pool.pool_id, env={"GENERATION": "2"})
        for event in client.watch_pools([pool.pool_id], timeout=WAIT_SECS):
            status = event.pool.status
            progress.append((status.stale, status.warm))
            if (status.stale, status.warm, status.removing) == (0, 3, 0):
                break
    assert max(watcher.seen.most_polled, watcher.seen.most_by_events) == 3
    stale = [count for count, _ in progress]
    assert sorted(stale, reverse=True) == stale, "it only goes down"
    assert {3, 2, 1, 0} <= set(stale) | {3}, progress
    assert all(old + warm <= 3 for old, warm in progress)
    (last,) = {variable(one, "GENERATION") for one in client.create_batch(3, pool_id=pool.pool_id)}
    assert last == "2"


def test_a_tag_that_moved_is_rolled_over(
    client: SandboxClient, engine: EngineView, images: OwnImages, make_pool: MakePool
):
    """Row 12: the registry has another image under the same tag; where the pool says so, that is seen by itself."""
    images.push("live", "1")
    images.push("next", "2")
    pool = make_pool(image=f"{images.repository}:live", warm_containers=2, image_check_secs=1)
    present = settled(client, pool.pool_id, 2)
    assert present.status.image_digest
    in_use = client.create(pool_id=pool.pool_id)
    settled(client, pool.pool_id, 2)
    images.move("live", to="next")
    moved = wait_for_pool(client, pool.pool_id, lambda seen: seen.status.image_digest != present.status.image_digest)
    # In the same moment, seen from outside: the digest changes, and what is of the old one is stale.
    assert moved.status.warm < 2
    assert variable(client.create(pool_id=pool.pool_id), "RELEASE") == "2"
    settled(client, pool.pool_id, 2)
    warm = client.create(pool_id=pool.pool_id)
    assert (warm.start, variable(warm, "RELEASE"), variable(in_use, "RELEASE")) == (SandboxStart.WARM, "2", "1")


def test_pull_policies(client: SandboxClient, images: OwnImages, make_pool: MakePool):
    """Row 12: `missing` takes what the engine has, `always` asks the registry, `never` pulls nothing."""
    first = images.push("1", "old")
    images.push("1", "new")
    images.point("1", first)
    name = f"{images.repository}:1"
    missing = make_pool(image=name, warm_containers=1)
    wait_until_warm(client, missing.pool_id, 1)
    assert variable(client.create(pool_id=missing.pool_id), "RELEASE") == "old"
    client.pause_pool(missing.pool_id)

    always = make_pool(image=name, warm_containers=1, pull_policy="always")
    wait_until_warm(client, always.pool_id, 1)
    assert variable(client.create(pool_id=always.pool_id), "RELEASE") == "new"

    images.push("2", "two")
    images.forget("2")
    name = f"{images.repository}:2"
    never = make_pool(image=name, warm_containers=1, pull_policy="never")
    failing = wait_for_pool(client, never.pool_id, lambda seen: seen.status.last_error is not None)
    assert failing.status.last_error is not None
    assert failing.status.last_error.reason is PoolErrorReason.IMAGE_NOT_FOUND
    client.update_pool(never.pool_id, pull_policy="missing")
    wait_until_warm(client, never.pool_id, 1)
    assert variable(client.create(pool_id=never.pool_id), "RELEASE") == "two"


def test_the_progress_of_a_pull_shows(client: SandboxClient, images: OwnImages, make_pool: MakePool):
    """Row 12: while the image is being pulled the pool says how far it is."""
    image = images.push_bytes("large", 24 * MIB)
    pool = make_pool(image=image, warm_containers=1)
    shown = wait_for_pool(client, pool.pool_id, lambda seen: seen.status.image_pull is not None)
    assert shown.status.image_pull is not None
    assert shown.status.image_pull.image == image
    assert shown.status.image_pull.current_bytes <= shown.status.image_pull.total_bytes
    assert settled(client, pool.pool_id, 1).status.image_pull is None


def test_scaled_to_zero_and_back(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 24, 25: at zero nothing is kept, what is in use stays, and a caller is still served, cold."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    in_use = client.create(pool_id=pool.pool_id)
    client.update_pool(pool.pool_id, warm_containers=0)
    assert settled(client, pool.pool_id, 0).status.state is PoolState.READY
    assert members_of(engine, pool.pool_id) == {in_use.sandbox_id}
    assert client.create(pool_id=pool.pool_id).start is SandboxStart.COLD
    client.update_pool(pool.pool_id, warm_containers=1)
    wait_until_warm(client, pool.pool_id, 1)
    assert in_use.run("true").success


def test_paused_resumed_and_drained(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 24, 25: paused nothing is made or taken; drained nothing is kept either; sandboxes stay through all."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    in_use = client.create(pool_id=pool.pool_id)
    wait_until_warm(client, pool.pool_id, 2)
    paused = client.pause_pool(pool.pool_id)
    assert (paused.status.state, paused.status.wanted) == (PoolState.PAUSED, 0)
    for when_empty in ("start_cold", "wait", "fail"):
        with pytest.raises(PoolPausedError) as refused:
            client.create(pool_id=pool.pool_id, when_empty=when_empty)
        assert refused.value.reason == "POOL_PAUSED"
    ready = members_of(engine, pool.pool_id) - {in_use.sandbox_id}
    engine.api.remove_container(container(min(ready)), force=True)
    short = wait_for_pool(client, pool.pool_id, lambda seen: seen.status.warm == 1 and not seen.status.removing)
    assert short.status.creating == 0

    client.resume_pool(pool.pool_id)
    settled(client, pool.pool_id, 2)
    assert client.create(pool_id=pool.pool_id).start is SandboxStart.WARM

    drained = client.drain_pool(pool.pool_id)
    assert drained.status.state is PoolState.DRAINED
    with pytest.raises(PoolPausedError) as refused:
        client.create(pool_id=pool.pool_id)
    assert refused.value.reason == "POOL_DRAINED"
    assert settled(client, pool.pool_id, 0).status.active == 2
    assert len(members_of(engine, pool.pool_id)) == 2
    assert in_use.run("true").success
    client.resume_pool(pool.pool_id)
    wait_until_warm(client, pool.pool_id, 2)


def test_a_pool_in_use_is_deleted_by_force_alone(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Row 24: the refusal names the sandboxes; force ends them, and they say why."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    sandboxes = client.create_batch(2, pool_id=pool.pool_id)
    with pytest.raises(PoolInUseError) as refused:
        client.delete_pool(pool.pool_id)
    assert all(sandbox.sandbox_id in refused.value.message for sandbox in sandboxes)
    assert all(sandbox.run("true").success for sandbox in sandboxes)
    client.delete_pool(pool.pool_id, force=True)
    with pytest.raises(PoolNotFoundError):
        client.get_pool(pool.pool_id)
    wait_until_no_container(engine, pool.pool_id)
    for sandbox in sandboxes:
        ended = wait_for_sandbox(client, sandbox.sandbox_id, lambda seen: seen.state is SandboxState.TERMINATED)
        assert ended.end_reason is SandboxEndReason.DELETED


def test_a_deleted_pool_takes_along_what_is_being_made(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 22, 24: members that start, those that wait for their readiness, and a caller's cold start go too."""
    pool = make_pool(warm_containers=3, readiness_command=["sleep", "60"], readiness_timeout_secs=100)
    cold = behind(lambda: client.create(pool_id=pool.pool_id))
    engine.wait_until(lambda seen: len(members_of(seen, pool.pool_id)) >= 2)
    wait_for_pool(client, pool.pool_id, lambda seen: seen.status.creating >= 2)
    while not client.list_sandboxes(pool_id=pool.pool_id):
        assert not cold.done()
    client.delete_pool(pool.pool_id, force=True)
    with pytest.raises(SandboxNotReadyError) as ended:
        cold.result(WAIT_SECS)
    assert ended.value.reason == "SANDBOX_ENDED"
    wait_until_no_container(engine, pool.pool_id)


def test_a_sandbox_is_deleted_while_it_starts(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Row 22: whoever waits for it is told; nothing of it is left, and its name is free again."""
    pool = make_pool(max_containers=1, readiness_command=["sleep", "60"], readiness_timeout_secs=100)
    starting = behind(lambda: client.create(pool_id=pool.pool_id, name="slow"))
    engine.wait_until(lambda seen: bool(members_of(seen, pool.pool_id)))
    sandbox = client.get_sandbox("slow")
    assert sandbox.state is SandboxState.STARTING
    client.delete_sandbox("slow")
    with pytest.raises(SandboxNotReadyError) as ended:
        starting.result(WAIT_SECS)
    assert ended.value.reason == "SANDBOX_ENDED"
    wait_until_no_container(engine, pool.pool_id)
    gone = wait_for_sandbox(client, sandbox.sandbox_id, lambda seen: seen.state is SandboxState.TERMINATED)
    assert gone.end_reason is SandboxEndReason.DELETED
    client.update_pool(pool.pool_id, readiness_command=None)
    assert client.create(pool_id=pool.pool_id, name="slow").run("true").success
