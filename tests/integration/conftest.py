"""Dagster homes whose storages are in files, and in a PostgreSQL database; their instances, and workers of runs."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from resources.dagster_home import initialise_home
from tests.integration.executed_runs import RunWorker, run_workers
from tests.postgres_server import fresh_database, initialise_home_on

ON_BOTH_STORAGES = pytest.mark.parametrize(
    "dagster_home", ["files", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])], indirect=True
)
"""A test with this mark is carried out with Dagster's storages in files, and in a PostgreSQL database."""


@pytest.fixture(scope="module")
def dagster_home(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Home of the local instance, with its storages in files unless the test is marked."""
    home = tmp_path_factory.mktemp("dagster") / "home"
    if getattr(request, "param", "files") == "files":
        initialise_home(home)
        yield home
        return
    with fresh_database(request.getfixturevalue("postgres_url")) as url:
        initialise_home_on(url, home)
        yield home


@pytest.fixture
def home(dagster_home: Path) -> Iterator[Path]:
    """That home; the slots and limits that a test leaves there are removed behind it."""
    yield dagster_home
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        storage = instance.event_log_storage
        for run_id in storage.get_concurrency_run_ids():
            storage.free_concurrency_slots_for_run(run_id)
        for pool in storage.get_concurrency_keys():
            storage.delete_concurrency_limit(pool)


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    """The instance of that home, or of the one that the test's module makes."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def run_worker(request: pytest.FixtureRequest, home: Path) -> Iterator[RunWorker]:
    """Starts runs in processes of their own, by the name of a function of the test's module and its arguments."""
    with run_workers(request.module.__name__, home) as start:
        yield start
