"""The chains of a SQL ledger: tampering in the raw database, older schemas, and processes that decide at once."""

import json
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ml_assets.errors import LedgerError
from ml_assets.interfaces import NO_HASH, ChainProblem
from ml_assets.testing.ledger import ASSET, PIPELINE, decision, record, verdict
from resources.ledger import SqlLedger
from resources.ledger.address import parse_address
from resources.ledger.schema import migration_config, open_engine
from resources.ledger.statements import _HEAD
from resources.ledger.tables import TABLES

DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
FORKS = multiprocessing.get_context("fork")
VERDICTS, DECISIONS = "verdicts/flights/arrival_delay", "decisions/flights/arrival_delay"
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


def copied(table: str, sequence: int, **changes: object) -> str:
    """Return a statement that inserts a row again, changed."""
    names = [column.name for column in TABLES[table].columns if column.name != "sequence"]  # type: ignore[index]
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
def test_sqlite_refuses_a_row_that_takes_anothers_place(tmp_path: Path, table: str) -> None:
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.record_verdicts([verdict(), verdict()])
    ledger.record_decision(decision())
    ledger.append(record())
    engine = sa.create_engine(f"sqlite:///{tmp_path}/ledger.db", poolclass=sa.NullPool)

    forged = copied(table, 1).replace("INSERT", "INSERT OR REPLACE")
    for statement in (forged, copied(table, 1, position=7), copied(table, 1, stream="''", position=0)):
        with engine.connect() as connection, pytest.raises(sa.exc.IntegrityError, match="append-only"):
            connection.exec_driver_sql(statement)
    assert ledger.verify() == []


def test_a_long_chain_is_walked_without_loading_it(ledger: SqlLedger, tamper: Callable[..., None]) -> None:
    for _ in range(5):
        ledger.record_verdicts([verdict(check=f"d{n}") for n in range(1000)])
    assert ledger.verify() == []
    tamper("UPDATE verdicts SET reason = '' WHERE position = 4321", "DELETE FROM verdicts WHERE position = 4999")

    assert [p.position for p in ledger.verify()] == [4321, 4999]


# Older schemas


def make_first_schema(url: str) -> sa.Engine:
    """Return an engine of a database as the first revision left it."""
    from alembic import command

    engine = sa.create_engine(parse_address(url).url, poolclass=sa.NullPool)
    config = migration_config()
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
    return engine


FIRST_VERDICT = (
    "INSERT INTO verdicts (recorded_at, asset, partition, data_version, policy_version, check_name, outcome, severity,"
    " reason, run_id, evidence) VALUES ('2013-02-01 12:30:15.123456{zone}', 'flights/arrival_delay/raw_data', 'p', 'd',"
    " 'v', 'c{n}', 'passed', 'error', 'all hold', 'run', '{{\"n\": {n}, \"x\": 0.1, \"é\": null}}')"
)
FIRST_DECISION = (
    "INSERT INTO decisions (recorded_at, team, pipeline, partition, outcome, reason, model_name, model_version,"
    " champion_version, data_version, policy_version, run_id, evidence) VALUES ('2013-02-01 12:30:15.000000{zone}',"
    " 'flights', '{pipeline}', '2013-02', 'promoted', 'better', 'm', '3', NULL, 'd', 'v', 'run-{n}', '{{}}')"
)


def test_rows_of_the_first_schema_are_chained_when_it_is_upgraded(url: str, ledger: SqlLedger) -> None:
    zone = "+00" if is_postgres(ledger) else ""
    engine = make_first_schema(url)
    with engine.begin() as connection:
        for n in range(4500):
            connection.exec_driver_sql(FIRST_VERDICT.format(n=n, zone=zone))
        for n in range(4):
            pipeline = ("arrival_delay", "cancellation")[n % 2]
            connection.exec_driver_sql(FIRST_DECISION.format(n=n, zone=zone, pipeline=pipeline))

    assert ledger.verify() == []
    assert {name: head.position for name, head in ledger.heads().items()} == {
        DECISIONS: 2,
        "decisions/flights/cancellation": 2,
        VERDICTS: 4500,
    }
    found = ledger.verdicts(ASSET)
    assert [v.check for v in found] == [f"c{n}" for n in range(4500)]
    assert (found[7].evidence, found[7].policy_digest) == ({"n": 7, "x": 0.1, "é": None}, "")
    assert found[7].recorded_at is not None
    assert found[7].recorded_at.isoformat() == "2013-02-01T12:30:15.123456+00:00"
    first, second = ledger.decisions(PIPELINE)
    assert (first.run_id, second.run_id, first.decided_by, first.launched_by) == ("run-0", "run-2", "pipeline", ())

    ledger.record_decision(decision())
    ledger.append(record(), after=NO_HASH)
    assert ledger.heads()[DECISIONS].position == 3
    assert ledger.verify() == []


@pytest.mark.parametrize("statement", ["UPDATE {} SET reason = ''", "DELETE FROM {}"])
@pytest.mark.parametrize("table", ["verdicts", "decisions"])
def test_an_upgraded_ledger_is_append_only_again(
    url: str, ledger: SqlLedger, connect: Callable[[], Any], table: str, statement: str
) -> None:
    zone = "+00" if is_postgres(ledger) else ""
    with make_first_schema(url).begin() as connection:
        connection.exec_driver_sql(FIRST_VERDICT.format(n=0, zone=zone))
        connection.exec_driver_sql(FIRST_DECISION.format(n=0, zone=zone, pipeline="arrival_delay"))
    ledger.heads()

    with pytest.raises(sa.exc.DBAPIError, match="append-only"), connect() as connection:
        connection.exec_driver_sql(statement.format(table))


def test_a_program_of_the_first_schema_cannot_write_after_the_upgrade(
    ledger: SqlLedger, connect: Callable[[], Any]
) -> None:
    ledger.record_decision(decision())

    old = FIRST_DECISION.format(n=0, zone="", pipeline="arrival_delay")
    with pytest.raises(sa.exc.IntegrityError, match=r"append-only|null value"), connect() as connection:
        connection.exec_driver_sql(old)


def test_processes_that_upgrade_at_once_upgrade_once(url: str, ledger: SqlLedger) -> None:
    zone = "+00" if is_postgres(ledger) else ""
    with make_first_schema(url).begin() as connection:
        for n in range(300):
            connection.exec_driver_sql(FIRST_VERDICT.format(n=n, zone=zone))

    run_in_processes(5, lambda n: SqlLedger(url).record_verdicts([verdict(check=f"new-{n}")]))

    assert ledger.heads()[VERDICTS].position == 305
    assert ledger.verify() == []


# Processes


def run_in_processes(count: int, work: Callable[[int], None]) -> None:
    """Run work(0) … work(count - 1) in forked processes that begin together; fail when one of them fails."""
    start = FORKS.Barrier(count)

    def begin(number: int) -> None:
        start.wait(60)
        work(number)

    processes = [FORKS.Process(target=begin, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * count


def test_ten_processes_that_read_check_and_append_lose_nothing_and_fork_no_chain(url: str, ledger: SqlLedger) -> None:
    def decide(process: int) -> None:
        own = SqlLedger(url)
        for turn in range(20):
            with own.exclusive(PIPELINE) as view:
                seen = len(view.decisions(PIPELINE))
                last = view.heads(PIPELINE).get("records/flights/arrival_delay")
                after = NO_HASH if last is None else last.row_hash
                view.record_decision(decision(run_id=f"{process}-{turn}", reason=str(seen)))
                view.append(record(subject=f"{process}-{turn}"), after=after)
            own.record_verdicts([verdict(check=f"{process}-{turn}")])

    run_in_processes(10, decide)

    decisions = ledger.decisions(PIPELINE)
    assert [d.reason for d in decisions] == [str(n) for n in range(200)]
    expected = {f"{process}-{turn}" for process in range(10) for turn in range(20)}
    assert {d.run_id for d in decisions} == {v.check for v in ledger.verdicts(ASSET)} == expected
    assert {name: head.position for name, head in ledger.heads(PIPELINE).items()} == dict.fromkeys(
        [DECISIONS, "records/flights/arrival_delay", VERDICTS], 200
    )
    assert ledger.verify() == []


def test_processes_that_compare_and_set_lose_nothing(url: str, ledger: SqlLedger) -> None:
    from ml_assets.errors import LedgerConflictError

    def append(process: int) -> None:
        own, left = SqlLedger(url), 10
        while left:
            head = own.heads(PIPELINE).get("records/flights/arrival_delay")
            try:
                own.append(record(subject=str(process)), after=NO_HASH if head is None else head.row_hash)
            except LedgerConflictError:
                continue
            left -= 1

    run_in_processes(5, append)

    assert len(ledger.records(PIPELINE)) == 50
    assert ledger.verify() == []


def test_a_process_that_is_killed_inside_leaves_nothing_and_the_next_one_proceeds(url: str, ledger: SqlLedger) -> None:
    ledger.record_decision(decision(run_id="before"))
    inside = FORKS.Event()

    def hold() -> None:
        with SqlLedger(url).exclusive(PIPELINE) as view:
            view.record_decision(decision(run_id="killed"))
            view.append(record())
            inside.set()
            time.sleep(60)

    process = FORKS.Process(target=hold)
    process.start()
    assert inside.wait(30)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)

    with ledger.exclusive(PIPELINE) as view:
        assert [d.run_id for d in view.decisions(PIPELINE)] == ["before"]
        assert view.records(PIPELINE) == []
        view.record_decision(decision(run_id="after"))
    assert [d.run_id for d in ledger.decisions(PIPELINE)] == ["before", "after"]
    assert ledger.verify() == []


@contextmanager
def held(ledger: SqlLedger, pipeline: tuple[str, str]) -> Iterator[None]:
    """Keep an exclusive transaction open in another thread."""
    inside, done = threading.Event(), threading.Event()

    def hold() -> None:
        with ledger.exclusive(pipeline):
            inside.set()
            done.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(30)
    try:
        yield
    finally:
        done.set()
        holder.join()


def test_who_waits_too_long_is_told_for_what(url: str, ledger: SqlLedger) -> None:
    hurried = SqlLedger(url, wait_seconds=0.2)
    with held(ledger, PIPELINE):
        begun = time.monotonic()
        for action, write in {
            "Recording verdicts failed": lambda: hurried.record_verdicts([verdict()]),
            "Recording a decision failed": lambda: hurried.record_decision(decision()),
            "Recording the approval failed": lambda: hurried.append(record()),
            "The exclusive transaction of flights/arrival_delay failed": lambda: hurried.exclusive(
                PIPELINE
            ).__enter__(),
        }.items():
            with pytest.raises(LedgerError, match=action) as caught:
                write()
            assert f"process {os.getpid()} waited 0.2 seconds for another one that writes" in str(caught.value)
            assert "find the other one with: " in str(caught.value)
        assert 0.8 <= time.monotonic() - begun < 10
        assert hurried.decisions(PIPELINE) == []

    hurried.record_decision(decision())
    hurried.close()


@pytest.mark.postgres
def test_on_postgres_other_pipelines_need_not_wait(postgres_database: str) -> None:
    ledger, hurried = SqlLedger(postgres_database), SqlLedger(postgres_database, wait_seconds=0.2)
    with held(ledger, PIPELINE), hurried.exclusive(("flights", "cancellation")) as view:
        view.record_decision(decision(pipeline=("flights", "cancellation")))
        hurried_too = SqlLedger(postgres_database, wait_seconds=0.2)
        hurried_too.record_decision(decision(pipeline=("births", "weight")))
        hurried_too.close()

    assert len(ledger.heads()) == 2
    ledger.close()
    hurried.close()


def test_an_error_of_the_database_inside_leaves_nothing_even_when_it_is_caught(
    ledger: SqlLedger, connect: Callable[[], Any]
) -> None:
    ledger.record_decision(decision())
    with connect() as connection:
        connection.exec_driver_sql("ALTER TABLE records RENAME TO gone")

    def decide() -> None:
        with ledger.exclusive(PIPELINE) as view:
            view.record_decision(decision())
            with pytest.raises(LedgerError, match="Recording the approval failed in the ledger at"):
                view.append(record())

    with pytest.raises(LedgerError, match="Nothing of the exclusive transaction of flights/arrival_delay was recorded"):
        decide()
    assert len(ledger.decisions(PIPELINE)) == 1


def test_errors_of_another_database_pass_through_the_exclusive_transaction(ledger: SqlLedger) -> None:
    def fail() -> None:
        with ledger.exclusive(PIPELINE) as view:
            view.record_decision(decision())
            raise sa.exc.OperationalError("a registry's own", None, Exception("gone"))

    with pytest.raises(sa.exc.OperationalError, match="gone"):
        fail()
    assert ledger.decisions(PIPELINE) == []


@pytest.mark.postgres
def test_a_connection_that_is_lost_inside_is_explained(postgres_database: str, connect: Any) -> None:
    del connect
    ledger = SqlLedger(postgres_database)
    other = sa.create_engine(parse_address(postgres_database).url, poolclass=sa.NullPool)

    def lose() -> None:
        with ledger.exclusive(PIPELINE) as view:
            view.record_decision(decision())
            with other.connect() as connection:
                connection.exec_driver_sql(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )

    with pytest.raises(LedgerError, match="Committing the exclusive transaction of flights/arrival_delay failed"):
        lose()
    ledger.record_decision(decision(run_id="later"))
    assert [d.run_id for d in ledger.decisions(PIPELINE)] == ["later"]
    ledger.close()


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
