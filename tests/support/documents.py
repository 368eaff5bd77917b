"""The Python code of the two model products' documents, as it stands in their text.

The documents are plain text without any mark-up of code, so code is told from prose by the parser: a block is a run of
lines that are whole Python statements of the kinds that the documents use.
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

FOLDER_VARIABLE = "SANDPOOL_SEEDS"
PRODUCTS = ("tensorlake", "langsmith")

_BESIDE_THE_CLONE = Path(__file__).resolve().parents[3] / "shared" / "seeds"
_IMPORT = re.compile(rf"^from ({'|'.join(PRODUCTS)})\.sandbox import SandboxClient$", re.MULTILINE)
_LONGEST_STATEMENT = 12


@dataclass(frozen=True)
class Block:
    """One run of code: the document's line it begins in, counted from 1, and its source."""

    line: int
    source: str


def folder() -> Path:
    """Where the documents are, whether the folder exists or not."""
    given = os.environ.get(FOLDER_VARIABLE)
    return Path(given) if given else _BESIDE_THE_CLONE


def document(product: str) -> str:
    """The text of the document whose Python code imports the product's client."""
    for path in sorted(folder().iterdir()):
        text = path.read_text(encoding="utf-8")
        if any(match[1] == product for match in _IMPORT.finditer(text)):
            return text
    raise AssertionError(f"no document in {folder()} imports from {product}.sandbox")


def python_blocks(text: str) -> list[Block]:
    """The Python code of a document, in order."""
    lines = text.splitlines()
    blocks: list[Block] = []
    collected: list[str] = []
    begun = at = 0

    def flush() -> None:
        source = "\n".join(collected).strip()
        if ast.parse(source).body:  # comments alone are not code
            blocks.append(Block(begun + 1, f"{source}\n"))
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
            begun = at
        collected.extend(code)
        at += len(code)
    flush()
    return blocks


def with_our_import(source: str) -> str:
    """The source with the import line replaced, and nothing else."""
    return _IMPORT.sub("from sandpool.sandbox import SandboxClient", source)


def run(block: Block, namespace: dict[str, Any]) -> list[str]:
    """Run a block of a document, its import line replaced, and return the lines that it printed."""
    printed = io.StringIO()
    code = compile(with_our_import(block.source), f"<document, line {block.line}>", "exec")
    with contextlib.redirect_stdout(printed):
        exec(code, namespace)
    return printed.getvalue().splitlines()


def awaited(source: str) -> str:
    """The source for asyncio: the client is the other one, and each call of it is awaited; nothing else is changed."""
    source = _IMPORT.sub("from sandpool.sandbox import AsyncSandboxClient", source)
    source = re.sub(r"(?<!Async)\bSandboxClient\(", "AsyncSandboxClient(", source)
    return re.sub(r"\bclient\.(?=\w+\()", "await client.", source)


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
    """The shortest whole statement that begins in a line, or None where none does."""
    for length in range(1, _LONGEST_STATEMENT + 1):
        candidate = _indented(lines[at : at + length])
        try:
            body = ast.parse("\n".join(candidate)).body
        except SyntaxError:
            continue
        return candidate if len(body) == 1 and _is_code(body[0]) else None
    return None


def _indented(lines: list[str]) -> list[str]:
    """The lines, with the body of a loop indented.

    The first document's text lost the indentation of its code. Inside brackets that does not matter; the body of a loop
    needs it back. Each loop there has a body of one line, so exactly that line is indented and nothing else is changed.
    """
    if len(lines) == 2 and re.fullmatch(r"for .+:", lines[0]) and not lines[1].startswith(" "):
        return [lines[0], f"    {lines[1]}"]
    return lines


def _is_code(statement: ast.stmt) -> bool:
    """Whether it is of a kind that the documents' code uses; a word of prose alone can be an expression, too."""
    match statement:
        case ast.ImportFrom() | ast.For():
            return True
        case ast.Assign(value=ast.Call()) | ast.Expr(value=ast.Call()):
            return True
        case _:
            return False
