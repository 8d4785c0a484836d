import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.bootstrap import block_bootstrap
from ml_assets.calibration import calibration_table, rate_with_error
from ml_assets.errors import EvaluationError
from ml_assets.metric_values import compute
from ml_assets.slices import slice_table

N = 1200
RNG = np.random.default_rng(5)
BLOCK = np.repeat(np.arange(20), 60)
LOGIT = RNG.normal(-0.5, 1.0, N)
Y = (RNG.random(N) < 1 / (1 + np.exp(-LOGIT))).astype(int)
SCORE = 1 / (1 + np.exp(-LOGIT))


def table(columns, **changes):
    arguments = {"metric": "roc_auc", "replicates": 100, "seed": 1} | changes
    return slice_table(task="binary", y_true=Y, y_score=SCORE, blocks=BLOCK, columns=pd.DataFrame(columns), **arguments)


def shape(found):
    return [(part.column, part.value, part.n_rows) for part in found.slices]


CARRIER = np.repeat(np.array(["UA", "AA", "B6", "XX", None], dtype=object), [600, 300, 200, 60, 40])
RNG.shuffle(CARRIER)


def test_a_category_is_cut_by_value_with_the_rare_pooled_and_the_missing_apart():
    found = table({"carrier": CARRIER}, min_rows=100)
    assert shape(found) == [
        ("carrier", "UA", 600),
        ("carrier", "AA", 300),
        ("carrier", "B6", 200),
        ("carrier", "(other)", 60),
        ("carrier", "(missing)", 40),
    ]


def test_only_so_many_values_are_kept():
    assert [value for _, value, _ in shape(table({"carrier": CARRIER}, max_values=1))] == [
        "UA",
        "(other)",
        "(missing)",
    ]


def test_a_slice_is_what_the_metric_is_on_its_rows():
    part = table({"carrier": CARRIER}).slices[0]
    inside = CARRIER == "UA"
    assert part.interval is not None
    assert part.interval.estimate == pytest.approx(compute("roc_auc", Y[inside], SCORE[inside]), rel=1e-12)
    assert part.mean_true == pytest.approx(Y[inside].mean())
    assert part.mean_predicted == pytest.approx(SCORE[inside].mean())
    assert part.interval.lower < part.interval.estimate < part.interval.upper


def test_numbers_are_cut_at_quantiles_in_their_order():
    distance = np.arange(N, dtype=float)
    distance[:3] = np.nan
    assert shape(table({"distance": distance})) == [
        ("distance", "3 – 302", 300),
        ("distance", "303 – 601", 299),
        ("distance", "602 – 900", 299),
        ("distance", "901 – 1199", 299),
        ("distance", "(missing)", 3),
    ]


def test_numbers_with_few_values_and_flags_are_categories():
    stops = np.where(np.arange(N) < 700, 0, 1)
    found = table({"stops": stops, "late": stops == 1, "share": stops / 2})
    assert shape(found) == [
        ("stops", "0", 700),
        ("stops", "1", 500),
        ("late", "False", 700),
        ("late", "True", 500),
        ("share", "0", 700),
        ("share", "0.5", 500),
    ]


@given(st.lists(st.one_of(st.none(), st.integers(0, 8)), min_size=N, max_size=N), st.integers(1, 300))
@settings(deadline=None, max_examples=10)
def test_every_row_is_in_one_slice_of_a_column(values, min_rows):
    found = table({"value": pd.Series(values, dtype="Int64")}, metric="accuracy", min_rows=min_rows, replicates=2)
    assert sum(part.n_rows for part in found.slices) == N
    assert len({part.value for part in found.slices}) == len(found.slices)


def test_the_level_is_adjusted_for_the_number_of_slices():
    found = table({"carrier": CARRIER, "half": np.arange(N) < 600}, confidence=0.93)
    assert len(found.slices) == 7
    assert (found.family_confidence, found.confidence) == (0.93, pytest.approx(0.99))
    alone = table({"half": np.arange(N) < 600}, confidence=0.93).slices[0].interval
    among = found.slices[-1].interval
    assert alone is not None
    assert among is not None
    assert among.upper - among.lower > alone.upper - alone.lower


def test_adjusted_intervals_hold_together_as_often_as_they_say():
    rng, trials, held = np.random.default_rng(3), 150, 0
    block = np.repeat(np.arange(30), 20)
    for _ in range(trials):
        error = rng.normal(0, 1, 30)[block] + rng.normal(0, 1, 600)
        found = slice_table(
            task="regression",
            y_true=np.zeros(600),
            y_score=error,
            blocks=block,
            columns=pd.DataFrame({"group": np.arange(600) % 6}),
            metric="bias",
            confidence=0.9,
            replicates=200,
            min_rows=10,
        )
        held += all(p.interval is not None and p.interval.lower <= 0 <= p.interval.upper for p in found.slices)
    assert held / trials >= 0.85


def test_a_slice_without_a_value_says_why():
    first_days = np.where(BLOCK < 3, "opening", "later")
    one_class = np.where(Y == 1, "won", "lost")
    opening, *_ = [p for p in table({"days": first_days, "won": one_class}).slices if p.value == "opening"]
    assert opening.interval is None
    assert opening.reason.startswith("the 180 rows fall into 3 blocks; an interval needs at least 5")
    for part in table({"won": one_class}).slices:
        assert part.interval is None
        assert f"roc_auc is not defined on these {part.n_rows} rows" in part.reason


def test_a_wrong_metric_is_no_slice_without_a_value():
    with pytest.raises(EvaluationError, match="there is no metric 'mae' for binary"):
        table({"carrier": CARRIER}, metric="mae")


def test_columns_must_have_the_rows():
    with pytest.raises(EvaluationError, match="the slice columns have 3 rows, but y_true has 1200"):
        table({"carrier": ["a", "b", "c"]})


def test_multiclass_slices_tell_how_often_the_top_class_is_right():
    classes = ("blue", "red")
    score = np.column_stack([1 - SCORE, SCORE])
    found = slice_table(
        task="multiclass",
        y_true=np.array(classes)[Y],
        y_score=score,
        blocks=BLOCK,
        columns=pd.DataFrame({"all": np.ones(N)}),
        metric="accuracy",
        classes=classes,
        replicates=20,
    )
    (part,) = found.slices
    assert part.interval is not None
    assert part.mean_true == pytest.approx(part.interval.estimate)
    assert part.mean_predicted == pytest.approx(score.max(axis=1).mean())


def test_calibration_bins_hold_all_rows_in_order():
    bins = calibration_table(Y.astype(float), SCORE, BLOCK)
    assert len(bins) == 10
    assert sum(b.n_rows for b in bins) == N
    assert all(one.upper <= other.lower for one, other in itertools.pairwise(bins))
    inside = (bins[4].lower <= SCORE) & (bins[4].upper >= SCORE)
    assert bins[4].observed_rate == pytest.approx(Y[inside].mean())
    assert bins[4].mean_predicted == pytest.approx(SCORE[inside].mean())
    # Scores were made to be calibrated.
    assert all(abs(b.observed_rate - b.mean_predicted) < 4 * (b.standard_error or 0) for b in bins)


def test_equal_scores_stay_in_one_bin():
    (one,) = calibration_table(Y.astype(float), np.full(N, 0.3), BLOCK)
    assert (one.n_rows, one.lower, one.upper) == (N, 0.3, 0.3)


def test_the_error_of_a_rate_is_that_of_the_bootstrap():
    rng = np.random.default_rng(8)
    block = np.sort(rng.integers(0, 60, 3000))
    target = (rng.random(3000) < rng.uniform(0.1, 0.6, 60)[block]).astype(float)
    rate, error = rate_with_error(target, block)
    drawn = block_bootstrap(
        task="regression",
        y_true=np.zeros(3000),
        scores={"m": target},
        blocks=block,
        metrics=["bias"],
        replicates=20_000,
    )
    assert rate == target.mean()
    assert error == pytest.approx(drawn.interval("m", "bias").standard_error, rel=0.05)


def test_one_block_has_no_error():
    assert rate_with_error(np.array([0.0, 1.0]), np.array([3, 3])) == (0.5, None)
