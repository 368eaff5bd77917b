"""The tables of the migration guides, and a proxy that records the names which code uses.

A migration guide has sections of level 2, for example `## Client`. Each row of their tables contains the names of the
other product, and what became of them: `same`, `renamed: …` or `left out: …`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sandpool
from sandpool.compat import langsmith, tensorlake

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "how-to"
PRODUCTS = {"tensorlake": "Tensorlake", "langsmith": "LangSmith"}
TYPESCRIPT = "TypeScript"
"""The section with the names of the TypeScript package. All other sections contain the names of the Python package."""

FOLLOWED = (
    *(sandpool.SandboxClient, sandpool.Sandbox, sandpool.CommandResult, sandpool.OutputChunk, sandpool.Tunnel),
    *(langsmith.CommandHandle, tensorlake.Pty),
)
"""The classes of results whose use is recorded too."""

CLIENT = "SandboxClient"
"""The class whose arguments are part of the tables. Of other classes, the tables contain the attributes."""

Row = tuple[str, str]
"""The cells of a row: names of the other product; what became of them."""


def guide(product: str) -> str:
    """Return the text of the migration guide of a product."""
    return (GUIDES / f"migrate-from-{product}.md").read_text(encoding="utf-8")


def sections(product: str) -> dict[str, list[Row]]:
    """Return the rows of each section that has a table of names, by the heading of the section."""
    found = {}
    for section in guide(product).split("\n## ")[1:]:
        heading, _, text = section.partition("\n")
        rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| `")]
        if f"| {PRODUCTS[product]} | sandpool |" in text:
            found[heading] = [(row[0], row[1]) for row in rows]
    return found


def rows(product: str, *headings: str) -> list[Row]:
    """Return the rows of these sections, or of all sections with names of the Python package."""
    tables = sections(product)
    return [row for heading in headings or tables.keys() - {TYPESCRIPT} for row in tables[heading]]


def named(cell: str) -> list[tuple[str, list[str]]]:
    """Return the code names of a cell, each with its arguments."""
    found = []
    for code in re.findall(r"`([^`]+)`", cell):
        name, _, arguments = code.partition("(")
        found.append((name.rpartition(".")[2], re.findall(r"\w+", arguments)))
    return found


def same_names(product: str, *headings: str) -> set[str]:
    """Return the names marked as same, as `name` and `name(argument)`. Attributes of a result have no class."""
    used: set[str] = set()
    for there, here in rows(product, *headings):
        for name, arguments in named(there) if here.startswith("same") else []:
            if name[0].isupper() and name != CLIENT:
                used.update(arguments)
            else:
                used |= {name, *(f"{name}({argument})" for argument in arguments)}
    return used


def same_options(product: str) -> set[str]:
    """Return the TypeScript names marked as same, as `name` and `name(option)`. Positional arguments have no names."""
    used: set[str] = set()
    for there, here in rows(product, TYPESCRIPT):
        for code in re.findall(r"`(?:new )?([^`]+)`", there) if here.startswith("same") else []:
            name, _, arguments = code.partition("(")
            options = re.findall(r"\w+", arguments.partition("{")[2])
            used |= {name, *(f"{name}({option})" for option in options)}
    return used


class Noted:
    """A proxy of an object that records the used names and arguments, also of the results."""

    def __init__(self, thing: Any, used: set[str]) -> None:
        self._thing = thing
        self._used = used

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._thing, name)
        self._used.add(name)
        return self._call(name, found) if callable(found) else self._noted(found)

    def _call(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            given = inspect.signature(function).bind(*args, **kwargs).arguments
            self._used.update(f"{name}({argument})" for argument in given)
            return self._noted(function(*args, **kwargs))

        return call

    def _noted(self, found: Any) -> Any:
        if isinstance(found, list):
            return [self._noted(one) for one in found]
        return Noted(found, self._used) if isinstance(found, FOLLOWED) else found

    def __iter__(self) -> Iterator[Any]:
        self._used.add("iteration")
        return (self._noted(found) for found in self._thing)

    def __enter__(self) -> Any:
        return self._noted(self._thing.__enter__())

    def __exit__(self, *failure: Any) -> Any:
        return self._thing.__exit__(*failure)
