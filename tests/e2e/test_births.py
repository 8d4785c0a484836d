"""Team births through the engine: a yearly regression with a naive baseline, from Parquet files, by real champions."""

import subprocess
from pathlib import Path

import pytest

from resources.data_store import ParquetDataStore
from resources.ledger import SqlLedger
from tests.e2e.programs import ml_assets

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

PIPELINE = ("births", "daily_births")
YEARS = [str(year) for year in range(1969, 1975)]
ROWS = {year: 51 * (366 if year == "1972" else 365) for year in YEARS}  # fifty states and the capital


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("births") / "state"


@pytest.fixture(scope="module")
def backfilled(state: Path) -> subprocess.CompletedProcess[str]:
    """Six years, as the demo lands them and takes them through; it approves the first model."""
    return ml_assets(state, "demo", "--team", "births", "--periods", str(len(YEARS)))


def test_every_run_succeeds(backfilled: subprocess.CompletedProcess[str]) -> None:
    assert backfilled.returncode == 0, backfilled.stdout + backfilled.stderr
    assert "Traceback" not in backfilled.stdout + backfilled.stderr


@pytest.mark.parametrize("year", YEARS[2:])
def test_a_year_is_forecast_as_well_as_was_measured_once(
    state: Path, backfilled: subprocess.CompletedProcess[str], year: str
) -> None:
    """Apart from this pipeline, boosting with these lags was once off by 7.5 % of the volume of 1973."""
    del backfilled
    report = ParquetDataStore(str(state / "data")).read_document((*PIPELINE, "evaluation"), year)["report"]
    wape = {e["model"]: e["interval"] for e in report["estimates"] if e["metric"] == "wape"}

    assert 0.065 < wape["candidate"]["estimate"] < 0.085
    assert wape["candidate"]["upper"] < wape["baseline"]["lower"]
    if year == "1973":
        assert wape["candidate"]["estimate"] == pytest.approx(0.075, abs=0.003)
        assert wape["baseline"]["estimate"] == pytest.approx(0.108, abs=0.001)  # the naive forecast, by definition


def test_a_year_s_candidate_is_promoted_unless_a_state_would_be_worse_off(
    state: Path, backfilled: subprocess.CompletedProcess[str]
) -> None:
    del backfilled
    decisions = SqlLedger(f"sqlite:///{state}/ledger.db").decisions(PIPELINE)

    assert [(d.partition, d.outcome) for d in decisions] == [
        ("1970", "awaiting_approval"),
        ("1970", "promoted"),
        ("1971", "kept"),
        ("1972", "promoted"),
        ("1973", "promoted"),
        ("1974", "promoted"),
    ]
    assert decisions[1].decided_by == "demo-reviewer"
    assert "guarded slices worse by more than 0.005: state=CA." in decisions[2].reason
    for decision in decisions[3:]:
        assert decision.decided_by == "pipeline"
        assert decision.reason.endswith("Nothing is materially different from the champion.")


def test_predictions_are_those_of_the_champion_before(
    state: Path, backfilled: subprocess.CompletedProcess[str]
) -> None:
    del backfilled
    store = ParquetDataStore(str(state / "data"))

    assert store.partitions((*PIPELINE, "predictions")) == YEARS[2:]  # the first champion is of the second year
    for year, version in {"1971": "1", "1972": "1", "1973": "3", "1974": "4"}.items():
        table = store.read((*PIPELINE, "predictions"), year)
        assert table.num_rows == ROWS[year]
        assert table.column_names == ["row_id", "event_time", "state", "score", "model_version"]
        assert table["model_version"].unique().to_pylist() == [version]
        assert min(table["score"].to_pylist()) > 0
