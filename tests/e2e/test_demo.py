"""The command line on real flights, end to end: the demo, what it leaves behind, and every command's bad usage."""

import json
import shutil
import socket
import time
import zipfile
from collections import Counter
from pathlib import Path

import jsonschema
import pytest
import yaml

from ml_assets.yaml_positions import load_yaml
from resources.ledger import SqlLedger
from resources.model_registry import MlflowRegistry
from tests.e2e.conftest import Demo
from tests.e2e.programs import ROOT, instance, ml_assets

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow on SQLAlchemy 2.1
]

PIPELINE = ("flights", "arrival_delay")
PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
PICKLE_SUFFIXES = {".pkl", ".pickle", ".joblib", ".cloudpickle"}
PROJECT_PARTS = ("deployments", "policies", "resources", "sensors", "pyproject.toml", "workspace.yaml")


def registry(demo: Demo) -> MlflowRegistry:
    return MlflowRegistry(f"sqlite:///{demo.state}/mlflow/mlflow.db", str(demo.state / "mlflow" / "artifacts"))


def test_the_demo_ends_well_and_prints_a_row_for_each_month(demo: Demo) -> None:
    assert demo.code == 0, demo.errors
    assert "Traceback" not in demo.printed + demo.errors
    assert "Landed 9 new files for 2013-01 to 2013-03" in demo.printed
    table = demo.printed[demo.printed.index("partition") :]
    for month, rows in (("2013-01", "27,004"), ("2013-02", "24,951"), ("2013-03", "28,834")):
        (line,) = [line for line in table.splitlines() if month in line and rows in line]
        assert ("promoted" in line) == (month == "2013-03")
        assert ("refused" in line) == (month == "2013-02")
    assert "log_loss.beats_baseline" in table
    told = " ".join(demo.printed.split())
    assert "2013-03: version 1 is the first model and waits for approval. The demo approves it as demo-reviewer" in told
    assert "of this machine only" in told
    assert "What to open next" in demo.printed


def test_the_decisions_are_those_of_the_policy(demo: Demo) -> None:
    decisions = SqlLedger(f"sqlite:///{demo.state}/ledger.db").decisions(PIPELINE)

    assert [(d.partition, d.outcome) for d in decisions] == [
        ("2013-02", "refused"),
        ("2013-03", "awaiting_approval"),
        ("2013-03", "promoted"),
    ]
    refused, asked, promoted = decisions
    assert refused.reason.startswith("log_loss.beats_baseline: improvement of log_loss over the baseline")
    assert refused.model_version is None
    assert asked.evidence["approval_reasons"] == ["it is the first model: there is no champion"]
    assert (promoted.model_version, promoted.decided_by) == ("1", "demo-reviewer")
    assert promoted.reason == f"{asked.reason} Approved by demo-reviewer."


def test_a_decision_has_a_dossier_beside_the_state(demo: Demo) -> None:
    pages = sorted((demo.state / "dossiers" / "flights" / "arrival_delay").glob("*.html"))

    assert [page.name.split("-")[:3] for page in pages] == [
        ["2013", "02", "refused"],
        ["2013", "03", "awaiting_approval"],
        ["2013", "03", "promoted"],
    ]
    assert all("<script" not in page.read_text(encoding="utf-8") for page in pages)


def test_the_champion_can_be_loaded_by_its_alias(demo: Demo) -> None:
    models = registry(demo)
    champion = models.version_by_alias("flights.arrival_delay", "champion")

    assert champion is not None
    assert champion.version == "1"
    assert champion.tags["partition"] == "2013-03"
    assert list(models.load(champion.model_uri, trusted_types=["numpy.dtype"]).classes_) == [0.0, 1.0]


def test_no_model_is_stored_with_pickle(demo: Demo) -> None:
    artifacts = demo.state / "mlflow" / "artifacts"
    files = [file for file in artifacts.rglob("*") if file.is_file()]
    models = [file for file in files if file.name == "MLmodel"]

    assert len(models) == 10  # four variants and a candidate in each of two months
    for file in models:
        assert (file.parent / "model.skops").is_file()
        assert yaml.safe_load(file.read_text(encoding="utf-8"))["flavors"]["sklearn"]["serialization_format"] == "skops"
    assert not [file for file in files if file.suffix in PICKLE_SUFFIXES]
    assert not [file for file in files if file.read_bytes().startswith(PICKLE_STARTS)]
    for file in files:
        if file.suffix == ".skops":
            inside = {Path(name).suffix for name in zipfile.ZipFile(file).namelist()}
            assert inside <= {".json", ".npy", ".npz"}


def test_a_second_demo_starts_nothing_again_and_is_quick(demo: Demo) -> None:
    with instance(demo.state) as opened:
        before = opened.get_runs_count()

    seconds = []
    for _ in range(3):  # a machine may be busy with something else for a while
        started = time.monotonic()
        again = ml_assets(demo.state, "demo", "--periods", "3")
        seconds.append(time.monotonic() - started)

        assert again.returncode == 0, again.stderr
        assert "Landed 0 new files" in again.stdout
        with instance(demo.state) as opened:
            assert opened.get_runs_count() == before
        if seconds[-1] < demo.seconds / 2:
            break
    assert min(seconds) < demo.seconds / 2


def test_status_names_every_pipeline(demo: Demo) -> None:
    done = ml_assets(demo.state, "status")

    assert done.returncode == 0, done.stderr
    (flights,) = [line for line in done.stdout.splitlines() if "flights/arrival_delay" in line]
    assert "9 partitions" in flights
    assert "version 1 of 2013-03" in flights
    (births,) = [line for line in done.stdout.splitlines() if "births/daily_births" in line]
    assert "0 partitions" in births


def test_status_of_a_pipeline_tells_its_decisions(demo: Demo) -> None:
    done = ml_assets(demo.state, "status", "flights/arrival_delay")

    assert done.returncode == 0, done.stderr
    assert "12/12 passed" in done.stdout
    assert "2013-02  refused           log_loss.beats_baseline: improvement" in done.stdout
    assert "2013-03  awaiting approval roc_auc against the baseline: the improvement is" in done.stdout
    assert "2013-03  promoted          roc_auc against the baseline: the improvement is" in done.stdout
    assert "Approved by demo-reviewer." in done.stdout


def test_status_of_a_pipeline_without_data_names_the_next_command(tmp_path: Path) -> None:
    done = ml_assets(tmp_path / "state", "status", "births/daily_births")

    assert done.returncode == 0, done.stderr
    assert "births/daily_births has no data yet" in done.stdout


def test_validate_finds_no_problem_in_the_pipelines_there_are(tmp_path: Path) -> None:
    done = ml_assets(tmp_path / "state", "validate", "--deep")

    assert (done.returncode, done.stdout) == (0, "2 pipelines without a problem.\n"), done.stderr


def test_schema_accepts_the_pipelines_there_are(tmp_path: Path) -> None:
    done = ml_assets(tmp_path / "state", "schema")
    schema = json.loads(done.stdout)

    jsonschema.Draft202012Validator.check_schema(schema)
    for file in (ROOT / "deployments").glob("*/defs/*/defs.yaml"):
        # Read as editors read it, by YAML 1.2, in which a key `on` is text.
        jsonschema.validate(load_yaml(file.read_text(encoding="utf-8"), file=str(file)).data, schema)


@pytest.fixture(scope="module")
def copied_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    for part in PROJECT_PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, folder / part)
    return folder


def test_a_new_pipeline_is_valid_and_in_the_workspace(copied_project: Path) -> None:
    state = copied_project / "state"

    done = ml_assets(state, "new", "stores/basket_value", project=copied_project)

    assert done.returncode == 0, done.stderr
    written = {line.removeprefix("wrote ") for line in done.stdout.splitlines() if line.startswith("wrote ")}
    assert written == {
        "deployments/stores/__init__.py",
        "deployments/stores/definitions.py",
        "deployments/stores/defs/__init__.py",
        "deployments/stores/defs/basket_value/defs.yaml",
        "deployments/stores/defs/basket_value/features.py",
        "workspace.yaml",
    }
    validated = ml_assets(state, "validate", "--deep", project=copied_project)
    assert (validated.returncode, validated.stdout) == (0, "3 pipelines without a problem.\n"), validated.stderr
    overview = ml_assets(state, "status", project=copied_project)
    assert "stores/basket_value" in overview.stdout
    entries = yaml.safe_load((copied_project / "workspace.yaml").read_text(encoding="utf-8"))["load_from"]
    assert Counter(e["python_module"]["location_name"] for e in entries) == Counter(["flights", "births", "stores"])


BAD_USAGE = [
    (("status", "flights/nothing"), "There is no pipeline 'flights/nothing'; there are births/daily_births, "),
    (("backfill", "nothing", "--from", "2013-01", "--to", "2013-02"), "There is no pipeline 'nothing'"),
    (("backfill", "flights/arrival_delay"), "Missing option '--from'"),
    (
        ("backfill", "flights/arrival_delay", "--from", "2013-03", "--to", "2013-02"),
        "Invalid value for --from: '2013-03' is after '2013-02'.",
    ),
    (
        ("backfill", "flights/arrival_delay", "--from", "2013-01", "--to", "2014-02"),
        "Invalid value for --to: '2014-02' is no month of flights/arrival_delay; they run from 2013-01 to before 2014",
    ),
    (("demo", "--team", "trains"), "'trains' is not one of 'births', 'flights'"),
    (("demo", "--periods", "1"), "1 is not in the range 2<=x<=20"),
    (("demo", "--periods", "2"), "2 periods of flights end before its first model; expected at least 3."),
    (
        ("approvals", "list", "flights/nothing"),
        "There is no pipeline 'flights/nothing'; there are births/daily_births, ",
    ),
    (("waivers", "list", "flights/nothing"), "There is no pipeline 'flights/nothing'; there are births/daily_births, "),
    (("history", "nothing"), "There is no pipeline 'nothing'"),
    (("rollback", "nothing", "--reason", "x"), "There is no pipeline 'nothing'"),
    (("experiment", "nothing"), "There is no pipeline 'nothing'"),
    (("ledger", "verify", "nothing"), "'nothing' is no pipeline; expected TEAM/PIPELINE"),
    (("policy", "explain", "nothing"), "There is no pipeline 'nothing'"),
    (("access", "new-key"), "Missing argument 'NAME'"),
    (("dev", "--port", "70000"), "70000 is not in the range 0<=x<=65535"),
    (("validate", "workspace.yml"), "workspace.yml: does not exist; expected a pipeline's YAML file"),
    (("schema", "--output", "no/such/folder/schema.json"), "no/such/folder/schema.json cannot be written"),
    (("new", "flights"), "'' is no name for a pipeline: write TEAM/NAME"),
    (("new", "flights/arrival_delay"), "deployments/flights/defs/arrival_delay exists already; nothing was changed."),
    (("new", "class/basket"), "'class' cannot be the name of a team"),
    (("promote",), "No such command 'promote'"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_USAGE, ids=[" ".join(case[0]) for case in BAD_USAGE])
def test_bad_usage_gets_one_clear_message(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = ml_assets(tmp_path / "state", *arguments)

    assert done.returncode in {1, 2}
    assert message in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("option", ["--port", "--mlflow-port"])
def test_a_port_that_is_taken_is_named_before_anything_starts(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        done = ml_assets(tmp_path / "state", "dev", "--port", "0", "--mlflow-port", "0", option, str(port))

    assert done.returncode == 2
    assert f"Invalid value for {option}: port {port} is taken; name another, or 0 for a free one." in done.stderr
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("command", ["demo", "dev", "status", "validate"])
def test_outside_a_project_every_command_says_so(tmp_path: Path, command: str) -> None:
    done = ml_assets(tmp_path / "state", command, project=tmp_path)

    assert done.returncode == 2
    assert "is in no ml_assets project: no pyproject.toml above it has a section [tool.ml_assets]" in done.stderr
    assert "Traceback" not in done.stderr
