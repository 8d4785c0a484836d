"""Options that tests of every folder share, and a PostgreSQL server of the session's own."""

import os

# One thread for each numeric library, before any is loaded: tests run beside each other and beside servers, and
# OpenMP's threads wait for each other many times longer than the work takes when cores are short.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from collections.abc import Iterator  # noqa: E402 - after the threads are set

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

# A busy machine is no failure of a property. In CI the examples are the same each time: a change fails for what it
# changed; new examples are looked for on developers' machines.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files instead of comparing")
    parser.addoption("--pictures", metavar="FOLDER", help="where tests in the browser save what they saw")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """URL of a running server's empty database; the server is initialised and stopped by the session."""
    from tests.postgres_server import running_server

    with running_server() as url:
        yield url


@pytest.fixture
def postgres_database(postgres_url: str) -> Iterator[str]:
    """URL of a database that is fresh for each test, on the session's server."""
    from tests.postgres_server import fresh_database

    with fresh_database(postgres_url) as url:
        yield url
