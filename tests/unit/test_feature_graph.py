"""The feature graph: exact lineage, and a function that breaks its contract is named."""

from pathlib import Path

import pandas as pd
import pytest

from ml_assets.errors import FeatureError
from ml_assets.features.graph import FeatureGraph
from ml_assets.features.module import load_feature_module

CODE = '''
import pandas as pd
from ml_assets.features import lag, reads_past

def double(amount: pd.Series) -> pd.Series:
    """Twice."""
    return amount * 2

def total(double: pd.Series, items: pd.Series) -> pd.Series:
    return double * items

@reads_past
def earlier(amount: pd.Series) -> pd.Series:
    return amount.shift(1)

def fewer(amount: pd.Series) -> pd.Series:
    return amount.dropna().head(1)

def sorted_away(amount: pd.Series) -> pd.Series:
    return amount.sort_values(ascending=False)

def not_a_series(amount: pd.Series) -> pd.Series:
    return amount.to_numpy()

def raises(amount: pd.Series) -> pd.Series:
    return amount / 0 + undefined_name

def objects(amount: pd.Series) -> pd.Series:
    return amount.map(lambda v: {"v": v}).astype(object)

def mutates(items: pd.Series) -> pd.Series:
    items.iloc[0] = 99
    return items

def _private(amount: pd.Series) -> pd.Series:
    return amount
'''


@pytest.fixture
def graph(tmp_path: Path) -> FeatureGraph:
    (tmp_path / "features.py").write_text(CODE, encoding="utf-8")
    return FeatureGraph(module=load_feature_module(tmp_path, "features.py"))


@pytest.fixture
def rows() -> pd.DataFrame:
    return pd.DataFrame({"amount": [3.0, 1.0, 2.0], "items": [1, 2, 3], "secret": ["a", "b", "c"]}, index=[7, 5, 6])


def test_only_public_functions_of_the_module_are_columns(graph: FeatureGraph) -> None:
    names = set(graph.module.functions)

    assert {"double", "total", "earlier"} <= names
    assert not names & {"_private", "lag", "reads_past"}
    assert graph.module.functions["earlier"].reads_past
    assert graph.module.functions["double"].description == "Twice."


def test_lineage_is_what_the_parameters_say(graph: FeatureGraph) -> None:
    assert graph.reads(["total"]) == {"amount", "items"}
    assert graph.reads(["double", "secret"]) == {"amount", "secret"}


def test_compute_keeps_index_and_order(graph: FeatureGraph, rows: pd.DataFrame) -> None:
    found = graph.compute(["total", "secret", "double"], rows)

    assert list(found.columns) == ["total", "secret", "double"]
    assert found.index.tolist() == [7, 5, 6]
    assert found["total"].tolist() == [6.0, 4.0, 12.0]


def test_a_function_cannot_change_what_another_reads(graph: FeatureGraph, rows: pd.DataFrame) -> None:
    graph.compute(["mutates", "total"], rows)

    assert rows["items"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("feature", "message"),
    [
        ("fewer", r"features\.py:\d+: feature 'fewer' returned 1 rows for 3"),
        ("sorted_away", "feature 'sorted_away' returned its rows in another order"),
        ("not_a_series", "feature 'not_a_series' returned a ndarray; expected a pandas Series"),
        ("raises", "feature 'raises' raised NameError: name 'undefined_name' is not defined"),
        ("objects", "feature 'objects' returned dtype object"),
    ],
)
def test_a_broken_contract_names_the_function(
    graph: FeatureGraph, rows: pd.DataFrame, feature: str, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(FeatureError, match=message) as caught:
        graph.compute([feature], rows)

    assert caught.value.feature == feature
    assert not caplog.records, "nothing else is said beside the one error"
