"""What is read of estimator classes from source agrees with what importing them shows."""

import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from ml_assets.reading.estimators import Estimator, EstimatorNotFoundError, find_estimator

ROOT = Path(__file__).parents[2]
PACKAGE = {
    "__init__.py": "",
    "plain.py": """
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin

class Base(BaseEstimator):
    def __init__(self, depth, *, rate=0.1):
        self.depth = depth
        self.rate = rate

class Inherits(ClassifierMixin, Base):
    def predict_proba(self, X):
        return X

class Left(Base):
    pass

class Right(Base):
    def __init__(self, width=1):
        self.width = width

class Diamond(RegressorMixin, Left, Right):
    pass

class OwnType:
    _estimator_type = "classifier"
    def __init__(self, depth=1):
        self.depth = depth
    def predict(self, X):
        return X

class Ducky:
    def __init__(self):
        pass
    def predict(self, X):
        return X

class Open(ClassifierMixin, Base):
    def __init__(self, extra=1, **kwargs):
        super().__init__(**kwargs)
        self.extra = extra

class Anything(ClassifierMixin):
    def __init__(self, **kwargs):
        self.kwargs = kwargs

class Nothing:
    pass

alias = Inherits
value = 3

def function():
    return 1
""",
    "exported.py": """
try:
    from estimators_of_test.absent import Inherits as Renamed
except ImportError:
    from .plain import Inherits as Renamed
from . import plain
from estimators_of_test.plain import *

class Deep(plain.Diamond):
    pass
""",
    "lazy.py": """
import importlib

def __getattr__(name):
    return getattr(importlib.import_module("estimators_of_test.plain"), name)
""",
    "made.py": """
from dataclasses import dataclass
from sklearn.base import RegressorMixin

@dataclass
class Declared(RegressorMixin):
    depth: int = 3
    rate: float = 0.1
    def predict(self, X):
        return X

Built = type("Built", (RegressorMixin,), {"__init__": lambda self, depth=1: None})
""",
    "broken.py": "X = None\nraise RuntimeError('no licence\\nfound')\n",
    "syntax.py": "class Bad(\n",
    "circle_a.py": "from estimators_of_test.circle_b import Round\n",
    "circle_b.py": "from estimators_of_test.circle_a import Round\n",
}


@pytest.fixture(scope="module", autouse=True)
def package(tmp_path_factory: pytest.TempPathFactory):
    """A package of estimators of every kind, importable as `estimators_of_test`."""
    folder = tmp_path_factory.mktemp("estimators")
    (folder / "estimators_of_test").mkdir()
    for name, text in PACKAGE.items():
        (folder / "estimators_of_test" / name).write_text(text)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.startswith("estimators_of_test")]:
        del sys.modules[name]


def of_test(path: str) -> Estimator:
    return find_estimator(f"estimators_of_test.{path}")


def test_every_estimator_of_scikit_learn_is_read_as_importing_it_shows() -> None:
    import inspect

    from sklearn.base import ClassifierMixin, RegressorMixin
    from sklearn.utils import all_estimators

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        classes = dict(all_estimators())
    assert len(classes) > 150
    for name, cls in classes.items():
        public = f"{cls.__module__.partition('._')[0]}.{name}"
        found = find_estimator(public)
        parameters = inspect.signature(cls).parameters.values()
        named = tuple(p.name for p in parameters if p.kind is not p.VAR_POSITIONAL)
        assert found.params == named, public
        assert found.required == tuple(p.name for p in parameters if p.name in named and p.default is p.empty), public
        assert (found.kind == "classifier") == issubclass(cls, ClassifierMixin), public
        assert (found.kind == "regressor") == (
            issubclass(cls, RegressorMixin) and not issubclass(cls, ClassifierMixin)
        ), public
        if found.kind == "classifier":
            assert found.has_probabilities == any("predict_proba" in vars(c) for c in cls.__mro__), public


def test_reading_an_estimator_of_scikit_learn_does_not_import_it() -> None:
    code = (
        "import sys; from ml_assets.reading.estimators import find_estimator as f; "
        "print([f(p).imported for p in ('sklearn.linear_model.LogisticRegression', "
        "'sklearn.ensemble.HistGradientBoostingRegressor', 'sklearn.ensemble.VotingClassifier')], "
        "'sklearn' in sys.modules)"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert result.stdout.strip() == "[False, False, False] False"


@pytest.mark.parametrize(
    ("path", "params", "required", "kind"),
    [
        ("plain.Inherits", ("depth", "rate"), ("depth",), "classifier"),
        ("plain.Diamond", ("width",), (), "regressor"),
        ("plain.OwnType", ("depth",), (), "classifier"),
        ("plain.Ducky", (), (), "unknown"),
        ("plain.Nothing", (), (), "neither"),
        ("plain.alias", ("depth", "rate"), ("depth",), "classifier"),
        ("exported.Renamed", ("depth", "rate"), ("depth",), "classifier"),
        ("exported.Inherits", ("depth", "rate"), ("depth",), "classifier"),
        ("exported.Deep", ("width",), (), "regressor"),
    ],
)
def test_source_tells(path: str, params: tuple[str, ...], required: tuple[str, ...], kind: str) -> None:
    found = of_test(path)

    assert (found.params, found.required, found.kind, found.imported) == (params, required, kind, False)


@pytest.mark.parametrize(
    ("path", "params", "kind"),
    [
        ("plain.Open", ("extra", "depth", "rate"), "classifier"),
        ("plain.Anything", None, "classifier"),
        ("lazy.Inherits", ("depth", "rate"), "classifier"),
        ("made.Declared", ("depth", "rate"), "regressor"),
        ("made.Built", ("depth",), "regressor"),
    ],
)
def test_what_source_does_not_tell_is_imported(path: str, params: tuple[str, ...] | None, kind: str) -> None:
    found = of_test(path)

    assert (found.params, found.kind, found.imported) == (params, kind, True)


@pytest.mark.parametrize(
    ("path", "found", "hint"),
    [
        ("", "'' is no import path", ""),
        ("Forest", "'Forest' is no import path", ""),
        ("a..b", "'a..b' is no import path", ""),
        ("not there.Forest", "'not there.Forest' is no import path", ""),
        ("nosuchpackage.Forest", "there is no module 'nosuchpackage'", ""),
        (
            "estimators_of_test.plane.Inherits",
            "there is no module 'estimators_of_test.plane'",
            "did you mean 'estimators_of_test.plain.Inherits'?",
        ),
        (
            "estimators_of_test.plain.Inherit",
            "there is no class 'estimators_of_test.plain.Inherit'",
            "did you mean 'estimators_of_test.plain.Inherits'?",
        ),
        ("estimators_of_test.plain", "'estimators_of_test.plain' is a module", ""),
        ("estimators_of_test.plain.function", "'estimators_of_test.plain.function' is a function", ""),
        ("estimators_of_test.plain.value", "'estimators_of_test.plain.value' is a value", ""),
        (
            "estimators_of_test.broken.X",
            "'estimators_of_test.broken' does not import: RuntimeError: no licence found",
            "",
        ),
        ("__main__.NoSuchClass", "there is no class '__main__.NoSuchClass'", ""),
    ],
)
def test_what_is_no_estimator_is_told(path: str, found: str, hint: str) -> None:
    with pytest.raises(EstimatorNotFoundError) as error:
        find_estimator(path)

    assert (error.value.found, error.value.hint) == (found, hint)
    assert (
        error.value.expected == "the import path of an estimator class, such as sklearn.linear_model.LogisticRegression"
    )


@pytest.mark.parametrize("path", ["estimators_of_test.syntax.Bad", "estimators_of_test.circle_a.Round"])
def test_source_that_cannot_be_followed_is_imported_and_its_error_told(path: str) -> None:
    with pytest.raises(EstimatorNotFoundError, match=r"does not import: (SyntaxError|ImportError)"):
        find_estimator(path)


def test_a_module_that_is_no_source_is_imported(package: Path) -> None:
    assert find_estimator("builtins.object").imported
    assert package.exists()
