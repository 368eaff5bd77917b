"""A person with grpcurl and no manual."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sandpool import SandboxClient
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until_warm

pytestmark = pytest.mark.engine

GRPCURL = Path(sys.executable).with_name("grpcurl")


def grpcurl(server: ServerProcess, *words: str, data: dict[str, object] | None = None) -> str:
    request = ["-d", json.dumps(data)] if data is not None else []
    done = subprocess.run(
        [GRPCURL, "-plaintext", *request, server.address, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_the_services_describe_themselves(server: ServerProcess) -> None:
    services = grpcurl(server, "list").split()
    assert {"sandpool.v1.PoolService", "sandpool.v1.TemplateService", "sandpool.v1.SandboxService"} <= set(services)
    described = grpcurl(server, "describe", "sandpool.v1.CreatePoolRequest")
    assert "warm_containers" in described
    assert "rpc RunCommand" in grpcurl(server, "describe", "sandpool.v1.SandboxService")
    health = grpcurl(server, "grpc.health.v1.Health/Check", data={})
    assert json.loads(health) == {"status": "SERVING"}


def test_a_pool_a_sandbox_and_a_command(server: ServerProcess, client: SandboxClient) -> None:
    answer = grpcurl(
        server, "sandpool.v1.PoolService/CreatePool", data={"image": "python:3.11-slim", "warm_containers": 1}
    )
    pool_id = json.loads(answer)["pool"]["poolId"]
    wait_until_warm(client, pool_id, 1)
    answer = grpcurl(server, "sandpool.v1.SandboxService/CreateSandbox", data={"pool_id": pool_id})
    sandbox = json.loads(answer)["sandbox"]
    assert (sandbox["start"], sandbox["state"]) == ("SANDBOX_START_WARM", "SANDBOX_STATE_RUNNING")
    answer = grpcurl(
        server,
        "sandpool.v1.SandboxService/RunCommand",
        data={"sandbox_id": sandbox["sandboxId"], "command": "python3 -c 'print(6 * 7)'"},
    )
    result = json.loads(answer)
    assert (result["stdout"], result["exitCode"], result["reason"]) == ("42\n", 0, "COMMAND_END_REASON_EXITED")


def test_nonsense_is_told_what_is_wrong_with_it(server: ServerProcess) -> None:
    answer = grpcurl(server, "sandpool.v1.PoolService/CreatePool", data={"image": "not an image", "cpus": -1})
    assert "InvalidArgument" in answer
    assert "image" in answer
    assert "cpus" in answer
