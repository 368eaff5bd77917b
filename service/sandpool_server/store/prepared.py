"""Prepared statements of the hot path, which run directly on the cursor of the driver.

SQLAlchemy Core spends several times as much time on such a statement as SQLite itself. The statements are still written
with Core, so that `tables` stays the only definition of the schema. Each statement is compiled once per dialect. Its
parameters and rows are converted by the same functions of the column types that Core uses.
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
    """A reusable SELECT, UPDATE or UPDATE … RETURNING without expanding parameters (lists of values).

    Rows have the names of the columns as attributes. For dialects that `dialect.run_plain` does not support, Core runs
    the statement.
    """

    def __init__(self, statement: Select[*tuple[Any, ...]] | Update) -> None:
        self._statement = statement
        self._plans: WeakKeyDictionary[Dialect, _Plan] = WeakKeyDictionary()

    def all(self, connection: Connection, values: Mapping[str, object]) -> list[Any]:
        """Run the statement with these parameters and return its rows. Raises the same errors as Core."""
        if not dialect.has_plain_cursor(connection.dialect):
            return list(connection.execute(self._statement, dict(values)).all())
        plan = self._plans.get(connection.dialect)
        if plan is None:
            plan = self._plans[connection.dialect] = _Plan.of(self._statement, connection.dialect)
        return plan.all(connection, values)

    def first(self, connection: Connection, values: Mapping[str, object]) -> Any:
        """Run the statement and return the first row, or None."""
        return next(iter(self.all(connection, values)), None)

    def run(self, connection: Connection, values: Mapping[str, object]) -> None:
        """Run a statement that returns no rows."""
        if dialect.has_plain_cursor(connection.dialect):
            self.all(connection, values)
        else:
            connection.execute(self._statement, dict(values))


@dataclass(frozen=True, slots=True)
class _Plan:
    """A statement compiled for a dialect with positional parameters."""

    sql: str
    parameters: tuple[tuple[str, Convert], ...]
    """The parameters in their order, each with the function that converts its value for the driver."""
    constants: dict[str, object]
    """The parameters whose values are part of the statement."""
    results: tuple[Convert, ...]
    """For each column, the function that converts the value of the driver."""
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
        parameters = {**self.constants, **values}
        arguments = [convert(parameters[name]) if convert else parameters[name] for name, convert in self.parameters]
        found = dialect.run_plain(connection, self.sql, arguments)
        results, make = self.results, self.row
        return [
            make(*[convert(value) if convert else value for convert, value in zip(results, row, strict=True)])
            for row in found
        ]
