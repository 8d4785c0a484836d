"""Great Expectations as the validator: all kinds of expectations, odd data, silence and speed of import."""

import datetime
import decimal
import gc
import json
import math
import subprocess
import sys
import weakref

import numpy as np
import pandas as pd
import pytest

from ml_assets.errors import SpecError
from ml_assets.testing.validator import ValidatorSuite, expect, small_batch
from resources.expectations import GreatExpectationsValidator, json_ready

pytestmark = [
    pytest.mark.filterwarnings("ignore:module 'sre_(constants|parse)' is deprecated"),  # on import
]


@pytest.fixture(scope="module")
def shared() -> GreatExpectationsValidator:
    return GreatExpectationsValidator()


class TestGreatExpectationsValidator(ValidatorSuite):
    @pytest.fixture
    def validator(self, shared) -> GreatExpectationsValidator:
        return shared


def run(shared, frame, *expectations):
    return shared.validate(frame, expectations)


class TestKindsOfExpectations:
    def test_pairs_and_groups_of_columns(self, shared):
        frame = pd.DataFrame({"a": [1, 5, 3], "b": [2, 2, 3], "other": list("xyz")})
        greater, unique = run(
            shared,
            frame,
            expect("column_pair_values_a_to_be_greater_than_b", column_A="a", column_B="b", or_equal=True),
            expect("compound_columns_to_be_unique", column_list=["a", "b"]),
        )
        assert (greater.n_failing, greater.sample) == (1, ({"a": 1, "b": 2, "other": "x"},))
        assert unique.success

    def test_a_row_condition_may_read_another_column(self, shared):
        condition = {"type": "comparison", "column": {"name": "kind"}, "operator": "==", "parameter": "y"}
        (result,) = run(
            shared,
            pd.DataFrame({"a": [1, 2, 3], "kind": ["x", "y", "y"]}),
            expect("column_values_to_be_between", column="a", min_value=3, row_condition=condition),
        )
        assert (result.n_failing, result.n_rows, result.sample) == (1, 2, ({"a": 2, "kind": "y"},))

    @pytest.mark.parametrize(
        ("expectation", "observed"),
        [
            (expect("column_mean_to_be_between", column="flight", max_value=1), 18.525),
            (expect("column_values_to_be_of_type", column="flight", type_="float64"), "int64"),
            (
                expect("column_distinct_values_to_be_in_set", column="carrier", value_set=["AA", "UA", "DL"]),
                ["??"],
            ),
            (
                expect("table_columns_to_match_set", column_set=["flight"]),
                ["carrier", "departed", "distance", "flight"],
            ),
            (expect("column_to_exist", column="gate"), None),
        ],
    )
    def test_an_aggregate_has_no_rows(self, shared, expectation, observed):
        (result,) = run(shared, small_batch(), expectation)
        assert (result.success, result.n_failing, result.sample) == (False, None, ())
        assert result.observed == observed

    @pytest.mark.parametrize(
        "expectation",
        [
            expect("column_mean_to_be_between", column="carrier", min_value=0),
            expect("column_values_to_match_regex", column="carrier", regex="("),
            expect("column_values_to_be_between", column="mixed", min_value=0),
        ],
    )
    def test_what_raises_fails_with_a_reason_and_spares_the_others(self, shared, expectation):
        frame = small_batch().assign(mixed=[1, "x"] * 20)
        raised, other = run(shared, frame, expectation, expect("column_values_to_be_unique", column="flight"))
        assert (raised.success, raised.n_failing, raised.sample) == (False, None, ())
        assert raised.observed.startswith("It could not be evaluated: ")
        assert "\n" not in raised.observed
        assert other.n_failing == 2

    def test_a_failing_expectation_may_be_the_only_one_with_rows(self, shared):
        frame = small_batch()
        results = run(
            shared,
            frame,
            expect("table_columns_to_match_set", column_set=["flight"]),
            expect("column_values_to_be_unique", column="flight"),
            expect("column_values_to_not_be_null", column="gone"),
        )
        assert [r.success for r in results] == [False, False, False]
        assert set(results[1].sample[0]) == set(frame.columns)

    def test_other_column_types(self, shared):
        frame = pd.DataFrame(
            {
                "amount": pd.array([1, None, 3], dtype="Int64"),
                "kind": pd.Categorical(["a", "b", "a"]),
                "ok": pd.array([True, None, False], dtype="boolean"),
                "text": pd.array(["x", None, "y"], dtype="string"),
            }
        )
        results = run(
            shared,
            frame,
            expect("column_values_to_be_between", column="amount", max_value=2),
            expect("column_values_to_be_in_set", column="kind", value_set=["a"]),
            expect("column_values_to_be_in_set", column="ok", value_set=[True]),
            expect("column_values_to_match_regex", column="text", regex="^x$"),
        )
        assert [r.n_failing for r in results] == [1, 1, 1, 1]
        assert results[1].sample == ({"amount": None, "kind": "b", "ok": None, "text": None},)


class TestDefinitions:
    @pytest.mark.parametrize(
        ("expectation", "sentence"),
        [
            (
                expect("column_values_to_be_betwen", column="a"),
                "'expect_column_values_to_be_betwen' is no expectation of Great Expectations; did you mean "
                "'expect_column_values_to_be_between'?",
            ),
            (
                expect("column_values_to_be_between", min_value=0),
                "expect_column_values_to_be_between: the argument 'column' is missing.",
            ),
            (
                expect("column_values_to_be_between", column="a", min_value=0, mostly=2),
                "expect_column_values_to_be_between: mostly = 2: ensure this value is less than or equal to 1.0.",
            ),
            (
                expect("column_values_to_be_between", column="a"),
                "expect_column_values_to_be_between: min_value and max_value cannot both be None.",
            ),
            (
                expect("column_values_to_be_between", column=3, min_value="x"),
                "expect_column_values_to_be_between: column = 3: str type expected; "
                "min_value = 'x': value is not a valid float.",
            ),
            (
                expect("column_values_to_be_unique", column="a", result_format="COMPLETE"),
                "expect_column_values_to_be_unique: 'result_format' is set by ml_assets; leave it out.",
            ),
        ],
    )
    def test_what_is_wrong_is_one_sentence(self, shared, expectation, sentence):
        assert shared.check_definitions([expectation]) == [sentence]

    def test_an_expectation_for_sql_only_is_refused(self, shared):
        from ml_assets.interfaces import Expectation

        query = Expectation(type="unexpected_rows_expectation", kwargs={"unexpected_rows_query": "SELECT 1"})
        assert "is no expectation" in str(shared.check_definitions([query])[0])

    def test_all_malformed_expectations_are_told_at_once(self, shared):
        with pytest.raises(SpecError) as raised:
            run(shared, small_batch(), expect("column_values_to_be_unique"), expect("nothing"))
        assert len(raised.value.problems) == 2


class TestSilence:
    def test_nothing_is_printed_or_written(self, shared, capfd, tmp_path, monkeypatch, caplog):
        monkeypatch.chdir(tmp_path)
        run(
            shared,
            small_batch(),
            expect("column_values_to_be_unique", column="flight"),
            expect("column_mean_to_be_between", column="carrier", min_value=0),
        )
        assert capfd.readouterr() == ("", "")
        assert list(tmp_path.iterdir()) == []
        assert caplog.records == []

    def test_a_batch_is_not_kept(self, shared):
        frame = small_batch()
        watched = weakref.ref(frame)
        run(shared, frame, expect("column_values_to_be_unique", column="flight"))
        del frame
        gc.collect()
        assert watched() is None

    def test_importing_and_constructing_is_cheap(self):
        code = (
            "import sys; from resources.expectations import GreatExpectationsValidator;"
            "GreatExpectationsValidator(); sys.exit('great_expectations' in sys.modules or 'pandas' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.float32(0.5), 0.5),
        (np.float64(-math.inf), "-inf"),
        (np.float32("nan"), None),
        (np.timedelta64("NaT"), None),
        (np.timedelta64(3, "s"), "3 seconds"),
        (np.bool_(True), True),
        (math.nan, None),
        (math.inf, "inf"),
        (pd.NaT, None),
        (pd.NA, None),
        (None, None),
        (pd.Timestamp("2013-01-01 05:15", tz="UTC"), "2013-01-01T05:15:00+00:00"),
        (np.datetime64("2013-01-01T05:15:00.000000000"), "2013-01-01T05:15:00"),
        (datetime.date(2013, 1, 1), "2013-01-01"),
        (pd.Timedelta(hours=1), "P0DT1H0M0S"),
        (decimal.Decimal("1.5"), "1.5"),
        ("text", "text"),
        (b"raw", "b'raw'"),
        ([np.int64(1), {"a": math.nan}], [1, {"a": None}]),
        (np.array([1.0, math.nan]), [1.0, None]),
    ],
)
def test_values_become_json(value, expected):
    assert json_ready(value) == expected
    json.dumps(json_ready(value), allow_nan=False)
