"""The Python code in the documents of the two model products, without changes.

The documents are plain text without markup for code. The Python parser separates code from prose: a block is a sequence
of lines that are complete Python statements of the kinds that the documents use.
"""

import ast
import contextlib
import inspect
import io
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DIRECTORY_VARIABLE = "SANDPOOL_SEEDS"
PRODUCTS = ("tensorlake", "langsmith")

_DEFAULT_DIRECTORY = Path(__file__).resolve().parents[3] / "shared" / "seeds"
_IMPORT = re.compile(rf"^from ({'|'.join(PRODUCTS)})\.sandbox import SandboxClient$", re.MULTILINE)
_LONGEST_STATEMENT = 12


@dataclass(frozen=True)
class Block:
    """A block of code: its source and its first line in the document, counted from 1."""

    line: int
    source: str


def directory() -> Path:
    """Return the directory of the documents, even if it does not exist."""
    given = os.environ.get(DIRECTORY_VARIABLE)
    return Path(given) if given else _DEFAULT_DIRECTORY


def document(product: str) -> str:
    """Return the text of the document whose Python code imports the client of the product."""
    for path in sorted(directory().iterdir()):
        text = path.read_text(encoding="utf-8")
        if any(match[1] == product for match in _IMPORT.finditer(text)):
            return text
    raise AssertionError(f"no document in {directory()} imports from {product}.sandbox")


def python_blocks(text: str) -> list[Block]:
    """Return the blocks of Python code of a document, in order."""
    lines = text.splitlines()
    blocks: list[Block] = []
    collected: list[str] = []
    first = at = 0

    def flush() -> None:
        source = "\n".join(collected).strip()
        if ast.parse(source).body:  # comments alone are not code
            blocks.append(Block(first + 1, f"{source}\n"))
        collected.clear()

    while at < len(lines):
        code = _statement(lines, at)
        if code is None and (lines[at].startswith("# ") or (collected and not lines[at].strip())):
            code = [lines[at]]
        if code is None:
            flush()
            at += 1
            continue
        if not collected:
            first = at
        collected.extend(code)
        at += len(code)
    flush()
    return blocks


def with_our_import(source: str, module: str = "sandpool") -> str:
    """Return the source with only the import line replaced."""
    return _IMPORT.sub(f"from {module} import SandboxClient", source)


def run(block: Block, namespace: dict[str, Any], module: str = "sandpool") -> list[str]:
    """Run a block of a document, its import line replaced, and return the lines that it printed."""
    printed = io.StringIO()
    code = compile(with_our_import(block.source, module), f"<document, line {block.line}>", "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    return printed.getvalue().splitlines()


def awaited(source: str) -> str:
    """Return the source for asyncio, with the async client, awaited calls and `async for` over lists."""
    source = _IMPORT.sub("from sandpool import AsyncSandboxClient", source)
    source = re.sub(r"(?<!Async)\bSandboxClient\(", "AsyncSandboxClient(", source)
    source = re.sub(r"\bfor (\w+) in pools:", r"async for \1 in pools:", source)
    return re.sub(r"\bclient\.(?!list_)(?=\w+\()", "await client.", source)


async def run_awaited(block: Block, namespace: dict[str, Any]) -> list[str]:
    """Run a block of a document with asyncio, and return the lines that it printed."""
    printed = io.StringIO()
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    code = compile(awaited(block.source), f"<document, line {block.line}>", "exec", flags=flags)
    with contextlib.redirect_stdout(printed):
        found = eval(code, namespace)
        if inspect.isawaitable(found):
            await found
    return printed.getvalue().splitlines()


def _statement(lines: list[str], at: int) -> list[str] | None:
    """Return the shortest complete statement that begins in a line, or None."""
    for length in range(1, _LONGEST_STATEMENT + 1):
        candidate = _indented(lines[at : at + length])
        try:
            body = ast.parse("\n".join(candidate)).body
        except SyntaxError:
            continue
        return candidate if len(body) == 1 and _is_code(body[0]) else None
    return None


def _indented(lines: list[str]) -> list[str]:
    """Return the lines with the body of a loop indented.

    The text of the first document lost the indentation of its code. Within brackets, indentation does not matter; the
    body of a loop needs it. Each loop has a body of one line, so this function indents only that line.
    """
    if len(lines) == 2 and re.fullmatch(r"for .+:", lines[0]) and not lines[1].startswith(" "):
        return [lines[0], f"    {lines[1]}"]
    return lines


def _is_code(statement: ast.stmt) -> bool:
    """Return whether the documents use this kind of statement. A single word of prose is also a valid expression."""
    match statement:
        case ast.ImportFrom() | ast.For():
            return True
        case ast.Assign(value=ast.Call()) | ast.Expr(value=ast.Call()):
            return True
        case _:
            return False
