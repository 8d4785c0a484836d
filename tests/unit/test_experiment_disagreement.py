import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.digest import canonical_json
from ml_assets.errors import EvaluationError
from ml_assets.experiments.disagreement import QUANTILES, compare

TASKS = ("binary", "multiclass", "regression")
CLASSES = ("a", "b", "c")


def table_of(champion, shadow, **columns):
    """Return predictions with one row an hour; scores of shape (n,) or (n, 3)."""
    champion, shadow = np.asarray(champion, dtype=np.float64), np.asarray(shadow, dtype=np.float64)
    n_rows = len(champion)
    start = np.datetime64("2024-03-01T00:30", "us")
    data = {
        "row_id": [f"row-{number}" for number in range(n_rows)],
        "event_time": pa.array(start + np.arange(n_rows) * np.timedelta64(1, "h"), pa.timestamp("us", tz="UTC")),
        **columns,
    }
    for prefix, scores in (("", champion), ("shadow_", shadow)):
        named = {"score": scores} if scores.ndim == 1 else {f"score_{c}": scores[:, i] for i, c in enumerate(CLASSES)}
        data |= {f"{prefix}{name}": values for name, values in named.items()}
    return pa.table(data)


def compared(task, champion, shadow, **options):
    columns = options.pop("columns", {})
    classes = CLASSES if task == "multiclass" else ()
    return compare(table_of(champion, shadow, **columns), task=task, classes=classes, **options)


@st.composite
def two_models(draw):
    task = draw(st.sampled_from(TASKS))
    n_rows = draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if task == "regression":
        return task, rng.normal(0, 10, n_rows), rng.normal(0, 10, n_rows)
    if task == "binary":
        # One decimal place, so that scores meet the threshold and each other.
        return task, rng.random(n_rows).round(1), rng.random(n_rows).round(1)
    return task, rng.dirichlet(np.ones(3), n_rows), rng.dirichlet(np.ones(3), n_rows)


@given(models=two_models())
def test_equal_scores_never_disagree(models):
    task, champion, _ = models
    found = compared(task, champion, champion, tolerance=0.0)
    assert (found.overall.n_disagreeing, found.overall.rate) == (0, 0.0)
    for shift in found.shifts:
        assert shift.mean == shift.mean_absolute == 0.0
        assert set(shift.quantiles) == {0.0}
        assert shift.rank_correlation is None or shift.rank_correlation == pytest.approx(1.0)


@given(models=two_models())
def test_the_models_may_change_places(models):
    task, champion, shadow = models
    there, back = compared(task, champion, shadow), compared(task, shadow, champion)
    assert there.overall == back.overall
    for one, other in zip(there.shifts, back.shifts, strict=True):
        assert one.mean == pytest.approx(-other.mean, abs=1e-12)
        assert one.mean_absolute == pytest.approx(other.mean_absolute)
        np.testing.assert_allclose(one.quantiles, -np.array(other.quantiles)[::-1], atol=1e-12)


@given(models=two_models())
def test_the_rates_of_a_columns_slices_add_up_to_that_of_all_rows(models):
    task, champion, shadow = models
    side = [["left", "right", None][number % 3] for number in range(len(champion))]
    found = compared(task, champion, shadow, columns={"side": side}, slices=["side"], min_rows=1)
    assert sum(part.n_rows for part in found.slices) == found.overall.n_rows
    assert sum(part.n_disagreeing for part in found.slices) == found.overall.n_disagreeing


def test_a_class_is_another_one_across_the_threshold_and_not_on_one_side_of_it():
    found = compared("binary", [0.49, 0.5, 0.9, 0.2], [0.5, 0.51, 0.6, 0.7])
    assert (found.overall.n_disagreeing, found.overall.rate) == (2, 0.5)
    assert found.rule == "on different sides of 0.5"


def test_a_class_is_another_one_when_another_is_most_likely():
    found = compared("multiclass", [[0.5, 0.3, 0.2], [0.4, 0.5, 0.1]], [[0.4, 0.35, 0.25], [0.5, 0.4, 0.1]])
    assert found.overall.n_disagreeing == 1
    assert [shift.score for shift in found.shifts] == ["score_a", "score_b", "score_c"]
    assert found.rule == "another most likely class"


def test_predictions_disagree_when_they_are_too_far_apart_for_their_size():
    found = compared("regression", [100.0, 100.0, 0.0, 0.0, -100.0], [104.0, 106.0, 0.0, 0.001, 100.0])
    assert found.overall.n_disagreeing == 3
    assert found.rule == "more than 5 % of the larger prediction apart"
    assert compared("regression", [100.0], [106.0], tolerance=0.1).overall.n_disagreeing == 0
    # 5.1 is more than 5 % of 100, and less than 5 % of 105.1: the larger one counts, whoever predicts it.
    assert compared("regression", [100.0, 105.1], [105.1, 100.0]).overall.n_disagreeing == 0


def test_the_shift_and_its_quantiles_are_those_of_the_differences():
    rng = np.random.default_rng(2)
    champion, shadow = rng.random(500), rng.random(500)
    shift = compared("binary", champion, shadow).shifts[0]
    assert shift.mean == pytest.approx((shadow - champion).mean())
    np.testing.assert_allclose(shift.quantiles, np.quantile(shadow - champion, QUANTILES))


def test_the_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(2)
    champion = rng.random(300).round(1)
    shadow = (champion + rng.random(300)).round(1) / 2
    found = compared("binary", champion, shadow).shifts[0].rank_correlation
    assert found == pytest.approx(spearmanr(champion, shadow).statistic, rel=1e-9)


def test_a_score_that_is_the_same_on_all_rows_has_no_rank_correlation():
    assert compared("binary", [0.3, 0.3, 0.3], [0.1, 0.2, 0.3]).shifts[0].rank_correlation is None


def test_the_standard_error_is_over_days():
    champion = np.zeros(240)
    whole_days = np.repeat(np.arange(10) % 2, 24)
    spread_out = np.tile([0, 1], 120)
    clumped = compared("binary", champion, whole_days)
    spread = compared("binary", champion, spread_out)
    assert clumped.overall.rate == spread.overall.rate == 0.5
    assert clumped.overall.n_days == 10
    # Ten days of one coin each, against ten days that are all the same.
    assert clumped.overall.standard_error == pytest.approx(0.5 / np.sqrt(9))
    assert spread.overall.standard_error == pytest.approx(0.0)


def test_days_are_those_of_the_pipelines_time_zone():
    assert compared("binary", np.zeros(24), np.zeros(24)).overall.n_days == 1
    found = compared("binary", np.zeros(24), np.zeros(24), timezone="America/New_York")
    assert found.overall.n_days == 2
    assert compared("binary", np.zeros(24), np.zeros(24)).overall.standard_error is None


def test_a_slice_on_which_the_models_disagree_is_seen():
    origin = np.repeat(["EWR", "JFK"], 120)
    shadow = np.where(origin == "JFK", 0.9, 0.1)
    found = compared("binary", np.full(240, 0.1), shadow, columns={"origin": origin}, slices=["origin"])
    assert [(part.column, part.value, part.rate) for part in found.slices] == [
        ("origin", "EWR", 0.0),
        ("origin", "JFK", 1.0),
    ]


def test_the_examples_are_the_rows_with_the_largest_shifts():
    shadow = np.array([0.1, 0.9, 0.3, 0.2])
    found = compared("binary", np.full(4, 0.1), shadow, columns={"side": list("abcd")}, slices=["side"], n_examples=2)
    assert found.examples["row_id"].tolist() == ["row-1", "row-2"]
    assert list(found.examples) == ["row_id", "event_time", "side", "score", "shadow_score"]


@pytest.mark.parametrize("task", TASKS)
def test_the_document_is_json_and_holds_no_rows(task):
    rng = np.random.default_rng(0)
    one, other = (rng.dirichlet(np.ones(3), 50) if task == "multiclass" else rng.random(50) for _ in range(2))
    document = compared(task, one, other, columns={"side": ["left"] * 50}, slices=["side"], min_rows=1).to_document()
    text = canonical_json(document)
    assert "row-" not in text
    assert len(document["quantiles"]) == len(document["shifts"][0]["quantiles"])
    assert document["slices"][0]["value"] == "left"


def test_the_frames_show_rates_shifts_and_rows():
    frames = compared("binary", [0.1, 0.9], [0.8, 0.9], columns={"side": ["l", "r"]}, slices=["side"], min_rows=1)
    tables = frames.frames()
    assert list(tables) == ["disagreement", "score shift", "largest shifts"]
    assert tables["disagreement"]["column"].tolist() == ["(all rows)", "side", "side"]
    assert tables["score shift"].columns[3:5].tolist() == ["1 %", "5 %"]
    assert len(tables["largest shifts"]) == 2


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: compare(table_of([0.1], [0.1]).drop_columns(["shadow_score"]), task="binary"),
         "the predictions lack shadow_score; they have row_id, event_time, score. Score the rows with the shadow"),
        (lambda: compared("binary", [0.1], [0.1], slices=["origin"]), "the predictions lack origin; they have row_id"),
        (lambda: compared("binary", [], []), "there are no rows to compare; check the partition."),
        (lambda: compared("binary", [0.1, 0.2], [np.nan, 0.2]), "shadow_score holds 1 missing or infinite values in 2"),
        (lambda: compared("regression", [0.1], [0.1], tolerance=-1), "tolerance is -1; expected a relative difference"),
        (lambda: compare(table_of([0.1], [0.1]), task="multiclass"), "classes is []; a multiclass comparison needs"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_refused(run, message):
    with pytest.raises(EvaluationError, match=re.escape(message)):
        run()
