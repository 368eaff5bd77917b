"""Pools and templates: which arguments reach the server, and how responses are converted."""

from datetime import datetime

import pytest

import sandpool
from sandpool import (
    UNSET,
    DiskEnforcement,
    ImagePull,
    Pool,
    PoolEventType,
    PoolState,
    PullPolicy,
    ReadinessProbe,
    SandboxClient,
)
from sandpool.v1 import pool_pb2
from tests.clients.python.state import State


def test_sends_only_the_image_when_only_the_image_is_given(client: SandboxClient, state: State):
    pool = client.create_pool(image="python:3.11-slim")
    (request,) = state.sent("CreatePool")
    assert request.spec.image == "python:3.11-slim"
    assert [field.name for field, _ in request.spec.ListFields()] == ["image"], "the server applies its defaults"
    assert [field.name for field, _ in request.ListFields()] == ["spec", "request_id"]
    assert isinstance(pool, Pool)


def test_reads_back_the_documented_defaults(client: SandboxClient):
    pool = client.create_pool(image="i")
    assert (pool.image, pool.cpus, pool.memory_mb, pool.ephemeral_disk_mb) == ("i", 1.0, 512, 1024)
    assert (pool.warm_containers, pool.max_containers, pool.timeout_secs) == (None, None, 0)
    assert isinstance(pool.timeout_secs, int)
    assert (pool.secret_names, pool.entrypoint, pool.env) == ([], None, {})
    assert (pool.name, pool.template_name, pool.image_refresh_interval, pool.warm_ttl) == (None, None, None, None)
    assert (pool.spec.pull_policy, pool.spec.readiness_probe) == (PullPolicy.MISSING, None)


def test_sends_every_field_of_a_pool(client: SandboxClient, state: State):
    pool = client.create_pool(
        name="p",
        image="i",
        cpus=0.5,
        memory_mb=256,
        ephemeral_disk_mb=64,
        env={"A": "1"},
        entrypoint=("sleep", "1"),
        secret_names=["A"],
        pull_policy="always",
        readiness_probe=ReadinessProbe(["test", "-e", "/ready"], interval=0.25, timeout=2.5, failure_threshold=7),
        warm_containers=3,
        max_containers=9,
        timeout_secs=30,
        paused=True,
        drained=True,
        image_refresh_interval=60,
        warm_ttl=3600.5,
        request_id="mine",
    )
    assert (pool.name, pool.image, pool.cpus, pool.memory_mb, pool.ephemeral_disk_mb) == ("p", "i", 0.5, 256, 64)
    assert (pool.warm_containers, pool.max_containers, pool.timeout_secs) == (3, 9, 30)
    assert (pool.secret_names, pool.entrypoint, pool.env) == (["A"], ["sleep", "1"], {"A": "1"})
    assert pool.spec.readiness_probe == ReadinessProbe(("test", "-e", "/ready"), 0.25, 2.5, 7)
    assert (pool.spec.pull_policy, pool.image_refresh_interval, pool.warm_ttl) == ("always", 60, 3600.5)
    assert (pool.paused, pool.drained) == (True, True)
    assert pool.create_time == datetime.fromisoformat("2026-11-22T10:00:00.123456+00:00")
    assert pool.update_time is None
    assert (pool.status.state, pool.status.hits, pool.status.last_error) == (PoolState.FILLING, 2**40, None)
    (request,) = state.sent("CreatePool")
    assert request.request_id == "mine"


def test_generates_a_request_id(client: SandboxClient, state: State):
    client.create_pool(image="i")
    assert len(state.sent("CreatePool")[0].request_id) == 36


@pytest.mark.parametrize("size", ["size", "warm_containers"])
def test_accepts_size_with_a_template(client: SandboxClient, size: str):
    pool = client.create_pool(name="python-pool", template_name="python-sandbox", **{size: 5})
    assert (pool.name, pool.template_name, pool.warm_containers) == ("python-pool", "python-sandbox", 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "needs image or template_name"),
        ({"name": "python:3.11-slim"}, "the first positional argument is the pool's name"),
        ({"image": "i", "template_name": "t"}, "image not allowed: the template defines"),
        ({"template_name": "t", "cpus": 1.0, "entrypoint": ["a"]}, "cpus and entrypoint not allowed"),
        ({"template_name": "t", "env": {}}, "env not allowed: the template defines"),
        ({"template_name": "t", "readiness_probe": ReadinessProbe(["x"])}, "readiness_probe not allowed"),
        ({"image": "i", "size": 5}, "size not allowed: with an image, use warm_containers"),
        ({"template_name": "t", "size": 5, "warm_containers": 5}, "warm_containers and size mean the same"),
        ({"image": "i", "readiness_probe": ["true"]}, "readiness_probe must be a ReadinessProbe, not list"),
        ({"image": "i", "env": [("A", "b")]}, "env must be a mapping"),
        ({"image": "i", "env": {"A": 1}}, r"env\['A'\] must be a string, not int"),
        ({"image": "i", "secret_names": "TOKEN"}, "secret_names must be a list"),
        ({"image": "i", "entrypoint": "sleep 1"}, "entrypoint must be a list"),
        ({"image": "i", "timeout_secs": "60"}, "timeout_secs must be a number of seconds, not str"),
        ({"image": "i", "replicas": 5}, r"create_pool\(\) got an unexpected keyword argument 'replicas'"),
    ],
)
def test_rejects_wrong_arguments_before_sending(client: SandboxClient, state: State, arguments, message):
    with pytest.raises(TypeError, match=message):
        client.create_pool(**arguments)
    assert state.requests == []


def test_rejects_a_second_positional_argument(client: SandboxClient):
    with pytest.raises(TypeError, match="positional"):
        client.create_pool("p", "t")  # type: ignore[call-overload]


def test_rejects_a_probe_whose_command_is_one_string():
    with pytest.raises(TypeError, match="command must be a list of strings"):
        ReadinessProbe("true")


def test_lists_read_pages_as_they_are_needed(client: SandboxClient, state: State):
    names = [f"p{number}" for number in range(5)]
    for name in names:
        client.create_pool(image="i", name=name)
    pools = client.list_pools(page_size=2)
    assert state.sent("ListPools") == []
    assert next(pools).name == "p0"
    assert [request.page_token for request in state.sent("ListPools")] == [""]
    assert [pool.name for pool in pools] == names[1:]
    assert [request.page_token for request in state.sent("ListPools")] == ["", "2", "4"]


def test_update_sends_only_the_given_fields(client: SandboxClient, state: State):
    pool = client.create_pool(image="i", warm_containers=1, max_containers=4, cpus=2.0)
    updated = client.update_pool(pool_id=pool.pool_id, image="j", warm_containers=5, max_containers=20, cpus=UNSET)
    (request,) = state.sent("UpdatePool")
    assert sorted(request.update_mask.paths) == ["max_containers", "spec.image", "warm_containers"]
    assert (updated.image, updated.warm_containers, updated.max_containers, updated.cpus) == ("j", 5, 20, 2.0)


def test_update_changes_every_field(client: SandboxClient, state: State):
    pool = client.create_pool(image="i", env={"A": "1"}, pull_policy=PullPolicy.NEVER)
    updated = client.update_pool(
        pool.pool_id,
        name="n",
        image="j",
        cpus=2,
        memory_mb=64,
        ephemeral_disk_mb=32,
        env={"B": "2"},
        entrypoint=["x"],
        secret_names=["S"],
        readiness_probe=ReadinessProbe(("y", "z"), failure_threshold=3),
        pull_policy="always",
        warm_containers=1,
        max_containers=2,
        timeout_secs=1.5,
        paused=True,
        drained=True,
        image_refresh_interval=5,
        warm_ttl=0,
        etag="e1",
        request_id="mine",
    )
    assert (updated.name, updated.image, updated.cpus, updated.memory_mb) == ("n", "j", 2.0, 64)
    assert (updated.ephemeral_disk_mb, updated.env, updated.entrypoint) == (32, {"B": "2"}, ["x"])
    assert (updated.secret_names, updated.spec.pull_policy) == (["S"], PullPolicy.ALWAYS)
    assert updated.spec.readiness_probe == ReadinessProbe(("y", "z"), failure_threshold=3)
    assert (updated.warm_containers, updated.max_containers, updated.timeout_secs) == (1, 2, 1.5)
    assert (updated.paused, updated.drained, updated.image_refresh_interval, updated.warm_ttl) == (True, True, 5, 0)
    (request,) = state.sent("UpdatePool")
    assert (request.etag, request.request_id) == ("e1", "mine")


def test_none_in_an_update_resets_a_field(client: SandboxClient, state: State):
    pool = client.create_pool(image="i", max_containers=4, entrypoint=["a"], name="n", timeout_secs=9)
    updated = client.update_pool(
        pool.pool_id, max_containers=None, entrypoint=None, pull_policy=None, readiness_probe=None, timeout_secs=None
    )
    assert (updated.max_containers, updated.entrypoint, updated.timeout_secs, updated.name) == (None, None, 0, "n")
    (request,) = state.sent("UpdatePool")
    assert sorted(request.update_mask.paths) == [
        "max_containers",
        "spec.entrypoint",
        "spec.pull_policy",
        "spec.readiness_probe",
        "timeout",
    ]
    assert client.update_pool(pool.pool_id, env={}, secret_names=[]).env == {}


@pytest.mark.parametrize("policy", ["sometimes", "unspecified", "unknown", PullPolicy.UNKNOWN])
def test_rejects_unknown_pull_policies(client: SandboxClient, state: State, policy):
    allowed = "pull_policy must be one of 'missing', 'always', 'never'"
    with pytest.raises(ValueError, match=allowed):
        client.create_pool(image="i", pull_policy=policy)
    with pytest.raises(ValueError, match=allowed):
        client.update_pool("p", pull_policy=policy)
    assert state.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "nothing to update; give at least one of image, cpus"),
        ({"etag": "e"}, "nothing to update"),
        ({"size": 1}, "unexpected keyword argument 'size'"),
        ({"new_name": "b"}, "unexpected keyword argument 'new_name'"),
        ({"secret_names": "A"}, "secret_names must be a list"),
        ({"readiness_probe": "true"}, "readiness_probe must be a ReadinessProbe"),
        ({"env": "A=1"}, "env must be a mapping"),
    ],
)
def test_rejects_wrong_updates_before_sending(client: SandboxClient, state: State, arguments, message):
    with pytest.raises(TypeError, match=message):
        client.update_pool("p", **arguments)
    assert state.requests == []


def test_pauses_drains_and_resumes_by_update(client: SandboxClient, state: State):
    pool = client.create_pool(image="i", warm_containers=2)
    assert client.update_pool(pool.pool_id, paused=True).paused
    assert client.update_pool(pool.pool_id, drained=True).drained
    resumed = client.update_pool(pool.pool_id, paused=False, drained=False)
    assert (resumed.paused, resumed.drained, resumed.warm_containers) == (False, False, 2)
    masks = [sorted(request.update_mask.paths) for request in state.sent("UpdatePool")]
    assert masks == [["paused"], ["drained"], ["drained", "paused"]]


def test_converts_the_status(client: SandboxClient, state: State):
    pool = client.create_pool(image="i")
    assert (pool.status.image_digest, pool.status.image_pull, pool.status.disk_enforcement) == (None, None, None)
    status = state.pools[pool.pool_id].status
    status.state = pool_pb2.POOL_STATE_DRAINED
    status.image_digest = "sha256:1"
    status.image_pull.CopyFrom(pool_pb2.ImagePull(image="i", current_bytes=2**33, total_bytes=2**34))
    status.disk_enforcement = pool_pb2.DISK_ENFORCEMENT_BEST_EFFORT
    status.waiting = 3
    status.desired = 4
    found = client.get_pool(pool.pool_id).status
    assert (found.state, found.image_digest, found.waiting, found.desired) == (PoolState.DRAINED, "sha256:1", 3, 4)
    assert found.image_pull == ImagePull("i", 2**33, 2**34)
    assert found.disk_enforcement is DiskEnforcement.BEST_EFFORT


def test_force_is_off_by_default(client: SandboxClient, state: State):
    for options in ({}, {"force": True}):
        pool = client.create_pool(image="i")
        client.delete_pool(pool.pool_id, **options)
    assert [request.force for request in state.sent("DeletePool")] == [False, True]


def test_repr_omits_the_environment(client: SandboxClient):
    pool = client.create_pool(image="i", env={"TOKEN": "hush-1"})
    template = client.create_template("t", image="i", env={"TOKEN": "hush-1"})
    assert pool.env == template.env == {"TOKEN": "hush-1"}
    assert "hush-1" not in f"{pool!r} {pool} {template!r} {template}"


def test_models_are_hashable(client: SandboxClient):
    pool = client.create_pool(image="i", env={"A": "1"}, entrypoint=["x"])
    assert len({pool, client.get_pool(pool.pool_id)}) == 1


def test_gets_and_deletes_a_pool_by_name(client: SandboxClient):
    pool = client.create_pool(image="i", name="n")
    assert client.get_pool("n") == pool
    client.delete_pool("n", etag="e1")
    with pytest.raises(sandpool.PoolNotFoundError):
        client.get_pool("n")


def test_a_watch_ends_when_its_iterator_is_closed(client: SandboxClient, state: State):
    pool = client.create_pool(image="i", name="n")
    events = client.watch_pools(pool.pool_id)
    event = next(events)
    assert (event.type, event.pool) == (PoolEventType.CURRENT, pool)
    events.close()
    assert list(state.sent("WatchPools")[0].pool_ids) == [pool.pool_id]
    with pytest.raises(TypeError, match="pool_ids must be a string, not list"):
        client.watch_pools(["n"])  # type: ignore[arg-type]


def test_a_watch_raises_after_its_timeout(client: SandboxClient):
    with pytest.raises(sandpool.ResourceTimeoutError):
        list(client.watch_pools(timeout=0.1))


def test_creates_reads_updates_and_deletes_templates(client: SandboxClient, state: State):
    template = client.create_template("python-sandbox", image="i", memory_mb=128, ephemeral_disk_mb=64, timeout_secs=5)
    assert (template.name, template.image, template.memory_mb) == ("python-sandbox", "i", 128)
    assert (template.ephemeral_disk_mb, template.timeout_secs) == (64, 5)
    assert client.get_template(template.template_id) == template
    assert list(client.list_templates()) == [template]
    renamed = client.update_template("python-sandbox", name="other", cpus=3)
    assert (renamed.name, renamed.cpus) == ("other", 3.0)
    assert sorted(state.sent("UpdateTemplate")[0].update_mask.paths) == ["name", "spec.cpus"]
    probe = ReadinessProbe(["x"], interval=1)
    updated = client.update_template("other", env={"A": "1"}, readiness_probe=probe, timeout_secs=0)
    assert (updated.env, updated.spec.readiness_probe, updated.timeout_secs) == ({"A": "1"}, probe, 0)
    client.delete_template("other")
    with pytest.raises(sandpool.TemplateNotFoundError):
        client.get_template("other")
    with pytest.raises(TypeError, match="nothing to update"):
        client.update_template("other")
    with pytest.raises(TypeError, match="unexpected keyword argument 'memory'"):
        client.create_template("t", image="i", memory="512Mi")  # type: ignore[call-arg]
