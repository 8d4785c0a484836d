"""What is judged of a served model, each problem by its text; no process is started."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.interfaces import ServingLimits
from resources.serving_judgement import Expected, Measurement, column_types, judge, largest_difference

LIMITS = ServingLimits(latency_ms=20.0, model_mb=2.0, score_tolerance=1e-9)
ROWS = pd.DataFrame({"hour": [1, 2, 3, 4], "carrier": ["AA", None, "UA", "DL"]})
SCORES = np.array([0.1, 0.2, 0.3, 0.4])


def measured(**changes) -> Measurement:
    right = {
        "model_digest": "a" * 64,
        "n_bytes": 1_000_000,
        "load_seconds": 1.5,
        "signature": {"hour": "double", "carrier": "string"},
        "example_scores": SCORES[:2],
        "scores": SCORES,
        "reversed_scores": SCORES,
        "half_scores": SCORES[:2],
        "latency_ms": 3.0,
    }
    return Measurement(**{**right, **changes})


def report(measurement: Measurement, *, rows=ROWS, scores=SCORES, task="binary"):
    return judge(measurement, Expected(rows=rows, scores=scores, task=task, limits=LIMITS))


def test_a_measurement_within_all_limits_has_no_problem():
    found = report(measured())
    assert found.passed
    assert (found.n_rows, found.n_bytes, found.latency_ms, found.load_seconds) == (4, 1_000_000, 3.0, 1.5)
    assert found.model_digest == "a" * 64
    assert found.example_scores == (0.1, 0.2)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"n_bytes": 2_000_001}, "The model's file has 2,000,001 bytes; the limit is 2 MB."),
        ({"latency_ms": 20.5}, "Scoring 1,000 rows took 20.5 ms (median of 7 calls); the limit is 20 ms."),
        (
            {"signature": {"hour": "double", "carrier": "string", "dest": "string", "origin": "string"}},
            "The rows lack the columns 'dest', 'origin' of the model's signature.",
        ),
        (
            {"signature": {"hour": "double"}},
            "The rows have the column 'carrier', which the model's signature does not have.",
        ),
        (
            {"signature": {"hour": "string", "carrier": "string"}},
            "Column 'hour' is double in the rows and string in the model's signature.",
        ),
        (
            {"signature": {"hour": "double", "carrier": "double"}},
            "Column 'carrier' is string in the rows and double in the model's signature.",
        ),
        ({"example_scores": np.array([np.inf])}, "1 of 1 served scores of the input example are not finite numbers."),
        (
            {"example_scores": np.array([-0.5, 1.5])},
            "2 of 2 served scores of the input example are no probabilities: they range from -0.5 to 1.5, expected "
            "0 to 1.",
        ),
        ({"scores": SCORES[:3]}, "The served scores have the shape (3,), the evaluated ones (4,)."),
        (
            {"reversed_scores": SCORES[::-1]},
            "Scores depend on the order of the rows: in reversed order they differ by up to 0.3; the limit is 1e-09.",
        ),
        (
            {"half_scores": SCORES[2:]},
            "Scores depend on which rows are scored together: for the first half alone they differ by up to 0.2; "
            "the limit is 1e-09.",
        ),
        (
            {"half_scores": SCORES[:1].reshape(1, 1)},
            "Scores depend on which rows are scored together: for the first half alone they have the shape (1, 1), "
            "expected (1,).",
        ),
        ({"problems": ("The serving process died.",)}, "The serving process died."),
    ],
)
def test_each_problem_is_a_sentence_with_its_numbers(changes, problem):
    if changes.get("scores") is not None:
        changes = {**changes, "reversed_scores": changes["scores"]}
    found = report(measured(**changes))
    assert found.problems == (problem,)
    assert not found.passed


def test_scores_that_are_no_numbers_are_told_on_both_sides():
    holes = np.array([np.nan, np.inf, 0.3, 0.4])
    found = report(measured(scores=holes, reversed_scores=holes, half_scores=holes[:2]), scores=holes)
    assert found.problems == (
        "2 of 4 served scores of the rows are not finite numbers.",
        "2 of 4 evaluated scores are not finite numbers.",
    )
    assert found.largest_difference == 0.0


def test_the_number_and_the_size_of_differences_are_told():
    found = report(measured(), scores=SCORES + np.array([0.0, 0.05, 0.0, -0.25]))
    assert found.problems == (
        "2 of 4 served scores differ from the evaluated ones, by up to 0.25; the limit is 1e-09.",
    )
    assert found.largest_difference == pytest.approx(0.25)


def test_predictions_of_a_regression_may_be_any_number():
    minutes = SCORES * 1_000 - 250
    served = measured(example_scores=minutes, scores=minutes, reversed_scores=minutes, half_scores=minutes[:2])
    assert report(served, scores=minutes, task="regression").passed
    assert len(report(served, scores=minutes, task="binary").problems) == 2


def test_probabilities_of_several_classes_are_compared_as_a_matrix():
    matrix = np.column_stack([SCORES, 1 - SCORES])
    served = measured(example_scores=matrix, scores=matrix, reversed_scores=matrix, half_scores=matrix[:2])
    assert report(served, scores=matrix, task="multiclass").passed
    assert report(served, scores=matrix, task="multiclass").example_scores[:2] == (0.1, 0.9)
    assert report(served, task="multiclass").problems == (
        "The served scores have the shape (4, 2), the evaluated ones (4,).",
    )


def test_what_was_not_measured_is_not_judged():
    found = report(Measurement(problems=("It does not exist.",)))
    assert found.problems == ("It does not exist.",)
    assert (found.n_rows, found.n_bytes, found.model_digest, found.example_scores) == (0, 0, "", ())


def test_columns_without_values_have_any_type():
    empty = ROWS.assign(carrier=None)
    assert column_types(empty) == {"hour": "double", "carrier": "empty"}
    assert report(measured(), rows=empty).passed
    assert report(measured(signature={"hour": "double", "carrier": "any"})).passed


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.floats(0, 1))
def test_a_difference_is_found_whatever_its_place(scores, shift):
    served = np.array(scores)
    for place in range(len(scores)):
        evaluated = served.copy()
        evaluated[place] -= shift
        assert largest_difference(served, evaluated) == abs(served[place] - evaluated[place])
