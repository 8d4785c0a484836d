"""Functions read from source are those that running the module gives; what only running tells is left to Python."""

import importlib.util
import sys
from pathlib import Path

import pytest

from ml_assets.features.module import _describe, _public_functions, load_feature_module
from ml_assets.features.outline import FeatureFunction, read_functions

ROOT = Path(__file__).parents[2]
PLAIN = '''"""All that need not be run."""

import math
import numpy as np
import pandas as pd
from datetime import date as day, timedelta
from ml_assets.features import lag, reads_past

LIMIT = 15
WORDS = ["a", {"b": -1.5}]


def late(delay: pd.Series, *, limit: float = 15.0, words: "list[str]" = ("x", None)) -> pd.Series:
    """
    1 when late.

    More.
    """
    return (delay > limit).astype(float)


@reads_past
def earlier(births, date: "pd.Series") -> np.ndarray:
    def inner(x: not_defined) -> unknown: ...
    return lag(births, time=date, offset=math.inf)


def any_of(first, /, second, *more, third=1, **others):
    """Any."""


def _private(x): ...
'''
LEFT_TO_PYTHON = {
    "a call": "LIMIT = int('15')",
    "a lambda": "half = lambda price: price / 2",
    "a loop": "for i in range(3): pass",
    "a class": "class A: ...",
    "a condition": "if True:\n    def f(x): ...",
    "a coroutine": "async def f(x): ...",
    "a decorator": "from functools import cache\n@cache\ndef f(x): ...",
    "a decorator that is not bound": "@reads_past\ndef f(x): ...",
    "another thing called reads_past": "from math import pi as reads_past\n@reads_past\ndef f(x): ...",
    "an import of what is not there": "import pandsa",
    "a member that is not there": "from math import pie",
    "a name that ml_assets has not": "from ml_assets.features import lagg",
    "a submodule that ml_assets has not": "import ml_assets.feature",
    "a library under another name": "import pandas",
    "a member of a library": "from pandas import Series",
    "a library of somebody else": "import sklearn",
    "a neighbour": "from helpers import f",
    "a relative import": "from . import f",
    "string annotations": "from __future__ import annotations",
    "an annotation that is misspelt": "import pandas as pd\ndef f(x: pd.Sries): ...",
    "an annotation of a library that is not imported": "def f(x: pd.Series): ...",
    "an annotation that is computed": "import pandas as pd\ndef f(x: pd.Series | None): ...",
    "an annotation by a name of the module": "float = 1\ndef f(x: float): ...",
    "a default that is computed": "def f(x, y=1 + 2 * 3 ** 4): ...",
    "a function made twice": "def f(x): ...\ndef f(y): ...",
    "a function over a library": "import pandas as pd\ndef pd(x): ...\ndef f(x: pd.Series): ...",
    "two targets": "a = b = 1",
    "no Python": "def f(x)",
    "a null byte": "x = 1\0",
}


def functions_when_run(file: Path) -> list[FeatureFunction]:
    """Return the functions as Python has them after running the file."""
    spec = importlib.util.spec_from_file_location("outlined", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [_describe(f) for f in _public_functions(module)]


def test_every_form_is_read_as_python_runs_it(tmp_path: Path) -> None:
    file = tmp_path / "features.py"
    file.write_text(PLAIN, encoding="utf-8")

    found = read_functions(file.read_bytes())

    assert found == functions_when_run(file)
    assert [f.name for f in found] == ["late", "earlier", "any_of"]


@pytest.mark.parametrize(
    "file",
    [*ROOT.glob("deployments/*/defs/*/features.py"), ROOT / "tests/golden/spec_errors/base/features.py"],
    ids=lambda file: file.parent.name,
)
def test_feature_modules_of_this_repository_need_not_be_run(file: Path) -> None:
    assert read_functions(file.read_bytes()) == functions_when_run(file)


@pytest.mark.parametrize("source", LEFT_TO_PYTHON.values(), ids=LEFT_TO_PYTHON.keys())
def test_what_only_running_tells_is_left_to_python(source: str) -> None:
    assert read_functions(source.encode()) is None


def test_a_module_runs_as_it_was_read_though_its_file_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "features.py"
    file.write_text("def one(x):\n    return 'as it was'\n", encoding="utf-8")
    loaded = load_feature_module(tmp_path, "features.py")
    file.write_text("raise SystemExit\n", encoding="utf-8")

    module = loaded.module

    assert module.one(0) == "as it was"
    assert loaded.module is module
    assert sys.modules[module.__name__] is module
