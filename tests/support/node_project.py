"""A user's folder with the TypeScript client installed, and programs in it."""

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


TELL = """
import { createInterface } from "node:readline";
const said = createInterface({ input: process.stdin });
const answers = said[Symbol.asyncIterator]();
const tell = async (word: string): Promise<void> => {
  console.log(word);
  await answers.next();
};
"""
DONE_TELLING = """
said.close();
console.log(JSON.stringify(out));
"""


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
        self.compile(program)
        return self.output("program.js")

    def printed(self, program: str) -> str:
        """Compile the program, strictly, and run it; returns all that it prints."""
        self.compile(program)
        return self._command(node(), "program.js")

    def compile(self, program: str, *flags: str) -> None:
        """Compile the program, strictly; the flags come over the usual ones."""
        (self._folder / "program.ts").write_text(program)
        compiler = PACKAGE / "node_modules" / ".bin" / "tsc"
        self._command(str(compiler), *COMPILER_FLAGS, *flags, "--ignoreConfig", "program.ts")

    def talk(self, program: str, answer: Callable[[str], None], *, secs: float = 90) -> Any:
        """Compile and run a program that says what it wants done, line by line, and is told when it is done.

        `await tell(word)` is there for it: the word is given to `answer`, and the promise resolves when that returns.
        Returns what `out`, which the program declares, holds in the end. The program must end by itself.
        """
        self.compile(TELL + program + DONE_TELLING)
        words = [node(), "program.js"]
        with subprocess.Popen(
            words, cwd=self._folder, env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as running:
            late = threading.Timer(secs, running.kill)
            late.start()
            last = _converse(running, answer)
            running.wait()
            late.cancel()
        assert running.returncode == 0, f"the program ended with {running.returncode}; its last line: {last[:2000]}"
        return json.loads(last)

    def output(self, *words: str) -> Any:
        """What the last line of a program's output holds as JSON."""
        return json.loads(self._command(node(), *words).splitlines()[-1])

    def _command(self, *words: str) -> str:
        done = subprocess.run(
            words, cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=90, check=False
        )
        assert done.returncode == 0, f"{' '.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


def _converse(running: subprocess.Popen[str], answer: Callable[[str], None]) -> str:
    """Answer each word of the program until it says its result, which is JSON; gives that, or its last word."""
    assert running.stdin is not None
    assert running.stdout is not None
    word = ""
    for line in running.stdout:
        word = line.strip()
        if not word.startswith("{"):
            answer(word)
            running.stdin.write("\n")
            running.stdin.flush()
    return word


def node() -> str:
    """The program that runs JavaScript."""
    node = shutil.which("node")
    assert node is not None, "there is no node on PATH; run `make setup`"
    return node
