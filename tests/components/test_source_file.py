"""The raw_data stage notes which bytes a partition was made of, also when a subclass replaces part of it."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pyarrow as pa

from ml_assets.components import TrainingPipeline
from ml_assets.stages import raw_data
from ml_assets.stages.source_file import made_of
from ml_assets.stages.step import StageResult, Step
from tests.components.shop import FEATURES, Shop

PATH = ("shop", "returns")
KEY = "DE|2024-01"


def file_digest(tmp_path: Path) -> str:
    return hashlib.sha256((tmp_path / "landing" / "shop" / "2024-01_DE.csv").read_bytes()).hexdigest()


def test_the_digest_is_in_a_document_and_in_the_metadata(make_shop: Callable[..., Shop], tmp_path: Path) -> None:
    shop = make_shop()
    store = shop.world.data_store
    assert made_of(store, PATH, KEY) is None

    done = shop.run("raw_data", partition=KEY)

    (event,) = done.get_asset_materialization_events()
    digest = file_digest(tmp_path)
    document = store.read_document((*PATH, "source_file"), KEY)
    assert event.materialization.metadata["source_sha256"].value == digest
    assert made_of(store, PATH, KEY) == digest
    assert document["url"].endswith("shop/2024-01_DE.csv")
    assert document["size"] == (tmp_path / "landing" / "shop" / "2024-01_DE.csv").stat().st_size
    assert store.read((*PATH, "raw_data"), KEY).schema.metadata is None


def test_rows_that_a_subclass_made_in_another_way_are_of_no_known_file(
    make_shop: Callable[..., Shop], tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    class Shortened(TrainingPipeline):
        def run_raw_data(self, step: Step) -> StageResult:
            table = raw_data.ingest(step)
            columns = {name: pa.concat_arrays([*table[name].chunks]) for name in table.column_names}
            return raw_data.store(step, pa.table(columns).slice(1))

    shop = make_shop()
    assert shop.run("raw_data", partition=KEY).success
    replaced = Shortened(**{name: getattr(shop.component, name) for name in TrainingPipeline.model_fields})
    (tmp_path / "features.py").write_text(FEATURES, encoding="utf-8")
    shop.definitions = replaced.definitions(tmp_path)

    done = shop.run("raw_data", partition=KEY)

    (event,) = done.get_asset_materialization_events()
    assert "source_sha256" not in event.materialization.metadata
    assert made_of(shop.world.data_store, PATH, KEY) is None  # the document is about the rows before
