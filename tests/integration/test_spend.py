"""SqlSpend on SQLite and on Postgres: the suite, and what a month of sums costs."""

import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from ml_assets.errors import LedgerError
from ml_assets.interfaces.spend import SpendStore
from ml_assets.testing.spend import NOW, OCTOBER, SEPTEMBER, SpendSuite, cost
from resources.ledger.spend import SqlSpend


@pytest.fixture(scope="module")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the schema: making one takes a hundred times as long as copying it."""
    file = tmp_path_factory.mktemp("empty") / "ledger.db"
    SqlSpend(f"sqlite:///{file}").of_runs(["none"])
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


class TestOnSqlite(SpendSuite):
    @pytest.fixture
    def spend(self, empty_file: Path, tmp_path: Path) -> SpendStore:
        shutil.copy(empty_file, tmp_path / "ledger.db")
        return SqlSpend(f"sqlite:///{tmp_path}/ledger.db")


class TestOnPostgres(SpendSuite):
    @pytest.fixture
    def spend(self, postgres_database: str) -> Iterator[SpendStore]:
        spend = SqlSpend(postgres_database)
        yield spend
        spend.close()


def test_the_sums_of_a_month_with_many_steps_take_little(tmp_path: Path) -> None:
    spend = SqlSpend(f"sqlite:///{tmp_path}/ledger.db")
    many = [
        cost(team=f"team{n % 50}", run_id=f"run-{n // 10}", step_key=str(n % 10), ended_at=NOW + timedelta(seconds=n))
        for n in range(20_000)
    ]
    assert spend.record(many, now=NOW) == 20_000

    began = time.perf_counter()
    found = spend.by_team(SEPTEMBER, OCTOBER, currency="EUR")

    assert (len(found), sum(one.runs for one in found.values())) == (50, 20_000)
    assert time.perf_counter() - began < 1


def test_what_the_database_refuses_says_what_was_being_done(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_text("no database")
    spend = SqlSpend(f"sqlite:///{tmp_path}/ledger.db")

    with pytest.raises(LedgerError, match="Recording what steps cost failed in the ledger at"):
        spend.record([cost()], now=NOW)
    assert repr(spend) == f"SqlSpend('sqlite:///{tmp_path}/ledger.db')"
