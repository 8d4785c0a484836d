"""A serving check without a process for tests, models with faults to serve, and the suite of every `ServingCheck`."""
# ruff: noqa: D102 - the names of the tests are the sentences

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import ModelRegistry, ModelVersion, ServingCheck, ServingLimits, ServingReport
from ml_assets.spec import TaskType
from ml_assets.testing.model_registry import small_run, small_training_data
from ml_assets.training import predict, prepare

if TYPE_CHECKING:
    import pandas as pd

GENEROUS = ServingLimits(latency_ms=60_000.0, model_mb=1_000.0, score_tolerance=1e-12)
FAULTY_TYPE = "ml_assets.testing.serving_check.FaultyModel"


class FakeServingCheck:
    """A `ServingCheck` that loads and scores in this process.

    Args:
        registry: Where versions are loaded from.
        problems: What each report tells beside what is really found.
        latency_ms: What each report gives as the latency.
        n_bytes: What each report gives as the size.

    Attributes:
        checked: The versions that were checked, in order.
    """

    def __init__(
        self,
        registry: ModelRegistry,
        *,
        problems: Sequence[str] = (),
        latency_ms: float = 1.0,
        n_bytes: int = 100_000,
    ) -> None:
        self.checked: list[ModelVersion] = []
        self._registry = registry
        self._problems = tuple(problems)
        self._latency_ms = latency_ms
        self._n_bytes = n_bytes

    def check(
        self,
        version: ModelVersion,
        rows: "pd.DataFrame",
        expected: NDArray[np.float64],
        *,
        task: str,
        limits: ServingLimits,
        trusted_types: Sequence[str] = (),
    ) -> ServingReport:
        """Load the version, score its input example and the rows, and compare."""
        self.checked.append(version)
        if not len(rows):
            return ServingReport(problems=(*self._problems, "There are no rows to score."))
        problems = [*self._problems, *self._limit_problems(limits)]
        report = ServingReport(problems=(), n_bytes=self._n_bytes, latency_ms=self._latency_ms)
        kind = cast(TaskType, task)
        try:
            report = replace(report, model_digest=self._registry.digest(version.model_uri))
            model = self._registry.load(version.model_uri, trusted_types=trusted_types)
            example = self._registry.example(version.model_uri)
            report = replace(report, example_scores=tuple(predict(model, example, task=kind).ravel().tolist()))
            scores = predict(model, rows, task=kind)
            others = predict(model, rows.iloc[::-1], task=kind)[::-1]
        except MlAssetsError as error:
            return replace(report, problems=(*problems, str(error)))
        problems += _score_problems(scores, others, np.asarray(expected), task, limits.score_tolerance)
        alike = scores.shape == np.shape(expected)
        difference = float(np.nanmax(np.abs(scores - expected))) if alike else 0.0
        return replace(report, problems=tuple(problems), n_rows=len(rows), largest_difference=difference)

    def _limit_problems(self, limits: ServingLimits) -> list[str]:
        size = f"The model's file has {self._n_bytes / 1e6:g} MB; the limit is {limits.model_mb:g} MB."
        latency = f"Scoring 1,000 rows took {self._latency_ms:g} ms; the limit is {limits.latency_ms:g} ms."
        slow, large = self._latency_ms > limits.latency_ms, self._n_bytes > limits.model_mb * 1e6
        return [*([size] if large else []), *([latency] if slow else [])]


def _score_problems(
    scores: NDArray[np.float64],
    others: NDArray[np.float64],
    expected: NDArray[np.float64],
    task: str,
    tolerance: float,
) -> list[str]:
    if scores.shape != expected.shape:
        return [f"The served scores have the shape {scores.shape}, the evaluated ones {expected.shape}."]
    problems = []
    if not np.isfinite(scores).all():
        problems.append("Served scores are not finite numbers.")
    if task != "regression" and ((scores < 0) | (scores > 1)).any():
        problems.append("Served scores are no probabilities.")
    if (difference := np.nanmax(np.abs(scores - expected))) > tolerance:
        problems.append(f"Served scores differ from the evaluated ones, by up to {difference:.6g}.")
    if np.nanmax(np.abs(scores - others)) > tolerance:
        problems.append("Scores depend on the order of the rows.")
    return problems


class FaultyModel:
    """A classifier by hour alone whose scoring has a fault, of a type that skops does not know.

    Attributes:
        fault: "none", "order" (a row's place counts), "company" (the other rows count), "nan", "outside" (of
            [0, 1]), "error", "exit", "hang" or "prints".
    """

    def __init__(self, fault: str = "none") -> None:
        self.fault = fault

    def fit(self, X: "pd.DataFrame", y: NDArray[np.int_]) -> Self:
        """Remember the columns of X, shape (n, n_features); y counts for nothing."""
        self.feature_names_in_ = list(X.columns)
        self.classes_ = [0, 1]
        return self

    def predict_proba(self, X: "pd.DataFrame") -> NDArray[np.float64]:
        """Return probabilities, shape (n, 2), as far as the fault lets it."""
        hour = X["hour"].to_numpy(dtype=np.float64)
        score = 1.0 / (1.0 + np.exp((14.0 - hour) / 4.0))
        if self.fault == "order":
            score = score / (1.0 + np.arange(len(X)))
        elif self.fault == "company":
            score = score / (1.0 + np.ptp(hour) + len(X))
        elif self.fault == "nan":
            score = np.where(hour == hour[0], np.nan, score)
        elif self.fault == "outside":
            score = 1.0 + score
        elif self.fault != "none":
            _misbehave(self.fault)
        return np.column_stack([1.0 - score, score])


def _misbehave(fault: str) -> None:
    if fault == "error":
        raise ValueError("this model has lost its weights")
    if fault == "exit":
        os._exit(7)
    if fault == "hang":
        time.sleep(3_600)
    if fault == "prints":
        sys.stdout.write('{"scores": "all fine"}\n')
        sys.stdout.flush()


def served_version(registry: ModelRegistry, *, fault: str | None = None) -> ModelVersion:
    """Register the small pipeline, or a `FaultyModel`, with the example that the training stage would store."""
    X, y = small_training_data()
    run = small_run()
    example = prepare(X.head(5))
    run = replace(run, input_example=example, output_example=predict(run.model, example, task="binary"))
    if fault is not None:
        run = replace(run, model=FaultyModel(fault).fit(X, y), trusted_types=(FAULTY_TYPE,))
    return registry.register("flights.arrival_delay", registry.log_model(run), tags={})


def evaluated(model: Any) -> "tuple[pd.DataFrame, NDArray[np.float64]]":
    """Return rows and the scores that an evaluation of this model would give them."""
    X, _ = small_training_data()
    return X, predict(model, X, task="binary")


class ServingCheckSuite:
    """What every `ServingCheck` does; a subclass provides the fixtures `registry`, empty, and `check` on it."""

    def test_a_good_model_passes_with_its_figures(self, registry: ModelRegistry, check: ServingCheck) -> None:
        version = served_version(registry)
        model = registry.load(version.model_uri)
        rows, scores = evaluated(model)
        report = check.check(version, rows, scores, task="binary", limits=GENEROUS)
        assert report.problems == ()
        assert report.passed
        assert (report.n_rows, report.largest_difference) == (300, 0.0)
        assert report.model_digest == registry.digest(version.model_uri)
        assert report.example_scores == tuple(predict(model, registry.example(version.model_uri), task="binary"))
        assert report.n_bytes > 0
        assert report.latency_ms > 0

    def test_everything_wrong_is_told_at_once(self, registry: ModelRegistry, check: ServingCheck) -> None:
        version = served_version(registry)
        rows, scores = evaluated(registry.load(version.model_uri))
        scores[7] += 0.25
        nothing = ServingLimits(latency_ms=0.0, model_mb=0.0, score_tolerance=1e-9)
        report = check.check(version, rows, scores, task="binary", limits=nothing)
        size, latency, difference = report.problems
        assert "the limit is 0 MB" in size
        assert "the limit is 0 ms" in latency
        assert "differ from the evaluated ones, by up to 0.25" in difference
        assert report.largest_difference == pytest.approx(0.25)

    def test_a_missing_column_is_a_problem(self, registry: ModelRegistry, check: ServingCheck) -> None:
        version = served_version(registry)
        rows, scores = evaluated(registry.load(version.model_uri))
        report = check.check(version, rows.drop(columns="hour"), scores, task="binary", limits=GENEROUS)
        assert any("lack" in problem and "'hour'" in problem for problem in report.problems)

    def test_a_type_that_is_not_trusted_is_a_problem(self, registry: ModelRegistry, check: ServingCheck) -> None:
        version = served_version(registry, fault="none")
        rows, scores = evaluated(FaultyModel().fit(*small_training_data()))
        (problem,) = check.check(version, rows, scores, task="binary", limits=GENEROUS).problems
        assert FAULTY_TYPE in problem
        trusting = check.check(version, rows, scores, task="binary", limits=GENEROUS, trusted_types=[FAULTY_TYPE])
        assert trusting.problems == ()

    @pytest.mark.parametrize(
        ("fault", "problem"),
        [("order", "depend on the order"), ("nan", "not finite"), ("outside", "no probabilities")],
    )
    def test_faulty_scores_are_problems(
        self, registry: ModelRegistry, check: ServingCheck, fault: str, problem: str
    ) -> None:
        version = served_version(registry, fault=fault)
        rows, scores = evaluated(FaultyModel(fault).fit(*small_training_data()))
        report = check.check(version, rows, scores, task="binary", limits=GENEROUS, trusted_types=[FAULTY_TYPE])
        assert any(problem in found for found in report.problems)

    def test_a_version_that_does_not_exist_is_a_problem(self, registry: ModelRegistry, check: ServingCheck) -> None:
        version = replace(served_version(registry), version="9", model_uri="models:/flights.arrival_delay/9")
        rows, _ = evaluated(small_run().model)
        (problem,) = check.check(version, rows, np.zeros(300), task="binary", limits=GENEROUS).problems
        assert "9" in problem

    def test_no_rows_are_a_problem(self, registry: ModelRegistry, check: ServingCheck) -> None:
        rows, scores = evaluated(small_run().model)
        version = served_version(registry)
        report = check.check(version, rows.head(0), scores[:0], task="binary", limits=GENEROUS)
        assert [problem for problem in report.problems if "no rows" in problem]

    def test_other_numbers_of_scores_are_a_problem(self, registry: ModelRegistry, check: ServingCheck) -> None:
        version = served_version(registry)
        rows, scores = evaluated(registry.load(version.model_uri))
        (problem,) = check.check(version, rows, scores[1:], task="binary", limits=GENEROUS).problems
        assert "(300,)" in problem
        assert "(299,)" in problem
