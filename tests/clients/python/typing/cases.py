"""What the client's types allow and refuse. test_typing.py has mypy check this file; nothing in here runs.

A line that must be refused says by which error; one that is allowed all the same is an error itself, because its
`type: ignore` is then of no use.
"""

from collections.abc import Generator, Mapping
from datetime import datetime, timedelta
from typing import assert_type

import sandpool
from sandpool import CommandResult, Pool, PoolEvent, PullPolicy, Sandbox, SandboxClient, SandboxInfo, Secret, WhenEmpty


def pools(client: SandboxClient, words: list[str], word: str) -> None:
    """Each style of pools takes what goes with it."""
    pool = client.create_pool(image="i", warm_containers=3, env={"A": "1"}, readiness_command=["true"])
    assert_type(pool, Pool)
    assert_type(pool.env, Mapping[str, str])
    assert_type(pool.readiness_command, tuple[str, ...])
    assert_type(pool.pull_policy, PullPolicy)
    assert_type(pool.status.image_pull, sandpool.ImagePull | None)
    assert_type(pool.status.disk_enforcement, sandpool.DiskEnforcement | None)
    client.create_pool("n", image="i", pull_policy="never", image_check_secs=60, max_age_secs=60, drain=True)
    client.create_pool("n", "t", 5, pull_policy=PullPolicy.ALWAYS)
    client.create_pool(template_name="t", replicas=5, paused=True)
    client.create_pool(name="n", template_name="t", size=5)
    client.create_pool("n")  # type: ignore[call-overload]
    client.create_pool(image="i", template_name="t")  # type: ignore[call-overload]
    client.create_pool(template_name="t", env={"A": "1"})  # type: ignore[call-overload]
    client.create_pool(template_name="t", readiness_retries=3)  # type: ignore[call-overload]
    client.create_pool(image="i", size=5)  # type: ignore[call-overload]
    client.create_pool(image="i", pull_policy="sometimes")  # type: ignore[call-overload]
    client.create_pool(image="i", pull_policy=word)  # type: ignore[call-overload]
    client.create_pool(image="i", env={"A": 1})  # type: ignore[dict-item]
    assert_type(client.update_pool("p", env=None, pull_policy=None, drain=False, readiness_command=words), Pool)
    client.update_pool("p", pull_policy="sometimes")  # type: ignore[arg-type]
    client.update_pool("p", image=None)  # type: ignore[arg-type]
    assert_type(client.pause_pool("p"), Pool)
    assert_type(client.resume_pool("p"), Pool)
    assert_type(client.drain_pool("p"), Pool)
    client.delete_pool("p", force=True)
    client.delete_pool("p", True)  # type: ignore[call-overload]
    client.delete_pool(name="p")
    assert_type(client.get_pool("p"), Pool)
    assert_type(client.get_pool(name="p"), Pool)
    client.get_pool()  # type: ignore[call-overload]
    client.get_pool("p", name="p")  # type: ignore[call-overload]
    assert_type(client.watch_pools(), Generator[PoolEvent, None, None])
    pool.drain = True  # type: ignore[misc]


def sandboxes(client: SandboxClient, word: str) -> None:
    """A sandbox comes from one place, with what goes with that."""
    with client.create(pool_id="p", when_empty="wait", wait_secs=5, env={"A": "1"}) as sandbox:
        assert_type(sandbox, Sandbox)
        assert_type(sandbox.start_duration, timedelta | None)
        assert_type(sandbox.run("true"), CommandResult)
    client.create(template_name="t", when_empty=WhenEmpty.FAIL)
    client.create("i", env={"A": "1"}, readiness_command=["true"], readiness_timeout_secs=0.5)
    client.create()  # type: ignore[call-overload]
    client.create(pool_id="p", template_name="t")  # type: ignore[call-overload]
    client.create("i", pool_id="p")  # type: ignore[call-overload]
    client.create(pool_id="p", memory_mb=64)  # type: ignore[call-overload]
    client.create(pool_id="p", readiness_command=["true"])  # type: ignore[call-overload]
    client.create("i", when_empty="wait")  # type: ignore[call-overload]
    client.create("i", wait_secs=1.0)  # type: ignore[call-overload]
    client.create(pool_id="p", when_empty="queue")  # type: ignore[call-overload]
    client.create(pool_id="p", when_empty=word)  # type: ignore[call-overload]
    assert_type(client.claim("p", when_empty="fail", env={}), Sandbox)
    client.claim("p", when_empty="queue")  # type: ignore[arg-type]
    client.claim("p", memory_mb=64)  # type: ignore[call-arg]
    assert_type(client.create_sandbox("t", when_empty="wait", wait_secs=0.5), Sandbox)
    assert_type(client.sandbox(template_name="t", when_empty="start_cold"), Sandbox)
    assert_type(client.create_batch(2, pool_id="p", when_empty="wait"), list[Sandbox])
    assert_type(client.create_batch(2, image="i", env={"A": "1"}), list[Sandbox])
    client.create_batch(2, pool_id="p", name="n")  # type: ignore[call-overload]
    client.create_batch(2, image="i", when_empty="fail")  # type: ignore[call-overload]
    assert_type(client.list(), list[Sandbox])
    assert_type(client.get_sandbox_status("s"), sandpool.SandboxState)
    assert_type(client.get_sandbox_status(name="s"), sandpool.SandboxState)
    assert_type(client.get_sandbox(name="s"), Sandbox)
    assert_type(client.wait_for_sandbox(name="s", timeout=5), Sandbox)
    client.delete_sandbox(name="s")
    client.delete_sandbox()  # type: ignore[call-overload]
    assert_type(client.wait_for_sandbox("s", timeout=5), Sandbox)
    assert_type(client.watch_sandbox("s"), Generator[SandboxInfo, None, None])


def secrets(client: SandboxClient) -> None:
    """A secret's value goes in and is in no type that comes out."""
    secret = client.create_secret("A", "value")
    assert_type(secret, Secret)
    assert_type(secret.update_time, datetime | None)
    assert_type(client.update_secret("A", value="value"), Secret)
    assert_type(client.list_secrets(), list[Secret])
    client.delete_secret("A", force=True)
    client.create_secret("A")  # type: ignore[call-arg]
    client.create_secret("A", b"value")  # type: ignore[arg-type]
    client.delete_secret("A", True)  # type: ignore[call-arg]
    print(secret.value)  # type: ignore[attr-defined]


def errors(error: sandpool.SandpoolError) -> None:
    """What an error carries."""
    assert_type(error.retry_after, float | None)
    if isinstance(error, sandpool.PoolEmptyError):
        print(error.quota_type)  # type: ignore[attr-defined]
