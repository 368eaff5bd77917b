"""The code blocks of the documentation and the programs that they form.

All Python blocks of a page form one program, and so do all TypeScript blocks and all shell blocks. A program has the
lines of its page, with blank lines in place of everything else, so an error shows the line of the page.

    ```python, ```ts, ```sh   is executed
    ```ts browser             is executed in a browser
    ```text output            is expected in the output of the block before it; `…` matches any characters of a line
    <!-- not run: reason -->  before a block: the block is not executed

Other languages are not executed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXECUTED = ("python", "ts", "sh", "ts browser")
OTHER = ("text", "json", "toml", "text output")
ADDRESS = "127.0.0.1:50051"
"""The address of the server in shell commands of the documentation. Tests replace it."""

_FENCE = re.compile(r"^```(.*)$")
_NOT_RUN = re.compile(r"^<!-- not run: (.+) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced code block: its language with options, the number of its first line, its lines, its expected output."""

    language: str
    line: int
    lines: tuple[str, ...]
    not_run: str = ""
    expected: str = ""


@dataclass(frozen=True)
class Program:
    """The executed blocks of one language of a page."""

    page: Path
    language: str
    blocks: tuple[Block, ...]

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}-{self.language.replace(' ', '-')}"

    @property
    def source(self) -> str:
        """The program. Line numbers are those of the page."""
        lines: list[str] = []
        for block in self.blocks:
            lines += [""] * (block.line - 1 - len(lines))
            lines += block.lines
        return "\n".join(lines) + "\n"

    def missing(self, output: str) -> str | None:
        """Return the first expected output that is not found, in order, or None."""
        at = 0
        for block in self.blocks:
            for line in block.expected.splitlines():
                found = re.compile(re.escape(line).replace("…", ".*")).search(output, at)
                if found is None:
                    return f"line {block.line}: the output does not contain {line!r}"
                at = found.end()
        return None


def pages() -> list[Path]:
    """Return the pages of the documentation: README.md, that of the Python client, CHANGELOG.md and docs/."""
    readmes = [ROOT / "README.md", ROOT / "clients" / "python" / "README.md"]
    return [*readmes, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Return the code blocks of a page. The expected output belongs to the executed block before it."""
    found: list[Block] = []
    lines = page.read_text(encoding="utf-8").splitlines()
    not_run, language, begin = "", None, 0
    for number, line in enumerate(lines, 1):
        fence = _FENCE.match(line)
        if language is None and fence:
            language, begin = fence[1], number + 1
        elif language is not None and line == "```":
            content = tuple(lines[begin - 1 : number - 1])
            if language == "text output":
                assert found, f"{page}:{begin}: no block before this output"
                last = found.pop()
                expected = "\n".join([*last.expected.splitlines(), *content])
                found.append(Block(last.language, last.line, last.lines, last.not_run, expected))
            else:
                found.append(Block(language, begin, content, not_run))
            not_run, language = "", None
        elif language is None and (reason := _NOT_RUN.match(line)):
            not_run = reason[1]
        elif language is None and line.strip():
            not_run = ""
    assert language is None, f"{page}:{begin}: the block is not closed"
    return found


def programs() -> list[Program]:
    """Return the programs of all pages."""
    found = []
    for page in pages():
        executed = [block for block in blocks(page) if block.language in EXECUTED and not block.not_run]
        for language in EXECUTED:
            if chosen := tuple(block for block in executed if block.language == language):
                found.append(Program(page, language, chosen))
    return found
