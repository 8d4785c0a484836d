"""SqlLedger on SQLite and on Postgres: the suite, schema, append-only, processes, passwords."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import exc as sa_exc

from ml_assets.errors import LedgerError
from ml_assets.interfaces import Ledger
from ml_assets.testing.ledger import ASSET, PIPELINE, LedgerSuite, decision, record, verdict
from resources.ledger import SqlLedger, schema
from resources.ledger.address import parse_address
from resources.ledger.schema import migration_config
from resources.ledger.tables import REVISIONS, VERSION_TABLE, metadata

DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place where no ledger is yet, on each database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/new folder/ledger.db"
    return request.getfixturevalue("postgres_database")


@pytest.fixture
def ledger(url: str) -> Iterator[SqlLedger]:
    opened = SqlLedger(url)
    yield opened
    opened.close()


@pytest.fixture
def execute(url: str) -> Iterator[Callable[[str], None]]:
    """Runs one statement past the ledger, as someone with a SQL shell would."""
    engine = sa.create_engine(parse_address(url).url, poolclass=sa.NullPool)

    def run(statement: str) -> None:
        with engine.begin() as connection:
            connection.exec_driver_sql(statement)

    yield run
    engine.dispose()


class TestSqliteLedger(LedgerSuite):
    @pytest.fixture
    def ledger(self, tmp_path: Path) -> Ledger:
        return SqlLedger(f"sqlite:///{tmp_path}/ledger.db")


@pytest.mark.postgres
class TestPostgresLedger(LedgerSuite):
    @pytest.fixture
    def ledger(self, postgres_database: str) -> Iterator[Ledger]:
        opened = SqlLedger(postgres_database)
        yield opened
        opened.close()


def test_another_ledger_object_reads_what_was_written(url: str, ledger: SqlLedger) -> None:
    ledger.record_verdicts([verdict()])
    ledger.record_decision(decision())

    other = SqlLedger(url)
    assert len(other.verdicts(ASSET)) == len(other.decisions(PIPELINE)) == 1
    other.close()


def test_tables_are_what_the_migrations_make(url: str, ledger: SqlLedger) -> None:
    ledger.verdicts(ASSET)
    engine = sa.create_engine(parse_address(url).url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})

        assert compare_metadata(context, metadata) == []


def test_known_revisions_are_alembics() -> None:
    scripts = ScriptDirectory.from_config(migration_config())

    assert scripts.get_current_head() == REVISIONS[-1]
    assert tuple(script.revision for script in reversed(list(scripts.walk_revisions()))) == REVISIONS


def test_a_process_of_an_older_release_does_not_go_beyond_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "REVISIONS", REVISIONS[:-1])  # the newest migration came while it ran

    for _ in range(2):
        opened = SqlLedger(url)
        opened.record_verdicts([verdict()])
        opened.close()

    monkeypatch.undo()
    assert len(SqlLedger(url).verdicts(ASSET)) == 2


@pytest.mark.parametrize("found", ["0005", "'; DROP TABLE verdicts; --"])
def test_a_newer_schema_is_refused(url: str, ledger: SqlLedger, execute: Callable[[str], None], found: str) -> None:
    ledger.record_verdicts([verdict()])
    quoted = found.replace("'", "''")
    execute(f"UPDATE {VERSION_TABLE} SET version_num = '{quoted}'")  # noqa: S608 texts of this test

    with pytest.raises(LedgerError) as caught:
        SqlLedger(url).verdicts(ASSET)
    assert f"has schema revision {found}, which this release of ml_assets does not know" in str(caught.value)
    assert "it knows 0001, 0002, 0003, 0004" in str(caught.value)
    assert "upgrade ml_assets here" in str(caught.value)


@pytest.mark.parametrize("table", ["verdicts", "decisions"])
@pytest.mark.parametrize(
    "statement", ["UPDATE {} SET outcome = 'passed'", "UPDATE {} SET sequence = 7", "DELETE FROM {}"]
)
def test_rows_cannot_be_changed(ledger: SqlLedger, execute: Callable[[str], None], table: str, statement: str) -> None:
    ledger.record_verdicts([verdict(outcome="failed")])
    ledger.record_decision(decision(outcome="refused"))

    # Postgres refuses `sequence = 7` before any trigger: the column is GENERATED ALWAYS.
    with pytest.raises(sa_exc.DBAPIError, match=r"append-only|can only be updated to DEFAULT"):
        execute(statement.format(table))

    assert ledger.verdicts(ASSET)[0].outcome == "failed"
    assert ledger.decisions(PIPELINE)[0].outcome == "refused"


@pytest.mark.parametrize("statement", ["UPDATE records SET subject = ''", "DELETE FROM records"])
def test_records_cannot_be_changed(ledger: SqlLedger, execute: Callable[[str], None], statement: str) -> None:
    kept = ledger.append(record())

    with pytest.raises(sa_exc.DBAPIError, match="append-only"):
        execute(statement)

    assert ledger.records(PIPELINE) == [kept]


def test_sqlite_rows_cannot_be_replaced(tmp_path: Path) -> None:
    ledger = SqlLedger(f"sqlite:///{tmp_path}/ledger.db")
    ledger.record_decision(decision(outcome="refused"))
    engine = sa.create_engine(f"sqlite:///{tmp_path}/ledger.db", poolclass=sa.NullPool)

    with engine.connect() as connection, pytest.raises(sa_exc.IntegrityError, match="append-only"):
        connection.exec_driver_sql("REPLACE INTO decisions SELECT * FROM decisions")

    assert ledger.decisions(PIPELINE)[0].outcome == "refused"


@pytest.mark.postgres
@pytest.mark.parametrize(
    "statement",
    [
        "TRUNCATE verdicts",
        "TRUNCATE records",
        "TRUNCATE decisions",
        "SET session_replication_role = replica; UPDATE verdicts SET outcome = 'passed'",
        "SET session_replication_role = replica; TRUNCATE verdicts",
    ],
)
def test_postgres_rows_cannot_be_truncated_or_changed_as_a_replica(postgres_database: str, statement: str) -> None:
    ledger = SqlLedger(postgres_database)
    ledger.record_verdicts([verdict(outcome="failed")])
    ledger.record_decision(decision())
    ledger.append(record())
    engine = sa.create_engine(parse_address(postgres_database).url, poolclass=sa.NullPool)

    with engine.connect() as connection, pytest.raises(sa_exc.DBAPIError, match="append-only"):
        connection.exec_driver_sql(statement)

    assert ledger.verdicts(ASSET)[0].outcome == "failed"
    assert len(ledger.heads()) == 3
    assert ledger.verify() == []
    ledger.close()


def run_in_processes(count: int, work: Callable[[int], None]) -> None:
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


def checks_written(writers: int) -> list[str]:
    return sorted(f"{writer}-{n}" for writer in range(writers) for n in range(20))


def test_ten_processes_open_a_fresh_database_at_once_and_lose_nothing(url: str) -> None:
    def write(writer: int) -> None:
        own = SqlLedger(url)
        for n in range(20):
            own.record_verdicts([verdict(check=f"{writer}-{n}")])
            own.record_decision(decision(run_id=f"{writer}-{n}"))

    run_in_processes(10, write)

    ledger = SqlLedger(url)
    assert sorted(row.check for row in ledger.verdicts(ASSET)) == checks_written(10)
    assert sorted(row.run_id for row in ledger.decisions(PIPELINE)) == checks_written(10)
    ledger.close()


def test_forked_processes_do_not_use_their_parents_connection(ledger: SqlLedger) -> None:
    ledger.record_verdicts([verdict(check="parent")])

    def write(writer: int) -> None:
        for n in range(20):
            ledger.record_verdicts([verdict(check=f"{writer}-{n}")])
            ledger.verdicts(ASSET, data_version="none")

    run_in_processes(6, write)

    ledger.record_verdicts([verdict(check="parent again")])
    found = sorted(row.check for row in ledger.verdicts(ASSET))
    assert found == sorted([*checks_written(6), "parent", "parent again"])


def test_processes_that_only_read_may_come_first(url: str) -> None:
    def read(_: int) -> None:
        assert SqlLedger(url).verdicts(ASSET) == []

    run_in_processes(6, read)


def modules_after(code: str, url: str) -> set[str]:
    """Return what a new interpreter has imported after the code, which finds the URL in sys.argv[1]."""
    code = f"import sys\nfrom resources.ledger import SqlLedger\n{code}\nprint('\\n'.join(sys.modules))"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", code, url]
    result = subprocess.run(command, capture_output=True, text=True, cwd=root, timeout=300, check=True)
    return set(result.stdout.split())


def test_the_constructor_loads_and_touches_nothing(tmp_path: Path) -> None:
    loaded = modules_after("SqlLedger(sys.argv[1])", f"sqlite:///{tmp_path}/a/ledger.db")

    assert not loaded & {"sqlalchemy", "alembic", "psycopg2", "dagster"}
    assert list(tmp_path.iterdir()) == []


def test_alembic_is_loaded_only_to_change_the_schema(url: str) -> None:
    use = "SqlLedger(sys.argv[1]).decisions(('a', 'b'))"

    assert "alembic" in modules_after(use, url)
    assert "alembic" not in modules_after(use, url)


def test_sqlite_writes_ahead(tmp_path: Path) -> None:
    SqlLedger(f"sqlite:///{tmp_path}/ledger.db").verdicts(ASSET)

    with sa.create_engine(f"sqlite:///{tmp_path}/ledger.db", poolclass=sa.NullPool).connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_a_relative_path_stays_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = SqlLedger("sqlite:///ledger.db")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")

    ledger.verdicts(ASSET)

    assert (tmp_path / "ledger.db").exists()


def test_a_path_with_unusual_characters(tmp_path: Path) -> None:
    ledger = SqlLedger(f"sqlite:///{tmp_path}/50%25 größe #1/ledger.db")

    ledger.record_verdicts([verdict()])

    assert (tmp_path / "50%25 größe #1" / "ledger.db").stat().st_size > 0


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "ledger.db"
    file.write_text("not a database, but some text that is long enough to be looked at" * 100)

    with pytest.raises(LedgerError, match=r"Reading verdicts failed in .*ledger\.db: file is not a database"):
        SqlLedger(f"sqlite:///{file}").verdicts(ASSET)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(LedgerError, match=r"cannot be created: .* Expected a folder"):
        SqlLedger(f"sqlite:///{tmp_path}/file/ledger.db").verdicts(ASSET)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:x?mode=memory",
        "sqlite:///x.db?timeout=5",
    ],
)
def test_sqlite_without_a_plain_file_is_refused(url: str) -> None:
    with pytest.raises(LedgerError, match="does not name a file"):
        SqlLedger(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hunter2@pass@host/db",
        "postgresql://user:hunter2/x@host/db",
        "postgresql://user:hunter2?x@host/db",
        "postgresql://user:hunter2@host:port/db",
        "postgresql://user:hunter2@host",
        "mysql://user:hunter2@host/db",
        "hunter2",
        "",
    ],
)
def test_a_url_that_cannot_be_read_is_not_repeated(url: str) -> None:
    with pytest.raises(LedgerError, match=r"cannot be read\. Expected sqlite:///folder/ledger\.db or") as caught:
        SqlLedger(url)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2"])
def test_the_password_is_never_shown(scheme: str) -> None:
    url = f"{scheme}://user:hunter2@localhost:1/db?password=hunter3&sslmode=disable"
    ledger = SqlLedger(url)

    assert repr(ledger) == str(ledger) == "SqlLedger('postgresql://user@localhost:1/db')"
    assert "hunter" not in repr(parse_address(url))
    with pytest.raises(LedgerError, match="Check that the server runs and the URL is right") as caught:
        ledger.verdicts(ASSET)
    shown: BaseException | None = caught.value
    while shown:
        assert "hunter" not in f"{shown} {shown!r} {shown.args}"
        shown = shown.__cause__ or shown.__context__


@pytest.mark.postgres
def test_a_wrong_password_is_not_shown(postgres_database: str) -> None:
    user, _, place = postgres_database.rpartition("@")
    ledger = SqlLedger(f"{user.rpartition(':')[0]}:hunter2@{place}")

    with pytest.raises(LedgerError, match="password authentication failed for user") as caught:
        ledger.verdicts(ASSET)
    assert "hunter2" not in f"{caught.value} {caught.value.__cause__}"


def test_evidence_does_not_leak_into_errors(ledger: SqlLedger, execute: Callable[[str], None]) -> None:
    ledger.record_verdicts([verdict()])
    execute("ALTER TABLE verdicts RENAME TO gone")

    with pytest.raises(LedgerError, match="Recording verdicts failed in the ledger at") as caught:
        ledger.record_verdicts([verdict(reason="patient 4711", evidence={"sample": "patient 4711"})])
    assert "4711" not in f"{caught.value} {caught.value.__cause__}"


@pytest.mark.postgres
def test_a_lost_connection_is_replaced(postgres_database: str, postgres_url: str) -> None:
    ledger = SqlLedger(postgres_database)
    ledger.record_verdicts([verdict()])
    engine = sa.create_engine(parse_address(postgres_url).url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        ended = connection.exec_driver_sql(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            (postgres_database.rpartition("/")[2],),
        ).all()
    assert ended

    ledger.record_verdicts([verdict()])

    assert len(ledger.verdicts(ASSET)) == 2
    ledger.close()


def test_close_keeps_the_ledger_usable(ledger: SqlLedger) -> None:
    ledger.record_verdicts([verdict()])
    ledger.close()

    assert len(ledger.verdicts(ASSET)) == 1
    assert os.getpid() in ledger._database.transactions()._engines
