"""SqlInbox and SqlAlerts on SQLite and on Postgres: the suites, processes, and what they cost."""

import gc
import multiprocessing
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings

from ml_assets.errors import InboxError, LedgerError
from ml_assets.interfaces import AlertStore, Inbox
from ml_assets.testing.alerts import AlertsSuite, alert
from ml_assets.testing.inbox import NOW, PIPELINE, InboxSuite, event, failure
from ml_assets.testing.inbox_examples import DEDUP, MINUTE, RETRY
from ml_assets.testing.ledger import record
from resources.ledger import SqlLedger
from resources.ledger.address import parse_address
from resources.ledger.alerts import SqlAlerts
from resources.ledger.inbox import SqlInbox
from resources.ledger.inbox_writing import save_steps
from tests.unit.inbox_machine import InboxMachine


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema: making one takes a hundred times as long as copying it."""
    file = tmp_path_factory.mktemp("empty") / "ledger.db"
    SqlInbox(f"sqlite:///{file}").mark()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


@pytest.fixture
def sqlite_url(empty_file: Path, tmp_path: Path) -> str:
    shutil.copy(empty_file, tmp_path / "ledger.db")
    return f"sqlite:///{tmp_path}/ledger.db"


@pytest.fixture(scope="module")
def postgres_module_database(postgres_url: str) -> Iterator[str]:
    """A database with the schema, for all tests of this module."""
    server, name = sa.create_engine(parse_address(postgres_url).url, poolclass=sa.NullPool), f"inbox_{uuid.uuid4().hex}"
    with server.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
        yield postgres_url.removesuffix("postgres") + name
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def emptied_postgres_url(postgres_module_database: str) -> str:
    opened = SqlInbox(postgres_module_database)
    with opened._database.writing("Emptying the tables", ["inbox"]) as connection:
        connection.exec_driver_sql("TRUNCATE inbox_events, inbox_batches, inbox_counts, alerts")
        connection.exec_driver_sql("UPDATE inbox_counters SET value = 0")
    opened.close()
    return postgres_module_database


class TestSqliteInbox(InboxSuite):
    @pytest.fixture
    def inbox(self, sqlite_url: str) -> Inbox:
        return SqlInbox(sqlite_url)


@pytest.mark.postgres
class TestPostgresInbox(InboxSuite):
    @pytest.fixture
    def inbox(self, emptied_postgres_url: str) -> Iterator[Inbox]:
        opened = SqlInbox(emptied_postgres_url)
        yield opened
        opened.close()


class TestSqliteAlerts(AlertsSuite):
    @pytest.fixture
    def alerts(self, sqlite_url: str) -> AlertStore:
        return SqlAlerts(sqlite_url)


@pytest.mark.postgres
class TestPostgresAlerts(AlertsSuite):
    @pytest.fixture
    def alerts(self, emptied_postgres_url: str) -> Iterator[AlertStore]:
        opened = SqlAlerts(emptied_postgres_url)
        yield opened
        opened.close()


class SqliteInboxMachine(InboxMachine):
    def make_inbox(self) -> Inbox:
        self.folder = tempfile.TemporaryDirectory()
        return SqlInbox(f"sqlite:///{self.folder.name}/ledger.db")

    def teardown(self) -> None:
        self.folder.cleanup()


TestSqliteInboxUnderAnySteps = SqliteInboxMachine.TestCase
TestSqliteInboxUnderAnySteps.settings = settings(max_examples=5, stateful_step_count=20, deadline=None)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("postgres_database")


def in_processes(count: int, work: Callable[[int], None]) -> None:
    """Run work(0) … work(count - 1) in forked processes that begin together; fail when one of them fails."""
    forks = multiprocessing.get_context("fork")
    start = forks.Barrier(count)

    def begin(number: int) -> None:
        start.wait(300)
        work(number)

    processes = [forks.Process(target=begin, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * count


def test_processes_that_open_receive_claim_and_finish_at_once_do_each_event_once(url: str, tmp_path: Path) -> None:
    events = [event(key=str(n), partition=f"p{n % 30}") for n in range(60)]

    def work(process: int) -> None:
        own, turn = SqlInbox(url), 0
        own.receive(events, dedup=DEDUP, now=NOW)
        while ready := own.ready([PIPELINE], debounce=timedelta(0), now=NOW):
            turn += 1
            name = f"{process}-{turn}"
            batch = own.claim([kept.number for kept in ready[:8]], name, lease=MINUTE, now=NOW)
            if batch is not None:
                assert own.start(name, name, now=NOW)
                (tmp_path / name).write_text(" ".join(str(kept.number) for kept in batch.events))
                own.finish(name, {}, retry=RETRY, now=NOW)

    in_processes(5, work)

    inbox = SqlInbox(url)
    done = [int(number) for file in tmp_path.glob("?-*") for number in file.read_text().split()]
    assert sorted(done) == list(range(1, 61))
    assert inbox.counts() == {PIPELINE: {"done": 60}}
    assert {kept.repeats for kept in inbox.events()} == {4}
    inbox.close()


def test_a_forked_process_does_not_use_its_parents_connection(url: str) -> None:
    inbox = SqlInbox(url)
    inbox.receive([event()], dedup=DEDUP, now=NOW)

    in_processes(4, lambda n: None if inbox.receive([event(key=str(n))], dedup=DEDUP, now=NOW).new else os._exit(1))

    assert len(inbox.events()) == 5
    inbox.close()


def test_inbox_and_ledger_share_a_database_and_the_password_is_not_shown(url: str) -> None:
    ledger, inbox, alerts = SqlLedger(url), SqlInbox(url), SqlAlerts(url)
    ledger.append(record())
    inbox.receive([event()], dedup=DEDUP, now=NOW)
    alerts.raise_once(alert(), now=NOW)

    assert ledger.verify() == []
    assert "s3cret" not in f"{ledger} {inbox} {alerts}"
    assert "ledger.db" in repr(inbox) or "postgresql://ledger@127.0.0.1" in repr(inbox)
    for opened in (ledger, inbox, alerts):
        opened.close()


def test_the_constructors_load_and_touch_nothing(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom resources.ledger.inbox import SqlInbox\nfrom resources.ledger.alerts import SqlAlerts\n"
        f"SqlInbox('sqlite:///{tmp_path}/a/ledger.db'), SqlAlerts('sqlite:///{tmp_path}/a/ledger.db')\n"
        "print('\\n'.join(sys.modules))"
    )
    command = [sys.executable, "-c", code]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=300, check=True)

    assert not set(result.stdout.split()) & {"sqlalchemy", "alembic", "psycopg2", "dagster"}
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_is_no_database_is_explained(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="does not name a file"):
        SqlInbox("sqlite://")
    (tmp_path / "ledger.db").write_text("not a database, but some text that is long enough to be looked at" * 100)
    with pytest.raises(LedgerError, match=r"Receiving events failed in .*ledger\.db: file is not a database"):
        SqlInbox(f"sqlite:///{tmp_path}/ledger.db").receive([event()], dedup=DEDUP, now=NOW)


def test_a_row_that_was_changed_past_the_inbox_stops_the_step(tmp_path: Path) -> None:
    inbox = SqlInbox(f"sqlite:///{tmp_path}/ledger.db")
    (kept,) = inbox.receive([event()], dedup=DEDUP, now=NOW).new
    inbox.claim([1], "b1", lease=MINUTE, now=NOW)
    mark = inbox.mark()

    with (
        pytest.raises(InboxError, match=r"Events 1 .* were to go from waiting to done, and some are no"),
        inbox._database.writing("A step", ["inbox"]) as connection,
    ):
        save_steps(connection, [(kept, replace(kept, state="done"))])
    assert (inbox.mark(), inbox.counts()) == (mark, {PIPELINE: {"claimed": 1}})


def cpu_seconds(work: Callable[[], Any]) -> float:
    gc.collect()
    gc.disable()  # what other tests left to be collected is no cost of the work
    try:
        begun = time.process_time()
        work()
        return time.process_time() - begun
    finally:
        gc.enable()


def test_receiving_a_thousand_events_costs_less_than_a_second(tmp_path: Path) -> None:
    inbox = SqlInbox(f"sqlite:///{tmp_path}/ledger.db")
    inbox.mark()
    events = [event(key=str(n), partition=f"p{n}", payload={"place": f"{n}.csv"}) for n in range(1000)]

    assert cpu_seconds(lambda: inbox.receive(events, dedup=DEDUP, per_minute=5000, now=NOW)) < 1
    assert cpu_seconds(lambda: inbox.receive(events, dedup=DEDUP, per_minute=5000, now=NOW)) < 1


@pytest.mark.slow
@pytest.mark.timeout(1200)  # a past takes a minute or two to make
def test_the_past_costs_nothing(tmp_path: Path) -> None:
    inbox = SqlInbox(f"sqlite:///{tmp_path}/ledger.db")
    n_done = 100_000
    for first in range(0, n_done, 10_000):
        past = [event(key=str(n), partition=f"p{n}") for n in range(first, first + 10_000)]
        numbers = [kept.number for kept in inbox.receive(past, dedup=DEDUP, now=NOW).new]
        inbox.claim(numbers, str(first), lease=MINUTE, now=NOW)
        inbox.finish(str(first), {}, retry=RETRY, now=NOW)
    inbox.bury(event(key="dead"), failure(), now=NOW)
    inbox.bury(event(key="of no partition", partition="-"), failure(), now=NOW)

    costs = {}
    for turn in ("first", "second"):  # the first makes the statements
        costs = {name: cpu_seconds(work) for name, work in asked_of(inbox, turn).items()}
    assert max(costs.values()) < 0.05, costs
    assert inbox.counts() == {PIPELINE: {"done": n_done + 2, "discarded": 1, "dead": 1}}


def asked_of(inbox: SqlInbox, turn: str) -> dict[str, Callable[[], Any]]:
    """Return everything that is asked of an inbox while an event passes through it."""

    def last() -> int:
        return inbox.events(limit=1)[0].number

    return {
        "receive": lambda: inbox.receive([event(key=turn)], dedup=DEDUP, per_minute=10**6, now=NOW + 2 * MINUTE),
        "ready": lambda: inbox.ready([PIPELINE], debounce=timedelta(0), now=NOW),
        "counts": inbox.counts,
        "mark": inbox.mark,
        "dead letters": lambda: inbox.events(states=["dead"]),
        "newest": lambda: inbox.events(limit=50),
        "batches": inbox.batches,
        "place": lambda: inbox.last_of(PIPELINE, "arrivals", ["EWR/2013-01.csv"]),
        "claim": lambda: inbox.claim([last()], turn, lease=MINUTE, now=NOW),
        "start": lambda: inbox.start(turn, "run-1", now=NOW),
        "finish": lambda: inbox.finish(turn, {}, retry=RETRY, now=NOW),
    }
