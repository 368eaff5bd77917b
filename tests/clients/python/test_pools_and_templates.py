"""Both styles of pools, templates, and what of them reaches the wire."""

from datetime import datetime

import pytest

import sandpool
from sandpool import DiskEnforcement, ImagePull, Pool, PoolEventType, PoolState, PullPolicy, SandboxClient
from sandpool.v1 import pool_pb2
from tests.clients.python.state import State


def test_an_image_is_all_that_a_pool_needs(client: SandboxClient, state: State):
    pool = client.create_pool(image="python:3.11-slim")
    (request,) = state.sent("CreatePool")
    assert request.image == "python:3.11-slim"
    for name in (
        *("cpus", "memory_mb", "ephemeral_disk_mb", "max_containers", "timeout_secs"),
        *("readiness_interval_secs", "readiness_timeout_secs", "readiness_retries"),
    ):
        assert not request.HasField(name), f"{name} is left to the server"
    assert (request.pull_policy, dict(request.env), list(request.readiness_command)) == (0, {}, [])
    assert isinstance(pool, Pool)
    assert pool.pull_policy is PullPolicy.MISSING
    assert pool.max_containers is None


def test_the_pool_id_style_carries_every_parameter(client: SandboxClient, state: State):
    pool = client.create_pool(
        name="p",
        image="i",
        cpus=0.5,
        memory_mb=256,
        ephemeral_disk_mb=64,
        warm_containers=3,
        max_containers=9,
        timeout_secs=30,
        secret_names=["A"],
        entrypoint=("sleep", "1"),
        env={"A": "1"},
        readiness_command=["test", "-e", "/ready"],
        readiness_interval_secs=0.25,
        readiness_timeout_secs=2.5,
        readiness_retries=7,
        pull_policy="always",
        image_check_secs=60,
        max_age_secs=3600,
        paused=True,
        drain=True,
    )
    assert (pool.name, pool.image, pool.cpus, pool.memory_mb, pool.ephemeral_disk_mb) == ("p", "i", 0.5, 256, 64)
    assert (pool.warm_containers, pool.max_containers, pool.timeout_secs) == (3, 9, 30)
    assert (pool.secret_names, pool.entrypoint, pool.paused) == (("A",), ("sleep", "1"), True)
    assert (pool.env, pool.readiness_command) == ({"A": "1"}, ("test", "-e", "/ready"))
    assert (pool.readiness_interval_secs, pool.readiness_timeout_secs, pool.readiness_retries) == (0.25, 2.5, 7)
    assert (pool.pull_policy, pool.image_check_secs, pool.max_age_secs, pool.drain) == ("always", 60, 3600, True)
    assert pool.create_time == datetime.fromisoformat("2026-11-22T10:00:00.123456+00:00")
    assert pool.update_time is None
    assert pool.status.state is PoolState.FILLING
    assert pool.status.hits == 2**40
    assert pool.status.last_error is None
    (request,) = state.sent("CreatePool")
    assert len(request.request_id) == 36


@pytest.mark.parametrize("size", ["size", "replicas", "warm_containers"])
def test_the_template_style_by_keywords(client: SandboxClient, size: str):
    pool = client.create_pool(name="python-pool", template_name="python-sandbox", **{size: 5})
    assert (pool.name, pool.template_name, pool.size, pool.replicas, pool.warm_containers) == (
        "python-pool",
        "python-sandbox",
        5,
        5,
        5,
    )


def test_the_template_style_by_position(client: SandboxClient):
    pool = client.create_pool("python-pool", "python-sandbox", 5)
    assert (pool.name, pool.template_name, pool.size) == ("python-pool", "python-sandbox", 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either image or template_name"),
        ({"name": "python:3.11-slim"}, "without a keyword is the pool's name"),
        ({"image": "i", "template_name": "t"}, "image: the template says"),
        ({"template_name": "t", "cpus": 1.0, "entrypoint": ["a"]}, "cpus, entrypoint: the template says"),
        ({"template_name": "t", "disk_mb": 1}, "disk_mb: the template says"),
        ({"template_name": "t", "env": {}, "readiness_retries": 1}, "env, readiness_retries: the template says"),
        ({"image": "i", "readiness_command": "true"}, "readiness_command must be a list"),
        ({"image": "i", "env": [("A", "b")]}, "env must be a mapping"),
        ({"image": "i", "env": {"A": 1}}, r"env\['A'\] must be a string, not int"),
        ({"image": "i", "size": 5}, "size: .*say warm_containers"),
        ({"image": "i", "replicas": 5}, "replicas: .*say warm_containers"),
        ({"template_name": "t", "size": 1, "replicas": 2}, "size and replicas mean the same"),
        ({"image": "i", "disk_mb": 1, "ephemeral_disk_mb": 2}, "ephemeral_disk_mb and disk_mb mean the same"),
        ({"image": "i", "secret_names": "TOKEN"}, "secret_names must be a list"),
        ({"image": "i", "entrypoint": "sleep 1"}, "entrypoint must be a list"),
    ],
)
def test_wrong_mixtures_are_refused_before_anything_is_sent(client, state, arguments, message):
    with pytest.raises(TypeError, match=message):
        client.create_pool(**arguments)
    assert state.requests == []


def test_lists_read_all_pages(client: SandboxClient, state: State):
    names = [f"p{number}" for number in range(5)]
    for name in names:
        client.create_pool(image="i", name=name)
    pools = client.list_pools(page_size=2)
    assert [pool.name for pool in pools] == names
    assert [request.page_token for request in state.sent("ListPools")] == ["", "2", "4"]


def test_an_update_sends_what_is_given_and_nothing_else(client: SandboxClient, state: State):
    pool = client.create_pool(image="i", warm_containers=1, max_containers=4, cpus=2.0)
    updated = client.update_pool(pool_id=pool.pool_id, image="j", warm_containers=5, max_containers=20)
    (request,) = state.sent("UpdatePool")
    assert sorted(request.update_mask.paths) == ["image", "max_containers", "warm_containers"]
    assert (updated.image, updated.warm_containers, updated.max_containers, updated.cpus) == ("j", 5, 20, 2.0)


def test_an_update_of_how_containers_are_made_and_kept(client: SandboxClient, state: State):
    pool = client.create_pool(image="i", env={"A": "1"}, pull_policy=PullPolicy.NEVER, readiness_command=["x"])
    updated = client.update_pool(
        pool.pool_id,
        env={"B": "2"},
        readiness_command=("y", "z"),
        readiness_retries=3,
        pull_policy="always",
        image_check_secs=5,
        max_age_secs=0,
    )
    assert (updated.env, updated.readiness_command, updated.readiness_retries) == ({"B": "2"}, ("y", "z"), 3)
    assert (updated.pull_policy, updated.image_check_secs, updated.max_age_secs) == (PullPolicy.ALWAYS, 5, 0)
    client.update_pool(pool.pool_id, env={}, pull_policy=None, readiness_command=None)
    assert state.pools[pool.pool_id].env == {}
    assert list(state.pools[pool.pool_id].readiness_command) == []
    assert sorted(state.sent("UpdatePool")[1].update_mask.paths) == ["env", "pull_policy", "readiness_command"]
    assert not state.sent("UpdatePool")[1].HasField("pull_policy")


@pytest.mark.parametrize("policy", ["sometimes", "unspecified", "unknown", PullPolicy.UNKNOWN])
def test_pull_policies_that_there_are_not(client: SandboxClient, state: State, policy):
    with pytest.raises(ValueError, match=r"PullPolicy|PULL_POLICY"):
        client.create_pool(image="i", pull_policy=policy)
    with pytest.raises(ValueError, match=r"PullPolicy|PULL_POLICY"):
        client.update_pool("p", pull_policy=policy)
    assert state.requests == []


def test_pause_drain_and_resume(client: SandboxClient, state: State):
    pool = client.create_pool(image="i", warm_containers=2)
    assert client.pause_pool(pool.pool_id).paused
    drained = client.drain_pool(pool.pool_id)
    assert (drained.paused, drained.drain) == (True, True)
    resumed = client.resume_pool(pool.pool_id)
    assert (resumed.paused, resumed.drain, resumed.warm_containers) == (False, False, 2)
    masks = [sorted(request.update_mask.paths) for request in state.sent("UpdatePool")]
    assert masks == [["paused"], ["drain"], ["drain", "paused"]]


def test_what_the_status_says(client: SandboxClient, state: State):
    pool = client.create_pool(image="i")
    assert (pool.status.image_digest, pool.status.image_pull, pool.status.disk_enforcement) == ("", None, None)
    status = state.pools[pool.pool_id].status
    status.state = pool_pb2.POOL_STATE_DRAINED
    status.image_digest = "sha256:1"
    status.image_pull.CopyFrom(pool_pb2.ImagePull(image="i", current_bytes=2**33, total_bytes=2**34))
    status.disk_enforcement = pool_pb2.DISK_ENFORCEMENT_WATCHED
    status.waiting = 3
    seen = client.get_pool(pool.pool_id).status
    assert (seen.state, seen.image_digest, seen.waiting) == (PoolState.DRAINED, "sha256:1", 3)
    assert seen.image_pull == ImagePull("i", 2**33, 2**34)
    assert seen.disk_enforcement is DiskEnforcement.WATCHED


def test_force_is_said_and_never_assumed(client: SandboxClient, state: State):
    for force in (False, True):
        pool = client.create_pool(image="i")
        client.delete_pool(pool.pool_id, **({"force": True} if force else {}))
    assert [request.force for request in state.sent("DeletePool")] == [False, True]


def test_what_is_shown_of_a_pool_leaves_the_environment_out(client: SandboxClient):
    pool = client.create_pool(image="i", env={"TOKEN": "hush-1"})
    template = client.create_template("t", "i", env={"TOKEN": "hush-1"})
    assert pool.env == template.env == {"TOKEN": "hush-1"}
    assert "hush-1" not in f"{pool!r} {pool} {template!r} {template}"


def test_none_in_an_update_puts_a_field_back(client: SandboxClient):
    pool = client.create_pool(image="i", max_containers=4, entrypoint=["a"], name="n")
    updated = client.update_pool(pool.pool_id, max_containers=None, entrypoint=None)
    assert updated.max_containers is None
    assert updated.entrypoint == ()
    assert updated.name == "n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to change"),
        ({"size": 1, "warm_containers": 2}, "warm_containers and size mean the same"),
        ({"name": "a", "new_name": "b"}, "name and new_name mean the same"),
        ({"secret_names": "A"}, "secret_names must be a list"),
        ({"readiness_command": "true"}, "readiness_command must be a list"),
        ({"env": "A=1"}, "env must be a mapping"),
    ],
)
def test_wrong_updates_are_refused_before_anything_is_sent(client, state, arguments, message):
    with pytest.raises(TypeError, match=message):
        client.update_pool("p", **arguments)
    assert state.requests == []


def test_other_names_in_an_update(client: SandboxClient):
    pool = client.create_pool("a", "t", 1)
    updated = client.update_pool(pool.pool_id, new_name="b", replicas=7, disk_mb=3)
    assert (updated.name, updated.warm_containers, updated.ephemeral_disk_mb) == ("b", 7, 3)


def test_a_pool_answers_to_its_name_and_is_deleted(client: SandboxClient):
    pool = client.create_pool(image="i", name="n")
    assert client.get_pool("n") == pool
    client.delete_pool("n", etag="e1")
    with pytest.raises(sandpool.PoolNotFoundError):
        client.get_pool("n")


def test_a_watch_ends_with_its_iterator(client: SandboxClient, state: State):
    pool = client.create_pool(image="i", name="n")
    events = client.watch_pools([pool.pool_id])
    event = next(events)
    assert (event.type, event.pool) == (PoolEventType.PRESENT, pool)
    events.close()
    assert list(state.sent("WatchPools")[0].pool_ids) == [pool.pool_id]
    with pytest.raises(TypeError, match="pool_ids must be a list"):
        client.watch_pools("n")


def test_a_watch_with_a_timeout_ends_with_an_error(client: SandboxClient):
    with pytest.raises(sandpool.ResourceTimeoutError):
        list(client.watch_pools(timeout=0.1))


def test_templates_from_birth_to_death(client: SandboxClient, state: State):
    template = client.create_template("python-sandbox", "i", memory_mb=128, disk_mb=64)
    assert (template.name, template.image, template.memory_mb, template.ephemeral_disk_mb) == (
        "python-sandbox",
        "i",
        128,
        64,
    )
    assert (template.readiness_interval_secs, template.readiness_timeout_secs, template.readiness_retries) == (
        0.5,
        5,
        20,
    )
    assert client.get_template(template.template_id) == template
    assert client.list_templates() == [template]
    renamed = client.update_template("python-sandbox", new_name="other", cpus=3)
    assert (renamed.name, renamed.cpus) == ("other", 3.0)
    assert sorted(state.sent("UpdateTemplate")[0].update_mask.paths) == ["cpus", "name"]
    ready = client.update_template("other", env={"A": "1"}, readiness_command=["x"], readiness_interval_secs=1)
    assert (ready.env, ready.readiness_command, ready.readiness_interval_secs) == ({"A": "1"}, ("x",), 1.0)
    client.delete_template("other")
    with pytest.raises(sandpool.TemplateNotFoundError):
        client.get_template("other")
