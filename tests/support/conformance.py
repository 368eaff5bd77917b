"""Runs the cases of tests/conformance with the Python client, blocking or with asyncio."""

from __future__ import annotations

import asyncio
import base64
import builtins
import inspect
import json
import re
import time
from collections.abc import AsyncIterable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sandpool
from sandpool import AsyncSandboxClient, ReadinessProbe, RetryPolicy, SandboxClient
from sandpool._async.client import REQUEST_TIMEOUT
from sandpool._core.resumption import RESUME_TIMEOUT
from sandpool._core.sandboxes import COMMAND_MARGIN, COMMAND_TIMEOUT, CREATE_TIMEOUT
from tests.support.scripted_server import ReceivedCall

DIRECTORY = Path(__file__).resolve().parents[1] / "conformance"
DEFAULTS = {
    "request_timeout": REQUEST_TIMEOUT,
    "create_timeout": CREATE_TIMEOUT,
    "command_timeout": COMMAND_TIMEOUT,
    "command_margin": COMMAND_MARGIN,
    "resume_timeout": RESUME_TIMEOUT,
}
_WHOLE = re.compile(r"\$([a-z_][a-z0-9_.]*)")
_PART = re.compile(r"\$\{([a-z_][a-z0-9_.]*)\}")
_ABSENT = object()
"""The value of a field that a type does not have."""
_ERRORS = (sandpool.SandpoolError, TypeError)


@dataclass(frozen=True)
class Case:
    """One case of a file."""

    about: str
    name: str
    steps: list[dict[str, Any]]
    client: dict[str, Any] = field(default_factory=dict)
    script: dict[str, Any] | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.about}: {self.name}"


def cases(*, scripted: bool) -> list[Case]:
    """Return the cases of all files that run against the scripted server, or those that need an engine."""
    found = []
    for path in sorted(DIRECTORY.glob("*.json")):
        found += [Case(about=path.stem, **case) for case in json.loads(path.read_text())["cases"]]
    return [case for case in found if (case.script is not None) == scripted]


def local_directory(root: Path) -> Path:
    """Create the directory that cases refer to as `$local`."""
    (root / "sub").mkdir(parents=True)
    (root / "empty").mkdir()
    (root / "a.txt").write_text("one\n")
    (root / "sub" / "b.txt").write_text("two\n")
    return root


def client_options(case: Case) -> dict[str, Any]:
    """Return the options of the client for a case."""
    options = dict(case.client)
    if "retry" in options:
        options["retry"] = RetryPolicy(**options["retry"])
    return options


def check_requests(case: Case, calls: list[ReceivedCall]) -> None:
    """Assert that a scripted server received the calls that a case lists."""
    methods = {expected["method"] for expected in case.requests}
    found = [
        {"method": call.method, "message": call.message, "deadline": call.deadline}
        for call in calls
        if call.method in methods
    ]
    Run(SandboxClient(), {}).check(found, case.requests, "requests")


async def _settled(value: Any) -> Any:
    """Return a value, awaited if it is awaitable."""
    return await value if inspect.isawaitable(value) else value


class Run:
    """One run of a case."""

    KEYS = frozenset(
        "call on read leave with items callbacks save expect expect_callbacks error within".split()  # noqa: SIM905
    )

    def __init__(self, client: SandboxClient | AsyncSandboxClient, given: Mapping[str, object]) -> None:
        self._saved: dict[str, Any] = {"defaults": DEFAULTS, **given}
        self._client = client

    async def run(self, case: Case) -> None:
        """Run all steps. Raise AssertionError that names the step that was not as expected."""
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
        received: dict[str, list[str]] = {name: [] for name in step.get("callbacks", ())}
        expected = step.get("error")
        try:
            result = await self._result(step, received)
        except _ERRORS as error:
            if expected is None:
                raise
            return self._check_error(error, expected)
        assert expected is None, f"no error, but {result!r}"
        if "save" in step:
            self._saved[step["save"]] = result
        if "expect" in step:
            self.check(result, step["expect"], "result")
        for name, text in step.get("expect_callbacks", {}).items():
            self.check("".join(received[name]), text, name)
        return None

    async def _result(self, step: dict[str, Any], received: dict[str, list[str]]) -> Any:
        if "leave" in step:
            return await _leave(self.value(step["leave"]))
        target = self.value(step["on"]) if "on" in step else self._client
        if "read" in step:
            found = _field(target, step["read"])
            assert found is not _ABSENT, f"there is no {step['read']}"
            return found
        arguments = {name: self._argument(name, value) for name, value in step.get("with", {}).items()}
        arguments.update({name: _recorder(texts) for name, texts in received.items()})
        function: Any = target
        for name in step["call"].split("."):
            function = getattr(function, name)
        positional = arguments.pop("pool_ids", ()) if step["call"] == "watch_pools" else ()
        result = await _settled(function(*positional, **arguments))
        if "items" in step:
            return await _items(result, step["items"])
        return result

    def _argument(self, name: str, value: Any) -> Any:
        found = self.value(value)
        return ReadinessProbe(**found) if name == "readiness_probe" and found is not None else found

    def value(self, value: Any) -> Any:
        """Return an argument or an expectation with its references resolved."""
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
        for one in fields:
            found = found[int(one)] if one.isdecimal() else _field(found, one)
        assert found is not _ABSENT, f"there is no {path}"
        return found

    def check(self, found: Any, expected: Any, where: str) -> None:
        """Assert that a value is as expected."""
        if isinstance(expected, dict) and not expected.keys() & {"$bytes", "$base64"}:
            if any(key.startswith("$") for key in expected):
                for key, value in expected.items():
                    self._check_rule(found, key, value, where)
                return
            for name, value in expected.items():
                self.check(_field(found, name), value, f"{where}.{name}")
            return
        if isinstance(expected, list):
            assert isinstance(found, (list, tuple)), f"{where} is {found!r}"
            assert len(found) == len(expected), f"{where} has {len(found)} items: {found!r}"
            for at, (item, value) in enumerate(zip(found, expected, strict=True)):
                self.check(item, value, f"{where}[{at}]")
            return
        expected = self.value(expected)
        assert found == expected, f"{where} is {found!r}, not {expected!r}"

    def _check_rule(self, found: Any, rule: str, value: Any, where: str) -> None:
        match rule:
            case "$present":
                assert (found is not None and found is not _ABSENT) == value, f"{where} is {found!r}"
            case _ if found is _ABSENT:
                raise AssertionError(f"there is no {where}")
            case "$matches":
                assert re.search(self.value(value), found), f"{where} is {found!r}"
            case "$contains" if isinstance(found, str):
                assert self.value(value) in found, f"{where} is {found!r}"
            case "$contains":
                assert any(self._holds(item, value) for item in found), f"{where} is {found!r}"
            case "$length":
                assert len(found) == value, f"{where} has {len(found)}: {found!r}"
            case "$at_least":
                assert found is not None and found >= value, f"{where} is {found!r}"  # noqa: PT018
            case "$at_most":
                assert found is not None and found <= value, f"{where} is {found!r}"  # noqa: PT018
            case "$not":
                assert not self._holds(found, value), f"{where} is {found!r}"
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

    def _check_error(self, error: Exception, expected: dict[str, Any]) -> None:
        name = expected["type"]
        kind = getattr(sandpool, name, None) or getattr(builtins, name)
        assert isinstance(error, kind), f"{type(error).__name__}, not {name}: {error}"
        for attribute, value in expected.items():
            if attribute == "message":
                assert re.search(self.value(value), str(error)), f"the message is {str(error)!r}"
            elif attribute != "type":
                self.check(_field(error, attribute), value, attribute)


def _field(found: Any, name: str) -> Any:
    """Return a field of a mapping or of an object."""
    return found.get(name, _ABSENT) if isinstance(found, Mapping) else getattr(found, name, _ABSENT)


def _recorder(texts: list[str]) -> Any:
    """Return a callback that records its arguments as text."""

    def record(*arguments: object) -> None:
        for argument in arguments:
            if isinstance(argument, bytes):
                texts.append(argument.decode())
            else:
                texts.append(argument if isinstance(argument, str) else "*")

    return record


async def _leave(found: Any) -> None:
    """End the scope of an object."""
    if hasattr(found, "__aexit__"):
        await found.__aexit__(None, None, None)
    else:
        found.__exit__(None, None, None)


async def _items(result: Iterable[Any] | AsyncIterable[Any], count: int | str) -> list[Any]:
    """Return all items of an iterator, or the first ones."""
    items: list[Any] = []
    if isinstance(result, AsyncIterable):
        async for item in result:
            items.append(item)
            if len(items) == count:
                break
        if hasattr(result, "aclose"):
            await result.aclose()
        return items
    for item in result:
        items.append(item)
        if len(items) == count:
            break
    if hasattr(result, "close"):
        result.close()
    return items
