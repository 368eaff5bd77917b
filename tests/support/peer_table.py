"""What docs/peer-apis.md says of the names of other products, and whether code uses them all."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import sandpool

TABLE = Path(__file__).resolve().parents[2] / "docs" / "peer-apis.md"

FOLLOWED = (sandpool.Sandbox, sandpool.CommandHandle, sandpool.CommandResult, sandpool.OutputChunk, sandpool.Tunnel)
"""What is followed when a call answers it."""


def rows(heading: str) -> list[tuple[str, str]]:
    """The rows under a heading of the table, those of its own headings too: what is there, and what it became."""
    level = heading.partition(" ")[0]
    part = TABLE.read_text().partition(f"\n{heading}\n")[2]
    end = re.search(rf"^#{{1,{len(level)}}} ", part, re.MULTILINE)
    found = [
        line.strip("| ").split(" | ") for line in part[: end.start() if end else None].splitlines() if line[:1] == "|"
    ]
    return [(row[0], row[1]) for row in found if len(row) == 2 and row[0] not in {"there", "---"}]


def named(cell: str) -> list[tuple[str, list[str]]]:
    """The names in code of a cell, each with the arguments that it has in there."""
    found = []
    for code in re.findall(r"`([^`]+)`", cell):
        name, _, inside = code.partition("(")
        found.append((name.rpartition(".")[2], re.findall(r"\w+", inside)))
    return found


def kept(*headings: str) -> set[str]:
    """The names that are the same here, as `name` and `name(argument)`; of a class those that are in it."""
    used: set[str] = set()
    for there, here in (row for heading in headings for row in rows(heading)):
        for name, arguments in named(there) if here.startswith("same") else []:
            if name[0].isupper():
                used.update(arguments)
            else:
                used |= {name, *(f"{name}({argument})" for argument in arguments)}
    return used


def kept_options(heading: str) -> set[str]:
    """The same for TypeScript, where options have names and other arguments a place: `name` and `name(option)`."""
    used: set[str] = set()
    for there, here in rows(heading):
        for code in re.findall(r"`(?:new )?([^`]+)`", there) if here.startswith("same") else []:
            name, _, inside = code.partition("(")
            options = re.findall(r"\w+", inside.partition("{")[2])
            used |= {name, *(f"{name}({option})" for option in options)}
    return used


class Noted:
    """Stands for an object and notes what is used of it, by name and argument, and so of what that answers."""

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
        return Noted(found, self._used) if isinstance(found, (sandpool.SandboxClient, *FOLLOWED)) else found

    def __iter__(self) -> Iterator[Any]:
        self._used.add("iteration")
        return (self._noted(found) for found in self._thing)

    def __enter__(self) -> Any:
        return self._noted(self._thing.__enter__())

    def __exit__(self, *failure: Any) -> Any:
        return self._thing.__exit__(*failure)
