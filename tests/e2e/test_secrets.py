"""Secrets: only the processes of sandboxes that reference a secret receive its value."""

import re
import secrets as random_values
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from sandpool import (
    Sandbox,
    SandboxClient,
    SecretInUseError,
    SecretNotFoundError,
    SecretUnavailableError,
)
from sandpool.v1.container_pb2 import ContainerSpec
from sandpool.v1.pool_service_pb2 import CreatePoolRequest
from sandpool.v1.sandbox_service_pb2 import CreateSandboxRequest, RunCommandRequest
from sandpool.v1.secret_service_pb2 import CreateSecretRequest, UpdateSecretRequest
from tests.support.api_walk import ApiWalk, refusal
from tests.support.engine_view import EngineView
from tests.support.secret_search import SEARCH_PROGRAM, Search
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until_warm

pytestmark = pytest.mark.engine

BUSYBOX = "busybox:latest"
PYTHON = "python:3.11-slim"

READ_ENVIRONMENTS = "cat /proc/[0-9]*/environ"

RECORD_TOKEN = ["sh", "-c", 'echo "sees ${TOKEN:-nothing}" > /tmp/.seen; mv /tmp/.seen /tmp/seen; sleep 100000']
"""An entrypoint that writes the value of TOKEN from its environment into a file."""


def new_value() -> str:
    return random_values.token_urlsafe(24)


def seen_by_entrypoint(sandbox: Sandbox) -> str:
    return sandbox.run("until [ -e /tmp/seen ]; do sleep 0.02; done; cat /tmp/seen").stdout


def in_instance(engine: EngineView, container_id: str, command: str) -> bytes:
    """Run a command as root in a container through the engine, not the agent, and return its output."""
    started = engine.api.exec_create(container_id, ["sh", "-c", command], user="root")
    output: bytes = engine.api.exec_start(started["Id"])
    return output


def instances_of(engine: EngineView, pool_id: str) -> list[str]:
    return [found["Id"] for found in engine.api.containers(filters={"label": f"sandpool.pool={pool_id}"})]


# --- environments -----------------------------------------------------------------------------------------------------


def test_values_reach_only_the_processes_of_the_sandbox(client: SandboxClient, engine: EngineView) -> None:
    value = new_value()
    client.create_secret("ONLY_HERE", value)
    pool = client.create_pool(image=BUSYBOX, secret_names=["ONLY_HERE"], env={"PLAIN": "p"}, warm_containers=1)
    other = client.create_pool(image=BUSYBOX, warm_containers=1)
    for each in (pool, other):
        wait_until_warm(client, each.pool_id, 1)
    (instance,) = instances_of(engine, pool.pool_id)
    environments = in_instance(engine, instance, READ_ENVIRONMENTS)
    assert b"SANDPOOL_AGENT_TOKEN_SHA256" in environments
    assert value.encode() not in environments, "an unclaimed instance contains no secret"

    with client.create(pool_id=pool.pool_id, env={"OWN": "o"}) as sandbox, client.create(pool_id=other.pool_id) as one:
        assert sandbox.info.secret_names == ["ONLY_HERE"]
        command = 'echo "$ONLY_HERE $PLAIN $OWN"'
        assert sandbox.run(command).stdout == f"{value} p o\n"
        assert sandbox.run(command, user="nobody").stdout == f"{value} p o\n"
        assert sandbox.run(command, env={"ONLY_HERE": "mine"}).stdout == "mine p o\n"
        assert one.run('echo "[$ONLY_HERE]"').stdout == "[]\n"
        (claimed,) = (c for c in instances_of(engine, pool.pool_id) if c == instance)
        assert value.encode() not in in_instance(engine, claimed, "cat /proc/1/environ /proc/1/cmdline")
    for each in (pool, other):
        client.delete_pool(each.pool_id, force=True)


def test_changed_value_reaches_only_new_sandboxes(client: SandboxClient) -> None:
    client.create_secret("CHANGING", "first")
    pool = client.create_pool(image=BUSYBOX, secret_names=["CHANGING"], warm_containers=2)
    wait_until_warm(client, pool.pool_id, 2)
    old = client.create(pool_id=pool.pool_id)
    before = client.get_pool(pool.pool_id).etag
    client.update_secret("CHANGING", "second")
    new = client.create(pool_id=pool.pool_id)
    assert old.run("echo $CHANGING").stdout == "first\n"
    assert new.run("echo $CHANGING").stdout == "second\n"
    assert client.get_pool(pool.pool_id).etag == before, "the pool is unchanged"
    client.delete_pool(pool.pool_id, force=True)


def test_rejects_unknown_secret_names(client: SandboxClient) -> None:
    with pytest.raises(SecretNotFoundError, match="NO_SUCH"):
        client.create_pool(image=BUSYBOX, secret_names=["NO_SUCH"])
    with pytest.raises(SecretNotFoundError, match="NO_SUCH"):
        client.create_template("with-unknown-secret", image=BUSYBOX, secret_names=["NO_SUCH"])
    with pytest.raises(SecretNotFoundError, match="NO_SUCH"):
        client.create(image=BUSYBOX, secret_names=["NO_SUCH"])
    pool = client.create_pool(image=BUSYBOX)
    with pytest.raises(SecretNotFoundError, match="NO_SUCH"):
        client.update_pool(pool.pool_id, secret_names=["NO_SUCH"])
    client.delete_pool(pool.pool_id)


def test_deletes_a_referenced_secret_only_with_force(client: SandboxClient) -> None:
    client.create_secret("NAMED", "one")
    pool = client.create_pool("names-it", image=BUSYBOX, secret_names=["NAMED"])
    with pytest.raises(SecretInUseError, match="names-it"):
        client.delete_secret("NAMED")
    client.delete_secret("NAMED", force=True)
    assert "NAMED" not in [secret.name for secret in client.list_secrets()]
    with pytest.raises(SecretUnavailableError, match="NAMED"):
        client.create(pool_id=pool.pool_id)
    client.create_secret("NAMED", "two")
    with client.create(pool_id=pool.pool_id) as sandbox:
        assert sandbox.run("echo $NAMED").stdout == "two\n"
    client.delete_pool(pool.pool_id, force=True)
    client.delete_secret("NAMED")
    with pytest.raises(SecretNotFoundError):
        client.delete_secret("NAMED")


def test_entrypoint_with_secrets_starts_at_the_claim(client: SandboxClient, engine: EngineView) -> None:
    client.create_secret("TOKEN", "value")
    shared = {"image": BUSYBOX, "entrypoint": RECORD_TOKEN, "warm_containers": 1}
    with_secrets = client.create_pool(secret_names=["TOKEN"], **shared)  # type: ignore[call-overload]
    without = client.create_pool(**shared)  # type: ignore[call-overload]
    for pool in (with_secrets, without):
        wait_until_warm(client, pool.pool_id, 1)
    (waiting,), (running,) = (instances_of(engine, pool.pool_id) for pool in (with_secrets, without))
    assert b"sleep 100000" not in in_instance(engine, waiting, "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    started = "until [ -e /tmp/seen ]; do sleep 0.02; done; cat /tmp/seen"
    assert in_instance(engine, running, started) == b"sees nothing\n", (
        "without secrets the entrypoint starts with the instance"
    )

    with client.create(pool_id=with_secrets.pool_id) as sandbox:
        assert seen_by_entrypoint(sandbox) == "sees value\n"
    with client.create(image=BUSYBOX, secret_names=["TOKEN"], entrypoint=RECORD_TOKEN) as cold:
        assert seen_by_entrypoint(cold) == "sees value\n"
    for pool in (with_secrets, without):
        client.delete_pool(pool.pool_id, force=True)


def test_rotates_the_key(own_server: ServerProcess) -> None:
    key_file = own_server.data_dir / "secrets.key"
    with SandboxClient(own_server.address) as client:
        client.create_secret("LASTING", "value")
        sandbox = client.create(image=BUSYBOX, secret_names=["LASTING"])
    old_key = key_file.read_text()
    rotate = [sys.executable, "-m", "sandpool_server", "rotate-secrets-key", "--data-dir", str(own_server.data_dir)]
    running = subprocess.run(rotate, capture_output=True, text=True, timeout=60, check=False)
    assert running.returncode != 0
    assert "is in use by another server" in running.stderr

    own_server.stop()
    stopped = subprocess.run(rotate, capture_output=True, text=True, timeout=60, check=True)
    assert "1 secret" in stopped.stdout
    new_key = key_file.read_text()
    assert not set(new_key.split()) & set(old_key.split()), "the old key is no longer needed"
    assert key_file.stat().st_mode & 0o077 == 0

    own_server.start()
    with SandboxClient(own_server.address) as client:
        with client.create(image=BUSYBOX, secret_names=["LASTING"]) as another:
            assert another.run("echo $LASTING").stdout == "value\n"
        with client.get_sandbox(sandbox.sandbox_id) as existing:
            assert existing.run("echo $LASTING").stdout == "value\n"


# --- no disclosure ----------------------------------------------------------------------------------------------------


def refusals(walk: ApiWalk, sandbox_id: str, pool_id: str, value: str) -> list[tuple[str, bytes]]:
    """Return the errors of calls that contain a secret's value or use a secret."""
    create, update = walk.secrets.CreateSecret, walk.secrets.UpdateSecret
    walk.secrets.CreateSecret(CreateSecretRequest(name="KEPT", value=value, request_id="once"))
    return [
        refusal(create, CreateSecretRequest(name="PLANTED", value=value)),
        refusal(create, CreateSecretRequest(name="no name", value=value)),
        refusal(create, CreateSecretRequest(name="OTHER", value=f"{value}\0")),
        refusal(create, CreateSecretRequest(name="OTHER", value=value * 4000)),
        refusal(create, CreateSecretRequest(name="OTHER", value=value, request_id="once")),
        refusal(update, UpdateSecretRequest(name="OTHER", value=value)),
        refusal(walk.pools.CreatePool, CreatePoolRequest(spec=ContainerSpec(image=BUSYBOX, secret_names=["OTHER"]))),
        refusal(walk.sandboxes.CreateSandbox, CreateSandboxRequest(pool_id=pool_id)),
        refusal(walk.sandboxes.RunCommand, RunCommandRequest(sandbox_id=sandbox_id, argv=["/no/such/program"])),
        refusal(walk.sandboxes.RunCommand, RunCommandRequest(sandbox_id=sandbox_id, command="true", working_dir="/no")),
    ]


def search_sandbox(sandbox: Sandbox, directory: str, *names: str, **options: object) -> tuple[list[str], int]:
    """Search in a sandbox for the values of variables. Return the matches and the number of files that were read."""
    result = sandbox.run(["python3", "-c", SEARCH_PROGRAM, directory, *names], timeout=60, **options)  # type: ignore[arg-type]
    assert result.success, result.stderr
    *found, looked = result.stdout.splitlines()
    return [line.removeprefix("found ") for line in found], int(looked.removeprefix("looked "))


def test_stores_and_returns_no_secret_value(tmp_path_factory: pytest.TempPathFactory, engine: EngineView) -> None:
    """Search all stored and returned data. The control value is present in it and must be found."""
    value, control = new_value(), f"control-{random_values.token_hex(8)}"
    server = ServerProcess(tmp_path_factory.mktemp("search") / "data", log_level="debug")
    with server, SandboxClient(server.address) as client, grpc.insecure_channel(server.address) as channel:
        client.create_secret("PLANTED", "an older value")
        client.update_secret("PLANTED", value)
        client.create_template("searched", image=PYTHON, secret_names=["PLANTED"])
        pool = client.create_pool(
            image=PYTHON,
            secret_names=["PLANTED"],
            env={"CONTROL": control},
            entrypoint=["sh", "-c", "echo $CONTROL; exec sleep 100000"],
            warm_containers=2,
        )
        broken = client.create_pool(image=BUSYBOX, secret_names=["PLANTED"], entrypoint=["/no/such/program"])
        wait_until_warm(client, pool.pool_id, 2)
        sandbox = client.create(pool_id=pool.pool_id, name=control)
        other_sandbox = client.create(image=PYTHON)
        for printed in (sandbox.run("echo $PLANTED").stdout, sandbox.run("echo $PLANTED", user="nobody").stdout):
            assert printed == f"{value}\n"
        client.create(pool_id=pool.pool_id).delete()
        wait_until_warm(client, pool.pool_id, 2)

        search = Search([value, control])
        walk = ApiWalk(channel)
        for where, response in (*refusals(walk, sandbox.sandbox_id, broken.pool_id, value), *walk.responses()):
            search.content(f"api: {where}", response)
        wait_until_warm(client, broken.pool_id, 0)
        search.directory(server.data_dir)
        search.content("log", server.log)
        for name in ("cmdline", "environ"):
            search.content(f"server's {name}", Path(f"/proc/{server.pid}/{name}").read_bytes())
        server_id = engine.server_id_of(sandbox.sandbox_id)
        search.engine(engine.api, server_id)
        instances = engine.instances(server_id)
        warm = [
            instance for instance in instances_of(engine, pool.pool_id) if instance != instances[sandbox.sandbox_id]
        ]
        assert len(warm) == 2
        for container_id in warm:
            search.content(f"processes of {container_id}", in_instance(engine, container_id, READ_ENVIRONMENTS))

        # Search the container's file system: first through the engine as root, then in the sandbox without privileges.
        sandbox.run(f"echo {control} > /tmp/planted")
        search.file_system(engine.api, instances[sandbox.sandbox_id])
        found, searched = search_sandbox(sandbox, "/", "PLANTED", "CONTROL", user="nobody")
        assert found == ["CONTROL /tmp/planted"]
        assert searched > 1000
        # The same user can read the environment of a process, so the search must find the value there.
        sandbox.run("sleep 1000 > /dev/null 2>&1 &", user="nobody")
        (environment,) = search_sandbox(sandbox, "/proc", "PLANTED", user="nobody")[0]
        assert re.fullmatch(r"PLANTED /proc/\d+/environ", environment)
        # Another sandbox, as root.
        assert search_sandbox(other_sandbox, "/", "SOUGHT", env={"SOUGHT": value})[0] == []
        sandbox.delete()
        server.stop()
        search.directory(server.data_dir)
        search.content("log", server.log)

    assert search.found[value] == []
    assert len(search.searched) > 1000
    planted = f"{instances[sandbox.sandbox_id]}:/tmp/planted"
    for kind in ("api: ListPools", "api: GetSandbox", str(server.data_dir), "log", "output of", planted):
        assert any(where.startswith(kind) for where in search.found[control]), f"the control was not found in {kind}"
