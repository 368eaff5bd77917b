"""The request that creates the container of an instance."""

from pathlib import Path

import pytest

from sandpool_server.interfaces import RuntimeEventKind
from sandpool_server.runtime.container import CAPABILITIES, VolumePlace, container_config
from sandpool_server.runtime.events import runtime_event
from sandpool_server.runtime.images import image_config
from sandpool_server.runtime.settings import RuntimeSettings
from tests.support.instances import make_instance

SETTINGS = RuntimeSettings(server_id="srv", agent_binary=Path("agent"), oci_runtime="runsc", pids_limit=77)
INSTANCE = make_instance("alpine:3", pool_id="pool-1", cpus=0.25, memory_mb=128, ephemeral_disk_mb=300)


def test_sets_limits_and_hardening() -> None:
    config = container_config(INSTANCE, "digest", SETTINGS, "v1", disk_limits=False)
    host = config["HostConfig"]
    assert host["NanoCpus"] == 250_000_000
    assert host["Memory"] == host["MemorySwap"] == 128 * 1024 * 1024
    assert host["PidsLimit"] == 77
    assert host["CapDrop"] == ["ALL"]
    assert host["CapAdd"] == list(CAPABILITIES)
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Runtime"] == "runsc"
    assert host["NetworkMode"] == "sandpool-srv"
    assert "Binds" not in host
    assert [(mount["Type"], mount["Target"], mount["ReadOnly"]) for mount in host["Mounts"]] == [
        ("volume", "/.sandpool", True)
    ]


def test_runs_only_the_agent_for_every_image() -> None:
    config = container_config(INSTANCE, "digest", SETTINGS, "v1", disk_limits=False)
    assert (config["Entrypoint"], config["Cmd"], config["User"]) == (["/.sandpool/agent"], [], "0:0")
    assert config["WorkingDir"] == "/"
    assert config["Env"] == ["SANDPOOL_AGENT_TOKEN_SHA256=digest"]
    assert config["Healthcheck"] == {"Test": ["NONE"]}
    assert config["Hostname"] == INSTANCE.id
    assert config["Labels"] == {
        "sandpool.server": "srv",
        "sandpool.instance": INSTANCE.id,
        "sandpool.pool": "pool-1",
        "sandpool.agent": "v1",
    }


@pytest.mark.parametrize(("supported", "expected"), [(True, {"size": "300M"}), (False, None)])
def test_sets_disk_limit_only_if_engine_supports_it(supported: bool, expected: dict[str, str] | None) -> None:
    config = container_config(INSTANCE, "digest", SETTINGS, "v1", disk_limits=supported)
    assert config["HostConfig"].get("StorageOpt") == expected


def test_mounts_volumes_of_image_as_limited_tmpfs_of_same_owner() -> None:
    volumes = [VolumePlace("/data", 7, 8, 0o700), VolumePlace("/more", 0, 0, 0o1777)]
    host = container_config(INSTANCE, "digest", SETTINGS, "v1", disk_limits=True, volumes=volumes)["HostConfig"]
    assert host["Tmpfs"] == {
        "/data": "rw,exec,nosuid,nodev,uid=7,gid=8,mode=700,size=300m",
        "/more": "rw,exec,nosuid,nodev,uid=0,gid=0,mode=1777,size=300m",
    }
    assert host["ShmSize"] == 64 << 20
    assert "Tmpfs" not in container_config(INSTANCE, "digest", SETTINGS, "v1", disk_limits=True)["HostConfig"]


def test_image_without_configuration_has_defaults() -> None:
    bare = image_config({"Id": "sha256:1", "Config": None})
    assert (bare.env, bare.working_dir, bare.user) == ({}, "/", "")
    full = image_config({"Id": "sha256:2", "Config": {"Env": ["A=1=2", "B"], "WorkingDir": "srv", "User": "app"}})
    assert (full.env, full.working_dir, full.user) == ({"A": "1=2", "B": ""}, "/srv", "app")


@pytest.mark.parametrize(
    ("action", "attributes", "expected"),
    [
        ("die", {"sandpool.instance": "sbx-1", "exitCode": "3"}, (RuntimeEventKind.DIED, "sbx-1", 3)),
        ("die", {"sandpool.instance": "sbx-1"}, (RuntimeEventKind.DIED, "sbx-1", None)),
        ("oom", {"sandpool.instance": "sbx-1"}, (RuntimeEventKind.OOM, "sbx-1", None)),
        ("destroy", {"sandpool.instance": "sbx-1"}, (RuntimeEventKind.REMOVED, "sbx-1", None)),
        ("pause", {"sandpool.instance": "sbx-1"}, (RuntimeEventKind.PAUSED, "sbx-1", None)),
        ("kill", {"sandpool.instance": "sbx-1", "signal": "9"}, (RuntimeEventKind.KILLED, "sbx-1", None)),
        ("kill", {"sandpool.instance": "sbx-1", "signal": "1"}, None),
        ("start", {"sandpool.instance": "sbx-1"}, None),
        ("die", {"exitCode": "0"}, None),
    ],
)
def test_converts_engine_events(action: str, attributes: dict[str, str], expected: tuple[object, ...] | None) -> None:
    event = runtime_event({"Action": action, "Actor": {"Attributes": attributes}})
    assert (event and (event.kind, event.instance_id, event.exit_code)) == expected
