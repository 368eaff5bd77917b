"""The API with grpcurl and server reflection."""

import json
import subprocess

import pytest

from sandpool import SandboxClient
from tests.support.grpcurl import GRPCURL
from tests.support.server_process import ServerProcess
from tests.support.waiting import wait_until_warm

pytestmark = pytest.mark.engine


def grpcurl(server: ServerProcess, *arguments: str, data: dict[str, object] | None = None) -> str:
    request = ["-d", json.dumps(data)] if data is not None else []
    done = subprocess.run(
        [GRPCURL, "-plaintext", *request, server.address, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.stdout + done.stderr


def test_reflection_describes_the_services(server: ServerProcess) -> None:
    services = grpcurl(server, "list").split()
    assert {"sandpool.v1.PoolService", "sandpool.v1.TemplateService", "sandpool.v1.SandboxService"} <= set(services)
    described = grpcurl(server, "describe", "sandpool.v1.CreatePoolRequest")
    assert "warm_containers" in described
    assert "// " in grpcurl(server, "describe", "sandpool.v1.PoolService.CreatePool")
    assert "rpc RunCommand" in grpcurl(server, "describe", "sandpool.v1.SandboxService")
    health = grpcurl(server, "grpc.health.v1.Health/Check", data={})
    assert json.loads(health) == {"status": "SERVING"}


def test_creates_a_pool_and_runs_a_command(server: ServerProcess, client: SandboxClient) -> None:
    response = grpcurl(
        server, "sandpool.v1.PoolService/CreatePool", data={"spec": {"image": "python:3.11-slim"}, "warm_containers": 1}
    )
    pool_id = json.loads(response)["pool"]["poolId"]
    wait_until_warm(client, pool_id, 1)
    response = grpcurl(server, "sandpool.v1.SandboxService/CreateSandbox", data={"pool_id": pool_id})
    sandbox = json.loads(response)["sandbox"]
    assert (sandbox["startType"], sandbox["state"]) == ("START_TYPE_WARM", "SANDBOX_STATE_RUNNING")
    response = grpcurl(
        server,
        "sandpool.v1.SandboxService/RunCommand",
        data={"sandbox_id": sandbox["sandboxId"], "command": "python3 -c 'print(6 * 7)'"},
    )
    result = json.loads(response)
    assert (result["stdout"], result["exitCode"], result["reason"]) == ("42\n", 0, "EXIT_REASON_EXITED")


def test_error_names_the_invalid_fields(server: ServerProcess) -> None:
    response = grpcurl(
        server, "sandpool.v1.PoolService/CreatePool", data={"spec": {"image": "not an image", "cpus": -1}}
    )
    assert "InvalidArgument" in response
    assert "image" in response
    assert "cpus" in response
