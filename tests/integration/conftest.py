"""Dagster homes whose storages are in files, and in a PostgreSQL database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from resources.dagster_home import initialise_home
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
