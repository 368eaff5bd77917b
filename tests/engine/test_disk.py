"""`ephemeral_disk_mb`: the engine enforces it if its storage supports limits; otherwise the server measures it."""

import io
import tarfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import docker
import pytest

from sandpool_server.domain.model import DiskEnforcement
from sandpool_server.runtime import DockerRuntime, GrpcAgents, RuntimeSettings
from tests.engine.conftest import MakeSandbox, launch_sandbox
from tests.support.instances import make_instance
from tests.support.second_engine import SecondEngine

pytestmark = pytest.mark.engine

MIB = 1 << 20
TWO_FILES = "cd {}; for i in 1 2; do dd if=/dev/zero of=$i bs=1M count=3; done"
"""Each file is below a limit of 4 MiB, which also applies to single files; both together exceed it."""


def directory(name: str, uid: int, gid: int, mode: int) -> bytes:
    """Return an archive that contains an empty directory."""
    entry = tarfile.TarInfo(name)
    entry.type, entry.uid, entry.gid, entry.mode = tarfile.DIRTYPE, uid, gid, mode
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(entry)
    return buffer.getvalue()


def image_with_volumes(engine: docker.APIClient, name: str) -> None:
    """Create an image from busybox:latest that declares volumes, one of them with an irregular path."""
    container = engine.create_container("busybox:latest", ["true"])
    try:
        repository, tag = name.split(":")
        engine.put_archive(container, "/", directory("data", uid=1000, gid=1001, mode=0o700))
        engine.commit(container, repository, tag, changes=["VOLUME /data", "VOLUME more/", "VOLUME /root"])
    finally:
        engine.remove_container(container)


@pytest.fixture
def volume_image(engine: docker.APIClient, server_id: str) -> Iterator[str]:
    name = f"sandpool-volumes-{server_id}:1"
    image_with_volumes(engine, name)
    yield name
    for container in engine.containers(all=True, filters={"ancestor": name}):
        engine.remove_container(container["Id"], v=True, force=True)
    engine.remove_image(name, force=True)


async def test_measures_disk_usage_of_container(runtime: DockerRuntime, make_sandbox: MakeSandbox) -> None:
    writer, idle = await make_sandbox(), await make_sandbox()
    await writer.text("mkdir /tmp/a; for i in 1 2 3; do dd if=/dev/zero of=/tmp/a/$i bs=1M count=1; done")
    await writer.text("dd if=/dev/zero of=/dev/shm/x bs=1M count=5")  # Shared memory does not count as disk usage.
    used = await runtime.disk_usage()
    assert 3 * MIB <= used[writer.instance.id] < 4 * MIB
    assert used[idle.instance.id] < MIB
    await writer.text("rm -r /tmp/a")
    assert (await runtime.disk_usage())[writer.instance.id] < MIB


async def test_reports_best_effort_without_storage_limits(runtime: DockerRuntime, engine: docker.APIClient) -> None:
    info = engine.info()
    if info["Driver"] != "overlay2" or ["Backing Filesystem", "extfs"] not in info["DriverStatus"]:
        pytest.skip("the storage of this engine may support limits")
    assert runtime.disk_enforcement is DiskEnforcement.BEST_EFFORT


async def test_volumes_of_image_cannot_exceed_the_limit(
    runtime: DockerRuntime, engine: docker.APIClient, make_sandbox: MakeSandbox, volume_image: str
) -> None:
    """Volumes are limited tmpfs mounts. They have the owner of the volume, and files in them can be executed."""
    sandbox = await make_sandbox(volume_image, ephemeral_disk_mb=4, memory_mb=64)
    assert await sandbox.text("stat -c '%n %u:%g %a' /data /more /root") == (
        "/data 1000:1001 700\n/more 0:0 755\n/root 0:0 700"
    )
    for path, user in (("/data", "1000:1001"), ("/more", "0:0")):
        result = await sandbox.run(shell=TWO_FILES.format(path), user=user)
        assert b"No space left" in result.stderr
        assert int(await sandbox.text(f"cat {path}/? | wc -c")) == 4 * MIB
    assert (await runtime.disk_usage())[sandbox.instance.id] < MIB
    assert await sandbox.text("rm /data/?; cp /bin/busybox /data/echo && /data/echo hello") == "hello"
    mounts = engine.inspect_container(f"sandpool-{sandbox.instance.id}")["Mounts"]
    volumes = {mount["Name"] for mount in mounts if mount["Destination"] != "/.sandpool"}
    await runtime.remove(sandbox.instance.id)
    assert volumes.isdisjoint(volume["Name"] for volume in engine.volumes()["Volumes"] or [])


async def test_limits_shared_memory(make_sandbox: MakeSandbox) -> None:
    sandbox = await make_sandbox(memory_mb=128)
    result = await sandbox.run(shell="dd if=/dev/zero of=/dev/shm/x bs=1M count=100")
    assert b"No space left" in result.stderr
    assert int(await sandbox.text("stat -c %s /dev/shm/x")) == 64 * MIB


@pytest.fixture
async def btrfs(
    btrfs_engine: SecondEngine, own_settings: RuntimeSettings, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[DockerRuntime]:
    """Yield a runtime on the engine whose storage supports limits."""
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(btrfs_engine.certificates.client))
    runtime = DockerRuntime(replace(own_settings, base_url=btrfs_engine.tls_host, route="published"))
    try:
        await runtime.prepare()
        yield runtime
        await runtime.purge()
    finally:
        await runtime.close()


async def test_engine_enforces_limit_if_storage_supports_it(btrfs: DockerRuntime, agents: GrpcAgents) -> None:
    assert btrfs.disk_enforcement is DiskEnforcement.ENGINE
    full = await launch_sandbox(btrfs, agents, make_instance(ephemeral_disk_mb=32))
    other = await launch_sandbox(btrfs, agents, make_instance(ephemeral_disk_mb=64))
    fill = (
        "i=0; while dd if=/dev/zero of=/tmp/$i bs=1M count=4 conv=fsync; do i=$((i + 1)); [ $i -lt 30 ] || exit 9; done"
    )
    result = await full.run(shell=fill)
    assert result.exit_code != 9, "the sandbox wrote more than three times its limit"
    assert b"Disk quota exceeded" in result.stderr or b"No space left" in result.stderr
    assert 16 * MIB < int(await full.text("cat /tmp/* | wc -c")) <= 32 * MIB
    assert await other.text("dd if=/dev/zero of=/tmp/x bs=1M count=40 conv=fsync; stat -c %s /tmp/x") == str(40 * MIB)
    assert await full.text("rm /tmp/*; echo fine > /tmp/y; cat /tmp/y") == "fine"


async def test_volumes_of_image_are_limited_with_storage_limits(
    btrfs: DockerRuntime, agents: GrpcAgents, btrfs_engine: SecondEngine
) -> None:
    client = docker.APIClient(base_url=btrfs_engine.host, timeout=30)
    try:
        image_with_volumes(client, "volumes:1")
    finally:
        client.close()
    sandbox = await launch_sandbox(btrfs, agents, make_instance("volumes:1", ephemeral_disk_mb=4))
    result = await sandbox.run(shell=TWO_FILES.format("/data"))
    assert b"No space left" in result.stderr
