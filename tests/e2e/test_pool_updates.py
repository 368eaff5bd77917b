"""Pool updates: no outdated instance is assigned, active sandboxes continue, and the maximum is respected.

Row numbers refer to tests/user-demands.md.
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
    ReadinessProbe,
    Sandbox,
    SandboxClient,
    SandboxNotReadyError,
    SandboxState,
    StartType,
    TerminationReason,
)
from tests.e2e.conftest import MakePool
from tests.support.callers import in_background, together
from tests.support.engine_view import EngineView
from tests.support.own_images import OwnImages
from tests.support.pool_instances import container, instances_of, wait_until_no_container
from tests.support.waiting import WAIT_SECS, wait_for_pool, wait_for_sandbox, wait_until_warm
from tests.support.watcher import Watcher

pytestmark = pytest.mark.engine

MIB = 1024 * 1024


def settled(client: SandboxClient, pool_id: str, warm: int) -> Pool:
    """Return the pool when it has `warm` warm instances, no outdated ones, and no operation is in progress."""
    return wait_for_pool(
        client,
        pool_id,
        lambda pool: (
            (pool.status.warm, pool.status.stale, pool.status.creating, pool.status.removing) == (warm, 0, 0, 0)
        ),
    )


def variable(sandbox: Sandbox, name: str) -> str:
    """Return the value of a variable in a command of the sandbox."""
    return sandbox.run(f"echo ${name}").stdout.strip()


def test_assigns_no_outdated_instance_in_a_burst_after_an_update(client: SandboxClient, make_pool: MakePool):
    """Rows 2, 12, 24: after the response no caller receives an outdated instance; active sandboxes continue."""
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
    assert (warm.start_type, variable(warm, "GENERATION")) == (StartType.WARM, "2")


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
            {"readiness_probe": ReadinessProbe(["touch", "/tmp/was-asked"])},
            "",
            "True",
            lambda box, _: str(box.run("test -e /tmp/was-asked").success or ""),
        ),
    ],
    ids=["image", "resources", "entrypoint", "readiness"],
)
def test_makes_instances_outdated_when_the_specification_changes(
    client: SandboxClient,
    make_pool: MakePool,
    engine: EngineView,
    change: dict[str, object],
    old: str,
    new: str,
    look: Callable[[Sandbox, EngineView], str],
):
    """Row 12: the next caller receives the changed specification; existing sandboxes retain theirs."""
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
    assert (warm.start_type, look(warm, engine)) == (StartType.WARM, new)


def test_retains_instances_when_other_fields_change(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 12, 24: an update of the name, the lifetime or the number of instances replaces no instance."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    before = instances_of(engine, pool.pool_id)
    updated = client.update_pool(pool.pool_id, name="renamed", timeout_secs=600, max_containers=9, warm_containers=3)
    assert (updated.status.stale, updated.status.warm) == (0, 2)
    settled(client, pool.pool_id, 3)
    assert before < instances_of(engine, pool.pool_id)


def test_applies_a_template_update_to_every_pool_of_the_template(client: SandboxClient, make_pool: MakePool):
    """Row 12: after the response of UpdateTemplate no pool of the template assigns an outdated instance."""
    client.create_template("generations", image="busybox:latest", env={"GENERATION": "1"})
    pools = [make_pool(template_name="generations", warm_containers=1) for _ in range(2)]
    for pool in pools:
        wait_until_warm(client, pool.pool_id, 1)
    client.update_template("generations", env={"GENERATION": "2"})
    assert [client.get_pool(pool.pool_id).status.warm for pool in pools] == [0, 0]
    assert variable(client.create(template_name="generations"), "GENERATION") == "2"
    for pool in pools:
        settled(client, pool.pool_id, 1)
        warm = client.create(pool_id=pool.pool_id)
        assert (warm.start_type, variable(warm, "GENERATION")) == (StartType.WARM, "2")


def test_reports_progress_of_a_rolling_replacement_at_the_maximum(client: SandboxClient, make_pool: MakePool):
    """Rows 2, 5, 12: at the maximum, outdated instances are removed one by one to make room for new ones."""
    pool = make_pool(warm_containers=3, max_containers=3, env={"GENERATION": "1"})
    wait_until_warm(client, pool.pool_id, 3)
    progress = []
    with Watcher(pool.pool_id) as watcher:
        client.update_pool(pool.pool_id, env={"GENERATION": "2"})
        for event in client.watch_pools(pool.pool_id, timeout=WAIT_SECS):
            status = event.pool.status
            progress.append((status.stale, status.warm))
            if (status.stale, status.warm, status.removing) == (0, 3, 0):
                break
    assert max(watcher.seen.most_polled, watcher.seen.most_by_events) == 3
    stale = [count for count, _ in progress]
    assert sorted(stale, reverse=True) == stale, "stale only decreases"
    assert {3, 2, 1, 0} <= set(stale) | {3}, progress
    assert all(old + warm <= 3 for old, warm in progress)
    (last,) = {variable(one, "GENERATION") for one in client.create_batch(3, pool_id=pool.pool_id)}
    assert last == "2"


def test_replaces_instances_after_their_tag_moved(
    client: SandboxClient, engine: EngineView, images: OwnImages, make_pool: MakePool
):
    """Row 12: with `image_refresh_interval` the pool detects that the tag refers to another image."""
    images.push("live", "1")
    images.push("next", "2")
    pool = make_pool(image=f"{images.repository}:live", warm_containers=2, image_refresh_interval=1)
    before = settled(client, pool.pool_id, 2)
    assert before.status.image_digest
    in_use = client.create(pool_id=pool.pool_id)
    settled(client, pool.pool_id, 2)
    images.move("live", to="next")
    moved = wait_for_pool(client, pool.pool_id, lambda seen: seen.status.image_digest != before.status.image_digest)
    # The pool reports the new digest and the outdated instances at the same time.
    assert moved.status.warm < 2
    assert variable(client.create(pool_id=pool.pool_id), "RELEASE") == "2"
    settled(client, pool.pool_id, 2)
    warm = client.create(pool_id=pool.pool_id)
    assert (warm.start_type, variable(warm, "RELEASE"), variable(in_use, "RELEASE")) == (StartType.WARM, "2", "1")


def test_applies_the_pull_policy(client: SandboxClient, images: OwnImages, make_pool: MakePool):
    """Row 12: `missing` uses the image of the engine, `always` queries the registry, `never` pulls nothing."""
    first = images.push("1", "old")
    images.push("1", "new")
    images.point("1", first)
    name = f"{images.repository}:1"
    missing = make_pool(image=name, warm_containers=1)
    wait_until_warm(client, missing.pool_id, 1)
    assert variable(client.create(pool_id=missing.pool_id), "RELEASE") == "old"
    client.update_pool(missing.pool_id, paused=True)

    always = make_pool(image=name, warm_containers=1, pull_policy="always")
    wait_until_warm(client, always.pool_id, 1)
    assert variable(client.create(pool_id=always.pool_id), "RELEASE") == "new"

    images.push("2", "two")
    images.remove_tag("2")
    name = f"{images.repository}:2"
    never = make_pool(image=name, warm_containers=1, pull_policy="never")
    failing = wait_for_pool(client, never.pool_id, lambda seen: seen.status.last_error is not None)
    assert failing.status.last_error is not None
    assert failing.status.last_error.reason is PoolErrorReason.IMAGE_NOT_FOUND
    client.update_pool(never.pool_id, pull_policy="missing")
    wait_until_warm(client, never.pool_id, 1)
    assert variable(client.create(pool_id=never.pool_id), "RELEASE") == "two"


def test_reports_progress_of_an_image_pull(client: SandboxClient, images: OwnImages, make_pool: MakePool):
    """Row 12: the pool reports the progress while the image is pulled."""
    image = images.push_bytes("large", 24 * MIB)
    pool = make_pool(image=image, warm_containers=1)
    shown = wait_for_pool(client, pool.pool_id, lambda seen: seen.status.image_pull is not None)
    assert shown.status.image_pull is not None
    assert shown.status.image_pull.image == image
    assert shown.status.image_pull.current_bytes <= shown.status.image_pull.total_bytes
    assert settled(client, pool.pool_id, 1).status.image_pull is None


def test_scales_to_zero_and_back(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 24, 25: at zero no instance is warm, active sandboxes continue, and a caller receives a cold start."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    in_use = client.create(pool_id=pool.pool_id)
    client.update_pool(pool.pool_id, warm_containers=0)
    assert settled(client, pool.pool_id, 0).status.state is PoolState.READY
    assert instances_of(engine, pool.pool_id) == {in_use.sandbox_id}
    assert client.create(pool_id=pool.pool_id).start_type is StartType.COLD
    client.update_pool(pool.pool_id, warm_containers=1)
    wait_until_warm(client, pool.pool_id, 1)
    assert in_use.run("true").success


def test_pauses_resumes_and_drains_a_pool(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 24, 25: a paused pool creates and assigns nothing; a drained pool also removes its warm instances."""
    pool = make_pool(warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    in_use = client.create(pool_id=pool.pool_id)
    wait_until_warm(client, pool.pool_id, 2)
    paused = client.update_pool(pool.pool_id, paused=True)
    assert (paused.status.state, paused.status.desired) == (PoolState.PAUSED, 0)
    for when_empty in ("start_cold", "wait", "fail"):
        with pytest.raises(PoolPausedError) as refused:
            client.create(pool_id=pool.pool_id, when_empty=when_empty)
        assert refused.value.reason == "POOL_PAUSED"
    ready = instances_of(engine, pool.pool_id) - {in_use.sandbox_id}
    engine.api.remove_container(container(min(ready)), force=True)
    short = wait_for_pool(client, pool.pool_id, lambda seen: seen.status.warm == 1 and not seen.status.removing)
    assert short.status.creating == 0

    client.update_pool(pool.pool_id, paused=False, drained=False)
    settled(client, pool.pool_id, 2)
    assert client.create(pool_id=pool.pool_id).start_type is StartType.WARM

    drained = client.update_pool(pool.pool_id, drained=True)
    assert drained.status.state is PoolState.DRAINED
    with pytest.raises(PoolPausedError) as refused:
        client.create(pool_id=pool.pool_id)
    assert refused.value.reason == "POOL_DRAINED"
    assert settled(client, pool.pool_id, 0).status.active == 2
    assert len(instances_of(engine, pool.pool_id)) == 2
    assert in_use.run("true").success
    client.update_pool(pool.pool_id, paused=False, drained=False)
    wait_until_warm(client, pool.pool_id, 2)


def test_deletes_a_pool_in_use_only_with_force(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Row 24: the error names the sandboxes; with force they terminate and report the reason."""
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
        terminated = wait_for_sandbox(client, sandbox.sandbox_id, lambda seen: seen.state is SandboxState.TERMINATED)
        assert terminated.termination_reason is TerminationReason.DELETED


def test_deletes_starting_instances_with_their_pool(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Rows 22, 24: this includes instances that start or wait for their readiness, and a cold start of a caller."""
    pool = make_pool(warm_containers=3, readiness_probe=ReadinessProbe(["sleep", "60"], timeout=100))
    cold = in_background(lambda: client.create(pool_id=pool.pool_id))
    engine.wait_until(lambda seen: len(instances_of(seen, pool.pool_id)) >= 2)
    wait_for_pool(client, pool.pool_id, lambda seen: seen.status.creating >= 2)
    while not list(client.list_sandboxes(pool_id=pool.pool_id)):
        assert not cold.done()
    client.delete_pool(pool.pool_id, force=True)
    with pytest.raises(SandboxNotReadyError) as terminated:
        cold.result(WAIT_SECS)
    assert terminated.value.reason == "SANDBOX_TERMINATED"
    wait_until_no_container(engine, pool.pool_id)


def test_deletes_a_sandbox_while_it_starts(client: SandboxClient, make_pool: MakePool, engine: EngineView):
    """Row 22: the waiting caller receives an error, no object remains, and the name is available again."""
    pool = make_pool(max_containers=1, readiness_probe=ReadinessProbe(["sleep", "60"], timeout=100))
    starting = in_background(lambda: client.create(pool_id=pool.pool_id, name="slow"))
    engine.wait_until(lambda seen: bool(instances_of(seen, pool.pool_id)))
    sandbox = client.get_sandbox("slow")
    assert sandbox.state is SandboxState.STARTING
    client.delete_sandbox("slow")
    with pytest.raises(SandboxNotReadyError) as terminated:
        starting.result(WAIT_SECS)
    assert terminated.value.reason == "SANDBOX_TERMINATED"
    wait_until_no_container(engine, pool.pool_id)
    terminated = wait_for_sandbox(client, sandbox.sandbox_id, lambda seen: seen.state is SandboxState.TERMINATED)
    assert terminated.termination_reason is TerminationReason.DELETED
    client.update_pool(pool.pool_id, readiness_probe=None)
    assert client.create(pool_id=pool.pool_id, name="slow").run("true").success
