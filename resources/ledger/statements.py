"""Reading and appending on one connection; SQLAlchemy's errors pass through to whoever holds the connection."""

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from ml_assets.chain import continued
from ml_assets.errors import LedgerConflictError
from ml_assets.interfaces import NO_HASH, AssetPath, ChainHead, Decision, PipelinePath, Record, RecordKind, Verdict
from ml_assets.ledger_rows import (
    KINDS,
    Kind,
    Row,
    decision_of,
    home_streams,
    in_order,
    joined_asset,
    pipeline_streams,
    record_of,
    stream_name,
    verdict_of,
)
from resources.ledger.tables import TABLES, decisions, ledger_marks, records, verdicts


def _head_query(table: sa.Table) -> sa.Select:
    query = sa.select(table.c.position, table.c.row_hash).where(table.c.stream == sa.bindparam("stream"))
    return query.order_by(table.c.position.desc()).limit(1)


_HEAD: Mapping[Kind, sa.Select] = {kind: _head_query(table) for kind, table in TABLES.items()}
_INSERT: Mapping[Kind, sa.Insert] = {kind: table.insert() for kind, table in TABLES.items()}
_MARK = (
    ledger_marks.update().where(ledger_marks.c.stream == sa.bindparam("of")).values(appends=ledger_marks.c.appends + 1)
)
_MARKS = sa.select(sa.func.coalesce(sa.func.sum(ledger_marks.c.appends), 0))
"""Made once: every step records verdicts, and making a statement takes as long as SQLite takes to run it."""


def append_rows(connection: sa.Connection, kind: Kind, rows: Sequence[Row]) -> list[Row]:
    """Append rows, each after the last of its stream, and return them with their hashes.

    The caller holds the locks of the streams, and all rows are stored or none.
    """
    names = {stream_name(kind, row) for row in rows}
    heads = {name: head for name in names if (head := read_head(connection, kind, name)) is not None}
    chained = continued(kind, rows, heads)
    connection.execute(_INSERT[kind], chained)
    for name in names:
        if connection.execute(_MARK, {"of": name}).rowcount == 0:
            connection.execute(ledger_marks.insert(), {"stream": name, "appends": 1})
    return chained


def read_mark(connection: sa.Connection) -> str:
    """Return a text that changes with every append.

    The highest number of a row would not do: of two that are appended at once, the lower one may appear last.
    """
    return str(int(connection.execute(_MARKS).scalar_one()))


def read_head(connection: sa.Connection, kind: Kind, stream: str) -> ChainHead | None:
    """Return the last row of a stream from its index, or None when it has none."""
    found = connection.execute(_HEAD[kind], {"stream": stream}).first()
    return None if found is None else ChainHead(position=found.position, row_hash=found.row_hash)


def read_heads(connection: sa.Connection, pipeline: PipelinePath | None) -> dict[str, ChainHead]:
    """Return the last row of every stream (of one pipeline) that has any."""
    if pipeline is not None:
        streams = pipeline_streams(pipeline)
        found = {name: read_head(connection, kind, name) for name, kind in streams.items()}
        return {name: head for name, head in found.items() if head is not None}
    heads: dict[str, ChainHead] = {}
    for kind in KINDS:
        table = TABLES[kind]
        last = sa.select(table.c.stream, sa.func.max(table.c.position).label("position")).group_by(table.c.stream)
        ends = last.subquery()
        same = sa.and_(table.c.stream == ends.c.stream, table.c.position == ends.c.position)
        query = sa.select(table.c.stream, table.c.position, table.c.row_hash).join(ends, same)
        for row in connection.execute(query):
            heads[row.stream] = ChainHead(position=row.position, row_hash=row.row_hash)
    return dict(sorted(heads.items()))


def read_verdicts(
    connection: sa.Connection,
    asset: AssetPath,
    partition: str | None,
    data_version: str | None,
    policy_version: str | None,
) -> list[Verdict]:
    """Return the matching verdicts in the order of their stream."""
    path = joined_asset(asset)
    query = verdicts.select().where(verdicts.c.asset == path).order_by(verdicts.c.position)
    filters = {"partition": partition, "data_version": data_version, "policy_version": policy_version}
    for name, value in filters.items():
        if value is not None:
            query = query.where(verdicts.c[name] == value)
    # A row in a foreign stream is none of ours. Asked in SQL, SQLite would leave the index on the asset for it.
    stream = stream_name("verdicts", {"asset": path})
    return [verdict_of(row) for row in connection.execute(query).mappings() if row["stream"] == stream]


def read_decisions(connection: sa.Connection, pipeline: PipelinePath) -> list[Decision]:
    """Return the pipeline's decisions in the order of their stream."""
    query = _of_pipeline(decisions, "decisions", pipeline)
    return [decision_of(row) for row in connection.execute(query).mappings()]


def read_records(
    connection: sa.Connection, pipeline: PipelinePath, kind: RecordKind | None, subject: str | None
) -> list[Record]:
    """Return the pipeline's matching records of both streams in the order of recording."""
    query = _of_pipeline(records, "records", pipeline)
    if kind is not None:
        query = query.where(records.c.kind == kind)
    if subject is not None:
        query = query.where(records.c.subject == subject)
    rows = in_order(connection.execute(query).mappings())
    # A record in a foreign stream is none of ours: an approval among those of automation was never given.
    return [record_of(row) for row in rows if row["stream"] in home_streams("records", row)]


def _of_pipeline(table: sa.Table, kind: Kind, pipeline: PipelinePath) -> sa.Select:
    team, name = pipeline
    own = table.select().where(table.c.team == team, table.c.pipeline == name)
    return own.where(table.c.stream.in_(pipeline_streams(pipeline, kind))).order_by(table.c.stream, table.c.position)


def append_record(connection: sa.Connection, row: Row, after: str | None) -> Record:
    """Append a record, when the last one of its stream still is `after`.

    Raises:
        LedgerConflictError: If it is another one.
    """
    if after is not None:
        name = stream_name("records", row)
        head = read_head(connection, "records", name)
        found = NO_HASH if head is None else head.row_hash
        if found != after:
            raise LedgerConflictError(
                f"Nothing was recorded in {name}: its last record has the hash {found[:12]}…, expected "
                f"{after[:12]}…. Another record came in between: read the records again and decide again."
            )
    return record_of(append_rows(connection, "records", [row])[0])


def read_hash(connection: sa.Connection, kind: Kind, stream: str, position: int) -> str | None:
    """Return the hash of one row, or None when there is no such row."""
    table = TABLES[kind]
    query = sa.select(table.c.row_hash).where(table.c.stream == stream, table.c.position == position)
    return connection.execute(query).scalar()
