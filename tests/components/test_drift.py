"""The drift stage: a partition against what the champion of its time learned from, over months and groups."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pytest

from ml_assets.drift.report import DriftReport
from ml_assets.drift.settings import DriftSettings
from ml_assets.errors import StoreError
from ml_assets.gates import DRIFT, Judgement
from ml_assets.spec import MonitoringSpec, PartitionsSpec, TrainingSpec
from ml_assets.stages import drift
from ml_assets.stages.drift_sides import current_profiles, stride
from ml_assets.stages.predictions import NoChampionYet
from ml_assets.stages.step import StageResult, Step
from tests.components.shop import Shop, land_orders, orders, services

BEFORE, FIRST, MONTHS = "2024-01", "2024-02", ("2024-03", "2024-04", "2024-05")
Change = Callable[[pd.DataFrame], pd.DataFrame]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop whose February made a champion; three months of orders follow, the German ones of March with scores."""
    folder = tmp_path_factory.mktemp("shop")
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(folder, services(folder / "landing"), instance)
        land_orders(folder / "landing", (BEFORE, FIRST, *MONTHS))
        for month in (BEFORE, FIRST, MONTHS[0]):
            shop.data(month)
            assert shop.run("row_index", partition=month).success
        assert shop.models(FIRST).success
        assert shop.run("predictions", partition=f"DE|{MONTHS[0]}").success
    return shop


@pytest.fixture
def shop(scored: Shop, instance: dg.DagsterInstance) -> Shop:
    """A copy of it of the test's own."""
    return scored.copy(instance)


def land(shop: Shop, month: str, change: Change | None = None) -> None:
    """Let a month's German orders arrive, changed, and make features of them."""
    frame = orders(month, "DE", per_day=30, signal=1.5)
    changed = frame if change is None else change(frame)
    changed.to_csv(Path(shop.world.landing.root) / "shop" / f"{month}_DE.csv", index=False)
    assert shop.run("raw_data", "features", partition=f"DE|{month}").success


def dearer(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(amount=(frame["amount"] * 1.5 + 20).round(2))


def judged(shop: Shop, month: str = MONTHS[0], group: str = "DE") -> tuple[StageResult, dict[str, Any], Judgement]:
    partition = f"{group}|{month}"
    step = Step(pipeline=shop.pipeline, services=shop.world, partition=partition, run_id="run")
    result = drift.run(step)
    document = shop.world.data_store.read_document(("shop", "returns", "drift"), partition)
    return result, document, result.judgements[0]


def test_a_month_like_those_before_is_stable(shop: Shop) -> None:
    result, document, judgement = judged(shop)

    assert (document["verdict"], document["moved"], document["importance_moved"]) == ("stable", [], 0.0)
    assert document["reference"]["version"] == "1"
    assert document["reference"]["kind"] == "champion"
    assert [key for key, _ in document["reference"]["partitions"]] == [f"DE|{BEFORE}"]
    assert (judgement.check, judgement.passed, judgement.severity) == (DRIFT, True, "warning")
    assert judgement.reason == "none of 3 columns moved against champion 1."
    assert {c["name"] for c in document["columns"]} == {"amount", "per_item", "country"}
    assert set(result.pictures) == {"distributions", "effects", "prediction_and_label"}
    assert len(result.tables["columns"]) == 3


def test_label_and_scores_are_told_apart_from_the_columns(shop: Shop) -> None:
    _, document, _ = judged(shop)

    label, prediction = (DriftReport.from_document(document[name]) for name in ("label", "prediction"))
    assert [c.name for c in label.columns] == ["sent_back"]
    assert [c.name for c in prediction.columns] == ["score"]
    assert label.moved == prediction.moved == ()


def test_what_moved_is_suspected_first_and_drift_when_it_stays(shop: Shop) -> None:
    verdicts, passed = [], []
    for month in MONTHS:
        land(shop, month, dearer)
        _, document, judgement = judged(shop, month)
        verdicts.append(document["verdict"])
        passed.append(judgement.passed)

    assert verdicts == ["suspected", "drift", "drift"]
    assert passed == [True, False, False]
    assert "amount" in document["moved"]
    assert document["importance_moved"] > 0.5
    assert document["persistence"]["history"] == [[f"DE|{MONTHS[0]}", True], [f"DE|{MONTHS[1]}", True]]
    assert "amount" in judgement.reason
    assert judgement.reason.endswith("of the model's importance.")
    assert judgement.evidence["worst_psi"] > 0.2
    assert judgement.evidence["worst_p_adjusted"] < 0.05


def test_one_month_that_moved_and_went_back_is_no_drift(shop: Shop) -> None:
    land(shop, MONTHS[0], dearer)
    assert judged(shop)[1]["verdict"] == "suspected"
    for month in MONTHS[1:]:
        land(shop, month)
        assert judged(shop, month)[1]["verdict"] == "stable"


def test_another_group_is_compared_with_its_own_rows(shop: Shop) -> None:
    land(shop, MONTHS[0], dearer)

    _, document, _ = judged(shop, group="FR")

    assert document["verdict"] == "stable"
    assert [key for key, _ in document["reference"]["partitions"]] == [f"FR|{BEFORE}"]
    assert document["prediction"] is None  # the French orders were not scored


@pytest.mark.slow
def test_a_promotion_begins_a_new_count(shop: Shop) -> None:
    land(shop, MONTHS[0], dearer)
    assert judged(shop)[1]["verdict"] == "suspected"
    assert shop.run("row_index", partition=MONTHS[0]).success
    assert shop.models(MONTHS[0]).success
    land(shop, MONTHS[1], lambda frame: dearer(dearer(frame)))

    _, document, _ = judged(shop, MONTHS[1])

    assert document["reference"]["version"] == "2"
    assert document["persistence"]["history"] == []
    assert document["verdict"] == "suspected"


def test_a_few_days_are_not_judged(shop: Shop) -> None:
    land(shop, MONTHS[0], lambda frame: dearer(frame[frame["ordered_at"] < f"{MONTHS[0]}-06"]))

    result, document, judgement = judged(shop)

    assert document["verdict"] == "unknown"
    assert judgement.passed
    assert judgement.reason.startswith("not enough days: the reference has 31 and the current side 5")
    assert result.facts["verdict"] == "unknown"


def test_the_same_data_give_the_same_version_and_the_upstream_is_recorded(shop: Shop) -> None:
    step = Step(pipeline=shop.pipeline, services=shop.world, partition=f"DE|{MONTHS[0]}", run_id="another")

    first, second = judged(shop)[0], drift.run(step)

    assert first.stored.data_version == second.stored.data_version
    assert set(step.upstream) == {
        f"shop/returns/features [DE|{BEFORE}]",
        f"shop/returns/features [DE|{MONTHS[0]}]",
        f"shop/returns/predictions [DE|{MONTHS[0]}]",
    }


def test_without_a_champion_nothing_is_compared(shop: Shop) -> None:
    with pytest.raises(NoChampionYet, match="No version of shop/returns was promoted before 2024-01"):
        judged(shop, BEFORE)


def test_a_version_of_the_training_rows_that_is_gone_is_named(shop: Shop) -> None:
    store: Any = shop.world.data_store
    gone = [("shop", "returns", "features"), ("shop", "returns", "profiles", "features")]
    store.contents = {place: kept for place, kept in store.contents.items() if place[0] not in gone}
    land(shop, MONTHS[0])

    with pytest.raises(StoreError, match="What champion version 1 was trained on is gone"):
        judged(shop)


def test_new_labels_count_only_where_they_are_known(shop: Shop) -> None:
    land(shop, MONTHS[0], lambda frame: frame.assign(returned=np.nan))

    _, document, _ = judged(shop)

    assert document["label"] is None
    assert document["verdict"] == "stable"


def test_the_asset_shows_verdict_pictures_and_check(shop: Shop) -> None:
    done = shop.run("drift", partition=f"DE|{MONTHS[0]}")

    assert done.success
    metadata = done.asset_materializations_for_node("shop__returns__drift")[0].metadata
    assert metadata["verdict"].value == "stable"
    assert {"picture/distributions", "picture/effects", "table/columns"} <= set(metadata)
    check = next(c for c in done.get_asset_check_evaluations() if c.check_name == DRIFT)
    assert check.passed
    assert check.metadata["worst_psi"].value < 0.2  # pyright: ignore[reportOperatorIssue]


@pytest.fixture(scope="module")
def year(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop with orders of the same months of two years, dearer in every spring, and a champion of last January."""
    folder = tmp_path_factory.mktemp("shop")
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(
            folder,
            services(folder / "landing"),
            instance,
            partitions=PartitionsSpec(every="month", start="2023-03", end="2024-07", group=_group()),
            monitoring=MonitoringSpec(reference="season"),
            training=TrainingSpec(window=1, min_rows=50, seed=7),
        )
        land_orders(folder / "landing", ("2023-03", BEFORE, FIRST, "2024-03", "2024-04"))
        for month in (BEFORE, FIRST):
            shop.data(month)
            assert shop.run("row_index", partition=month).success
        assert shop.models(FIRST).success
        for month in ("2023-03", "2024-03", "2024-04"):
            land(shop, month, dearer)
    return shop


def _group() -> Any:
    from tests.components.shop import shop

    return shop().partitions.group


def test_a_season_that_comes_back_is_no_drift(year: Shop) -> None:
    result, document, judgement = judged(year, "2024-03")

    assert document["reference"]["kind"] == "season"
    assert [key for key, _ in document["reference"]["partitions"]] == ["DE|2023-03"]
    assert document["verdict"] == "stable"
    assert judgement.reason == "none of 3 columns moved against a year earlier."
    assert result.facts["reference"] == "DE|2023-03"


def test_without_a_year_of_data_the_champion_is_the_reference(year: Shop) -> None:
    result, document, _ = judged(year, "2024-04")

    assert document["reference"]["kind"] == "champion"
    assert document["verdict"] == "suspected"
    assert any("nothing is stored of a year earlier" in note for note in result.facts["notes"])


def test_short_periods_are_compared_together(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """Ten days are asked for: the newest ten daily partitions that there are, and history goes back by ten days."""
    daily = PartitionsSpec(every="day", start="2024-03-01", end="2024-04-01", group=_group())
    shop = Shop(tmp_path, services(tmp_path / "landing"), instance, partitions=daily)
    month = orders("2024-03", "DE", per_day=30, signal=1.5)
    folder = Path(shop.world.landing.root) / "shop"
    folder.mkdir(parents=True)
    days = [f"2024-03-{day:02}" for day in range(1, 14) if day not in (7, 8)]
    for day in days:
        month[month["ordered_at"].dt.strftime("%Y-%m-%d") == day].to_csv(folder / f"{day}_DE.csv", index=False)
        assert shop.run("raw_data", "features", partition=f"DE|{day}").success
    step = Step(pipeline=shop.pipeline, services=shop.world, partition="DE|2024-03-13", run_id="run")

    profile, partitions = current_profiles(step, DriftSettings(), "features")

    assert stride(step, DriftSettings()) == 10
    assert partitions == tuple(f"DE|{day}" for day in days[1:])
    assert profile.n_rows == 30 * len(partitions)
    assert len(profile.days) == 10
