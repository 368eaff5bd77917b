"""The TypeScript client as people install it: its packed tarball, in an empty folder, against a real server."""

import json
import os
import re
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.support.node_project import PACKAGE
from tests.support.server_process import ServerProcess

pytestmark = pytest.mark.engine

FIVE_LINES = """\
import { SandboxClient } from "sandpool";
const client = new SandboxClient();
const pool = await client.createPool({ image: "busybox:latest", warmContainers: 1 });
await using sandbox = await client.create({ poolId: pool.poolId });
console.log((await sandbox.run("echo hello")).stdout, sandbox.state, import.meta.resolve("sandpool"));
"""
ON_THE_STUBS = """\
import { createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { type Pool, PoolService } from "sandpool/gen";
const stub = createClient(PoolService, createGrpcTransport({ baseUrl: `http://${process.env["SANDPOOL_ADDRESS"]}` }));
const pools: Pool[] = (await stub.listPools({})).pools;
console.log(pools.every((pool) => pool.$typeName === "sandpool.v1.Pool"));
"""
# Without `--skipLibCheck`: the package's own types are checked too. Those of connect-es need `dom`.
COMPILER_FLAGS = (
    *("--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--ignoreConfig", "--types", "node"),
    *("--target", "es2022", "--lib", "es2022,esnext.disposable,dom", "--module", "nodenext"),
)


def done(folder: Path, *words: str, **env: str) -> str:
    """What a command prints that succeeds in a folder."""
    ran = subprocess.run(
        words, cwd=folder, env={**os.environ, **env}, capture_output=True, text=True, timeout=90, check=False
    )
    assert ran.returncode == 0, f"{' '.join(words)} ended with {ran.returncode}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as `npm pack` makes it of what the set-up has built."""
    folder = tmp_path_factory.mktemp("tarball")
    done(PACKAGE, "npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(folder))
    (made,) = folder.glob("*.tgz")
    return made


@pytest.fixture(scope="module")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder in which the tarball was installed.

    What it depends on comes from this clone's own packages, by the names that its package.json has: nothing is fetched.
    """
    folder = tmp_path_factory.mktemp("installed")
    needs = json.loads((PACKAGE / "package.json").read_text())["dependencies"]
    there = [str(PACKAGE / "node_modules" / name) for name in needs]
    flags = ("--offline", "--no-audit", "--no-fund", "--ignore-scripts", "--install-links")
    (folder / "package.json").write_text('{"type": "module"}')
    done(folder, "npm", "install", *flags, str(tarball), *there)
    (folder / "node_modules" / "@types").mkdir()
    (folder / "node_modules" / "@types" / "node").symlink_to(PACKAGE / "node_modules" / "@types" / "node")
    return folder


def compiled(folder: Path, name: str, program: str) -> str:
    """The file that the compiler makes of a program, checked strictly."""
    (folder / f"{name}.ts").write_text(program)
    done(folder, str(PACKAGE / "node_modules" / ".bin" / "tsc"), *COMPILER_FLAGS, f"{name}.ts")
    return f"{name}.js"


def test_the_tarball_has_what_it_needs_and_nothing_else(tarball: Path) -> None:
    with tarfile.open(tarball) as packed:
        names = {name.removeprefix("package/") for name in packed.getnames()}
    manifest = json.loads((PACKAGE / "package.json").read_text())
    targets = set(re.findall(r'"\./([^"]+)"', json.dumps(list(manifest["exports"].values()))))
    assert targets | {"README.md", "dist/gen/sandpool/v1/pool_service_pb.d.ts"} <= names
    others = {name for name in names if not re.fullmatch(r"dist/.+\.(js|d\.ts)", name)}
    assert others == {"README.md", "package.json"}
    assert not [name for name in names if re.search(r"test|example|/agent/", name)]


def test_five_lines_in_an_empty_folder(installed: Path, server: ServerProcess) -> None:
    printed = done(installed, "node", compiled(installed, "five", FIVE_LINES), SANDPOOL_ADDRESS=server.address)
    said, state, where = printed.split()
    assert (said, state) == ("hello", "running")
    assert Path(where.removeprefix("file://")).resolve().is_relative_to(installed.resolve())


def test_the_generated_stubs_can_be_imported(installed: Path, server: ServerProcess) -> None:
    program = compiled(installed, "stubs", ON_THE_STUBS)
    assert done(installed, "node", program, SANDPOOL_ADDRESS=server.address) == "true\n"
