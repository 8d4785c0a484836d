"""What a person sees: the Dagster UI with its daemon and the MLflow UI, as `ml-assets dev` serves them, in Chromium.

`pytest --pictures FOLDER` keeps the screenshots.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import dagster as dg
import pytest

from deployments.births.land import land
from resources.ledger import SqlLedger
from tests.deployments.code_locations import code_locations
from tests.e2e.browser import CHROMIUM, Page, chromium
from tests.e2e.conftest import Demo
from tests.e2e.graphql import Graphql
from tests.e2e.programs import (
    Development,
    development,
    fetch_json,
    instance,
    materializations,
    ml_assets,
    wait_for,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium"),
]

WIDTH, HEIGHT = 1400, 1000
LARGEST_PICTURE_BYTES = 200_000
EVALUATION = "assets/flights/arrival_delay/evaluation"
PICTURE_LOADED = (
    "(() => { const shown = [...document.images].filter(i => i.src.startsWith('data:image/png')"
    " && i.complete && i.getBoundingClientRect().width > 0); return shown.length ? shown[0].naturalWidth : 0; })()"
)


@pytest.fixture(scope="module")
def served(demo: Demo) -> Iterator[Development]:
    """The UIs on the demo's state; when they are stopped, no process may be left."""
    assert demo.code == 0, demo.errors
    with development(demo.state) as running:
        yield running


@pytest.fixture(scope="module")
def server(served: Development) -> Graphql:
    return Graphql(url=served.dagster_url)


@pytest.fixture(scope="module")
def page(served: Development, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    del served  # the browser is closed before the servers stop
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        opened.resize(WIDTH, HEIGHT)
        yield opened


@pytest.fixture(scope="module")
def pictures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = request.config.getoption("--pictures")
    return Path(folder) if folder else tmp_path_factory.mktemp("pictures")


def test_all_code_locations_load_with_all_their_assets(server: Graphql) -> None:
    data = server.ask(
        """{
          workspaceOrError { ... on Workspace { locationEntries { name loadStatus
            locationOrLoadError { __typename ... on PythonError { message } } } } }
          assetNodes { assetKey { path } }
        }"""
    )

    entries = data["workspaceOrError"]["locationEntries"]
    assert {(e["name"], e["loadStatus"], e["locationOrLoadError"]["__typename"]) for e in entries} == {
        (location.name, "LOADED", "RepositoryLocation") for location in code_locations()
    }
    served_keys = {"/".join(node["assetKey"]["path"]) for node in data["assetNodes"]}
    assert served_keys == {key for location in code_locations() for key in location.asset_keys()}


def test_every_code_location_watches_for_approvals_and_has_the_job_to_give_them(server: Graphql) -> None:
    data = server.ask(
        """{ workspaceOrError { ... on Workspace { locationEntries { name locationOrLoadError {
          ... on RepositoryLocation { repositories {
            jobs { name } sensors { name minIntervalSeconds sensorState { status } } } } } } } } }"""
    )

    for entry in data["workspaceOrError"]["locationEntries"]:
        (repository,) = entry["locationOrLoadError"]["repositories"]
        assert "decide" in {job["name"] for job in repository["jobs"]}, entry["name"]
        sensors = {s["name"]: (s["minIntervalSeconds"], s["sensorState"]["status"]) for s in repository["sensors"]}
        assert sensors["approvals"] == (5, "RUNNING"), entry["name"]


YEARS = ("1969", "1970", "1971")
BIRTHS = "births/daily_births"


def backfilled(server: Graphql, assets: Sequence[str], first: str) -> str:
    """Launch a backfill as the UI does, wait for its success, and return its id."""
    launched = server.ask(
        """mutation ($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
          __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }""",
        params={
            "partitionsByAssets": [
                {"assetKey": {"path": asset.split("/")}, "partitions": {"range": {"start": first, "end": YEARS[-1]}}}
                for asset in assets
            ],
        },
    )["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched

    def ended() -> str | None:
        answer = server.ask(
            """query ($id: String!) {
              partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } } }""",
            id=launched["backfillId"],
        )
        status = answer["partitionBackfillOrError"]["status"]
        return None if status in {"REQUESTED", "COMPLETING"} else status

    assert wait_for("the backfill's end", ended, timeout_seconds=900, every_seconds=1) == "COMPLETED_SUCCESS"
    return launched["backfillId"]


def test_a_backfill_from_the_ui_is_completed_by_the_daemon_in_few_runs(demo: Demo, server: Graphql) -> None:
    ml_assets(demo.state, "pause", "births", "--reason", "A person does it here.")
    land(demo.state / "landing", YEARS)
    assets = [f"{BIRTHS}/raw_data", f"{BIRTHS}/features"]

    backfill = backfilled(server, assets, YEARS[0])

    with instance(demo.state) as opened:
        runs = opened.get_runs(dg.RunsFilter(tags={"dagster/backfill": backfill}))
        done = {(m.asset, m.partition) for m in materializations(opened, *assets)}
    assert 1 <= len(runs) <= 2
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}
    assert done == {(asset, year) for asset in assets for year in YEARS}


def test_models_of_a_backfill_from_the_ui_are_decided_one_after_the_other_oldest_first(
    demo: Demo, server: Graphql
) -> None:
    backfilled(server, [f"{BIRTHS}/row_index"], YEARS[0])
    variants = [f"models/{name}" for name in ("poisson_boosting", "small_boosting", "ridge")]
    stages = ["training_set", *variants, "candidate", "evaluation", "promotion"]

    backfill = backfilled(server, [f"{BIRTHS}/{stage}" for stage in stages], YEARS[1])

    decided = [d.partition for d in SqlLedger(f"sqlite:///{demo.state}/ledger.db").decisions(tuple(BIRTHS.split("/")))]
    assert list(dict.fromkeys(decided)) == list(YEARS[1:])
    with instance(demo.state) as opened:
        records = opened.get_run_records(dg.RunsFilter(tags={"dagster/backfill": backfill}))
    spans = sorted((r.start_time or 0.0, r.end_time or 0.0) for r in records)
    assert len(spans) == len(YEARS) - 1
    assert all(first[1] <= second[0] for first, second in pairwise(spans))


def test_the_asset_graph_shows_every_stage(page: Page, served: Development, pictures: Path) -> None:
    page.resize(2000, 900, scale=0.7)  # wide enough for the names to be read
    page.open(served.dagster_url)
    page.click("Hide navigation")
    page.open(f"{served.dagster_url}/locations/flights/asset-groups/flights__arrival_delay/lineage")

    page.wait_for_text(
        *("raw_data", "features", "row_index", "training_set", "logistic", "boosting", "boosting_slow", "forest"),
        *("candidate", "evaluation", "promotion", "predictions"),
    )

    page.picture(pictures / "asset-graph.png")
    page.resize(WIDTH, HEIGHT)


def test_an_evaluation_shows_its_metrics_and_pictures(page: Page, served: Development, pictures: Path) -> None:
    page.open(f"{served.dagster_url}/{EVALUATION}?view=partitions&partition=2013-03")
    text = page.wait_for_text("Metadata", "roc_auc_lower", "overview", "table/slices", "[Show Markdown]")
    assert text.index("roc_auc_lower") < text.index("overview") < text.index("ml_assets/data_version")
    page.picture(pictures / "evaluation-metadata.png")

    page.click("[Show Markdown]")  # the first one is the overview
    width = page.wait_until("the picture", PICTURE_LOADED)

    assert width > 600
    page.picture(pictures / "evaluation.png")


def test_the_checks_tab_says_why_a_gate_closed(page: Page, served: Development, pictures: Path) -> None:
    page.open(f"{served.dagster_url}/{EVALUATION}?view=checks&checkDetail=log_loss__beats_baseline")

    page.wait_for_text(
        "log_loss__beats_baseline",
        "roc_auc__floor",
        "This is a blocking asset check.",
        "its lower end must be more than 0",
    )

    page.picture(pictures / "checks.png")


def test_the_tracker_shows_the_candidate_s_run(page: Page, served: Development, pictures: Path) -> None:
    champion = fetch_json(
        f"{served.mlflow_url}/ajax-api/2.0/mlflow/registered-models/alias?name=flights.arrival_delay&alias=champion"
    )
    run_id = champion["model_version"]["run_id"]
    page.open(f"{served.mlflow_url}/#/experiments/1/runs/{run_id}")

    page.wait_for_text("2013-03 candidate", "test.roc_auc", "flights.arrival_delay")

    page.picture(pictures / "mlflow-run.png")


def test_pictures_are_small_enough_for_a_readme(pictures: Path) -> None:
    taken = sorted(pictures.glob("*.png"))

    assert [file.name for file in taken] == [
        "asset-graph.png",
        "checks.png",
        "evaluation-metadata.png",
        "evaluation.png",
        "mlflow-run.png",
    ]
    assert max(file.stat().st_size for file in taken) < LARGEST_PICTURE_BYTES
