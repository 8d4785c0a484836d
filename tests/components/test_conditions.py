"""The declarative condition on the row index: through the mapping over groups, with gates, corrections and pauses."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from ml_assets.retraining.pauses import pause, resume
from ml_assets.spec import AutomationSpec
from sensors.conditions import attach_conditions
from tests.components.shop import Shop

MakeShop = Callable[..., Shop]
ROW_INDEX = dg.AssetKey(["shop", "returns", "row_index"])
NOW = datetime(2026, 11, 25, tzinfo=UTC)


class Conditions:
    """The conditions of a shop, evaluated tick by tick as the daemon does; what is asked for is not run."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop
        self.definitions = dg.Definitions(
            assets=attach_conditions(shop.definitions, shop.world).assets, resources=dict(vars(shop.world))
        )
        self._cursor: Any = None

    def tick(self) -> list[str]:
        """Return the periods that are asked for."""
        result = dg.evaluate_automation_conditions(
            defs=self.definitions,
            instance=self.shop.instance,
            cursor=self._cursor,
            asset_selection=dg.AssetSelection.assets(ROW_INDEX),
        )
        self._cursor = result.cursor
        return sorted(result.get_requested_partitions(ROW_INDEX))


@pytest.fixture
def shop(make_shop: MakeShop) -> Shop:
    return make_shop(automation=AutomationSpec(retraining=True))


def spoil(folder: Path, month: str, country: str, amount: float) -> None:
    """Let the first order of a file cost what is given."""
    file = folder / "landing" / "shop" / f"{month}_{country}.csv"
    frame = pd.read_csv(file)
    frame.loc[0, "amount"] = amount
    frame.to_csv(file, index=False)


def test_a_period_is_asked_for_once_all_its_groups_are_there_and_only_once(shop: Shop) -> None:
    conditions = Conditions(shop)
    assert conditions.tick() == []
    assert shop.run("raw_data", "features", partition="DE|2024-01").success
    assert conditions.tick() == []

    assert shop.run("raw_data", "features", partition="FR|2024-01").success

    assert conditions.tick() == ["2024-01"]
    assert [conditions.tick() for _ in range(5)] == [[]] * 5, "also while its run fails, or does not come"


def test_data_that_were_there_before_the_first_tick_are_asked_for_and_what_is_indexed_is_not(shop: Shop) -> None:
    shop.data("2024-01")
    shop.data("2024-02")
    assert shop.run("row_index", partition="2024-01").success

    assert Conditions(shop).tick() == ["2024-02"]


def test_a_failed_gate_holds_its_own_period_back_until_the_data_are_corrected(shop: Shop, tmp_path: Path) -> None:
    conditions = Conditions(shop)
    conditions.tick()
    spoil(tmp_path, "2024-01", "DE", 5000.0)
    shop.run("raw_data", "features", partition="DE|2024-01")
    shop.run("raw_data", "features", partition="FR|2024-01")
    shop.data("2024-02")
    assert conditions.tick() == ["2024-02"]

    spoil(tmp_path, "2024-01", "DE", 50.0)
    assert shop.run("raw_data", "features", partition="DE|2024-01").success

    assert conditions.tick() == ["2024-01"]


def test_late_corrected_data_make_the_index_anew_and_bad_ones_do_not(shop: Shop, tmp_path: Path) -> None:
    shop.data("2024-01")
    conditions = Conditions(shop)
    assert conditions.tick() == ["2024-01"]
    assert shop.run("row_index", partition="2024-01").success
    assert conditions.tick() == []

    spoil(tmp_path, "2024-01", "FR", 5000.0)
    assert not shop.run("raw_data", "features", partition="FR|2024-01").success
    assert conditions.tick() == []
    assert shop.run("features", partition="DE|2024-01").success
    assert conditions.tick() == [], "the features are there, and raw data of a group were refused since"

    spoil(tmp_path, "2024-01", "FR", 60.0)
    assert shop.run("raw_data", "features", partition="FR|2024-01").success
    assert conditions.tick() == ["2024-01"]


def test_nothing_is_asked_for_while_a_pause_holds_and_nothing_is_forgotten(shop: Shop) -> None:
    conditions, ledger = Conditions(shop), shop.world.ledger
    conditions.tick()
    pause(ledger, ("*", "*"), by="lena", reason="Inventory", now=NOW)
    shop.data("2024-01")
    assert conditions.tick() == []

    resume(ledger, ("*", "*"), by="lena", reason="Done", now=NOW)

    assert conditions.tick() == ["2024-01"]


def test_pipelines_that_do_not_retrain_have_no_condition(make_shop: MakeShop) -> None:
    plain = make_shop()

    assert attach_conditions(plain.definitions, plain.world) is plain.definitions
