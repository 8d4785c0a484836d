"""Reads a table's rows as they are stored, for checking its chains: nothing that was tampered with may stop it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from ml_assets.chain import ChainRow, chain_problems
from ml_assets.interfaces import ChainProblem, PipelinePath
from ml_assets.ledger_rows import CHAIN_COLUMNS, JSON_COLUMNS, Kind, Row, pipeline_streams
from resources.ledger.tables import TABLES

_ROWS_AT_ONCE = 2000
_CONVERTED = JSON_COLUMNS | {"recorded_at"}


def chain_problems_in(connection: sa.Connection, kind: Kind, pipeline: PipelinePath | None) -> Iterator[ChainProblem]:
    """Yield the problems of one table's chains (of one pipeline)."""
    table = TABLES[kind]
    query = sa.select(*_raw_columns(connection, table)).order_by(table.c.stream, table.c.position, table.c.sequence)
    if pipeline is not None:
        query = query.where(table.c.stream.in_(pipeline_streams(pipeline, kind)))
    with connection.execute(query.execution_options(yield_per=_ROWS_AT_ONCE)) as rows:
        names = tuple(rows.keys())
        yield from chain_problems(kind, (_chain_row(dict(zip(names, row, strict=True))) for row in rows))


def _raw_columns(connection: sa.Connection, table: sa.Table) -> list[sa.ColumnElement[Any]]:
    """Return the columns without the conversions that raise on what is no JSON, no time or no text."""
    if connection.dialect.name == "sqlite":
        raw: Any = connection.connection.driver_connection  # it serves this one transaction
        raw.text_factory = _text
        return [sa.type_coerce(column, sa.types.NullType()).label(column.name) for column in table.c]
    connection.exec_driver_sql("SET LOCAL datestyle = 'ISO'")
    return [sa.cast(c, sa.Text).label(c.name) if c.name in _CONVERTED else c for c in table.c]


def _text(stored: bytes) -> str:
    return stored.decode(errors="surrogateescape")


def _chain_row(stored: Row) -> ChainRow:
    try:
        content = {name: _value(name, value) for name, value in stored.items() if name not in CHAIN_COLUMNS}
    except (TypeError, ValueError, RecursionError):
        content = None
    return ChainRow(
        sequence=stored["sequence"],
        stream=str(stored["stream"]),
        position=_number(stored["position"]),
        previous_hash=str(stored["previous_hash"]),
        row_hash=str(stored["row_hash"]),
        content=content,
    )


def _value(name: str, value: Any) -> Any:
    """Return a stored value as it was hashed.

    Raises:
        TypeError, ValueError: If it cannot be one that a ledger has stored.
    """
    if name in JSON_COLUMNS:
        return json.loads(value)
    if name == "recorded_at":
        instant = datetime.fromisoformat(value)
        return instant if instant.tzinfo else instant.replace(tzinfo=UTC)
    return value


def _number(position: Any) -> int:
    """Return a position; SQLite takes any value for a number, and 0 is no row's position."""
    return position if isinstance(position, int) else 0
