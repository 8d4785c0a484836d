"""The documentation's code, run: guides' code and commands, the drawn graph, the metadata."""

import importlib
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
import yaml

from ml_assets.approvals.statements import Statement
from ml_assets.assets.decide_job import build_decide_job
from ml_assets.cli.team_files import TEMPLATES
from ml_assets.components.team import load_team
from ml_assets.stages.champions import latest_by_partition
from ml_assets.stages.step import Services
from tests.components.shop import MONTHS, Shop, land_orders, policy, services
from tests.e2e.governed import NAME, Governed

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FLIGHTS = ROOT / "deployments" / "flights" / "defs" / "arrival_delay"


def blocks(file: Path, language: str) -> list[str]:
    text = file.read_text(encoding="utf-8")
    return re.findall(rf"^ *```{language}\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


class Team:
    """A team's folder in a package of its own, and its code location over fakes."""

    def __init__(self, root: Path, name: str) -> None:
        self.package = f"copies_{root.name}"
        self.name = name
        self.defs = root / self.package / name / "defs"
        self.defs.mkdir(parents=True)
        for folder in (self.defs, self.defs.parent, self.defs.parent.parent):
            (folder / "__init__.py").touch()
        self.landing = root / "landing"
        (self.landing / name).mkdir(parents=True)
        self.world: Services = services(self.landing)

    def load(self) -> dg.Definitions:
        importlib.invalidate_caches()
        module = importlib.import_module(f"{self.package}.{self.name}.defs")
        return load_team(
            module, services=self.world, executor=dg.in_process_executor, project_root=self.defs.parents[2]
        )


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the import path; what is imported from it is forgotten."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name.startswith("copies_"):
            del sys.modules[name]


def materialize(
    definitions: dg.Definitions, instance: dg.DagsterInstance, *keys: str, partition: str
) -> dg.ExecuteInProcessResult:
    assets = [asset for asset in definitions.assets or [] if isinstance(asset, dg.AssetsDefinition)]
    return dg.materialize(
        assets,
        selection=[dg.AssetKey.from_user_string(key) for key in keys],
        partition_key=partition,
        instance=instance,
        resources=dict(definitions.resources or {}),
    )


def code_versions(definitions: dg.Definitions) -> dict[str, str | None]:
    return {spec.key.path[-1]: spec.code_version for spec in definitions.resolve_all_asset_specs()}


# Guide: replace a stage


def land_flights(folder: Path) -> None:
    flight = {
        "year": 2013, "month": 1, "day": 1, "time_hour": "2013-01-01 10:00", "sched_dep_time": 515,
        "sched_arr_time": 819, "dep_time": 517, "dep_delay": 2, "arr_delay": 11, "carrier": "UA", "flight": 1,
        "tailnum": "N14228", "origin": "EWR", "dest": "IAH", "distance": 1400,
    }  # fmt: skip
    rows = pd.DataFrame([flight, flight | {"flight": 2, "distance": 0}])
    rows.to_csv(folder / "flights_2013-01_EWR.csv", index=False)


def test_the_replaced_stage_of_the_guide(root: Path, instance: dg.DagsterInstance) -> None:
    component, yaml_line = (blocks(DOCS / "guides" / "replace-a-stage.md", kind)[0] for kind in ("python", "yaml"))
    team = Team(root, "flights")
    land_flights(team.landing / "flights")
    pipeline = team.defs / "arrival_delay"
    shutil.copytree(FLIGHTS, pipeline, ignore=shutil.ignore_patterns("__pycache__"))
    # The fake knows few expectations; which ones there are does not matter here.
    (pipeline / "expectations_raw_data.yaml").write_text(
        "- {type: expect_column_values_to_be_between, kwargs: {column: distance, min_value: 10}}", encoding="utf-8"
    )
    (pipeline / "component.py").write_text(component, encoding="utf-8")
    before = code_versions(team.load())
    file = pipeline / "defs.yaml"
    file.write_text(re.sub(r"^type: .*\n", yaml_line, file.read_text(), flags=re.MULTILINE), encoding="utf-8")

    definitions = team.load()
    done = materialize(definitions, instance, "flights/arrival_delay/raw_data", partition="EWR|2013-01")

    after = code_versions(definitions)
    changed = {name for name in before if before[name] != after[name]}
    assert "raw_data" in changed
    assert not changed & {"row_index", "training_set", "candidate", "evaluation", "promotion", "predictions"}
    assert done.success
    stored = team.world.data_store.describe(("flights", "arrival_delay", "raw_data"), "EWR|2013-01")
    assert stored is not None
    assert stored.n_rows == 1


# Guide: the same in Python


def test_the_pipeline_in_python_of_the_guide(root: Path) -> None:
    (snippet,) = (b for b in blocks(DOCS / "guides" / "add-a-pipeline.md", "python") if "TrainingPipeline(" in b)
    team = Team(root, "acme")
    folder = team.defs / "returns_in_python"
    folder.mkdir()
    (folder / "pipeline.py").write_text(snippet, encoding="utf-8")
    features = (TEMPLATES / "features.py.txt").read_text(encoding="utf-8")
    (folder / "features.py").write_text(features, encoding="utf-8")

    keys = {spec.key.to_user_string() for spec in team.load().resolve_all_asset_specs()}

    stages = "raw_data features row_index training_set models/logistic candidate evaluation promotion predictions"
    assert keys == {
        f"acme/returns_in_python/{stage}" for stage in ("landing/partitions", *stages.split(), "drift", "performance")
    }


# Guide: features


def land_sales(folder: Path) -> None:
    """Two shops of one region; sales are the day of the year, the second shop's a hundred more."""
    days = pd.date_range("2024-01-01", "2024-02-29", freq="D")
    frames = [
        pd.DataFrame(
            {
                "date": days.date,
                "shop": shop,
                "promotion": (days.day == 1) & (shop == "a"),
                "sold": days.day_of_year + extra,
                "stock": [500.0 if day.day == 31 else None for day in days],
            }
        )
        for shop, extra in (("a", 0), ("b", 100))
    ]
    sales = pd.concat(frames)
    for month, rows in sales.groupby(pd.to_datetime(sales["date"]).dt.strftime("%Y-%m")):
        rows.to_csv(folder / f"{month}.csv", index=False)
    pd.DataFrame({"number": ["a"], "area": [200.0], "region": ["north"]}).to_csv(folder / "shops.csv", index=False)
    prices = {"shop": ["a", "a"], "valid_from": ["2024-01-15", "2024-02-02"], "price": [2.0, 3.0]}
    pd.DataFrame(prices).to_csv(folder / "prices.csv", index=False)


def test_the_features_of_the_guide(root: Path, instance: dg.DagsterInstance) -> None:
    guide = DOCS / "guides" / "features.md"
    functions = [block for block in blocks(guide, "python") if "arr_delay" not in block]
    team = Team(root, "grocer")
    land_sales(team.landing / "grocer")
    folder = team.defs / "daily_sales"
    folder.mkdir()
    (folder / "defs.yaml").write_text(blocks(guide, "yaml")[0], encoding="utf-8")
    (folder / "features.py").write_text("\n\n".join(functions), encoding="utf-8")

    definitions = team.load()
    stages = [f"grocer/daily_sales/{stage}" for stage in ("raw_data", "features")]
    for month in ("2024-01", "2024-02"):
        assert materialize(definitions, instance, *stages, partition=month).success

    table = team.world.data_store.read(("grocer", "daily_sales", "features"), "2024-02").to_pandas()
    assert len(table) == 2 * 29, "history is read, and only the partition's own rows are kept"
    first = table.iloc[0]
    assert first["weekday"] == 3  # a Thursday
    assert (first["area"], first["price"], first["price_per_area"]) == (200.0, 2.0, 0.01)
    assert first["promotions_in_region"] == 1.0
    assert first["sold_7_days_ago"] == 25.0, "from the partition before"
    assert first["sold_mean_28_days"] == pytest.approx(sum(range(4, 32)) / 28)
    assert first["last_stock"] == 500.0
    second = table.iloc[2]
    assert second["price"] == 2.0, "the new price is valid an hour after midnight in Berlin"
    other = table.iloc[1]
    assert other[["area", "price"]].isna().all(), "no match is a missing value"
    assert other["promotions_in_region"] == 0.0
    assert other["sold_7_days_ago"] == 125.0


# Guides: approve a model, promotion and rollback

SLOW = (
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow on SQLAlchemy 2.1
)


def slow(test: Callable[..., None]) -> Callable[..., None]:
    for mark in SLOW:
        test = mark(test)
    return test


def commands(guide: str, *beginning: str) -> list[list[str]]:
    """Return the words after `ml-assets` of each command of a guide that begins so, in the guide's order."""
    text = "\n".join(blocks(DOCS / "guides" / guide, "sh")).replace("\\\n", " ")
    lines = (line.strip() for line in text.splitlines())
    found = [shlex.split(line, comments=True) for line in lines if line.startswith("ml-assets ")]
    chosen = [words[1:] for words in found if tuple(words[1 : 1 + len(beginning)]) == beginning]
    assert chosen, f"{guide} has no command {' '.join(beginning)}"
    return chosen


@slow
def test_a_reviewer_s_way_through_the_guide(waiting: Governed) -> None:
    guide = "approve-a-model.md"
    (new_key,) = commands(guide, "access", "new-key")
    entry = waiting.say(*new_key, "--no-passphrase").stdout
    written = "\n".join(line for line in entry.splitlines() if line.startswith("  "))
    with (waiting.policies / "people.yaml").open("a", encoding="utf-8") as people:
        people.write(f"{written}\n")
    shown = next(yaml.safe_load(b) for b in blocks(DOCS / "guides" / guide, "yaml") if b.startswith("people:"))
    made = yaml.safe_load(written)
    # Whatever the key and the day are, the entry has the form that the guide shows.
    assert in_form(made) == in_form(shown["people"])
    assert "maria" in waiting.say(*commands(guide, "access", "list")[0]).stdout
    assert "2013-03" in waiting.say(*commands(guide, "approvals", "list")[0]).stdout
    assert "first_model" in waiting.say(*commands(guide, "approvals", "show")[0]).stdout

    approve, printed = commands(guide, "approvals", "approve")
    statement = waiting.say(*printed).stdout.strip()
    assert Statement.decode(statement).person == "maria"
    said = waiting.say(*approve).stdout
    again = waiting.run(*approve)
    promoted = waiting.say(*commands(guide, "backfill")[0]).stdout
    told = waiting.say(*commands(guide, "history")[0]).stdout

    assert "1 of 1" in said
    assert again.returncode == 1
    assert "maria has said 'approve'" in again.stderr
    assert "promoted" in promoted
    assert "maria approved version 1" in told
    assert waiting.aliases()["champion"] == "1"


def in_form(entry: Any) -> Any:
    """Return an entry of people with its keys as the names of their fields."""
    return {name: person | {"keys": [sorted(key) for key in person["keys"]]} for name, person in entry.items()}


@slow
def test_the_waiver_of_the_guide_lets_the_refused_candidate_be_decided_on(waiting: Governed) -> None:
    guide = "approve-a-model.md"
    waiver = ["anna" if word == "maria" else word for word in commands(guide, "waivers", "grant")[0]]

    waiting.say(*waiver)
    listed = waiting.say(*commands(guide, "waivers", "list")[0]).stdout
    waiting.say(*commands(guide, "backfill")[1])

    assert "counts" in listed
    assert dict(waiting.outcomes())["2013-02"] != "refused"


@slow
def test_the_rollback_of_the_guide_puts_the_champion_before_it_back(champions: Governed) -> None:
    guide = "promotion-and-rollback.md"
    (rollback,) = commands(guide, "rollback")
    quoted = next(b for b in blocks(DOCS / "guides" / guide, "text") if "champion again" in b)

    printed = champions.say(*rollback).stdout
    second = champions.run(*rollback)

    assert quoted in printed
    assert second.returncode == 1
    assert "nothing was changed" in second.stderr
    assert champions.outcomes()[-1] == ("2013-04", "rolled_back")
    assert "taken back" in champions.say(*commands(guide, "history")[0]).stdout
    assert "rolled back" in champions.say(*commands(guide, "status")[0]).stdout
    assert "unbroken" in champions.say(*commands(guide, "ledger", "verify")[0]).stdout
    assert NAME in champions.say(*commands(guide, "experiment")[0]).stdout


def test_the_launchpad_s_text_of_the_guide_is_that_of_the_job() -> None:
    text = next(b for b in blocks(DOCS / "guides" / "approve-a-model.md", "yaml") if b.startswith("ops:"))

    assert dg.validate_run_config(build_decide_job(), yaml.safe_load(text))


# The README's drawing


def test_the_drawn_graph_is_the_graph() -> None:
    (drawing,) = blocks(ROOT / "README.md", "mermaid")
    drawn = set(re.findall(r"^\s*(\w+)\S* ?(?:\[.*?\])? ?--> (\w+)", drawing, flags=re.MULTILINE))
    graph = importlib.import_module("deployments.flights.definitions").defs.resolve_asset_graph()

    edges = {
        (parent.path[2], key.path[2])
        for key in graph.get_all_asset_keys()
        if key.path[1] == "arrival_delay"
        for parent in graph.get(key).parent_keys
    }

    assert drawn == edges


# Reference: metadata

FACTS_OF_A_GOVERNED_RUN = (
    "decided_by dossier shadow_version shadow_disagreement shadow_mean_shift shadow_report challenger_version "
    "challenger_share challenger_rows incidents table/disagreement"
)


def test_every_metadata_key_is_documented(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    text = (DOCS / "reference" / "metadata.md").read_text(encoding="utf-8")
    documented = {cell for line in text.splitlines() if line.startswith("|") for cell in re.findall(r"`([^`]+)`", line)}
    landing = tmp_path / "landing"
    land_orders(landing, (*MONTHS, "2024-04"))
    shop = Shop(tmp_path, services(landing), instance)
    for month in (*MONTHS, "2024-04"):
        shop.data(month)
    assert shop.run("row_index", partition="2024-01").success
    assert shop.models("2024-02").success
    assert shop.models("2024-03").success
    watch_march(shop)
    assert shop.run("predictions", partition="DE|2024-04").success

    written = set()
    for key in shop.instance.all_asset_keys():
        for record in shop.instance.fetch_materializations(key, limit=100).records:
            assert record.asset_materialization is not None
            written |= {general(name) for name in record.asset_materialization.metadata}

    assert written - documented == set()
    assert {"ml_assets/data_version", "validation_<metric>", "champion_version", "table/material change"} <= written
    assert set(FACTS_OF_A_GOVERNED_RUN.split()) <= written


def watch_march(shop: Shop) -> None:
    """Make March's candidate one that more rows may decide, beside February's champion, and point an alias astray."""
    shop.world = replace(shop.world, policy=policy(**{"ab.challenger_share": 0.5, "shadow.enabled": True}))
    ledger = shop.world.ledger
    march = latest_by_partition(ledger.decisions(("shop", "returns")))["2024-03"]
    assert march.evidence["serving"]["example_scores"], "it was promoted, and served before"
    ledger.record_decision(replace(march, outcome="undecided", recorded_at=None))
    shop.world.model_registry.set_alias("shop.returns", "shadow", "1")


def general(key: str) -> str:
    """Return a key with the name of a metric or a number in it replaced by what stands for it."""
    key = re.sub(r"^table/confusion at .+$", "table/confusion at <threshold>", key)
    return re.sub(r"^(validation_)?(?:roc_auc|log_loss)(_lower|_upper)?$", r"\1<metric>\2", key)
