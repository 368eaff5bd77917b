"""A project directory with the installed TypeScript client, and programs in it."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "clients" / "ts"

COMPILER_FLAGS = (
    *("--strict", "--skipLibCheck", "--target", "es2022", "--lib", "es2022,esnext.disposable"),
    *("--module", "nodenext", "--moduleResolution", "nodenext", "--types", "node"),
)


TALK_PREAMBLE = """
import { createInterface } from "node:readline";
const input = createInterface({ input: process.stdin });
const responses = input[Symbol.asyncIterator]();
const tell = async (message: string): Promise<void> => {
  console.log(message);
  await responses.next();
};
"""
TALK_END = """
input.close();
console.log(JSON.stringify(out));
"""


class NodeProject:
    """A directory in which the package is installed as `sandpool`, and TypeScript programs in it."""

    def __init__(self, directory: Path, address: str) -> None:
        assert (PACKAGE / "dist" / "index.js").is_file(), "the TypeScript client is not built; run `make setup`"
        self._directory = directory
        self._environment = {**os.environ, "SANDPOOL_ADDRESS": address}
        (directory / "node_modules" / "@types").mkdir(parents=True)
        (directory / "node_modules" / "sandpool").symlink_to(PACKAGE)
        (directory / "node_modules" / "@types" / "node").symlink_to(PACKAGE / "node_modules" / "@types" / "node")
        (directory / "package.json").write_text('{"type": "module"}')

    def run(self, program: str) -> Any:
        """Compile the program in strict mode and run it. Return the JSON value of its last line of output."""
        self.compile(program)
        return self.output("program.js")

    def printed(self, program: str) -> str:
        """Compile the program in strict mode and run it. Return its output."""
        self.compile(program)
        return self._command(node(), "program.js")

    def compile(self, program: str, *flags: str) -> None:
        """Compile the program in strict mode. `flags` are added after the default options."""
        (self._directory / "program.ts").write_text(program)
        compiler = PACKAGE / "node_modules" / ".bin" / "tsc"
        self._command(str(compiler), *COMPILER_FLAGS, *flags, "--ignoreConfig", "program.ts")

    def talk(self, program: str, respond: Callable[[str], None], *, secs: float = 90) -> Any:
        """Compile and run a program that requests actions from the test while it runs.

        The program calls `await tell(message)`: `respond` gets the message, and the promise resolves when `respond`
        returns. The program must declare `out` and must exit. Return the final value of `out`.
        """
        self.compile(TALK_PREAMBLE + program + TALK_END)
        argv = [node(), "program.js"]
        with subprocess.Popen(
            argv, cwd=self._directory, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as running:
            late = threading.Timer(secs, running.kill)
            late.start()
            last = _converse(running, respond)
            running.wait()
            late.cancel()
        assert running.returncode == 0, f"the program exited with {running.returncode}; its last line: {last[:2000]}"
        return json.loads(last)

    def output(self, *argv: str) -> Any:
        """Run a program and return the JSON value of its last line of output."""
        return json.loads(self._command(node(), *argv).splitlines()[-1])

    def _command(self, *argv: str) -> str:
        done = subprocess.run(
            argv, cwd=self._directory, env=self._environment, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, f"{' '.join(argv)} exited with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


def _converse(running: subprocess.Popen[str], respond: Callable[[str], None]) -> str:
    """Respond to each message of the program until it prints its result as JSON. Return the last line."""
    assert running.stdin is not None
    assert running.stdout is not None
    message = ""
    for line in running.stdout:
        message = line.strip()
        if not message.startswith("{"):
            respond(message)
            running.stdin.write("\n")
            running.stdin.flush()
    return message


def node() -> str:
    """Return the path of the node executable."""
    node = shutil.which("node")
    assert node is not None, "node is not on PATH; run `make setup`"
    return node
