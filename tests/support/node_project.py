"""A user's folder with the TypeScript client installed, and programs in it."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "clients" / "ts"

COMPILER_FLAGS = (
    *("--strict", "--skipLibCheck", "--target", "es2022", "--lib", "es2022,esnext.disposable"),
    *("--module", "nodenext", "--moduleResolution", "nodenext", "--types", "node"),
)


class NodeProject:
    """A user's folder that has the package installed as `sandpool`, and programs in TypeScript."""

    def __init__(self, folder: Path, address: str) -> None:
        assert (PACKAGE / "dist" / "index.js").is_file(), "the TypeScript client is not built; run `make setup`"
        self._folder = folder
        self._environment = {**os.environ, "SANDPOOL_ADDRESS": address}
        (folder / "node_modules" / "@types").mkdir(parents=True)
        (folder / "node_modules" / "sandpool").symlink_to(PACKAGE)
        (folder / "node_modules" / "@types" / "node").symlink_to(PACKAGE / "node_modules" / "@types" / "node")
        (folder / "package.json").write_text('{"type": "module"}')

    def run(self, program: str) -> Any:
        """Compile the program, strictly, and run it; returns what its last line of output holds as JSON."""
        (self._folder / "program.ts").write_text(program)
        compiler = PACKAGE / "node_modules" / ".bin" / "tsc"
        self._command(str(compiler), *COMPILER_FLAGS, "--ignoreConfig", "program.ts")
        return self.output("program.js")

    def output(self, *words: str) -> Any:
        """What the last line of a program's output holds as JSON."""
        return json.loads(self._command(_node(), *words).splitlines()[-1])

    def _command(self, *words: str) -> str:
        done = subprocess.run(
            words, cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


def _node() -> str:
    node = shutil.which("node")
    assert node is not None, "there is no node on PATH; run `make setup`"
    return node
