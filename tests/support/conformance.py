"""Runs the cases of tests/conformance with a Python client, blocking or not."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import re
import time
from collections.abc import AsyncIterable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sandpool
from sandpool import AsyncSandboxClient, SandboxClient

FOLDER = Path(__file__).resolve().parents[1] / "conformance"
_WHOLE = re.compile(r"\$([a-z_][a-z0-9_.]*)")
_PART = re.compile(r"\$\{([a-z_][a-z0-9_.]*)\}")


@dataclass(frozen=True)
class Case:
    """One case of a file."""

    about: str
    name: str
    steps: list[dict[str, Any]]

    def __str__(self) -> str:
        return f"{self.about}: {self.name}"


def cases() -> list[Case]:
    """Every case of every file."""
    found = []
    for path in sorted(FOLDER.glob("*.json")):
        for case in json.loads(path.read_text())["cases"]:
            found.append(Case(path.stem, case["name"], case["steps"]))
    return found


async def settled(value: Any) -> Any:
    """A value, awaited where it has to be."""
    return await value if inspect.isawaitable(value) else value


class Run:
    """One case at work."""

    KEYS = frozenset(
        "call on read with items callbacks save expect expect_callbacks error within".split()  # noqa: SIM905
    )

    def __init__(self, client: SandboxClient | AsyncSandboxClient, given: Mapping[str, object]) -> None:
        self._saved: dict[str, Any] = dict(given)
        self._client = client

    async def run(self, case: Case) -> None:
        """Run all steps; an AssertionError says which was not as expected."""
        for number, step in enumerate(case.steps, 1):
            unknown = step.keys() - self.KEYS
            assert not unknown, f"step {number}: unknown keys {unknown}"
            try:
                await self._step(step)
            except AssertionError as failure:
                raise AssertionError(f"{case}, step {number} {json.dumps(step)}: {failure}") from failure

    async def _step(self, step: dict[str, Any]) -> None:
        end = time.monotonic() + step.get("within", 0.0)
        while True:
            try:
                return await self._once(step)
            except (AssertionError, sandpool.SandpoolError):
                if time.monotonic() > end:
                    raise
                await asyncio.sleep(0.05)

    async def _once(self, step: dict[str, Any]) -> None:
        heard: dict[str, list[Any]] = {name: [] for name in step.get("callbacks", ())}
        wanted = step.get("error")
        try:
            answer = await self._answer(step, heard)
        except sandpool.SandpoolError as error:
            if wanted is None:
                raise
            return self._check_error(error, wanted)
        assert wanted is None, f"no error, but {answer!r}"
        if "save" in step:
            self._saved[step["save"]] = answer
        if "expect" in step:
            self.check(answer, step["expect"], "answer")
        for name, expected in step.get("expect_callbacks", {}).items():
            self.check("".join(heard[name]), expected, name)
        return None

    async def _answer(self, step: dict[str, Any], heard: dict[str, list[Any]]) -> Any:
        target = self.value(step["on"]) if "on" in step else self._client
        if "read" in step:
            return await settled(getattr(target, step["read"]))
        arguments = {name: self.value(value) for name, value in step.get("with", {}).items()}
        arguments.update({name: items.append for name, items in heard.items()})
        answer = await settled(getattr(target, step["call"])(**arguments))
        if "items" in step:
            return await _items(answer, step["items"])
        return answer

    def value(self, value: Any) -> Any:
        """An argument or an expectation with its references resolved."""
        if isinstance(value, str):
            whole = _WHOLE.fullmatch(value)
            if whole:
                return self._saved_value(whole[1])
            return _PART.sub(lambda found: str(self._saved_value(found[1])), value)
        if isinstance(value, list):
            return [self.value(item) for item in value]
        if isinstance(value, dict):
            if value.keys() == {"$bytes"}:
                return self.value(value["$bytes"]).encode()
            if value.keys() == {"$base64"}:
                return base64.b64decode(value["$base64"])
            return {key: self.value(item) for key, item in value.items()}
        return value

    def _saved_value(self, path: str) -> Any:
        name, *fields = path.split(".")
        found = self._saved[name]
        for field in fields:
            found = _field(found, field)
        return found

    def check(self, found: Any, expected: Any, where: str) -> None:
        """Assert that something is as expected."""
        if isinstance(expected, dict) and not expected.keys() & {"$bytes", "$base64"}:
            if any(key.startswith("$") for key in expected):
                for key, value in expected.items():
                    self._check_rule(found, key, value, where)
                return
            for name, value in expected.items():
                self.check(_field(found, name), value, f"{where}.{name}")
            return
        if isinstance(expected, list):
            items = list(found)
            assert len(items) == len(expected), f"{where} has {len(items)} items: {items!r}"
            for at, (item, value) in enumerate(zip(items, expected, strict=True)):
                self.check(item, value, f"{where}[{at}]")
            return
        expected = self.value(expected)
        assert found == expected, f"{where} is {found!r}, not {expected!r}"

    def _check_rule(self, found: Any, rule: str, value: Any, where: str) -> None:
        match rule:
            case "$matches":
                assert re.search(self.value(value), found), f"{where} is {found!r}"
            case "$contains" if isinstance(found, str):
                assert self.value(value) in found, f"{where} is {found!r}"
            case "$contains":
                assert any(self._holds(item, value) for item in found), f"{where} is {found!r}"
            case "$length":
                assert len(found) == value, f"{where} has {len(found)}: {found!r}"
            case "$at_least":
                assert found >= value, f"{where} is {found!r}"
            case "$not":
                assert not self._holds(found, value), f"{where} is {found!r}"
            case "$present":
                assert (found is not None) == value, f"{where} is {found!r}"
            case "$empty":
                assert (found is None or found == "") == value, f"{where} is {found!r}"
            case "$joined":
                text = "".join(str(_field(item, value["field"])) for item in found)
                self.check(text, value["is"], f"{where}, joined")
            case _:
                raise AssertionError(f"unknown rule {rule}")

    def _holds(self, found: Any, expected: Any) -> bool:
        with suppress(AssertionError):
            self.check(found, expected, "")
            return True
        return False

    def _check_error(self, error: sandpool.SandpoolError, wanted: dict[str, Any]) -> None:
        kind = getattr(sandpool, wanted["type"])
        assert isinstance(error, kind), f"{type(error).__name__}, not {wanted['type']}: {error}"
        for name, value in wanted.items():
            if name == "message":
                assert re.search(self.value(value), str(error)), f"the message is {str(error)!r}"
            elif name != "type":
                self.check(getattr(error, name), value, name)


def _field(found: Any, name: str) -> Any:
    """A field of a mapping or of an object; None where it has none."""
    return found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)


async def _items(answer: Iterable[Any] | AsyncIterable[Any], count: int | str) -> list[Any]:
    """All items of an iterator, or the first ones."""
    items: list[Any] = []
    if isinstance(answer, AsyncIterable):
        async for item in answer:
            items.append(item)
            if len(items) == count:
                break
        if hasattr(answer, "aclose"):
            await answer.aclose()
        return items
    for item in answer:
        items.append(item)
        if len(items) == count:
            break
    if hasattr(answer, "close"):
        answer.close()
    return items
