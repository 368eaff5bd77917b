"""The client as users install it: a wheel in a separate environment, in an empty directory."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.clients.python.state import State

CLIENT = Path(__file__).resolve().parents[3] / "clients" / "python"
FIVE_LINES = """\
from sandpool import SandboxClient
with SandboxClient() as client:
    pool = client.create_pool(image="i", warm_containers=1)
    with client.create(pool_id=pool.pool_id) as sandbox:
        print(sandbox.run("make").exit_code, sandbox.state, __import__("sandpool").__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A copy: the wheel would include files that setuptools left in the source directory during an earlier build.
    source = tmp_path_factory.mktemp("client") / "python"
    shutil.copytree(CLIENT, source, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    out = tmp_path_factory.mktemp("wheel")
    argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_contains_only_what_it_needs(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"sandpool/py.typed", "sandpool/_sync/client.py", "sandpool/v1/file_service_pb2.pyi"} <= names
    assert {"sandpool/compat/langsmith.py", "sandpool/compat/_sync/tensorlake.py"} <= names
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"sandpool"}
    assert not [name for name in names if "_pb2_grpc" in name or name.startswith("sandpool/agent/")]
    meta = next(name for name in names if name.endswith("METADATA"))
    assert "Requires-Python: >=3.10" in zipfile.ZipFile(wheel).read(meta).decode()


def test_the_first_program_runs_in_an_empty_directory(wheel: Path, address: str, state: State, tmp_path: Path):
    """The dependencies are those of this environment; nothing is downloaded."""
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    argv = [str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", str(wheel)]
    subprocess.run(argv, check=True, timeout=100, capture_output=True, cwd=tmp_path)
    theirs = sysconfig.get_paths(vars={"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")})["purelib"]
    # After the packages of the environment, so that the installed client is used and not this clone's.
    Path(theirs, "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    env = {"PATH": os.environ["PATH"], "SANDPOOL_ADDRESS": address}
    done = subprocess.run(
        [str(python), "-c", FIVE_LINES], cwd=empty, env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    code, sandbox_state, where = done.stdout.split()
    assert (code, sandbox_state) == ("0", "running")
    assert Path(where).is_relative_to(tmp_path / "env")
    assert len(state.sent("DeleteSandbox")) == 1
