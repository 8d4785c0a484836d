"""The chains of a SQL ledger: whatever is done to its rows in the raw database is named."""

import json
import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from ml_assets.chain import anchor_document, check_anchor, row_hash
from ml_assets.interfaces import NO_HASH, ChainHead, ChainProblem, Record, RecordKind
from ml_assets.ledger_rows import Kind, record_row
from ml_assets.testing.ledger import ASSET, PIPELINE, decision, record, verdict
from resources.ledger import SqlLedger
from resources.ledger.address import parse_address
from resources.ledger.schema import open_engine
from resources.ledger.statements import _HEAD, read_head
from resources.ledger.tables import TABLES

DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
FORKS = multiprocessing.get_context("fork")
VERDICTS, DECISIONS = "verdicts/flights/arrival_delay", "decisions/flights/arrival_delay"
RECORDS, AUTOMATION = "records/flights/arrival_delay", "automation/flights/arrival_delay"
CHANGED = "changed: the content (sequence {}) is not what was recorded, or was inserted"


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("postgres_database")


@pytest.fixture
def ledger(url: str) -> Iterator[SqlLedger]:
    opened = SqlLedger(url)
    yield opened
    opened.close()


@pytest.fixture
def connect(url: str) -> Callable[[], Any]:
    """Opens a transaction past the ledger, as someone with a SQL shell would."""

    @contextmanager
    def begin() -> Iterator[sa.Connection]:
        engine = sa.create_engine(parse_address(url).url, poolclass=sa.NullPool)
        with engine.begin() as connection:
            yield connection

    return begin


@pytest.fixture
def tamper(ledger: SqlLedger, connect: Callable[[], Any]) -> Callable[..., None]:
    """Runs statements on a ledger of six rows in each table whose triggers and unique indexes were dropped."""
    for n in range(1, 7):
        ledger.record_verdicts([verdict(check=f"c{n}", evidence={"n": n})])
        ledger.record_decision(decision(run_id=f"run-{n}"))
        ledger.append(record(subject=str(n)))
    assert ledger.verify() == []

    def run(*statements: str) -> None:
        with connect() as connection:
            for table in TABLES:
                for trigger in triggers(connection, table):
                    connection.exec_driver_sql(trigger)
                connection.exec_driver_sql(f"DROP INDEX ix_{table}_stream_position")
            for statement in statements:
                connection.exec_driver_sql(statement)

    return run


def triggers(connection: sa.Connection, table: str) -> list[str]:
    if connection.dialect.name == "sqlite":
        return [f"DROP TRIGGER {table}_no_{change}" for change in ("update", "delete", "replace")]
    return [f"DROP TRIGGER {table}_no_{change} ON {table}" for change in ("change", "truncate")]


def copied(table: Kind, sequence: int, **changes: object) -> str:
    """Return a statement that inserts a row again, changed."""
    names = [column.name for column in TABLES[table].columns if column.name != "sequence"]
    values = [str(changes.get(name, name)) for name in names]
    return (
        f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values)} FROM {table} "  # noqa: S608 of this test
        f"WHERE sequence = {sequence}"
    )


def swapped(table: str, one: int, other: int) -> str:
    return (
        f"UPDATE {table} SET position = {one + other} - position "  # noqa: S608 of this test
        f"WHERE position IN ({one}, {other})"
    )


ONE_ROW = [
    ("UPDATE verdicts SET outcome = 'failed' WHERE position = 3", CHANGED.format(3)),
    ("UPDATE verdicts SET reason = reason || '.' WHERE position = 3", CHANGED.format(3)),
    ("UPDATE verdicts SET recorded_at = '2013-01-01 00:00:00.000000' WHERE position = 3", CHANGED.format(3)),
    ("UPDATE verdicts SET evidence = '{\"n\":4}' WHERE position = 3", CHANGED.format(3)),
    ("UPDATE verdicts SET previous_hash = '0' WHERE position = 3", CHANGED.format(3)),
    ("UPDATE verdicts SET row_hash = '0' WHERE position = 3", CHANGED.format(3)),
    ("DELETE FROM verdicts WHERE position = 3", "removed: this row is missing"),
    ("DELETE FROM verdicts WHERE position IN (3, 4)", "removed: rows 3 to 4 are missing"),
    (copied("verdicts", 3), "inserted or forked: 2 rows hold this position (sequences 3, 7)"),
]


@pytest.mark.parametrize(("statement", "problem"), ONE_ROW)
def test_a_row_that_is_tampered_with_is_named(
    ledger: SqlLedger, tamper: Callable[..., None], statement: str, problem: str
) -> None:
    tamper(statement)

    assert ledger.verify() == [ChainProblem(stream=VERDICTS, position=3, problem=problem)]
    assert ledger.verify(PIPELINE) == ledger.verify()
    assert ledger.verify(("flights", "cancellation")) == []


@pytest.mark.parametrize("table", sorted(TABLES))
def test_rows_whose_order_is_changed_are_named(ledger: SqlLedger, tamper: Callable[..., None], table: str) -> None:
    tamper(swapped(table, 2, 5))

    assert [(p.stream.partition("/")[0], p.position, p.problem) for p in ledger.verify()] == [
        (table, 2, "order changed: this row was recorded at position 5"),
        (table, 5, "order changed: this row was recorded at position 2"),
    ]


def test_an_inserted_row_with_the_rest_renumbered_is_named(ledger: SqlLedger, tamper: Callable[..., None]) -> None:
    forged = copied("decisions", 4, outcome="'promoted'", reason="'forged'", position=4)
    tamper("UPDATE decisions SET position = position + 1 WHERE position >= 4", forged)

    assert [(p.position, p.problem.partition(":")[0]) for p in ledger.verify()] == [
        (4, "inserted"),
        (5, "order changed"),
        (6, "order changed"),
        (7, "order changed"),
    ]


def test_a_row_that_is_appended_by_hand_is_named(ledger: SqlLedger, tamper: Callable[..., None]) -> None:
    tamper(copied("decisions", 6, position=7, previous_hash="row_hash", outcome="'promoted'"))

    assert ledger.verify() == [ChainProblem(stream=DECISIONS, position=7, problem=CHANGED.format(7))]


def test_a_sequence_that_is_changed_neither_hides_nor_reorders(ledger: SqlLedger, tamper: Callable[..., None]) -> None:
    always = ["ALTER TABLE decisions ALTER COLUMN sequence SET GENERATED BY DEFAULT"] if is_postgres(ledger) else []
    tamper(*always, "UPDATE decisions SET sequence = 100 WHERE position = 2")

    (problem,) = ledger.verify()
    assert (problem.position, problem.problem) == (3, "order changed: its sequence 3 is not after the 100 before it")
    assert [d.run_id for d in ledger.decisions(PIPELINE)] == [f"run-{n}" for n in range(1, 7)]


def is_postgres(ledger: SqlLedger) -> bool:
    return "postgres" in repr(ledger)


def test_a_row_of_another_pipelines_stream_is_not_read(ledger: SqlLedger, tamper: Callable[..., None]) -> None:
    tamper(
        copied("verdicts", 6, stream="'verdicts/x/y'", position=1),
        copied("decisions", 6, stream="'decisions/x/y'", position=1),
        copied("records", 6, stream="'records/x/y'", position=1),
    )

    assert len(ledger.verdicts(ASSET)) == len(ledger.decisions(PIPELINE)) == len(ledger.records(PIPELINE)) == 6
    assert {problem.stream for problem in ledger.verify()} == {"verdicts/x/y", "decisions/x/y", "records/x/y"}


def append_to(connection: sa.Connection, stream: str, given: Record) -> None:
    """Append a record with its hash to a stream that this release would not choose for it."""
    content = record_row(given, datetime.now(UTC))
    head = read_head(connection, "records", stream) or ChainHead(position=0, row_hash=NO_HASH)
    place: dict[str, Any] = {"stream": stream, "position": head.position + 1, "previous_hash": head.row_hash}
    row = {**content, **place, "row_hash": row_hash(content, **place)}
    connection.execute(TABLES["records"].insert(), row)


def test_automation_of_an_older_ledger_stays_where_it_is(ledger: SqlLedger, connect: Callable[[], Any]) -> None:
    assert ledger.heads() == {}
    kinds: list[RecordKind] = ["automation", "approval", "pause", "waiver", "automation"]
    with connect() as connection:
        for n, kind in enumerate(kinds):
            append_to(connection, RECORDS, record(kind=kind, subject=str(n)))
    anchor, old = anchor_document(ledger.heads()), ledger.records(PIPELINE)

    assert [(r.kind, r.subject, r.stream) for r in old] == [(kind, str(n), RECORDS) for n, kind in enumerate(kinds)]
    assert ledger.verify() == ledger.verify(PIPELINE) == []
    resumed = ledger.append(record(kind="pause", subject="5"), after=NO_HASH)
    approved = ledger.append(record(subject="6"), after=old[-1].row_hash)
    decided = ledger.append(record(kind="automation", subject="7"), after=resumed.row_hash)

    assert ledger.records(PIPELINE) == [*old, resumed, approved, decided]
    assert ledger.records(PIPELINE, kind="pause") == [old[2], resumed]
    assert ledger.records(PIPELINE, kind="automation") == [old[0], old[4], decided]
    assert {name: head.position for name, head in ledger.heads(PIPELINE).items()} == {AUTOMATION: 2, RECORDS: 6}
    assert ledger.verify() == check_anchor(anchor, ledger) == check_anchor(anchor, ledger, PIPELINE) == []


def test_an_approval_among_the_records_of_automation_is_named_and_not_read(
    ledger: SqlLedger, connect: Callable[[], Any]
) -> None:
    kept = ledger.append(record(kind="automation"))
    with connect() as connection:
        append_to(connection, AUTOMATION, record())

    (problem,) = ledger.verify(PIPELINE)
    assert (problem.stream, problem.position) == (AUTOMATION, 2)
    assert problem.problem == f"inserted: by its content this row belongs to {RECORDS}"
    assert ledger.records(PIPELINE) == [kept]


def test_a_sequence_that_is_changed_reorders_no_records(ledger: SqlLedger, tamper: Callable[..., None]) -> None:
    ledger.append(record(kind="automation"))
    always = ["ALTER TABLE records ALTER COLUMN sequence SET GENERATED BY DEFAULT"] if is_postgres(ledger) else []
    tamper(*always, f"UPDATE records SET sequence = 100 WHERE position = 2 AND stream = '{RECORDS}'")  # noqa: S608

    assert [r.subject for r in ledger.records(PIPELINE, kind="approval")] == ["1", "2", "3", "4", "5", "6"]
    assert [(p.stream, p.position) for p in ledger.verify()] == [(RECORDS, 3)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE verdicts SET evidence = 'no json' WHERE position = 3",
        "UPDATE verdicts SET evidence = '{\"n\":NaN}' WHERE position = 3",
        "UPDATE verdicts SET evidence = x'00ff' WHERE position = 3",
        "UPDATE verdicts SET evidence = CAST(x'00ff' AS TEXT) WHERE position = 3",
        "UPDATE verdicts SET reason = CAST(x'00ff' AS TEXT) WHERE position = 3",
        "UPDATE verdicts SET recorded_at = 'yesterday' WHERE position = 3",
        "UPDATE verdicts SET recorded_at = 12 WHERE position = 3",
        "UPDATE verdicts SET reason = x'00ff' WHERE position = 3",
    ],
)
def test_sqlite_rows_that_cannot_be_read_any_more_are_named(tmp_path: Path, statement: str) -> None:
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.record_verdicts([verdict(check=str(n)) for n in range(5)])
    engine = sa.create_engine(f"sqlite:///{tmp_path}/ledger.db", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER verdicts_no_update")
        connection.exec_driver_sql(statement)

    (problem,) = ledger.verify()
    assert (problem.position, problem.problem.partition(":")[0]) == (3, "changed")


def test_sqlite_positions_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.record_verdicts([verdict(check=str(n)) for n in range(5)])
    engine = sa.create_engine(f"sqlite:///{tmp_path}/ledger.db", poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER verdicts_no_update")
        connection.exec_driver_sql("UPDATE verdicts SET position = 'third' WHERE position = 3")

    assert [(p.position, p.problem.partition(":")[0]) for p in ledger.verify()] == [(0, "changed"), (3, "removed")]


@pytest.mark.postgres
@pytest.mark.parametrize("instant", ["infinity", "0044-03-15 BC"])
def test_postgres_instants_that_python_does_not_know_are_named(postgres_database: str, instant: str) -> None:
    ledger = SqlLedger(postgres_database)
    ledger.record_decision(decision())
    engine = sa.create_engine(parse_address(postgres_database).url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TRIGGER decisions_no_change ON decisions")
        connection.exec_driver_sql("UPDATE decisions SET recorded_at = %s", (instant,))

    assert [p.problem for p in ledger.verify()] == ["changed: a column cannot be read any more"]
    ledger.close()


@pytest.mark.parametrize("table", sorted(TABLES))
def test_sqlite_refuses_a_row_that_takes_anothers_place(tmp_path: Path, table: Kind) -> None:
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.record_verdicts([verdict(), verdict()])
    ledger.record_decision(decision())
    ledger.append(record())
    engine = sa.create_engine(f"sqlite:///{tmp_path}/ledger.db", poolclass=sa.NullPool)

    forged = copied(table, 1).replace("INSERT", "INSERT OR REPLACE")
    for statement in (forged, copied(table, 1, position=7), copied(table, 1, stream="''", position=0)):
        with engine.connect() as connection, pytest.raises(sa_exc.IntegrityError, match="append-only"):
            connection.exec_driver_sql(statement)
    assert ledger.verify() == []


def test_a_long_chain_is_walked_without_loading_it(ledger: SqlLedger, tamper: Callable[..., None]) -> None:
    for _ in range(5):
        ledger.record_verdicts([verdict(check=f"d{n}") for n in range(1000)])
    assert ledger.verify() == []
    tamper("UPDATE verdicts SET reason = '' WHERE position = 4321", "DELETE FROM verdicts WHERE position = 4999")

    assert [p.position for p in ledger.verify()] == [4321, 4999]


def test_reading_the_head_uses_the_index(url: str, ledger: SqlLedger) -> None:
    ledger.record_verdicts([verdict(check=str(n)) for n in range(2000)])
    engine = open_engine(parse_address(url))
    with engine.connect() as connection:
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql("SET enable_seqscan = off")
        explain = "EXPLAIN" if is_postgres(ledger) else "EXPLAIN QUERY PLAN"
        head = _HEAD["verdicts"].params(stream=VERDICTS)
        query = str(head.compile(engine, compile_kwargs={"literal_binds": True}))
        plan = connection.exec_driver_sql(f"{explain} {query}").all()
    engine.dispose()

    text = json.dumps([list(map(str, row)) for row in plan])
    assert "ix_verdicts_stream_position" in text
    assert "SORT" not in text.upper()
