"""State folders that the demo has filled, shared by the tests that only look at them, add to them or put them back."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployments.flights.land import land
from tests.e2e.governed import NAME, Governed, killed_when, serving_checks
from tests.e2e.programs import ml_assets


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What `ml-assets demo` did.

    Attributes:
        state: Folder of everything it made.
        printed: Its standard output.
        errors: Its standard error.
        code: Its exit code.
        seconds: Wall time it took.
    """

    state: Path
    printed: str
    errors: str
    code: int
    seconds: float


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    state = tmp_path_factory.mktemp("demo") / "state"
    started = time.monotonic()
    done = ml_assets(state, "demo", "--periods", "3")
    seconds = time.monotonic() - started
    return Demo(state=state, printed=done.stdout, errors=done.stderr, code=done.returncode, seconds=seconds)


@pytest.fixture(scope="session")
def killed_in_promotion(tmp_path_factory: pytest.TempPathFactory) -> Governed:
    """A demo under a policy tree of its own, killed while March's model is checked; saved as "killed"."""
    governed = Governed(folder=tmp_path_factory.mktemp("governed"))
    governed.found()
    started = governed.start("demo", "--periods", "3")
    killed_when(started, governed.state, "the serving check", lambda: bool(serving_checks(governed.state)))
    governed.save("killed")
    return governed


@pytest.fixture(scope="session")
def with_waiting(killed_in_promotion: Governed) -> Governed:
    """The same, taken up again: version 1 of March waits for approval; saved as "waiting"."""
    governed = killed_in_promotion
    governed.restore("killed")
    done = governed.run("demo", "--periods", "3")
    governed.printed["demo"], governed.printed["demo errors"] = done.stdout, done.stderr
    governed.save("waiting")
    return governed


@pytest.fixture(scope="session")
def with_champions(with_waiting: Governed) -> Governed:
    """March's version 1 approved by anna, April's version 2 promoted by a waiver of hers; saved as "champions"."""
    governed = with_waiting
    governed.restore("waiting")
    governed.say("approvals", "approve", NAME, "2013-03", "--as", "anna", "--reason", "I read the dossier.")
    land(governed.state / "landing", ["2013-04"])
    refused = governed.run("backfill", NAME, "--from", "2013-03", "--to", "2013-04")
    governed.printed["April"] = refused.stdout
    assert refused.returncode == 1, refused.stdout + refused.stderr
    gate = (NAME, "evaluation", "2013-04", "log_loss.beats_baseline")
    governed.say("waivers", "grant", *gate, "--as", "anna", "--days", "1", "--reason", "April was stormy.")
    governed.say("backfill", NAME, "--from", "2013-04", "--to", "2013-04")
    governed.save("champions")
    return governed


@pytest.fixture
def waiting(with_waiting: Governed) -> Governed:
    with_waiting.restore("waiting")
    return with_waiting


@pytest.fixture
def champions(with_champions: Governed) -> Governed:
    with_champions.restore("champions")
    return with_champions
