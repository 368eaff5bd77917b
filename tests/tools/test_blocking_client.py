"""The rules that generate the blocking Python client, and their checks."""

import re

import pytest

from tools.codegen import blocking_client
from tools.codegen.blocking_client import DerivationError, blocking, derived, leftovers


@pytest.fixture
def rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rules instead of all."""
    monkeypatch.setattr(blocking_client, "RULES", [(re.compile(r"\bawait "), ""), (re.compile(r"\basync def"), "def")])


@pytest.mark.usefixtures("rules")
def test_writes_a_header_that_tools_recognize_as_generated_code() -> None:
    made = derived({"sandpool/_async/files.py": "async def read():\n    await one()\n"})
    header, _, text = made["sandpool/_async/files.py"].partition("\n")
    assert header == "# Code generated from _async/files.py by tools/codegen/blocking_client.py. DO NOT EDIT."
    assert re.fullmatch(r"# Code generated .* DO NOT EDIT\.", header)
    assert text == "def read():\n    one()\n"


@pytest.mark.usefixtures("rules")
def test_rejects_a_rule_without_matches() -> None:
    with pytest.raises(DerivationError, match=r"the rule '\\\\basync def' matched nothing"):
        derived({"files.py": "await one()\n"})


@pytest.mark.usefixtures("rules")
def test_counts_matches_over_all_modules() -> None:
    assert derived({"a.py": "async def read(): ...\n", "b.py": "x = await one()\n"})


@pytest.mark.usefixtures("rules")
@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("async with one: ...", "async"),
        ("import asyncio", "asyncio"),
        ("from sandpool._transport.aio import Transport", "aio"),
        ("from sandpool._async.base import Base", "async"),
        ("x: AsyncIterator[int]", "Async"),
        ("x = (await\n one())", "await"),
        ('"""The client for `async` code."""', "async"),
        ("raise StopAsyncIteration", "Async"),
        ("# in the task of asyncio.run", "asyncio"),
        ("def run_async(): ...", "async"),
    ],
)
def test_rejects_remaining_asyncio_code_and_reports_the_line(line: str, word: str) -> None:
    source = {"sandpool/_async/a.py": f"async def one():\n    await two()\n{line}\n"}
    with pytest.raises(DerivationError) as caught:
        derived(source)
    assert f"sandpool/_async/a.py:3: {word!r} remains" in str(caught.value)
    assert line.splitlines()[0] in str(caught.value)


@pytest.mark.parametrize(
    "line", ["# an asynchronous copy", "# Asynchronous", "awaited = 1", "said = 'waits'", "# kaio"]
)
def test_accepts_similar_names(line: str) -> None:
    assert not list(leftovers("a.py", line))


@pytest.mark.usefixtures("rules")
def test_reports_all_problems_at_once() -> None:
    with pytest.raises(DerivationError) as caught:
        derived({"a.py": "import asyncio\n", "b.py": "aio = 1\n"})
    assert len(str(caught.value).splitlines()) == 4


@pytest.mark.usefixtures("rules")
def test_the_package_has_its_own_docstring() -> None:
    package = "sandpool/compat/_async"
    made = derived({f"{package}/__init__.py": '"""The asyncio client."""\n', "a.py": "async def one(): await two()\n"})
    assert made[f"{package}/__init__.py"].splitlines()[1:] == ['"""The blocking variant."""']


def test_imports_stay_in_their_package() -> None:
    text = "from sandpool._async.files import one\nfrom sandpool.compat._async.files import two\n"
    assert blocking(text) == "from sandpool._sync.files import one\nfrom sandpool.compat._sync.files import two\n"


def test_the_rules_work_on_docstrings_too() -> None:
    text = '"""Use `async with await client.create() as sandbox`, an `AsyncSandbox`, or `sandbox.aclose()`."""'
    assert blocking(text) == '"""Use `with client.create() as sandbox`, an `Sandbox`, or `sandbox.close()`."""'
