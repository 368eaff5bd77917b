"""docs/reference/errors.md lists every reason that the server can return, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import sandpool_server
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.model import PoolCondition
from sandpool_server.runtime import proxy_errors

SERVICE = Path(sandpool_server.__file__).parent
DOCS = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
RESOURCES = ("POOL", "TEMPLATE", "SANDBOX", "SECRET")

CLOSED = (PoolCondition.PAUSED, PoolCondition.DRAINED)
"""The conditions of a pool in which no sandbox can be claimed. The reason contains the condition."""


def literal_reasons() -> Iterator[str]:
    """Yield the literal reasons in the code: arguments of error classes and of functions that build a status."""
    makers = {"Unavailable", "Exhausted", "FailedPrecondition", "InvalidArgument", "_assemble", "__init__"}
    for path in SERVICE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                values = [*node.args[:2], *(keyword.value for keyword in node.keywords)] if name in makers else []
                for value in values:
                    if isinstance(value, ast.Constant) and re.fullmatch(r"[A-Z]+(_[A-Z]+)*", str(value.value)):
                        yield str(value.value)


def all_reasons() -> set[str]:
    return {
        *literal_reasons(),
        *proxy_errors.REASONS,
        *(reason.name for reason in FailureReason),
        *(f"{resource}_NOT_FOUND" for resource in RESOURCES),
        *(f"{resource}_ALREADY_EXISTS" for resource in RESOURCES),
        *(f"POOL_{condition.name}" for condition in CLOSED),
        "INVALID_FIELD",
        "OFFSET_OUT_OF_RANGE",
    }


def test_docs_list_exactly_all_reasons() -> None:
    listed: set[str] = set()
    for section in DOCS.read_text().split("\n## "):
        rows = re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE)
        assert len(rows) == len(set(rows)), section
        listed.update(rows)
    assert listed == all_reasons()
