"""The MLflow registry against real databases, a real server, forked children and hostile model files."""

import contextlib
import dataclasses
import hashlib
import io
import json
import multiprocessing
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.request
import warnings
import zipfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from ml_assets.errors import RegistryError
from ml_assets.interfaces import DatasetInput, LoggedModel, ModelRun
from ml_assets.testing.model_registry import MajorityModel, ModelRegistrySuite, small_run, small_training_data
from ml_assets.testing.model_registry_suite import small_trial
from resources.model_registry import DIGEST_TAG, QUIET_ENVIRONMENT, MlflowRegistry
from resources.model_runs import DATA_VERSION_TAG, log_datasets

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow on SQLAlchemy 2.1
]

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module", autouse=True)
def quiet_environment() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as environment:
        for name, value in QUIET_ENVIRONMENT.items():
            environment.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory) -> Path:
    """An initialised database to copy, since MLflow's migrations take over a second."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    MlflowRegistry(f"sqlite:///{path}", str(path.parent)).initialise()
    return path


@pytest.fixture
def place(tmp_path, empty_database) -> Path:
    """A folder, with a space in its name, that holds a database and will hold artifacts."""
    folder = tmp_path / "ml flow"
    folder.mkdir()
    shutil.copy(empty_database, folder / "mlflow.db")
    return folder


@pytest.fixture
def registry(place) -> MlflowRegistry:
    return MlflowRegistry(f"sqlite:///{place}/mlflow.db", str(place / "artifacts"))


@pytest.fixture
def client(place):
    import mlflow

    uri = f"sqlite:///{place}/mlflow.db"
    return mlflow.MlflowClient(uri, registry_uri=uri)


def model_folder(client, logged: LoggedModel) -> Path:
    location = client.get_logged_model(logged.model_uri.removeprefix("models:/")).artifact_location
    return Path(urllib.request.url2pathname(location.removeprefix("file://")))


class TestMlflowRegistry(ModelRegistrySuite):
    @pytest.fixture
    def registry(self, registry) -> MlflowRegistry:
        return registry


def test_trials_are_nested_and_one_that_was_left_half_written_is_completed(registry, client) -> None:
    run_id = registry.start_run("flights/arrival_delay", "2013-02 forest", tags={"team": "flights"})
    parent = client.get_run(run_id)
    tags = {"mlflow.parentRunId": run_id, "ml_assets.trial": "1"}
    half = client.create_run(parent.info.experiment_id, run_name="trial 1", tags=tags).info.run_id

    trials = [small_trial(0), small_trial(1, state="pruned"), small_trial(2, state="failed", metrics={}, reports={})]
    for trial in trials:
        registry.log_trials(run_id, [trial])
    for _ in range(2):
        registry.log_trials(run_id, trials)
    registry.log_trials(run_id, [trials[0]])

    runs = client.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    found = {run.data.tags["ml_assets.trial"]: run for run in runs}
    assert len(runs) == 3
    assert found["1"].info.run_id == half
    assert [found[str(n)].info.status for n in range(3)] == ["FINISHED", "KILLED", "FAILED"]
    assert found["1"].data.params["estimator.learning_rate"] == "1.1"
    assert found["1"].data.params["estimator.max_depth"] == "null"
    assert found["1"].data.metrics == {"log_loss": 0.5, "report": 0.5, "seconds": 1.5}
    assert [m.value for m in client.get_metric_history(found["0"].info.run_id, "report")] == [0.7, 0.5]
    assert found["0"].info.end_time - found["0"].info.start_time == 1500
    assert client.get_run(run_id).info.status == "RUNNING"
    logged = registry.log_model(small_run(run_id=run_id, tags={"partition": "2013-02"}))
    ended = client.get_run(logged.run_id)
    assert ended.info.status == "FINISHED"
    assert {name: ended.data.tags[name] for name in ("team", "partition")} == {
        "team": "flights",
        "partition": "2013-02",
    }


@pytest.fixture(scope="module")
def server(tmp_path_factory, empty_database) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    shutil.copy(empty_database, folder / "mlflow.db")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
               "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    environment = {**os.environ, **QUIET_ENVIRONMENT}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder)
    try:
        wait_for(f"{address}/health", process, folder / "log")
        yield address
    finally:
        process.terminate()
        process.wait(120)


class TestMlflowServer(ModelRegistrySuite):
    @pytest.fixture
    def registry(self, server) -> MlflowRegistry:
        return MlflowRegistry(server, None)

    @pytest.fixture(autouse=True)
    def name_of_its_own(self, request, monkeypatch) -> None:
        """One server for the class: each test has its own registered model."""
        digest = hashlib.sha256(request.node.name.encode()).hexdigest()[:8]
        monkeypatch.setattr(type(self), "NAME", f"flights.{digest}")

    def test_nothing_is_printed(self, registry, capfd):
        logged = registry.log_model(small_run())
        registry.log_results(logged.run_id, metrics={}, files={"evaluation/roc.png": b"png"})
        registry.load(logged.model_uri)
        assert capfd.readouterr() == ("", "")


def wait_for(address: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:  # noqa: S310 - our own server
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the server did not come up:\n{log.read_text()}")


class TestWhatMlflowKeeps:
    def test_a_run_has_its_metrics_params_tags_and_inputs(self, registry, client):
        logged = registry.log_model(small_run())
        registry.log_results(logged.run_id, metrics={"test.roc_auc": 0.7}, files={"evaluation/roc.png": b"png"})
        run = client.get_run(logged.run_id)
        assert run.info.status == "FINISHED"
        assert run.info.run_name == "2013-02 boosted trees"
        assert run.data.metrics == {"roc_auc": 0.75, "log_loss": 0.5, "test.roc_auc": 0.7}
        assert run.data.params == {"learning_rate": "0.1", "max_iter": "10"}
        assert run.data.tags["partition"] == "2013-02"
        assert [file.path for file in client.list_artifacts(logged.run_id, "evaluation")] == ["evaluation/roc.png"]
        (dataset,) = run.inputs.dataset_inputs
        assert (dataset.dataset.name, dataset.dataset.digest) == ("flights/training_set 2013-02", "a" * 36)
        assert {tag.key: tag.value for tag in dataset.tags} == {
            "mlflow.data.context": "training",
            DATA_VERSION_TAG: "a" * 64,
        }

    def test_the_model_knows_its_run_metrics_and_digest(self, registry, client):
        logged = registry.log_model(small_run())
        registry.log_results(logged.run_id, metrics={"test.roc_auc": 0.7}, files={})
        model = client.get_logged_model(logged.model_uri.removeprefix("models:/"))
        data = (model_folder(client, logged) / "model.skops").read_bytes()
        assert model.source_run_id == logged.run_id
        assert model.status == "READY"
        assert model.tags[DIGEST_TAG] == hashlib.sha256(data).hexdigest()
        assert {m.key: m.value for m in model.metrics} == {
            "roc_auc": 0.75,
            "log_loss": 0.5,
            "test.roc_auc": 0.7,
        }
        assert [m.model_id for m in client.get_run(logged.run_id).outputs.model_outputs] == [model.model_id]

    def test_the_folder_is_what_log_model_would_have_written(self, registry, client, place):
        import mlflow
        import mlflow.sklearn
        import yaml
        from mlflow.models import infer_signature

        run = small_run()
        ours = model_folder(client, registry.log_model(run))
        theirs = place / "theirs"
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer column")
            warnings.filterwarnings("ignore", message="Operation with range is deprecated")  # MLflow on pandas 3
            mlflow.sklearn.save_model(
                run.model,
                theirs,
                signature=infer_signature(run.input_example, run.output_example),
                input_example=run.input_example,
                pip_requirements=["scikit-learn"],
                skops_trusted_types=["sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"],
                pyfunc_predict_fn="predict_proba",
            )
        assert sorted(f.name for f in ours.iterdir()) == sorted(f.name for f in theirs.iterdir())
        mine, other = (yaml.safe_load((folder / "MLmodel").read_text()) for folder in (ours, theirs))
        assert mine["signature"] == other["signature"]
        assert mine["flavors"]["python_function"] == other["flavors"]["python_function"]
        pinned = (ours / "requirements.txt").read_text().split()
        assert {line.split("==")[0] for line in pinned} >= {
            "mlflow",
            "scikit-learn",
            "skops",
            "numpy",
            "pandas",
        }
        assert all("==" in line for line in pinned)

    def test_a_long_param_is_kept_whole_in_a_file(self, registry, client, place):
        columns = ", ".join(f"column_{i}" for i in range(900))
        logged = registry.log_model(small_run(params={"columns": columns, "depth": 3}))
        run = client.get_run(logged.run_id)
        assert run.data.params["columns"].endswith(f"({len(columns):,} characters, see params/columns.txt)")
        assert Path(client.download_artifacts(logged.run_id, "params/columns.txt", place)).read_text() == columns

    def test_a_null_is_told_from_the_words_none(self, registry, client):
        params = {"null": None, "lower": "none", "upper": "None", "yes": True, "text": "True", "list": [None, 1]}
        logged = registry.log_model(small_run(params=params))

        shown = {"null": "null", "lower": "none", "upper": "None", "yes": "true", "text": "True", "list": "[None, 1]"}
        assert client.get_run(logged.run_id).data.params == shown

    def test_many_metrics_params_and_tags_are_batched(self, registry, client):
        logged = registry.log_model(
            small_run(
                metrics={f"slice.{i}.roc_auc": i / 2000 for i in range(1500)},
                params={f"p{i}": i for i in range(250)},
                tags={f"t{i}": str(i) for i in range(250)},
            )
        )
        data = client.get_run(logged.run_id).data
        assert (len(data.metrics), len(data.params)) == (1500, 250)
        assert data.tags["t249"] == "249"

    def test_one_data_version_can_be_two_inputs(self, registry, client):
        inputs = [
            DatasetInput(name="training_set", digest="b" * 64, context=context, url="/data/t.parquet")
            for context in ("training", "validation")
        ]
        run = client.get_run(registry.log_model(small_run(inputs=inputs)).run_id)
        contexts = {tag.value for d in run.inputs.dataset_inputs for tag in d.tags if tag.key == "mlflow.data.context"}
        assert contexts == {"training, validation"}

    def test_a_failure_marks_the_run_failed(self, registry, client):
        with pytest.raises(RegistryError, match="bad param"):
            registry.log_model(small_run(params={"bad param?": 1}))
        experiment = client.get_experiment_by_name("flights/arrival_delay")
        (run,) = client.search_runs([experiment.experiment_id])
        assert run.info.status == "FAILED"

    def test_what_is_refused_beforehand_leaves_no_run(self, registry, client):
        with pytest.raises(RegistryError, match="roc_auc = nan"):
            registry.log_model(small_run(metrics={"roc_auc": float("nan")}))
        with pytest.raises(RegistryError, match="MajorityModel"):
            registry.log_model(small_run(model=MajorityModel().fit(*small_training_data())))
        with pytest.raises(RegistryError, match=r"skops cannot write MajorityModel \(cannot pickle 'generator'"):
            registry.log_model(small_run(model=holding_a_generator()))
        assert client.get_experiment_by_name("flights/arrival_delay") is None

    def test_a_deleted_experiment_is_explained(self, registry, client):
        registry.log_model(small_run())
        client.delete_experiment(client.get_experiment_by_name("flights/arrival_delay").experiment_id)
        with pytest.raises(RegistryError, match="mlflow experiments restore"):
            registry.log_model(small_run())

    def test_nothing_global_is_set_or_printed(self, registry, monkeypatch, capfd):
        import mlflow

        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        before = dict(os.environ)
        logged = registry.log_model(small_run())
        registry.load(logged.model_uri)
        assert mlflow.active_run() is None
        assert dict(os.environ) == before
        assert capfd.readouterr() == ("", "")


def holding_a_generator() -> MajorityModel:
    model = MajorityModel().fit(*small_training_data())
    vars(model)["rows"] = (row for row in ())
    return model


class TestHostileModels:
    """Files that could run code, or were changed, are refused before their content is used."""

    @pytest.fixture
    def logged(self, registry) -> LoggedModel:
        return registry.log_model(small_run())

    @pytest.mark.parametrize("serialization_format", ["cloudpickle", "pickle"])
    def test_a_pickle_is_refused_and_not_executed(self, registry, client, place, serialization_format, caplog):
        witness = place / "executed"
        uri = log_with_mlflow(client, place, Payload(str(witness)), serialization_format)
        with pytest.raises(RegistryError, match=f"expected a scikit-learn model in skops.*{serialization_format}"):
            registry.load(uri)
        assert not witness.exists()

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m["flavors"].pop("sklearn"), r"flavours \['python_function'\] without 'sklearn'"),
            (lambda m: m["flavors"]["sklearn"].pop("serialization_format"), "format 'pickle'"),
            (lambda m: m["flavors"]["sklearn"].update(code="code"), "Python code of its own"),
            (lambda m: m["flavors"]["python_function"].update(code="code"), "Python code of its own"),
            (lambda m: m["flavors"]["python_function"].update(loader_module="evil"), "loader module 'evil'"),
            (
                lambda m: m["flavors"]["sklearn"].update(pickled_model="../../model.skops"),
                r"model file '\.\./",
            ),
            (lambda m: m["flavors"]["sklearn"].update(pickled_model="model.pkl"), r"model file 'model\.pkl'"),
            (lambda m: m.clear(), r"flavours \[\] without"),
        ],
    )
    def test_a_changed_description_is_refused(self, registry, client, logged, change, message):
        import yaml

        path = model_folder(client, logged) / "MLmodel"
        description = yaml.safe_load(path.read_text())
        change(description)
        path.write_text(yaml.safe_dump(description))
        with pytest.raises(RegistryError, match=message):
            registry.load(logged.model_uri)

    @pytest.mark.parametrize("content", [b"", b"flavors: [", b"- x", b"\xff\xfe\x00"])
    def test_a_broken_description_is_refused(self, registry, client, logged, content):
        (model_folder(client, logged) / "MLmodel").write_bytes(content)
        with pytest.raises(RegistryError, match="refused before its model file was read"):
            registry.load(logged.model_uri)

    def test_a_changed_model_file_is_refused(self, registry, client, logged):
        import skops.io

        version = registry.register("flights.arrival_delay", logged, tags={})
        other = small_run().model.named_steps["columns"]
        (model_folder(client, logged) / "model.skops").write_bytes(skops.io.dumps(other))
        for uri in (logged.model_uri, version.model_uri):
            with pytest.raises(RegistryError, match="changed after it was logged; expected SHA-256"):
                registry.load(uri)

    def test_a_forged_tag_does_not_help_a_changed_file(self, registry, client, logged):
        import skops.io

        version = registry.register("flights.arrival_delay", logged, tags={})
        evaluated = registry.digest(version.model_uri)
        forged = skops.io.dumps(small_run().model.named_steps["columns"])
        (model_folder(client, logged) / "model.skops").write_bytes(forged)
        digest = hashlib.sha256(forged).hexdigest()
        client.set_logged_model_tags(logged.model_uri.removeprefix("models:/"), {DIGEST_TAG: digest})
        assert registry.digest(version.model_uri) == digest
        for uri in (logged.model_uri, version.model_uri):
            with pytest.raises(RegistryError, match=f"expected SHA-256 {evaluated}, found {digest}"):
                registry.load(uri, digest=evaluated)

    def test_a_forged_tag_does_not_hinder_the_evaluated_file(self, registry, client, logged):
        evaluated = registry.digest(logged.model_uri)
        client.set_logged_model_tags(logged.model_uri.removeprefix("models:/"), {DIGEST_TAG: "0" * 64})
        assert registry.load(logged.model_uri, digest=evaluated).n_features_in_ == 3
        with pytest.raises(RegistryError, match="changed after it was logged"):
            registry.load(logged.model_uri)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda m: m.pop("saved_input_example_info"), r"no input example that is a table \(found none\)"),
            (lambda m: m["saved_input_example_info"].update(type="ndarray"), "no input example that is a table"),
            (lambda m: m["saved_input_example_info"].update(artifact_path="../../x.json"), r"\.\./\.\./x\.json"),
            (lambda m: m["saved_input_example_info"].update(artifact_path="MLmodel"), "in MLmodel cannot be read"),
            (lambda m: m["saved_input_example_info"].update(artifact_path="gone.json"), "could not read the input ex"),
            (lambda m: m.pop("signature"), "no signature of named columns"),
            (lambda m: m["signature"].update(inputs='[{"name": "hour", "type": "long"}]'), "KeyError: 'distance'"),
        ],
    )
    def test_an_example_that_is_missing_or_broken_is_an_error(self, registry, client, logged, change, message):
        import yaml

        path = model_folder(client, logged) / "MLmodel"
        description = yaml.safe_load(path.read_text())
        change(description)
        path.write_text(yaml.safe_dump(description))
        with pytest.raises(RegistryError, match=message):
            registry.example(logged.model_uri)

    def test_a_missing_model_file_is_an_error(self, registry, client, logged):
        (model_folder(client, logged) / "model.skops").unlink()
        with pytest.raises(RegistryError, match=f"could not load {logged.model_uri}"):
            registry.load(logged.model_uri)

    def test_trees_of_an_unknown_writer_must_be_declared(self, registry, client, place):
        trees = "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor"
        uri = log_with_mlflow(client, place, small_run().model, "skops", [trees])
        with pytest.raises(RegistryError, match=f"{trees}.*trusted_types"):
            registry.load(uri)
        assert registry.load(uri, trusted_types=[trees]).n_features_in_ == 3

    def test_a_type_is_refused_without_importing_its_module(self, registry, client, place, logged, monkeypatch):
        witness = place / "imported"
        (place / "evil_module.py").write_text(f"open({str(witness)!r}, 'w').close()\nclass Evil: pass\n")
        monkeypatch.syspath_prepend(str(place))
        path = model_folder(client, logged) / "model.skops"
        path.write_bytes(with_type(path.read_bytes(), "evil_module", "Evil"))
        forget_digest(client, logged)
        with pytest.raises(RegistryError, match=r"evil_module\.Evil"):
            registry.load(logged.model_uri)
        assert not witness.exists()

    @pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x05\x06" + b"\0" * 18])
    def test_a_file_that_is_no_skops_archive_is_an_error(self, registry, client, logged, content):
        (model_folder(client, logged) / "model.skops").write_bytes(content)
        forget_digest(client, logged)
        with pytest.raises(RegistryError, match="cannot be read here"):
            registry.load(logged.model_uri)

    def test_other_addresses_are_refused(self, registry):
        for uri in ("runs:/0123/model", "/srv/model", "file:///srv/model", "models:/x"):
            with pytest.raises(RegistryError, match="is no address of a model"):
                registry.load(uri)


class Payload:
    """Unpickling it writes a file."""

    def __init__(self, path: str) -> None:
        self.path = path

    def predict(self, X):
        return X

    def __reduce__(self):
        return (open, (self.path, "w"))


def log_with_mlflow(client, place: Path, model, serialization_format: str, trusted=None) -> str:
    import mlflow.sklearn
    from mlflow.models import Model

    experiment = client.create_experiment("theirs", artifact_location=(place / "theirs").as_uri())
    logged = client.create_logged_model(experiment, "theirs")
    mlflow.sklearn.save_model(
        model,
        place / "saved",
        mlflow_model=Model(model_id=logged.model_id),
        serialization_format=serialization_format,
        pip_requirements=["scikit-learn"],
        skops_trusted_types=trusted,
    )
    client.log_model_artifacts(logged.model_id, str(place / "saved"))
    return f"models:/{logged.model_id}"


def with_type(data: bytes, module: str, name: str) -> bytes:
    """Return the skops archive with its outermost object renamed to another type."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(written, "w") as target:
        for entry in source.namelist():
            content = source.read(entry)
            if entry == "schema.json":
                content = json.dumps({**json.loads(content), "__module__": module, "__class__": name}).encode()
            target.writestr(entry, content)
    return written.getvalue()


def forget_digest(client, logged: LoggedModel) -> None:
    client.delete_logged_model_tag(logged.model_uri.removeprefix("models:/"), DIGEST_TAG)


def in_children(count: int, function: Callable[..., Any], *arguments: Any) -> list[Any]:
    """Return what `function(number, *arguments)` returned in each of so many children forked at once.

    The arguments are made before the fork: OpenMP, which boosted trees use, hangs in the children of a
    process that has used it.
    """

    def answer(number: int, end: Connection) -> None:
        end.send(function(number, *arguments))

    pipes = [FORK.Pipe(duplex=False) for _ in range(count)]
    children = [FORK.Process(target=answer, args=(i, end)) for i, (_, end) in enumerate(pipes)]
    for child in children:
        child.start()
    for child in children:
        child.join(300)
    assert [child.exitcode for child in children] == [0] * count
    return [here.recv() for here, _ in pipes]


class TestSeveralProcesses:
    def test_a_fresh_database_is_initialised_once(self, tmp_path):
        registry = MlflowRegistry(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path))
        assert len(set(in_children(4, log_one, registry, small_run()))) == 4
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
            assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
            assert connection.execute("SELECT count(*) FROM experiments").fetchone() == (2,)

    def test_initialising_again_takes_no_time(self, registry):
        registry.initialise()
        started = time.perf_counter()
        for _ in range(20):
            registry.initialise()
        assert (time.perf_counter() - started) / 20 < 0.02

    def test_children_do_not_use_the_parents_connections(self, registry, place):
        logged = registry.log_model(small_run())
        assert handles_below(place)
        ((inherited, own),) = in_children(1, use_in_child, registry, logged.run_id, place)
        assert inherited == []
        assert own
        registry.log_results(logged.run_id, metrics={"after": 1.0}, files={})

    def test_forked_steps_write_at_once(self, registry, client):
        registry.log_model(small_run())
        runs = in_children(4, log_three, registry, small_run())
        assert {client.get_run(run).info.status for child in runs for run in child} == {"FINISHED"}

    def test_runs_may_record_the_same_data_set_at_once(self, registry, client):
        run_ids = [registry.log_model(small_run()).run_id for _ in range(4)]
        in_children(4, record_twenty_datasets, client, run_ids, FORK.Barrier(4))
        for run_id in run_ids:
            assert len(client.get_run(run_id).inputs.dataset_inputs) == 21

    def test_a_race_to_register_gives_one_version(self, registry, client):
        for attempt in range(5):
            logged = registry.log_model(small_run())
            versions = in_children(4, register_one, registry, logged)
            assert len(set(versions)) == 1, attempt
            found = client.search_model_versions(f"run_id = '{logged.run_id}'")
            assert [str(v.version) for v in found] == [versions[0]]


def log_one(number: int, registry: MlflowRegistry, run: ModelRun) -> str:
    return registry.log_model(dataclasses.replace(run, name=f"run {number}")).run_id


def log_three(number: int, registry: MlflowRegistry, run: ModelRun) -> list[str]:
    runs = [log_one(number, registry, run) for _ in range(3)]
    for run_id in runs:
        registry.log_results(run_id, metrics={"test.roc_auc": 0.5}, files={"evaluation/roc.png": b"png"})
    return runs


def record_twenty_datasets(number: int, client: Any, run_ids: list[str], together: Any) -> None:
    for i in range(20):
        together.wait(300)
        dataset = DatasetInput(name="training_set", digest=f"{i:02}" * 32, context="training", url="s3://b/t")
        log_datasets(client, run_ids[number], [dataset])


def register_one(_: int, registry: MlflowRegistry, logged: LoggedModel) -> str:
    return registry.register("flights.arrival_delay", logged, tags={"partition": "2013-02"}).version


def use_in_child(_: int, registry: MlflowRegistry, run_id: str, place: Path) -> tuple[list[str], list[str]]:
    inherited = handles_below(place)
    registry.log_results(run_id, metrics={"child": 1.0}, files={})
    return inherited, handles_below(place)


def handles_below(folder: Path) -> list[str]:
    """Return the open files of this process below a folder."""
    targets = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the handle of this very listing is gone by now
            targets.append(entry.readlink())
    return [str(target) for target in targets if target.is_relative_to(folder)]


class TestConstruction:
    @pytest.mark.parametrize("uri", ["postgresql://db/mlflow", "mlruns", "file:///mlruns", "databricks"])
    def test_another_kind_of_address_is_refused(self, uri):
        with pytest.raises(RegistryError, match="expected sqlite:///<path> or http"):
            MlflowRegistry(uri, None)

    def test_sqlite_needs_an_artifact_root(self):
        with pytest.raises(RegistryError, match="no artifact root"):
            MlflowRegistry("sqlite:////srv/mlflow.db", None)

    def test_a_password_is_never_shown(self):
        registry = MlflowRegistry("http://someone:s%40cret@127.0.0.1:9/", None)
        assert "cret" not in repr(registry)

    def test_a_password_is_not_in_the_message_of_a_server_that_does_not_answer(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        registry = MlflowRegistry("http://someone:s%40cret@127.0.0.1:9/", None)
        with pytest.raises(RegistryError, match=r"MLflow at http://127\.0\.0\.1:9/ could not read version 1") as caught:
            registry.version("flights.arrival_delay", "1")
        assert "cret" not in str(caught.value)

    def test_a_file_that_is_no_database_is_explained(self, tmp_path):
        (tmp_path / "mlflow.db").write_text("x" * 200)
        with pytest.raises(RegistryError, match="is no SQLite database"):
            MlflowRegistry(f"sqlite:///{tmp_path}/mlflow.db", str(tmp_path)).initialise()

    def test_the_quiet_environment_stops_telemetry(self):
        code = "import mlflow.telemetry as t; raise SystemExit(t.get_telemetry_client() is not None)"
        environment = {**os.environ, **QUIET_ENVIRONMENT}
        environment.pop("PYTEST_CURRENT_TEST", None)  # telemetry is off under pytest anyway
        assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0

    def test_importing_and_constructing_loads_no_mlflow(self):
        code = (
            "import sys; from resources.model_registry import MlflowRegistry;"
            "MlflowRegistry('sqlite:////srv/x.db', '/srv');"
            "sys.exit('mlflow' in sys.modules or 'skops' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_an_output_of_probabilities_names_predict_proba(self, registry, client):
        import yaml

        run = small_run()
        classes = dataclasses.replace(run, output_example=run.model.predict(run.input_example))
        found = [
            yaml.safe_load((model_folder(client, registry.log_model(r)) / "MLmodel").read_text())["flavors"]
            for r in (run, classes)
        ]
        assert [f["python_function"]["predict_fn"] for f in found] == ["predict_proba", "predict"]
