"""docs/errors.md names every reason that the server can give, and no other."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import sandpool_server
from sandpool_server.domain.errors import FailureReason
from sandpool_server.domain.model import PoolCondition
from sandpool_server.runtime import relay_errors

SERVICE = Path(sandpool_server.__file__).parent
DOCS = Path(__file__).parents[2] / "docs" / "errors.md"
RESOURCES = ("POOL", "TEMPLATE", "SANDBOX", "SECRET")

CLOSED = (PoolCondition.PAUSED, PoolCondition.DRAINED)
"""The conditions of a pool from which nothing can be taken; the reason says which one."""


def literal_reasons() -> Iterator[str]:
    """The reasons written in the code: the first argument of these errors, and of what makes a status."""
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
        *relay_errors.REASONS,
        *(reason.name for reason in FailureReason),
        *(f"{resource}_NOT_FOUND" for resource in RESOURCES),
        *(f"{resource}_ALREADY_EXISTS" for resource in RESOURCES),
        *(f"POOL_{condition.name}" for condition in CLOSED),
        "INVALID_FIELD",
        "OFFSET_OUT_OF_RANGE",
    }


def test_every_reason_is_explained_and_no_other() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \|", DOCS.read_text(), re.MULTILINE)
    assert len(rows) == len(set(rows))
    assert set(rows) == all_reasons()
