"""The validator on Great Expectations: one pass over a batch, details only for what failed."""

import functools
import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ml_assets.errors import Problem, SpecError
from ml_assets.interfaces import Expectation, ExpectationResult

if TYPE_CHECKING:
    import pandas as pd
    from great_expectations.core.expectation_validation_result import ExpectationValidationResult
    from great_expectations.data_context.data_context.ephemeral_data_context import EphemeralDataContext
    from great_expectations.expectations.expectation import Expectation as GxExpectation
    from pydantic.v1 import ValidationError

MAX_SAMPLE_ROWS = 20
MAX_REASON_CHARACTERS = 300

_DETAILS = {"result_format": "SUMMARY", "partial_unexpected_count": MAX_SAMPLE_ROWS}
_OWN_ARGUMENTS = ("batch_id", "catch_exceptions", "id", "meta", "result_format")
_COLUMN_ARGUMENTS = ("column", "column_A", "column_B")


class GreatExpectationsValidator:
    """Implements `ml_assets.interfaces.Validator` with Great Expectations.

    The library is imported at first use, which takes seconds; its context lives in memory and is made once
    for each validator. Nothing is printed and no file is written.
    """

    def validate(self, frame: "pd.DataFrame", expectations: Sequence[Expectation]) -> list[ExpectationResult]:
        """Return one result for each expectation, in their order.

        All expectations are run once without details, then the failed ones again with counts and sample rows.
        One that raises, such as on text where numbers are needed, has failed; `observed` says why.

        Raises:
            SpecError: If an expectation is unknown or its arguments are wrong; names all of them.
        """
        self._refuse_malformed(expectations)
        if not _counts_rows(frame.index):
            frame = frame.reset_index(drop=True)
        results: dict[int, ExpectationResult] = {}
        for position, expectation in enumerate(expectations):
            missing = _missing_columns(expectation, frame.columns)
            if missing:
                reason = _missing_reason(missing, [str(column) for column in frame.columns])
                results[position] = _without_rows(expectation, reason, frame)
        remaining = [position for position in range(len(expectations)) if position not in results]
        failed = []
        for position, found in self._run(frame, expectations, remaining, "BOOLEAN_ONLY"):
            expectation = expectations[position]
            if found.success:
                results[position] = ExpectationResult(
                    expectation=expectation, success=True, n_failing=0, n_rows=len(frame)
                )
            elif reason := _raised(found):
                results[position] = _without_rows(expectation, reason, frame)
            else:
                failed.append(position)
        results.update(self._details(frame, expectations, failed))
        return [results[position] for position in range(len(expectations))]

    def check_definitions(self, expectations: Sequence[Expectation]) -> list[str | None]:
        """Return for each expectation None when it is well-formed, or one sentence that says why not."""
        return [_definition_error(expectation) for expectation in expectations]

    def _refuse_malformed(self, expectations: Sequence[Expectation]) -> None:
        problems = [
            Problem(
                file="expectations",
                line=0,
                field=f"{position}.{expectation.label}",
                found=sentence,
                expected="an expectation of Great Expectations with its arguments",
            )
            for position, (expectation, sentence) in enumerate(
                zip(expectations, self.check_definitions(expectations), strict=True)
            )
            if sentence is not None
        ]
        if problems:
            raise SpecError(problems)

    def _details(
        self, frame: "pd.DataFrame", expectations: Sequence[Expectation], failed: Sequence[int]
    ) -> Iterable[tuple[int, ExpectationResult]]:
        # Great Expectations copies the rows of a batch several times over to find the failing ones, so it is
        # only given the columns that it needs.
        columns = _columns_read([expectations[position] for position in failed], frame.columns)
        for position, found in self._run(frame[columns], expectations, failed, _DETAILS):
            yield position, _detailed(expectations[position], found, frame)

    def _run(
        self,
        frame: "pd.DataFrame",
        expectations: Sequence[Expectation],
        positions: Sequence[int],
        result_format: Any,
    ) -> "Iterable[tuple[int, ExpectationValidationResult]]":
        """Yield position and raw result of the expectations at these positions, in any order."""
        if not positions:
            return
        from great_expectations.execution_engine.pandas_execution_engine import PandasExecutionEngine
        from great_expectations.validator.validator import Validator

        # A batch from a data source would be hashed at each run, which takes a tenth of the time.
        engine = PandasExecutionEngine(batch_data_dict={"batch": frame})
        validator = Validator(execution_engine=engine, data_context=self._context)
        configurations = [_built(expectations[position], position).configuration for position in positions]
        for found in validator.graph_validate(configurations, {"result_format": result_format}):
            meta = found.expectation_config.meta if found.expectation_config else None
            yield (meta or {})["position"], found

    @functools.cached_property
    def _context(self) -> "EphemeralDataContext":
        import great_expectations as gx
        from great_expectations.data_context.types.base import ProgressBarsConfig

        context = gx.get_context(mode="ephemeral")
        context.enable_analytics(enable=False)
        context.variables.progress_bars = ProgressBarsConfig(globally=False)
        return context


def _counts_rows(index: "pd.Index") -> bool:
    import pandas as pd

    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1


def _missing_columns(expectation: Expectation, columns: Collection[Hashable]) -> list[str]:
    """Return the columns an expectation reads that are not there.

    Left to Great Expectations, each missing column makes it compute the whole suite four times.
    """
    if expectation.type == "expect_column_to_exist":
        return []
    return [name for name in _own_columns(expectation) if name not in columns]


def _own_columns(expectation: Expectation) -> list[str]:
    names = [expectation.kwargs[key] for key in _COLUMN_ARGUMENTS if key in expectation.kwargs]
    return [*names, *(expectation.kwargs.get("column_list") or ())]


def _columns_read(expectations: Sequence[Expectation], columns: Iterable[Hashable]) -> list[Hashable]:
    """Return the columns that some expectations need: all when one is about the table or has a condition."""
    needed: set[Hashable] = set()
    for expectation in expectations:
        own = _own_columns(expectation)
        if not own or expectation.kwargs.get("row_condition"):
            return list(columns)
        needed.update(own)
    return [column for column in columns if column in needed]


def _missing_reason(missing: Sequence[str], columns: Sequence[str]) -> str:
    named = ", ".join(repr(name) for name in missing)
    close = get_close_matches(missing[0], columns, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"The batch has no column {named}; it has {', '.join(columns)}.{hint}"


def _without_rows(expectation: Expectation, reason: str, frame: "pd.DataFrame") -> ExpectationResult:
    return ExpectationResult(expectation=expectation, success=False, n_failing=None, n_rows=len(frame), observed=reason)


def _raised(found: "ExpectationValidationResult") -> str | None:
    """Return the first line of what an expectation raised, or None when it ran."""
    info: Mapping[str, Any] = found.exception_info or {}
    for raised in (info, *info.values()):
        if isinstance(raised, dict) and raised.get("raised_exception"):
            message = str(raised.get("exception_message") or "an error without a message").strip()
            return f"It could not be evaluated: {message.splitlines()[0][:MAX_REASON_CHARACTERS]}"
    return None


def _detailed(
    expectation: Expectation, found: "ExpectationValidationResult", frame: "pd.DataFrame"
) -> ExpectationResult:
    if reason := _raised(found):
        return _without_rows(expectation, reason, frame)
    result: Mapping[str, Any] = found.result or {}
    if "element_count" not in result:
        observed = result.get("observed_value")
        observed = json_ready(result.get("partial_unexpected_list") if observed is None else observed)
        return ExpectationResult(
            expectation=expectation, success=False, n_failing=None, n_rows=len(frame), observed=observed
        )
    positions: list[int] = list(result.get("partial_unexpected_index_list") or ())
    rows = frame.iloc[positions[:MAX_SAMPLE_ROWS]]
    return ExpectationResult(
        expectation=expectation,
        success=False,
        n_failing=int(result["unexpected_count"]),
        n_rows=int(result["element_count"]),
        sample=tuple(json_ready(record) for record in rows.to_dict("records")),
    )


def json_ready(value: Any) -> Any:
    """Return a value as JSON has it: what is missing as None, times in ISO 8601, infinities as text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None if math.isnan(value) else str(value)
    import numpy as np
    import pandas as pd

    if isinstance(value, Mapping):
        return {str(key): json_ready(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | np.ndarray):
        return [json_ready(item) for item in value]
    if pd.isna(value):
        return None
    if isinstance(value, np.datetime64):
        return pd.Timestamp(value).isoformat()
    if isinstance(value, np.timedelta64):
        return str(value)
    if isinstance(value, np.generic):
        return json_ready(value.item())
    return value.isoformat() if hasattr(value, "isoformat") else str(value)


def _definition_error(expectation: Expectation) -> str | None:
    """Return one sentence about an expectation that Great Expectations would not accept, or None."""
    from pydantic.v1 import ValidationError

    known = _known_types()
    if expectation.type not in known:
        close = get_close_matches(expectation.type, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else "its gallery lists them all."
        return f"{expectation.type!r} is no expectation of Great Expectations; {hint}"
    ours = [name for name in _OWN_ARGUMENTS if name in expectation.kwargs]
    if ours:
        return f"{expectation.type}: {ours[0]!r} is set by ml_assets; leave it out."
    try:
        _built(expectation, 0)
    except ValidationError as error:
        return f"{expectation.type}: {_one_sentence(error, expectation)}."
    return None


def _known_types() -> list[str]:
    import great_expectations.expectations  # noqa: F401 - importing it registers them
    from great_expectations.expectations.registry import list_registered_expectation_implementations

    # What does not begin so runs on SQL only.
    return [name for name in list_registered_expectation_implementations() if name.startswith("expect_")]


def _built(expectation: Expectation, position: int) -> "GxExpectation":
    from great_expectations.expectations.registry import get_expectation_impl

    return get_expectation_impl(expectation.type)(**expectation.kwargs, meta={"position": position})


def _one_sentence(error: "ValidationError", expectation: Expectation) -> str:
    """Return pydantic's errors as one sentence: the first of each argument, what is found, what is known."""
    from great_expectations.expectations.registry import get_expectation_impl

    first: dict[str, Mapping[str, Any]] = {}
    for problem in error.errors():
        first.setdefault(str(problem["loc"][0]), problem)
    whole = first.pop("__root__", None)
    if not first and whole:
        return str(whole["msg"]).rstrip(".")
    known = get_expectation_impl(expectation.type).schema()["properties"]
    sentences = []
    for name, problem in first.items():
        if problem["type"] == "value_error.missing":
            sentences.append(f"the argument {name!r} is missing")
        elif problem["type"] == "value_error.extra":
            close = get_close_matches(name, known, n=1)
            hint = f" (did you mean {close[0]!r}?)" if close else ""
            sentences.append(f"it has no argument {name!r}{hint}")
        else:
            found = repr(expectation.kwargs.get(name))[:80]
            sentences.append(f"{name} = {found}: {str(problem['msg']).rstrip('.')}")
    return "; ".join(sentences)
