"""Derive the blocking Python client from the asyncio client, line by line, and format the result.

The directories `_async` below clients/python/sandpool are written by hand; the directory `_sync` next to each is the
output. The rules work on the text, comments and docstrings included, so that they are correct for both clients. (The
package `unasync` changes only tokens, not docstrings.)

Two checks detect outdated rules: each rule must match at least once, and the output must not contain names from
asyncio. A sentence that is correct for only one of the clients belongs in a module that both share.
"""

import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

CLIENT = "clients/python"
PACKAGES = ("sandpool", "sandpool/compat")
"""The packages that have a directory `_async`, as paths below the client's directory."""
HEADER = "# Code generated from _async/{name} by tools/codegen/blocking_client.py. DO NOT EDIT.\n"
INIT = '"""The blocking variant."""\n'
"""The output for `__init__.py`, because its docstring describes the asyncio client."""
RULES = [
    (re.compile(pattern), to)
    for pattern, to in [
        (r"AsyncGenerator\[(.+?), None\]", r"Generator[\1, None, None]"),
        (r"\bOpening\[([\w.]+)\]", r"\1"),
        (r"\bOpening, ", ""),
        (r"\bawait ", ""),
        (r"\basync (?=(?:def|with|for)\b)", ""),
        (r"\bAsync(?=[A-Z])", ""),
        (r"\b__a(enter|exit|iter|next)__", r"__\1__"),
        (r"\ba(closing|close|iter|next)\b", r"\1"),
        (r"\b(sandpool|sandpool\.compat)\._async\b", r"\1._sync"),
        (r"\bsandpool\._transport\.asyncio\b", "sandpool._transport.threads"),
    ]
]
LEFTOVER = re.compile(r"(?<![A-Za-z0-9])(?:async|asyncio|await|aio)(?![A-Za-z0-9])|Async(?=[A-Z])")
"""Names from asyncio, also as a part of other names such as `sandpool._async`. `asynchronous` does not match."""


class DerivationError(Exception):
    """The rules do not match the sources."""


def blocking(text: str, matches: Counter[str] | None = None) -> str:
    """Return the blocking form of a module's text. `matches` counts how often each rule's pattern matched."""
    for pattern, to in RULES:
        text, count = pattern.subn(to, text)
        if matches is not None:
            matches[pattern.pattern] += count
    return text


def derived(sources: Mapping[str, str]) -> dict[str, str]:
    """Return the blocking form of modules by their paths, with headers. Raises `DerivationError`."""
    matches: Counter[str] = Counter()
    texts = {path: blocking(text, matches) for path, text in sources.items()}
    texts |= {path: INIT for path in texts if Path(path).name == "__init__.py"}
    unused = [pattern.pattern for pattern, _ in RULES if not matches[pattern.pattern]]
    problems = [f"the rule {pattern!r} matched nothing; remove or correct it" for pattern in unused]
    problems += [problem for path, text in texts.items() for problem in leftovers(path, text)]
    if problems:
        raise DerivationError("\n".join(problems))
    return {path: HEADER.format(name=Path(path).name) + text for path, text in texts.items()}


def leftovers(path: str, text: str) -> Iterator[str]:
    """Yield a message for each output line with a name from asyncio. The line numbers are those of the source."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := LEFTOVER.search(line):
            yield f"{path}:{number}: {found[0]!r} remains: add a rule or change the line: {line.strip()}"


def derive(root: Path, out: Path) -> list[Path]:
    """Write the blocking form of every module to the directories `_sync` below `out`, and return these directories.

    Raises `DerivationError`.
    """
    directories = [root / CLIENT / package / "_async" for package in PACKAGES]
    paths: Iterable[Path] = [path for directory in directories for path in sorted(directory.glob("*.py"))]
    texts = derived({path.relative_to(root / CLIENT).as_posix(): path.read_text() for path in paths})
    made = [out / package / "_sync" for package in PACKAGES]
    for directory in made:
        directory.mkdir(parents=True, exist_ok=True)
    for path, text in texts.items():
        (out / path.replace("/_async/", "/_sync/")).write_text(text)
    ruff = root / ".venv/bin/ruff"
    first_party = 'lint.isort.known-first-party = ["sandpool"]'  # ruff cannot see it from these directories
    settings = ["--config", str(root / CLIENT / "pyproject.toml"), "--config", first_party]
    config = [*settings, "--quiet", "--no-cache", *map(str, made)]
    subprocess.run([ruff, "check", "--select", "I,F401", "--fix", *config], cwd=root, check=True)
    subprocess.run([ruff, "format", *config], cwd=root, check=True)
    return made
