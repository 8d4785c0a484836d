"""Studies on real databases: both kinds, beside the ledger whatever came first, led by one process at a time."""

import json
import multiprocessing
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from ml_assets.errors import StudyError, StudyLostError
from ml_assets.interfaces import Trial, TrialResult
from ml_assets.testing.ledger_examples import decision
from ml_assets.testing.studies_suite import StudiesSuite, played, small_plan
from resources.ledger import SqlLedger
from resources.ledger.address import parse_address
from resources.studies import SqlStudies
from resources.studies.leases import LEASE, Holder, is_free

FORK = multiprocessing.get_context("fork")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("postgres_database")
    return f"sqlite:///{tmp_path}/ledger.db"


class TestSqlStudies(StudiesSuite):
    @pytest.fixture
    def studies(self, url: str) -> SqlStudies:
        return SqlStudies(url)


OPTUNA_TABLES = {"studies", "trials", "trial_params", "trial_values", "alembic_version", "version_info"}
LEDGER_TABLES = {"verdicts", "decisions", "records", "ledger_version", "inbox_events"}


def engine_of(url: str) -> sa.Engine:
    return sa.create_engine(parse_address(url).url, poolclass=sa.NullPool)


def tables(url: str, *, of_optuna: bool) -> set[str]:
    engine = engine_of(url)
    schema = "optuna" if of_optuna and engine.dialect.name == "postgresql" else None
    return set(sa.inspect(engine).get_table_names(schema=schema))


def store_one(studies: SqlStudies) -> None:
    with studies.lead(small_plan()) as study:
        study.add([Trial(number=0, params={"estimator.leaves": 7})])
        study.tell({0: TrialResult(state="completed", value=0.5)})


def stored(studies: SqlStudies) -> list[float | None]:
    with studies.lead(small_plan()) as study:
        return [trial.result.value for trial in study.trials() if trial.result is not None]


def upgrade_ledger(url: str, revision: str) -> None:
    from alembic import command

    from resources.ledger.schema import migration_config

    config = migration_config()
    with engine_of(url).begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)


# Beside the ledger


def test_studies_join_a_ledger_and_leave_it_alone(url: str) -> None:
    ledger = SqlLedger(url)
    ledger.record_decision(decision())
    store_one(SqlStudies(url))

    assert tables(url, of_optuna=True) >= OPTUNA_TABLES
    assert tables(url, of_optuna=False) >= LEDGER_TABLES
    assert len(SqlLedger(url).decisions(("flights", "arrival_delay"))) == 1
    assert SqlLedger(url).verify() == []
    assert stored(SqlStudies(url)) == [0.5]


def test_a_ledger_is_made_beside_the_tables_of_optuna(url: str) -> None:
    from optuna.storages import RDBStorage

    options: dict[str, Any] = {"poolclass": sa.NullPool}
    if url.startswith("postgresql"):
        with engine_of(url).begin() as connection:
            connection.exec_driver_sql("CREATE SCHEMA optuna")
        options["connect_args"] = {"options": "-csearch_path=optuna"}
    RDBStorage(parse_address(url).url, engine_kwargs=options)
    assert not tables(url, of_optuna=False) & LEDGER_TABLES

    store_one(SqlStudies(url))
    SqlLedger(url).record_decision(decision())

    assert tables(url, of_optuna=False) >= LEDGER_TABLES
    assert stored(SqlStudies(url)) == [0.5]


def test_an_old_ledger_with_studies_is_upgraded_and_both_are_kept(url: str) -> None:
    upgrade_ledger(url, "0001")
    from optuna.storages import RDBStorage

    if url.startswith("sqlite"):  # what an older release with studies would have left
        RDBStorage(parse_address(url).url, engine_kwargs={"poolclass": sa.NullPool}).create_new_study([], "older")
    store_one(SqlStudies(url))  # opens the ledger, which upgrades it
    SqlLedger(url).record_decision(decision())

    assert tables(url, of_optuna=False) >= LEDGER_TABLES
    assert stored(SqlStudies(url)) == [0.5]
    if url.startswith("sqlite"):
        with engine_of(url).connect() as connection:
            assert "older" in connection.exec_driver_sql("SELECT study_name FROM studies").scalars().all()


@pytest.mark.postgres
def test_on_a_shared_server_the_version_of_another_program_stays_its_own(postgres_database: str) -> None:
    with engine_of(postgres_database).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('of_dagster')")
        connection.exec_driver_sql("CREATE TABLE studies (mine INTEGER)")

    store_one(SqlStudies(postgres_database))

    with engine_of(postgres_database).connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM public.alembic_version").all() == [("of_dagster",)]
        assert connection.exec_driver_sql("SELECT * FROM public.studies").all() == []


def test_tables_of_another_release_of_optuna_are_refused_with_what_helps(url: str) -> None:
    store_one(SqlStudies(url))
    with engine_of(url).begin() as connection:
        _see_optuna(connection)
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v2.6.0.a'")

    with (
        pytest.raises(StudyError, match=r"The studies in the ledger at .* cannot be used: .*optuna storage upgrade"),
        SqlStudies(url).lead(small_plan()),
    ):
        pass


def test_importance_of_equal_values_is_told_without_a_word(tmp_path: Path) -> None:
    plan, studies = small_plan(), SqlStudies(f"sqlite:///{tmp_path}/ledger.db")
    equal = TrialResult(state="completed", value=0.5)
    trials = [
        Trial(number=number, params=studies.suggest(plan, number, []), state="completed", result=equal)
        for number in range(6)
    ]

    shares = studies.importance(plan, trials)  # a warning is an error here

    assert len(shares) > 1
    assert len(set(shares.values())) == 1


def test_a_path_with_braces_is_no_template(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/ledger {{team}} {{0}}.db"

    store_one(SqlStudies(url))

    assert stored(SqlStudies(url)) == [0.5]
    assert {file.name for file in tmp_path.glob("*.db")} == {"ledger {team} {0}.db"}


def test_what_optuna_says_of_a_database_that_refuses_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import optuna.storages

    def refuse(*args: Any, **options: Any) -> None:
        raise optuna.exceptions.StorageInternalError("during the commit") from sa.exc.OperationalError(
            "INSERT", {}, Exception("database is locked")
        )

    monkeypatch.setattr(optuna.storages, "RDBStorage", refuse)

    with pytest.raises(StudyError, match=r"The studies in the ledger at .* cannot be opened: database is locked"):
        store_one(SqlStudies(f"sqlite:///{tmp_path}/ledger.db"))


def test_optuna_can_read_what_is_stored(tmp_path: Path) -> None:
    import optuna

    url = f"sqlite:///{tmp_path}/ledger.db"
    plan = small_plan()
    trials = played(SqlStudies(url), plan, 6)
    with SqlStudies(url).lead(plan) as study:
        study.add(trials)
        study.tell({trial.number: trial.result for trial in trials if trial.result is not None})

    study = optuna.load_study(study_name=plan.name, storage=url)

    assert study.user_attrs["title"] == plan.title
    assert [trial.value for trial in study.trials] == [trial.result.value for trial in trials if trial.result]
    best = min(trials, key=lambda trial: trial.result.value if trial.result else 9.0)
    assert study.best_params["estimator.leaves"] == best.params["estimator.leaves"]


# Who leads


def lead_until_told(url: str, began: Any, go_on: Any, said: Any) -> None:
    try:
        with SqlStudies(url).lead(small_plan()) as study:
            study.add([Trial(number=len(study.trials()), params={"estimator.leaves": 7})])
            began.set()
            go_on.wait(300)
            study.keep()
            said.put("kept the lead")
    except StudyLostError as error:
        said.put(str(error))


@pytest.fixture
def leader(url: str) -> Iterator[Any]:
    """A process that leads the study and waits, with how to go on and what it says then."""
    began, go_on, said = FORK.Event(), FORK.Event(), FORK.Queue()
    process = FORK.Process(target=lead_until_told, args=(url, began, go_on, said))
    process.start()
    assert began.wait(300)
    yield process, go_on, said
    process.kill()
    process.join()


def test_a_second_process_waits_for_the_first_and_then_leads(url: str, leader: Any) -> None:
    _, go_on, said = leader
    second_began, ended, second_said = FORK.Event(), FORK.Event(), FORK.Queue()
    second = FORK.Process(target=lead_until_told, args=(url, second_began, ended, second_said))
    second.start()
    try:
        assert not second_began.wait(1.5)
        go_on.set()
        assert said.get(timeout=300) == "kept the lead"
        assert second_began.wait(300)
        ended.set()
        assert second_said.get(timeout=300) == "kept the lead"
    finally:
        second.kill()
        second.join()


def test_the_study_of_a_killed_leader_is_taken_over_at_once(url: str, leader: Any) -> None:
    process, _, _ = leader
    os.kill(process.pid, 9)  # nobody has waited for it yet: it is a zombie

    started = time.monotonic()
    with SqlStudies(url).lead(small_plan()) as study:
        assert [trial.state for trial in study.trials()] == ["running"]
    assert time.monotonic() - started < LEASE.total_seconds() / 3


def test_a_lead_of_which_the_answer_was_lost_is_still_its_own(url: str) -> None:
    studies, mine, other = SqlStudies(url), Holder.of_this_process(), Holder.of_this_process()

    assert [studies._take(small_plan(), each) for each in (mine, mine, other)] == [None, None, mine]


def test_a_leader_that_was_silent_for_too_long_writes_nothing_more(url: str, leader: Any) -> None:
    _, go_on, said = leader
    _make_lease_expire(url)

    with SqlStudies(url).lead(small_plan()) as study:
        go_on.set()
        assert "does not lead its search any more; process" in said.get(timeout=300)
        assert len(study.trials()) == 1


def _make_lease_expire(url: str) -> None:
    with engine_of(url).begin() as connection:
        _see_optuna(connection)
        found = connection.exec_driver_sql("SELECT value_json FROM study_user_attributes WHERE key = 'lease'")
        until = (datetime.now(UTC) - timedelta(seconds=1)).isoformat()
        lease = {**json.loads(found.scalar_one()), "until": until}
        statement = sa.text("UPDATE study_user_attributes SET value_json = :value WHERE key = 'lease'")
        connection.execute(statement, {"value": json.dumps(lease)})


def _see_optuna(connection: sa.Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL search_path TO optuna")


def test_a_lease_of_another_machine_is_free_when_it_has_run_out() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    lease = Holder(lead_id="t", host="elsewhere/0/0", pid=1, began="7").lease(now)

    assert not is_free(lease, now + LEASE / 2)
    assert is_free(lease, now + LEASE)


def test_a_process_id_that_was_given_out_again_is_another_process() -> None:
    mine = Holder.of_this_process()

    assert not mine.is_dead()
    assert Holder(lead_id="t", host=mine.host, pid=mine.pid, began="1").is_dead()


def test_two_processes_that_open_an_empty_database_at_once_both_get_it(url: str) -> None:
    processes = [FORK.Process(target=_store_in, args=(url, f"{number:02d}" * 32)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
    assert [process.exitcode for process in processes] == [0] * 4


def _store_in(url: str, name: str) -> None:
    with SqlStudies(url).lead(small_plan(name=name)) as study:
        study.add([Trial(number=0, params={"estimator.leaves": 7})])
