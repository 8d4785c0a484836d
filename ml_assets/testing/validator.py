"""The plain-pandas validator for tests, and the conformance suite of every `Validator`."""
# ruff: noqa: D102 - the names of the tests are the sentences

import json
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import pytest

from ml_assets.errors import Problem, SpecError
from ml_assets.interfaces import Expectation, ExpectationResult, Validator

if TYPE_CHECKING:
    import pandas as pd

MAX_SAMPLE_ROWS = 20


class FakeValidator:
    """A `Validator` that knows five expectations, in plain pandas and without an import of seconds."""

    def validate(self, frame: "pd.DataFrame", expectations: Sequence[Expectation]) -> list[ExpectationResult]:
        """Return one result for each expectation, in their order."""
        problems = [
            Problem(file="expectations", line=0, field=e.label, found=sentence, expected="a known expectation")
            for e, sentence in zip(expectations, self.check_definitions(expectations), strict=True)
            if sentence is not None
        ]
        if problems:
            raise SpecError(problems)
        return [_result(frame, expectation) for expectation in expectations]

    def check_definitions(self, expectations: Sequence[Expectation]) -> list[str | None]:
        """Return for each expectation None when it is well-formed, or one sentence that says why not."""
        return [_definition_error(expectation) for expectation in expectations]


def expect(short_type: str, **kwargs: Any) -> Expectation:
    """Return an expectation from its type without the leading "expect_" and its arguments."""
    return Expectation(type=f"expect_{short_type}", kwargs=kwargs)


def small_batch() -> "pd.DataFrame":
    """Return 40 flights; one distance is missing and 30 are negative, one carrier is unknown."""
    import pandas as pd

    return pd.DataFrame(
        {
            "flight": [*range(39), 0],
            "carrier": ["AA", "UA", "DL", "??"] + ["AA"] * 36,
            "distance": [100.0] * 9 + [None] + [-1.0] * 30,
            "departed": [pd.Timestamp("2013-01-01 05:15", tz="UTC")] * 39 + [pd.NaT],
        },
        index=pd.Index(range(1000, 1040)),
    )


class ValidatorSuite:
    """What every `Validator` does; a subclass provides the fixture `validator`."""

    def test_expectations_that_hold_have_no_failing_rows(self, validator: Validator) -> None:
        expectations = [
            expect("column_values_to_not_be_null", column="carrier"),
            expect("column_values_to_be_between", column="flight", min_value=0, max_value=38),
            expect("column_values_to_be_in_set", column="carrier", value_set=["AA", "UA", "DL", "??"]),
            expect("column_values_to_be_unique", column="distance", mostly=0.0),
            expect("table_row_count_to_be_between", min_value=40, max_value=40),
        ]
        results = validator.validate(small_batch(), expectations)
        assert [result.expectation for result in results] == expectations
        assert [(r.success, r.n_failing, r.n_rows, r.sample) for r in results] == [(True, 0, 40, ())] * 5

    def test_failing_rows_are_counted_and_sampled(self, validator: Validator) -> None:
        (result,) = validator.validate(
            small_batch(), [expect("column_values_to_be_between", column="distance", min_value=0)]
        )
        assert (result.success, result.n_failing, result.n_rows) == (False, 30, 40)
        assert len(result.sample) == MAX_SAMPLE_ROWS
        assert [row["flight"] for row in result.sample] == list(range(10, 30))
        assert result.observed is None

    def test_a_sample_row_has_all_columns_as_json(self, validator: Validator) -> None:
        (unknown, missing) = validator.validate(
            small_batch(),
            [
                expect("column_values_to_be_in_set", column="carrier", value_set=["AA", "UA", "DL"]),
                expect("column_values_to_not_be_null", column="departed"),
            ],
        )
        assert [dict(row) for row in unknown.sample] == [
            {"flight": 3, "carrier": "??", "distance": 100.0, "departed": "2013-01-01T05:15:00+00:00"}
        ]
        assert [dict(row) for row in missing.sample] == [
            {"flight": 0, "carrier": "AA", "distance": -1.0, "departed": None}
        ]
        json.dumps([dict(row) for row in (*unknown.sample, *missing.sample)], allow_nan=False)

    def test_repeated_values_all_fail(self, validator: Validator) -> None:
        (result,) = validator.validate(small_batch(), [expect("column_values_to_be_unique", column="flight")])
        assert (result.success, result.n_failing) == (False, 2)
        assert [row["flight"] for row in result.sample] == [0, 0]

    def test_missing_values_are_left_to_their_own_expectation(self, validator: Validator) -> None:
        (result,) = validator.validate(
            small_batch(), [expect("column_values_to_be_in_set", column="distance", value_set=[100.0, -1.0])]
        )
        assert result.success

    def test_mostly_is_a_share_of_the_values_there_are(self, validator: Validator) -> None:
        between = {"column": "distance", "min_value": 0}
        results = validator.validate(
            small_batch(),
            [
                expect("column_values_to_be_between", **between, mostly=9 / 39),
                expect("column_values_to_be_between", **between, mostly=9.01 / 39),
            ],
        )
        assert [(result.success, result.n_failing) for result in results] == [(True, 0), (False, 30)]

    def test_an_aggregate_shows_what_was_observed(self, validator: Validator) -> None:
        (result,) = validator.validate(small_batch(), [expect("table_row_count_to_be_between", max_value=39)])
        assert (result.success, result.n_failing, result.observed) == (False, None, 40)

    def test_a_missing_column_fails_with_a_reason(self, validator: Validator) -> None:
        results = validator.validate(
            small_batch(),
            [
                expect("column_values_to_not_be_null", column="distnce"),
                expect("column_values_to_not_be_null", column="carrier"),
            ],
        )
        assert [result.success for result in results] == [False, True]
        assert results[0].n_failing is None
        assert results[0].observed == (
            "The batch has no column 'distnce'; it has flight, carrier, distance, departed. Did you mean 'distance'?"
        )

    def test_results_keep_their_order(self, validator: Validator) -> None:
        expectations = [
            expect("column_values_to_not_be_null", column=column)
            for column in ("nowhere", "distance", "carrier", "departed", "nothing", "flight")
        ]
        results = validator.validate(small_batch(), expectations)
        assert [result.expectation.kwargs["column"] for result in results] == [
            "nowhere", "distance", "carrier", "departed", "nothing", "flight"
        ]  # fmt: skip
        assert [result.success for result in results] == [False, False, True, False, False, True]

    def test_the_same_expectation_can_stand_twice(self, validator: Validator) -> None:
        twice = [expect("column_values_to_be_unique", column="flight")] * 2
        assert [result.n_failing for result in validator.validate(small_batch(), twice)] == [2, 2]

    def test_a_batch_is_left_as_it_was(self, validator: Validator) -> None:
        frame = small_batch()
        validator.validate(frame, [expect("column_values_to_be_unique", column="flight")])
        assert frame.equals(small_batch())
        assert list(frame.index) == list(range(1000, 1040))

    def test_nothing_expected_gives_nothing(self, validator: Validator) -> None:
        assert validator.validate(small_batch(), []) == []

    def test_an_empty_batch_can_be_validated(self, validator: Validator) -> None:
        results = validator.validate(
            small_batch().head(0),
            [
                expect("column_values_to_not_be_null", column="carrier"),
                expect("table_row_count_to_be_between", min_value=1),
            ],
        )
        assert [result.success for result in results] == [True, False]

    def test_definitions_are_checked(self, validator: Validator) -> None:
        errors = validator.check_definitions(
            [
                expect("column_values_to_not_be_null", column="carrier"),
                expect("column_values_to_not_be_nul", column="carrier"),
                expect("column_values_to_not_be_null"),
                expect("column_values_to_be_between", column="distance", min_valu=0),
            ]
        )
        assert errors[0] is None
        assert "did you mean 'expect_column_values_to_not_be_null'?" in str(errors[1])
        assert "'column' is missing" in str(errors[2])
        assert "no argument 'min_valu' (did you mean 'min_value'?)" in str(errors[3])

    def test_a_malformed_expectation_is_not_run(self, validator: Validator) -> None:
        with pytest.raises(SpecError, match="column_values_to_not_be_nul") as raised:
            validator.validate(
                small_batch(),
                [expect("column_values_to_not_be_nul", column="a"), expect("table_row_count_to_be_between")],
            )
        assert len(raised.value.problems) >= 1


def _passes_null(values: "pd.Series", _: Mapping[str, Any]) -> "pd.Series":
    return values.notna()


def _passes_between(values: "pd.Series", kwargs: Mapping[str, Any]) -> "pd.Series":
    passes = values.notna()
    if kwargs.get("min_value") is not None:
        passes &= values >= kwargs["min_value"]
    if kwargs.get("max_value") is not None:
        passes &= values <= kwargs["max_value"]
    return passes | values.isna()


def _passes_in_set(values: "pd.Series", kwargs: Mapping[str, Any]) -> "pd.Series":
    return values.isin(list(kwargs["value_set"])) | values.isna()


def _passes_unique(values: "pd.Series", _: Mapping[str, Any]) -> "pd.Series":
    return ~values.duplicated(keep=False) | values.isna()


_ROW_COUNT = "expect_table_row_count_to_be_between"
_BY_ROW: Mapping[str, Callable[["pd.Series", Mapping[str, Any]], "pd.Series"]] = {
    "expect_column_values_to_not_be_null": _passes_null,
    "expect_column_values_to_be_between": _passes_between,
    "expect_column_values_to_be_in_set": _passes_in_set,
    "expect_column_values_to_be_unique": _passes_unique,
}
_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    "expect_column_values_to_not_be_null": ("column", "mostly"),
    "expect_column_values_to_be_between": ("column", "min_value", "max_value", "mostly"),
    "expect_column_values_to_be_in_set": ("column", "value_set", "mostly"),
    "expect_column_values_to_be_unique": ("column", "mostly"),
    _ROW_COUNT: ("min_value", "max_value"),
}


def _definition_error(expectation: Expectation) -> str | None:
    if expectation.type not in _ARGUMENTS:
        close = get_close_matches(expectation.type, _ARGUMENTS, n=1)
        return f"{expectation.type!r} is no known expectation" + (f"; did you mean {close[0]!r}?" if close else "")
    known = _ARGUMENTS[expectation.type]
    for name in expectation.kwargs:
        if name not in known:
            close = get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            return f"{expectation.type}: it has no argument {name!r}{hint}."
    for name in ("column", "value_set"):
        if name in known and name not in expectation.kwargs:
            return f"{expectation.type}: the argument {name!r} is missing."
    return None


def _result(frame: "pd.DataFrame", expectation: Expectation) -> ExpectationResult:
    kwargs, n_rows = expectation.kwargs, len(frame)
    failed = {"expectation": expectation, "success": False, "n_rows": n_rows}
    passed = ExpectationResult(expectation=expectation, success=True, n_failing=0, n_rows=n_rows)
    if expectation.type == _ROW_COUNT:
        holds = kwargs.get("min_value", 0) <= n_rows <= kwargs.get("max_value", n_rows)
        return passed if holds else ExpectationResult(**failed, n_failing=None, observed=n_rows)
    columns = [str(column) for column in frame.columns]
    if kwargs["column"] not in columns:
        close = get_close_matches(kwargs["column"], columns, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        reason = f"The batch has no column {kwargs['column']!r}; it has {', '.join(columns)}.{hint}"
        return ExpectationResult(**failed, n_failing=None, observed=reason)
    values = frame[kwargs["column"]]
    passes = _BY_ROW[expectation.type](values, kwargs)
    n_failing = int((~passes).sum())
    n_values = n_rows if expectation.type == "expect_column_values_to_not_be_null" else int(values.notna().sum())
    if n_failing == 0 or (n_values - n_failing) / n_values >= kwargs.get("mostly", 1.0):
        return passed
    sample = tuple(_json_record(row) for row in frame[~passes].head(MAX_SAMPLE_ROWS).to_dict("records"))
    return ExpectationResult(**failed, n_failing=n_failing, sample=sample)


def _json_record(record: Mapping[Any, Any]) -> dict[str, Any]:
    import pandas as pd

    return {
        str(name): None if pd.isna(value) else value.isoformat() if hasattr(value, "isoformat") else value
        for name, value in record.items()
    }
