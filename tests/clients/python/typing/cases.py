"""Calls that the types of the client accept or reject. test_typing.py checks this file with mypy; it never runs.

A line that must be rejected names its error. If the line is accepted, its `type: ignore` is unused, which is an error.
"""

from collections.abc import Generator, Mapping
from datetime import datetime
from typing import assert_type

import sandpool
from sandpool import (
    UNSET,
    CommandResult,
    ContainerSpec,
    Pool,
    PoolEvent,
    PullPolicy,
    ReadinessProbe,
    Sandbox,
    SandboxClient,
    SandboxInfo,
    Secret,
    Template,
    WhenEmpty,
)


def pools(client: SandboxClient, arguments: list[str], word: str, maybe: int | None) -> None:
    """Each source of a pool accepts its arguments."""
    pool = client.create_pool(image="i", warm_containers=3, env={"A": "1"}, readiness_probe=ReadinessProbe(["true"]))
    assert_type(pool, Pool)
    assert_type(pool.spec, ContainerSpec)
    assert_type(pool.env, Mapping[str, str])
    assert_type(pool.entrypoint, list[str] | None)
    assert_type(pool.secret_names, list[str])
    assert_type(pool.warm_containers, int | None)
    assert_type(pool.timeout_secs, float)
    assert_type(pool.name, str | None)
    assert_type(pool.spec.pull_policy, PullPolicy)
    assert_type(pool.status.image_pull, sandpool.ImagePull | None)
    assert_type(pool.status.disk_enforcement, sandpool.DiskEnforcement | None)
    client.create_pool("n", image="i", pull_policy="never", image_refresh_interval=60, warm_ttl=60.5, drained=True)
    client.create_pool("n", template_name="t", size=5, paused=True, max_containers=maybe)
    client.create_pool(image="i", entrypoint=arguments, request_timeout=None)
    client.create_pool(image="i", size=5)  # type: ignore[call-overload]
    client.create_pool("n")  # type: ignore[call-overload]
    client.create_pool("n", "t")  # type: ignore[call-overload]
    client.create_pool(image="i", template_name="t")  # type: ignore[call-overload]
    client.create_pool(template_name="t", env={"A": "1"})  # type: ignore[call-overload]
    client.create_pool(template_name="t", cpus=1.0)  # type: ignore[call-overload]
    client.create_pool(template_name="t", pull_policy="never")  # type: ignore[call-overload]
    client.create_pool(image="i", replicas=5)  # type: ignore[call-overload]
    client.create_pool(image="i", pull_policy="sometimes")  # type: ignore[call-overload]
    client.create_pool(image="i", pull_policy=word)  # type: ignore[call-overload]
    client.create_pool(image="i", readiness_probe=["true"])  # type: ignore[call-overload]
    client.create_pool(image="i", timeout_secs="60")  # type: ignore[call-overload]
    assert_type(client.update_pool("p", env=None, pull_policy=None, drained=False, entrypoint=arguments), Pool)
    assert_type(client.update_pool("p", image="j", max_containers=None, cpus=UNSET, etag=pool.etag), Pool)
    client.update_pool("p", pull_policy="sometimes")  # type: ignore[arg-type]
    client.update_pool("p", image=None)  # type: ignore[arg-type]
    client.update_pool("p", size=5)  # type: ignore[call-arg]
    client.update_pool("p", "i")  # type: ignore[call-arg]
    client.update_pool()  # type: ignore[call-arg]
    client.delete_pool("p", force=True)
    client.delete_pool("p", True)  # type: ignore[call-arg]
    assert_type(client.get_pool("p"), Pool)
    client.get_pool()  # type: ignore[call-arg]
    assert_type(client.list_pools(page_size=5), Generator[Pool, None, None])
    assert_type(client.watch_pools("p", "q", timeout=5), Generator[PoolEvent, None, None])
    assert_type(client.wait_for_pool("p", timeout=None, on_progress=print), Pool)
    pool.drained = True  # type: ignore[misc]


def templates(client: SandboxClient) -> None:
    """A template needs an image."""
    assert_type(client.create_template("t", image="i", cpus=1, env={}), Template)
    client.create_template("t")  # type: ignore[call-arg]
    client.create_template("t", "i")  # type: ignore[call-arg]
    client.create_template("t", image="i", memory="512Mi")  # type: ignore[call-arg]
    assert_type(client.update_template("t", name="u", cpus=None), Template)
    client.update_template("t", name=None)  # type: ignore[arg-type]
    client.delete_template("t", etag="e")


def sandboxes(client: SandboxClient, word: str) -> None:
    """A sandbox has one source, which accepts its arguments."""
    with client.create(pool_id="p", when_empty="wait", queue_timeout=5, env={"A": "1"}) as sandbox:
        assert_type(sandbox, Sandbox)
        assert_type(sandbox.info, SandboxInfo)
        assert_type(sandbox.info.start_duration, float | None)
        assert_type(sandbox.start_type, sandpool.StartType | None)
        assert_type(sandbox.run("true"), CommandResult)
        assert_type(sandbox.refresh(), SandboxInfo)
        assert_type(sandbox.update(name=None, timeout_secs=60), SandboxInfo)
        sandbox.update("n")  # type: ignore[call-arg]
        print(sandbox.image)  # type: ignore[attr-defined]
    client.create(template_name="t", when_empty=WhenEmpty.FAIL, name="n", metadata={"a": "b"}, timeout_secs=0.5)
    client.create(image="i", env={"A": "1"}, readiness_probe=ReadinessProbe(["true"], timeout=0.5), cpus=1)
    client.create()  # type: ignore[call-overload]
    client.create("i")  # type: ignore[call-overload]
    client.create(pool_id="p", template_name="t")  # type: ignore[call-overload]
    client.create(image="i", pool_id="p")  # type: ignore[call-overload]
    client.create(pool_id="p", memory_mb=64)  # type: ignore[call-overload]
    client.create(pool_id="p", readiness_probe=ReadinessProbe(["true"]))  # type: ignore[call-overload]
    client.create(image="i", when_empty="wait")  # type: ignore[call-overload]
    client.create(image="i", queue_timeout=1.0)  # type: ignore[call-overload]
    client.create(pool_id="p", when_empty="queue")  # type: ignore[call-overload]
    client.create(pool_id="p", when_empty=word)  # type: ignore[call-overload]
    client.create(pool_id="p", queue_timeout_secs=1)  # type: ignore[call-overload]
    assert_type(client.create_batch(2, pool_id="p", when_empty="wait"), list[Sandbox])
    assert_type(client.create_batch(2, image="i", env={"A": "1"}), list[Sandbox])
    client.create_batch(2, pool_id="p", name="n")  # type: ignore[call-overload]
    client.create_batch(2, image="i", when_empty="fail")  # type: ignore[call-overload]
    assert_type(client.list_sandboxes(states=["running"]), Generator[Sandbox, None, None])
    assert_type(client.get_sandbox("s"), Sandbox)
    assert_type(client.update_sandbox("s", metadata={}), Sandbox)
    client.delete_sandbox("s", request_timeout=5)
    client.delete_sandbox()  # type: ignore[call-arg]
    assert_type(client.watch_sandbox("s"), Generator[SandboxInfo, None, None])


def secrets(client: SandboxClient) -> None:
    """The value of a secret is accepted and never returned."""
    secret = client.create_secret("A", "value")
    assert_type(secret, Secret)
    assert_type(secret.update_time, datetime | None)
    assert_type(client.get_secret("A"), Secret)
    assert_type(client.update_secret("A", value="value"), Secret)
    assert_type(client.list_secrets(), Generator[Secret, None, None])
    client.delete_secret("A", force=True)
    client.create_secret("A")  # type: ignore[call-arg]
    client.create_secret("A", b"value")  # type: ignore[arg-type]
    client.delete_secret("A", True)  # type: ignore[call-arg]
    print(secret.value)  # type: ignore[attr-defined]


def errors(error: sandpool.SandpoolError) -> None:
    """The attributes of errors."""
    assert_type(error.retry_after, float | None)
    assert_type(error.reason, str | None)
    if isinstance(error, sandpool.TunnelConnectionRefusedError):
        assert_type(error.port, int | None)
    if isinstance(error, sandpool.PoolEmptyError):
        print(error.quota_type)  # type: ignore[attr-defined]
