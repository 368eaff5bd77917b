"""The packed tarball of the TypeScript client, installed in an empty directory."""

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
WITH_OTHER_NAMES = """\
import { SandboxClient as LangSmith, SandboxAuthenticationError } from "sandpool/compat/langsmith";
import { SandboxClient as Tensorlake } from "sandpool/compat/tensorlake";
import { AuthenticationError } from "sandpool";
using first = new LangSmith();
using second = Tensorlake.forLocalhost();
const counts: number[] = [(await first.listPools()).length, (await second.listPools()).length];
console.log(counts[0] === counts[1], SandboxAuthenticationError === AuthenticationError);
"""
# Without `--skipLibCheck`, so that the types of the package are checked. Those of connect-es need `dom`.
COMPILER_FLAGS = (
    *("--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--ignoreConfig", "--types", "node"),
    *("--target", "es2022", "--lib", "es2022,esnext.disposable,dom", "--module", "nodenext"),
)


def done(directory: Path, *arguments: str, **env: str) -> str:
    """Run a command in a directory and return its output."""
    ran = subprocess.run(
        arguments, cwd=directory, env={**os.environ, **env}, capture_output=True, text=True, timeout=90, check=False
    )
    assert ran.returncode == 0, f"{' '.join(arguments)} exited with {ran.returncode}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


@pytest.fixture(scope="module")
def tarball(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pack the built package with `npm pack`."""
    directory = tmp_path_factory.mktemp("tarball")
    done(PACKAGE, "npm", "pack", "--silent", "--ignore-scripts", "--pack-destination", str(directory))
    (made,) = directory.glob("*.tgz")
    return made


@pytest.fixture(scope="module")
def installed(tarball: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the tarball in an empty directory.

    Its dependencies come from the packages of this clone, by the names in its package.json. Nothing is downloaded.
    """
    directory = tmp_path_factory.mktemp("installed")
    needs = json.loads((PACKAGE / "package.json").read_text())["dependencies"]
    packages = [str(PACKAGE / "node_modules" / name) for name in needs]
    flags = ("--offline", "--no-audit", "--no-fund", "--ignore-scripts", "--install-links")
    (directory / "package.json").write_text('{"type": "module"}')
    done(directory, "npm", "install", *flags, str(tarball), *packages)
    (directory / "node_modules" / "@types").mkdir()
    (directory / "node_modules" / "@types" / "node").symlink_to(PACKAGE / "node_modules" / "@types" / "node")
    return directory


def compiled(directory: Path, name: str, program: str) -> str:
    """Compile a program strictly and return the name of the compiled file."""
    (directory / f"{name}.ts").write_text(program)
    done(directory, str(PACKAGE / "node_modules" / ".bin" / "tsc"), *COMPILER_FLAGS, f"{name}.ts")
    return f"{name}.js"


def test_the_tarball_contains_only_the_build(tarball: Path) -> None:
    with tarfile.open(tarball) as packed:
        names = {name.removeprefix("package/") for name in packed.getnames()}
    manifest = json.loads((PACKAGE / "package.json").read_text())
    targets = set(re.findall(r'"\./([^"]+)"', json.dumps(list(manifest["exports"].values()))))
    assert targets | {"README.md", "dist/gen/sandpool/v1/pool_service_pb.d.ts"} <= names
    others = {name for name in names if not re.fullmatch(r"dist/.+\.(js|d\.ts)", name)}
    assert others == {"README.md", "package.json"}
    assert not [name for name in names if re.search(r"test|example|/agent/", name)]


def test_runs_a_command_from_an_empty_directory(installed: Path, server: ServerProcess) -> None:
    printed = done(installed, "node", compiled(installed, "five", FIVE_LINES), SANDPOOL_ADDRESS=server.address)
    output, state, where = printed.split()
    assert (output, state) == ("hello", "running")
    assert Path(where.removeprefix("file://")).resolve().is_relative_to(installed.resolve())


def test_the_generated_stubs_can_be_imported(installed: Path, server: ServerProcess) -> None:
    program = compiled(installed, "stubs", ON_THE_STUBS)
    assert done(installed, "node", program, SANDPOOL_ADDRESS=server.address) == "true\n"


def test_the_modules_for_other_products_can_be_imported(installed: Path, server: ServerProcess) -> None:
    program = compiled(installed, "compat", WITH_OTHER_NAMES)
    assert done(installed, "node", program, SANDPOOL_ADDRESS=server.address) == "true true\n"
