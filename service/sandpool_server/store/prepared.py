"""Statements of the hot path, run on the driver's own cursor.

Core spends several times as long on one of them as SQLite does. They are written with Core all the same, so that the
tables stay the only truth; here each is compiled once for an engine's dialect, and its values and rows are converted by
the same functions of the columns' types that Core calls.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import BindParameter, Connection, Dialect, Select, Update

from sandpool_server.store import dialect

Convert = Callable[[Any], Any] | None


class Prepared:
    """A SELECT, an UPDATE, or an UPDATE … RETURNING without lists of values; run as often as one likes.

    Rows have the columns' keys as attributes. Where the driver's cursor is not known well enough, Core runs it.
    """

    def __init__(self, statement: Select[*tuple[Any, ...]] | Update) -> None:
        self._statement = statement
        self._plans: WeakKeyDictionary[Dialect, _Plan] = WeakKeyDictionary()

    def all(self, connection: Connection, values: Mapping[str, object]) -> list[Any]:
        """Run it with these values of its parameters and return its rows; raises what Core raises."""
        if not dialect.has_plain_cursor(connection.dialect):
            return list(connection.execute(self._statement, dict(values)).all())
        plan = self._plans.get(connection.dialect)
        if plan is None:
            plan = self._plans[connection.dialect] = _Plan.of(self._statement, connection.dialect)
        return plan.all(connection, values)

    def first(self, connection: Connection, values: Mapping[str, object]) -> Any:
        """The first row, or None."""
        return next(iter(self.all(connection, values)), None)

    def run(self, connection: Connection, values: Mapping[str, object]) -> None:
        """Run one that returns no rows."""
        if dialect.has_plain_cursor(connection.dialect):
            self.all(connection, values)
        else:
            connection.execute(self._statement, dict(values))


@dataclass(frozen=True, slots=True)
class _Plan:
    """A statement compiled for a dialect with positional parameters."""

    sql: str
    parameters: tuple[tuple[str, Convert], ...]
    """In their order, each with what makes the driver's value of ours."""
    constants: dict[str, object]
    """Parameters whose values are part of the statement."""
    results: tuple[Convert, ...]
    """For each column, what makes our value of the driver's."""
    row: Callable[..., Any]

    @staticmethod
    def of(statement: Select[*tuple[Any, ...]] | Update, target: Dialect) -> "_Plan":
        compiled = statement.compile(dialect=target)
        binds: dict[str, BindParameter[Any]] = compiled.binds
        columns = list(statement.exported_columns.values())
        return _Plan(
            sql=compiled.string,
            parameters=tuple(
                (name, binds[name].type.dialect_impl(target).bind_processor(target))
                for name in compiled.positiontup or ()
            ),
            constants={name: bind.effective_value for name, bind in binds.items() if not bind.required},
            results=tuple(column.type.dialect_impl(target).result_processor(target, None) for column in columns),
            row=namedtuple("PlainRow", [column.name for column in columns]),
        )

    def all(self, connection: Connection, values: Mapping[str, object]) -> list[Any]:
        given = {**self.constants, **values}
        arguments = [convert(given[name]) if convert else given[name] for name, convert in self.parameters]
        found = dialect.run_plain(connection, self.sql, arguments)
        results, make = self.results, self.row
        return [
            make(*[convert(value) if convert else value for convert, value in zip(results, row, strict=True)])
            for row in found
        ]
