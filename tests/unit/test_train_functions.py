"""Teams' own train functions: what is read of them without importing any, and what they must give back."""

import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.errors import SpecError, TrainingError, TrainingPruned
from ml_assets.interfaces import Checkpoint
from ml_assets.reading.pipeline_file import LoadedPipeline, read_pipeline
from ml_assets.spec import ComputeSpec, PreprocessingSpec, VariantSpec
from ml_assets.testing.checkpoints import KEY, FakeCheckpoints
from ml_assets.trainers import libraries
from ml_assets.training import predict, train

ROOT = Path(__file__).parents[2]
BASE = ROOT / "tests" / "golden" / "spec_errors" / "base"
HEAD = "def fit_it(X, y, *, params, seed, checkpoint, device, report):\n"

Write = Callable[..., LoadedPipeline]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Return a function that reads the base pipeline of team `it_shop` with a train function of this source."""
    monkeypatch.syspath_prepend(tmp_path)
    team = tmp_path / "it_shop"
    folder = team / "defs" / "returns"
    folder.mkdir(parents=True)
    for package in (team, team / "defs"):  # none in the pipeline's own folder, as `ml-assets new` leaves it
        (package / "__init__.py").touch()
    for file in BASE.iterdir():
        if file.is_file():
            (folder / file.name).write_bytes(file.read_bytes())

    def read(
        source: str,
        path: str = "it_shop.defs.returns.training.fit_it",
        compute: str = "{}",
        estimator: str = "sklearn.ensemble.RandomForestClassifier",
    ) -> LoadedPipeline:
        (folder / "training.py").write_text(textwrap.dedent(source), encoding="utf-8")
        text = (BASE / "defs.yaml").read_text(encoding="utf-8")
        forest = "estimator: sklearn.ensemble.RandomForestClassifier"
        assert text.count(forest) == 1
        added = f"estimator: {estimator}\n      train: {path}\n      compute: {compute}"
        (folder / "defs.yaml").write_text(text.replace(forest, added), encoding="utf-8")
        return read_pipeline(folder / "defs.yaml")

    return read


def told(write: Write, source: str, **given: str) -> list[tuple[str, int, str, str]]:
    with pytest.raises(SpecError) as error:
        write(source, **given)
    return [(Path(p.file).name, p.line, p.found, p.hint) for p in error.value.problems]


def test_a_function_is_read_without_importing_it(write: Write) -> None:
    pipeline = write("raise SystemExit('imported')\n\n\n" + HEAD + "    return None\n")

    function = pipeline.train_functions["forest"]
    assert (function.file.name, function.line, function.gpu_required) == ("training.py", 4, False)
    assert list(pipeline.train_functions) == ["forest"]
    assert write("# other\n\n\n" + HEAD + "    return None\n").train_functions["forest"].digest != function.digest


def test_what_its_module_imports_is_known_but_not_python_and_the_team(write: Write) -> None:
    source = f"""
    import io, os.path
    import numpy as np
    from sklearn.base import BaseEstimator
    from it_shop.defs.returns import features
    from . import features as same


    {HEAD.strip()}
        from pandas import DataFrame
        return DataFrame, np, io, BaseEstimator, features, same
    """

    assert write(source).train_functions["forest"].imported == ("numpy", "pandas", "sklearn")


def test_the_class_that_it_trains_may_stand_beside_it(write: Write) -> None:
    bases = (
        "from sklearn.base import BaseEstimator, ClassifierMixin\n\n\nclass Network(ClassifierMixin, BaseEstimator):\n"
    )
    methods = "    def fit(self, X, y): ...\n    def predict(self, X): ...\n    def predict_proba(self, X): ...\n\n\n"
    source = f"{bases}{methods}{HEAD}    return None\n"

    loaded = write(source, estimator="it_shop.defs.returns.training.Network")

    assert loaded.spec.variants["forest"].estimator == "it_shop.defs.returns.training.Network"
    ((_, _, found, hint),) = told(write, source, estimator="it_shop.defs.returns.training.Netwrk")
    assert found == "there is no class 'it_shop.defs.returns.training.Netwrk'"
    assert hint == "did you mean 'it_shop.defs.returns.training.Network'?"


def test_its_parameters_are_its_own(write: Write) -> None:
    loaded = write(HEAD + "    return None\n")

    assert loaded.spec.variants["forest"].params  # RandomForestClassifier's, not checked against its constructor


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("it_shop.defs.returns.trainin.fit_it", "there is no module 'it_shop.defs.returns.trainin'"),
        ("no_such_team.training.fit_it", "there is no module 'no_such_team.training'"),
        ("fit_it", "'fit_it' is no path"),
        ("it_shop.defs.returns.training.fit_id", "training.py defines no function 'fit_id'"),
        ("json.dumps", "'json' lies outside of the team's package"),
    ],
)
def test_a_path_that_leads_nowhere_is_told_at_its_line(write: Write, path: str, found: str) -> None:
    (problem,) = told(write, HEAD + "    return None\n", path=path)

    assert problem[2] == found
    assert (BASE / "defs.yaml").read_text().splitlines()[problem[1] - 2].strip().startswith("estimator: sklearn.ens")
    assert problem[3] == ("did you mean 'fit_it'?" if "fit_id" in path else "")


@pytest.mark.parametrize(
    ("head", "found"),
    [
        ("def fit_it(X, y, params, seed, checkpoint, device, report):", None),
        ("def fit_it(X, y, *, seed, epochs=3, **others):", None),
        ("def fit_it(X, *, params, seed, checkpoint, device, report):", "it does not take X and y"),
        ("def fit_it(X, y, *, params, seed):", "it lacks checkpoint, device, report"),
        (
            "def fit_it(X, y, *, params, seed, checkpoint, device, report, epochs):",
            "nothing gives it epochs",
        ),
        ("async def fit_it(X, y, *, params, seed, checkpoint, device, report):", "it is async"),
    ],
)
def test_its_signature_is_checked_at_its_own_line(write: Write, head: str, found: str | None) -> None:
    source = f"import json\n\n\n{head}\n    return None\n"
    if found is None:
        assert write(source).train_functions
        return

    assert told(write, source) == [("training.py", 4, found, "")]


def test_a_library_that_is_not_installed_is_told_with_how_to_install_it(
    write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "EXTRAS", {"no_such_torch": "torch"})
    source = f"""
    try:
        import no_such_optional
    except ImportError:
        no_such_optional = None


    {HEAD.strip()}
        from no_such_torch.nn import Linear
        return Linear
    """

    assert told(write, source) == [
        (
            "training.py",
            9,
            "it imports 'no_such_torch.nn', which is not installed",
            "install it with `pip install 'ml-assets[torch]'`",
        )
    ]


def test_an_estimator_of_a_library_that_is_not_installed_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "EXTRAS", {"no_such_boosting": "lightgbm"})
    for file in BASE.iterdir():
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            text = text.replace("sklearn.ensemble.RandomForestClassifier", "no_such_boosting.sklearn.LGBMClassifier")
            (tmp_path / file.name).write_text(text, encoding="utf-8")

    with pytest.raises(SpecError) as error:
        read_pipeline(tmp_path / "defs.yaml")

    (problem,) = error.value.problems
    assert problem.found == "there is no module 'no_such_boosting'"
    assert problem.hint == "install it with `pip install 'ml-assets[lightgbm]'`"


def test_a_module_that_does_not_parse_is_told_at_its_line(write: Write) -> None:
    ((name, line, found, _),) = told(write, "x = 1\ndef fit_it(X, y:\n")

    assert (name, line) == ("training.py", 2)
    assert found.startswith("does not parse: ")


def test_a_function_that_needs_a_gpu_may_not_fall_back(write: Write) -> None:
    source = f"from ml_assets.trainers import gpu_required\n\n\n@gpu_required\n{HEAD}    return None\n"

    ((_, _, found, _),) = told(write, source, compute="{gpus: 1}")
    assert found == "it_shop.defs.returns.training.fit_it is marked gpu_required, and the step may run without a GPU"
    assert write(source, compute="{gpus: 1, cpu_fallback: false}").train_functions["forest"].gpu_required


# What a function is given and gives back. These are called as tests.unit.test_train_functions.<name>.


def fit_linear(X: pd.DataFrame, y: np.ndarray, *, params: Any, seed: int, checkpoint: Checkpoint, device: str, report):
    from sklearn.linear_model import SGDClassifier

    assert (device, seed) == ("cuda", 3)
    assert X.dtypes.eq("float64").all()
    found = checkpoint.load()
    done, weights = (0, b"") if found is None else (found[0], found[1]["weights"])
    model = SGDClassifier(loss="log_loss", random_state=seed, alpha=params["alpha"])
    model.partial_fit(X, y, classes=np.unique(y))
    for epoch in range(done + 1, 6):
        weights += bytes([epoch])
        report(epoch, model)
        checkpoint.save(epoch, {"weights": weights})
    assert weights == bytes([1, 2, 3, 4, 5])
    return model


def fit_other(X: pd.DataFrame, y: np.ndarray, **_: Any):
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit(X, y)


def fit_nothing(*_: Any, **__: Any):
    from sklearn.linear_model import SGDClassifier

    return SGDClassifier()


def variant(name: str) -> VariantSpec:
    return VariantSpec(
        estimator="sklearn.linear_model.SGDClassifier",
        params={"alpha": 0.01},
        preprocessing=PreprocessingSpec(missing="median", categorical="one_hot", min_frequency=2),
        train=f"{__name__}.{name}",
        compute=ComputeSpec(checkpoint=True),
    )


def data() -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"amount": rng.normal(size=80), "country": rng.choice(["DE", "FR"], 80), "items": range(80)})
    return frame, (frame["amount"] > 0).astype(float).to_numpy()


def test_a_function_gets_named_numbers_and_its_estimator_scores_with_the_same_names() -> None:
    X, y = data()

    fitted = train(variant("fit_linear"), X, y, seed=3, device="cuda")

    assert fitted.facts == {"device": "cuda", "train": f"{__name__}.fit_linear"}
    assert list(fitted.model[-1].feature_names_in_) == ["amount", "items", "country_DE", "country_FR"]
    assert predict(fitted.model, X.head(7).assign(extra=1), task="binary").shape == (7,)


def test_a_function_resumes_and_is_watched() -> None:
    X, y = data()
    store, told_of = FakeCheckpoints(), []

    def report(step: int, model: Any) -> bool:
        told_of.append((step, len(predict(model, X, task="binary"))))
        return step == 3 and len(told_of) == 3

    with pytest.raises(TrainingPruned, match="after 3 rounds"):
        train(variant("fit_linear"), X, y, seed=3, device="cuda", checkpoint=store.open(KEY), report=report)
    fitted = train(variant("fit_linear"), X, y, seed=3, device="cuda", checkpoint=store.open(KEY), report=report)

    assert [step for step, _ in told_of] == [1, 2, 3, 3, 4, 5]
    assert fitted.facts["resumed"] == "resumed from round 2"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "fit_other",
            "returned a sklearn.linear_model._logistic.LogisticRegression; expected a sklearn.linear_model.SGD",
        ),
        ("fit_nothing", "returned a SGDClassifier that is not fitted"),
        ("fit_absent", "cannot be imported: AttributeError"),
    ],
)
def test_what_is_no_fitted_estimator_of_the_class_is_refused(name: str, why: str) -> None:
    X, y = data()

    with pytest.raises(TrainingError, match=re.escape(why)):
        train(variant(name), X, y, seed=3)
