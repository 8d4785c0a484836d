"""Features and predictions are stored with their profile; one that is missing is made again from the rows."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from ml_assets.errors import StoreError
from ml_assets.interfaces import AssetPath, StoredPartition
from ml_assets.profiles.bins import day_counts
from ml_assets.profiles.category import CategoryProfile
from ml_assets.profiles.document import to_document
from ml_assets.profiles.numeric import NumericProfile
from ml_assets.profiles.profile import Profile, merge
from ml_assets.stages.profiled import ProfiledStage, profile_asset, profile_rows, read_profile
from ml_assets.testing.data_store import FakeDataStore
from tests.components.shop import Shop, land_orders, services
from tests.components.test_pipeline_run import TASKS

PATH = ("shop", "returns")
DE, FR, SCORED = "DE|2024-01", "FR|2024-01", "DE|2024-03"


class InterruptedStore(FakeDataStore):
    """A data store whose writer dies when it is about to write a profile, once."""

    interrupted = False

    def write_document(
        self, asset: AssetPath, partition: str, document: Mapping[str, Any], *, data_version: str
    ) -> StoredPartition:
        """Keep a document, unless it is the first profile."""
        if "profiles" in asset and not self.interrupted:
            self.interrupted = True
            raise StoreError("the process was killed here")
        return super().write_document(asset, partition, document, data_version=data_version)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop with features of three months and predictions of the last, of a label with three classes."""
    folder = tmp_path_factory.mktemp("shop")
    settings = {"log_loss.beats_baseline": 0.0, "log_loss.margin": 0.02}
    land_orders(folder / "landing")
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(folder, services(folder / "landing", **settings), instance, **TASKS["multiclass"])
        for month in ("2024-01", "2024-02", "2024-03"):
            shop.data(month)
        for month in ("2024-01", "2024-02"):
            assert shop.run("row_index", partition=month).success
        assert shop.models("2024-02").success
        assert shop.run("predictions", partition=SCORED).success
    return shop


@pytest.fixture
def shop(scored: Shop) -> Iterator[Shop]:
    """A copy of it of the test's own."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield scored.copy(instance)


def store_of(shop: Shop) -> FakeDataStore:
    assert isinstance(shop.world.data_store, FakeDataStore)
    return shop.world.data_store


def version_of(shop: Shop, stage: ProfiledStage, partition: str) -> str:
    stored = shop.world.data_store.describe((*PATH, stage), partition)
    assert stored is not None
    return stored.data_version


def profile_in(shop: Shop, stage: ProfiledStage, partition: str) -> Profile:
    version = version_of(shop, stage, partition)
    return read_profile(shop.world.data_store, PATH, stage, partition, version, timezone="UTC")


@pytest.mark.parametrize(("stage", "partition"), [("features", DE), ("predictions", SCORED)])
def test_rows_are_stored_with_their_profile(shop: Shop, stage: ProfiledStage, partition: str) -> None:
    version = version_of(shop, stage, partition)
    document = shop.world.data_store.read_document(profile_asset(PATH, stage), partition, data_version=version)
    rows = shop.world.data_store.read((*PATH, stage), partition)

    assert document == to_document(profile_rows(rows, stage, timezone="UTC")) | {"timezone": "UTC"}
    assert document == to_document(profile_in(shop, stage, partition)) | {"timezone": "UTC"}


def test_the_profile_of_features_has_every_feature_and_the_label(shop: Shop) -> None:
    profile = profile_in(shop, "features", DE)
    rows = shop.world.data_store.read((*PATH, "features"), DE)

    assert set(profile.columns) == set(rows.column_names) - {"row_id", "event_time", "label_time"}
    amount, label = profile.columns["amount"], profile.columns["outcome"]
    assert isinstance(amount, NumericProfile)
    assert isinstance(label, CategoryProfile)
    assert profile.n_rows == amount.n_rows == rows.num_rows
    assert amount.mean == pytest.approx(rows["amount"].to_numpy().mean())
    assert sorted(label.value_counts) == ["disputed", "kept", "returned"]


def test_the_profile_of_predictions_has_the_scores(shop: Shop) -> None:
    profile = profile_in(shop, "predictions", SCORED)
    assert set(profile.columns) == {"score_disputed", "score_kept", "score_returned"}
    scores = [column for column in profile.columns.values() if isinstance(column, NumericProfile)]
    assert sum(column.mean for column in scores) == pytest.approx(1)


def test_days_are_local_and_countries_add_up(shop: Shop) -> None:
    rows = shop.world.data_store.read((*PATH, "features"), DE)
    utc = profile_rows(rows, "features", timezone="UTC")
    assert utc.days.tolist() == np.arange("2024-01-01", "2024-02-01", dtype="datetime64[D]").tolist()
    new_york = profile_rows(rows, "features", timezone="America/New_York")
    assert new_york.days[0] == np.datetime64("2023-12-31")

    both = merge(profile_in(shop, "features", partition) for partition in (DE, FR)).columns["amount"]
    one = profile_in(shop, "features", FR).columns["amount"]
    assert isinstance(both, NumericProfile)
    assert isinstance(one, NumericProfile)
    (days, counts), (_, of_one) = day_counts(both, np.array([50.0])), day_counts(one, np.array([50.0]))
    assert len(days) == 31
    assert counts.sum() == rows.num_rows + of_one.sum()


def test_the_same_rows_again_change_nothing(shop: Shop) -> None:
    before = dict(store_of(shop).contents)
    assert shop.run("features", partition=DE).success
    assert store_of(shop).contents == before


@pytest.mark.parametrize(("stage", "partition"), [("features", DE), ("predictions", SCORED)])
@pytest.mark.parametrize("loss", ["missing", "damaged", "of another format"])
def test_a_lost_profile_is_made_again_from_the_rows(
    shop: Shop, stage: ProfiledStage, partition: str, loss: str
) -> None:
    store, place = store_of(shop), (profile_asset(PATH, stage), partition, version_of(shop, stage, partition))
    known, data = store.contents[place]
    if loss == "missing":
        del store.contents[place]
    else:
        store.contents[place] = (known, b'{"format": 0}' if loss == "of another format" else data.replace(b"A", b"B"))

    again = profile_in(shop, stage, partition)

    table = store.read((*PATH, stage), partition)
    assert to_document(again) == to_document(profile_rows(table, stage, timezone="UTC"))
    if loss == "missing":
        assert store.contents[place] == (known, data), "it is stored for the next who asks"


def test_a_writer_killed_before_the_profile_leaves_rows_that_get_one(tmp_path: Path) -> None:
    land_orders(tmp_path / "landing", ("2024-01",))
    world = services(tmp_path / "landing")
    object.__setattr__(world, "data_store", InterruptedStore())
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(tmp_path, world, instance)
        assert shop.run("raw_data", partition=DE).success
        assert not shop.run("features", partition=DE).success
        version = version_of(shop, "features", DE)
        place = (profile_asset(PATH, "features"), DE)
        assert shop.world.data_store.describe(*place, data_version=version) is None

        made = to_document(profile_in(shop, "features", DE))
        assert shop.world.data_store.read_document(*place, data_version=version) == made | {"timezone": "UTC"}
        assert shop.run("features", partition=DE).success
        assert version_of(shop, "features", DE) == version


def test_days_of_another_timezone_are_not_taken_for_ones_own(shop: Shop) -> None:
    version = version_of(shop, "features", DE)
    moved = read_profile(shop.world.data_store, PATH, "features", DE, version, timezone="America/New_York")
    assert moved.days[0] == np.datetime64("2023-12-31")
    assert profile_in(shop, "features", DE).days[0] == np.datetime64("2024-01-01")


def test_rows_that_were_never_stored_have_no_profile(shop: Shop) -> None:
    with pytest.raises(StoreError, match=rf"shop/returns/features \[{SCORED[:2]}\|2024-06\] has no version 0{{64}}"):
        read_profile(shop.world.data_store, PATH, "features", "DE|2024-06", "0" * 64, timezone="UTC")
