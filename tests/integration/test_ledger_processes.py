"""A SQL ledger under older schemas, and under processes and threads that decide at once."""

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
from sqlalchemy import exc as sa_exc

from ml_assets.errors import LedgerConflictError, LedgerError
from ml_assets.interfaces import NO_HASH, ChainHead
from ml_assets.testing.ledger import ASSET, PIPELINE, decision, record, verdict
from resources.ledger import SqlLedger
from resources.ledger.address import parse_address
from resources.ledger.inbox import SqlInbox
from resources.ledger.schema import migration_config

DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
FORKS = multiprocessing.get_context("fork")
VERDICTS, DECISIONS = "verdicts/flights/arrival_delay", "decisions/flights/arrival_delay"


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


def is_postgres(ledger: SqlLedger) -> bool:
    return "postgres" in repr(ledger)


# Older schemas


def make_first_schema(url: str) -> sa.Engine:
    """Return an engine of a database as the first revision left it."""
    engine = sa.create_engine(parse_address(url).url, poolclass=sa.NullPool)
    with engine.begin() as connection:
        migrate(connection, "0001")
    return engine


def migrate(connection: sa.Connection, revision: str) -> None:
    from alembic import command

    config = migration_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


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


def test_a_ledger_without_an_inbox_gains_one_and_keeps_its_chains(
    url: str, ledger: SqlLedger, connect: Callable[[], Any]
) -> None:
    zone = "+00" if is_postgres(ledger) else ""
    with make_first_schema(url).begin() as connection:
        connection.exec_driver_sql(FIRST_DECISION.format(n=0, zone=zone, pipeline="arrival_delay"))
        migrate(connection, "0002")
    with connect() as connection:
        (before,) = connection.exec_driver_sql("SELECT row_hash FROM decisions").scalars()

    inbox = SqlInbox(url)
    assert inbox.counts() == {}
    assert ledger.heads() == {DECISIONS: ChainHead(position=1, row_hash=before)}
    mark = ledger.mark()
    ledger.record_decision(decision())
    assert ledger.mark() != mark
    assert ledger.verify() == []
    inbox.close()


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

    with pytest.raises(sa_exc.DBAPIError, match="append-only"), connect() as connection:
        connection.exec_driver_sql(statement.format(table))


def test_a_program_of_the_first_schema_cannot_write_after_the_upgrade(
    ledger: SqlLedger, connect: Callable[[], Any]
) -> None:
    ledger.record_decision(decision())

    old = FIRST_DECISION.format(n=0, zone="", pipeline="arrival_delay")
    with pytest.raises(sa_exc.IntegrityError, match=r"append-only|null value"), connect() as connection:
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
        start.wait(300)
        work(number)

    processes = [FORKS.Process(target=begin, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
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
    assert inside.wait(120)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(120)

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
            done.wait(120)

    holder = threading.Thread(target=hold)
    holder.start()
    assert inside.wait(120)
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
def test_the_mark_moves_when_what_was_appended_first_is_committed_last(postgres_database: str) -> None:
    ledger, reader = SqlLedger(postgres_database), SqlLedger(postgres_database)
    other = SqlLedger(postgres_database)
    with ledger.exclusive(PIPELINE) as view:
        view.record_decision(decision())
        other.record_decision(decision(pipeline=("births", "weight")))
        before = reader.mark()

    assert reader.mark() != before
    for opened in (ledger, reader, other):
        opened.close()


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
            raise sa_exc.OperationalError("a registry's own", None, Exception("gone"))

    with pytest.raises(sa_exc.OperationalError, match="gone"):
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
