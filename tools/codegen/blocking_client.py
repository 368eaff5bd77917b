"""Derives the blocking Python client from the one for asyncio, line by line, and formats what comes out.

clients/python/sandpool/_async is written by hand; _sync is what this makes of it. The rules work on the text, comments
and docstrings included, so that the documentation of both fits. (The package `unasync` knows tokens alone and leaves
docstrings as they are.)
"""

import re
import subprocess
from pathlib import Path

SOURCE = "clients/python/sandpool/_async"
HEADER = "# Made from _async/{name} by tools/codegen/blocking_client.py: change that one, then run `make generate`.\n"
RULES = [
    (re.compile(pattern), to)
    for pattern, to in [
        (r"AsyncGenerator\[(.+?), None\]", r"Generator[\1, None, None]"),
        (r"\bOpening\[(\w+)\]", r"\1"),
        (r"\bOpening, ", ""),
        (r"\bawait ", ""),
        (r"\basync (?=(?:def|with|for)\b)", ""),
        (r"\bAsync(?=[A-Z])", ""),
        (r"\b__a(enter|exit|iter|next)__", r"__\1__"),
        (r"\ba(closing|close|iter|next)\b", r"\1"),
        (r"\bStopAsyncIteration\b", "StopIteration"),
        (r"\bsandpool\._async\b", "sandpool._sync"),
        (r"\bsandpool\._io\.aio\b", "sandpool._io.blocking"),
    ]
]


def blocking(text: str) -> str:
    """The blocking form of a module's text."""
    for pattern, to in RULES:
        text = pattern.sub(to, text)
    return text


def derive(root: Path, out: Path) -> None:
    """Write the blocking form of every module of the asyncio client into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted((root / SOURCE).glob("*.py")):
        (out / path.name).write_text(HEADER.format(name=path.name) + blocking(path.read_text()))
    ruff = root / ".venv/bin/ruff"
    first_party = 'lint.isort.known-first-party = ["sandpool"]'  # which the folder here does not tell
    settings = ["--config", str(root / "clients/python/pyproject.toml"), "--config", first_party]
    config = [*settings, "--quiet", "--no-cache", str(out)]
    subprocess.run([ruff, "check", "--select", "I,F401", "--fix", *config], cwd=root, check=True)
    subprocess.run([ruff, "format", *config], cwd=root, check=True)
