import numpy as np
import pytest
import sklearn.metrics as sk  # noqa: TID253 - the reference
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.block_statistics import pair_wins
from ml_assets.bootstrap import IntervalMethod, block_bootstrap, draw_block_weights
from ml_assets.errors import EvaluationError
from ml_assets.metric_values import Ranking, compute
from ml_assets.metrics import METRICS

CLASSES = ("blue", "green", "red")
BINARY_METRICS = sorted(n for n, m in METRICS.items() if "binary" in m.tasks)
MULTICLASS_METRICS = sorted(n for n, m in METRICS.items() if "multiclass" in m.tasks)
REGRESSION_METRICS = sorted(n for n, m in METRICS.items() if "regression" in m.tasks)


def days(n_rows: int, n_days: int, seed: int = 3) -> np.ndarray:
    start = np.datetime64("2013-02-01")
    return start + np.sort(np.random.default_rng(seed).integers(0, n_days, n_rows))


def binary_rows(n_rows: int = 600, n_days: int = 12, seed: int = 0):
    rng = np.random.default_rng(seed)
    block = days(n_rows, n_days, seed)
    effect = rng.normal(0, 0.8, n_days)[(block - block.min()).astype(int)]
    logit = rng.normal(-1.0, 1.0, n_rows)
    y = (rng.random(n_rows) < 1 / (1 + np.exp(-(logit + effect)))).astype(int)
    return y, np.round(1 / (1 + np.exp(-logit)), 2), block


def replicate_by_repeating(name, y, score, block, weights, **kwargs):
    """The metric on the rows of the drawn blocks, each row repeated as often as its block was drawn."""
    codes = np.unique(block, return_inverse=True)[1]
    values = []
    for weight in weights:
        rows = np.repeat(np.arange(y.size), weight.astype(int)[codes])
        values.append(compute(name, y[rows], score[rows], **kwargs))
    return np.array(values)


def weights_of(n_blocks: int, replicates: int, seed: int) -> np.ndarray:
    return np.concatenate(list(draw_block_weights(n_blocks, replicates, seed)))


class TestEqualsTheStraightforwardWay:
    def test_binary(self):
        y, score, block = binary_rows()
        found = block_bootstrap(
            task="binary",
            y_true=y,
            scores={"m": score},
            blocks=block,
            metrics=BINARY_METRICS,
            replicates=40,
            seed=5,
        )
        for name in BINARY_METRICS:
            expected = replicate_by_repeating(name, y, score, block, weights_of(12, 40, 5))
            np.testing.assert_allclose(found.values["m", name], expected, rtol=1e-12)
            assert found.estimates["m", name] == pytest.approx(compute(name, y, score), rel=1e-12)

    def test_auc_of_scikit_learn(self):
        y, score, block = binary_rows()
        found = block_bootstrap(
            task="binary",
            y_true=y,
            scores={"m": score},
            blocks=block,
            metrics=["roc_auc"],
            replicates=40,
            seed=5,
        )
        codes = np.unique(block, return_inverse=True)[1]
        expected = [sk.roc_auc_score(y, score, sample_weight=w[codes]) for w in weights_of(12, 40, 5)]
        np.testing.assert_allclose(found.values["m", "roc_auc"], expected, rtol=1e-12)

    def test_log_loss_of_scikit_learn(self):
        y, score, block = binary_rows()
        found = block_bootstrap(
            task="binary",
            y_true=y,
            scores={"m": score},
            blocks=block,
            metrics=["log_loss"],
            replicates=40,
            seed=5,
        )
        codes = np.unique(block, return_inverse=True)[1]
        expected = [sk.log_loss(y, score, sample_weight=w[codes]) for w in weights_of(12, 40, 5)]
        np.testing.assert_allclose(found.values["m", "log_loss"], expected, rtol=1e-12)

    def test_without_a_block_the_metric_is_that_of_the_other_rows(self):
        y, score, block = binary_rows()
        found = block_bootstrap(
            task="binary",
            y_true=y,
            scores={"m": score},
            blocks=block,
            metrics=BINARY_METRICS,
            replicates=2,
        )
        for name in BINARY_METRICS:
            expected = [compute(name, y[block != day], score[block != day]) for day in np.unique(block)]
            np.testing.assert_allclose(found.without["m", name], expected, rtol=1e-12)

    def test_auc_with_more_blocks_than_replicates(self):
        y, score, _ = binary_rows()
        rows = np.arange(y.size)
        found = block_bootstrap(
            task="binary",
            y_true=y,
            scores={"m": score},
            blocks=rows,
            metrics=["roc_auc"],
            replicates=20,
            seed=5,
        )
        expected = replicate_by_repeating("roc_auc", y, score, rows, weights_of(y.size, 20, 5))
        np.testing.assert_allclose(found.values["m", "roc_auc"], expected, rtol=1e-12)

    def test_multiclass(self):
        rng = np.random.default_rng(2)
        y, score, block = (
            np.array(CLASSES)[rng.integers(0, 3, 500)],
            rng.dirichlet([1, 1, 1], 500),
            days(500, 9),
        )
        found = block_bootstrap(
            task="multiclass",
            y_true=y,
            scores={"m": score},
            blocks=block,
            metrics=MULTICLASS_METRICS,
            classes=CLASSES,
            replicates=25,
            seed=1,
        )
        for name in MULTICLASS_METRICS:
            expected = replicate_by_repeating(name, y, score, block, weights_of(9, 25, 1), classes=CLASSES)
            np.testing.assert_allclose(found.values["m", name], expected, rtol=1e-12)

    def test_regression(self):
        rng = np.random.default_rng(4)
        y = rng.poisson(20.0, 500).astype(float)
        score, block = y + rng.normal(1, 3, 500) + 5.0, days(500, 9)
        found = block_bootstrap(
            task="regression",
            y_true=y,
            scores={"m": score},
            blocks=block,
            metrics=REGRESSION_METRICS,
            replicates=25,
            seed=1,
        )
        for name in REGRESSION_METRICS:
            expected = replicate_by_repeating(name, y, score, block, weights_of(9, 25, 1))
            np.testing.assert_allclose(found.values["m", name], expected, rtol=1e-12)


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 6), st.integers(0, 4)), min_size=2, max_size=80))
@settings(deadline=None)
def test_pair_wins_add_up_to_the_auc(rows):
    y, score, block = (np.array(column) for column in zip(*rows, strict=True))
    n_pairs = int(y.sum() * (1 - y).sum())
    wins = pair_wins(y, score.astype(float), block, 5)
    if n_pairs:
        assert wins.sum() / n_pairs == pytest.approx(Ranking(y, score.astype(float)).roc_auc(), rel=1e-14)
    else:
        assert wins.sum() == 0


def bootstrap(y, scores, block, **changes):
    arguments = {"metrics": ["roc_auc", "log_loss"], "replicates": 200, "seed": 11} | changes
    return block_bootstrap(task="binary", y_true=y, scores=scores, blocks=block, **arguments)


def test_a_model_against_itself_differs_by_nothing():
    y, score, block = binary_rows()
    found = bootstrap(y, {"candidate": score, "champion": score.copy()}, block)
    for metric in ("roc_auc", "log_loss"):
        interval = found.improvement(metric, "candidate", "champion")
        assert (interval.estimate, interval.lower, interval.upper, interval.standard_error) == (0, 0, 0, 0)


@given(st.integers(0, 1000))
@settings(deadline=None, max_examples=20)
def test_the_order_of_rows_does_not_matter(seed):
    y, score, block = binary_rows()
    order = np.random.default_rng(seed).permutation(y.size)
    one = bootstrap(y, {"m": score}, block)
    other = bootstrap(y[order], {"m": score[order]}, block[order])
    np.testing.assert_array_equal(other.values["m", "roc_auc"], one.values["m", "roc_auc"])
    np.testing.assert_allclose(other.values["m", "log_loss"], one.values["m", "log_loss"], rtol=1e-13)


def test_the_names_of_blocks_do_not_matter():
    y, score, block = binary_rows()
    same_order = np.array([str(day) for day in block], dtype=object)
    reversed_order = -(block - block.min()).astype(int)
    one, other, third = (
        bootstrap(y, {"m": score}, b, replicates=20_000).interval("m", "roc_auc")
        for b in (block, same_order, reversed_order)
    )
    assert one == other
    assert third.estimate == one.estimate
    assert (third.lower, third.upper) == pytest.approx((one.lower, one.upper), abs=0.1 * one.standard_error)


def test_a_seed_gives_the_same_numbers_and_another_seed_others():
    y, score, block = binary_rows()
    one, again, other = (bootstrap(y, {"m": score}, block, seed=seed).interval("m", "roc_auc") for seed in (1, 1, 2))
    assert one == again
    assert one.estimate == other.estimate
    assert one.standard_error != other.standard_error


def test_day_blocks_give_a_wider_interval_than_rows_when_days_differ():
    y, score, block = binary_rows(n_rows=4000, n_days=30)
    by_day = bootstrap(y, {"m": score}, block).interval("m", "log_loss")
    by_row = bootstrap(y, {"m": score}, np.arange(y.size)).interval("m", "log_loss")
    assert by_day.standard_error > 1.5 * by_row.standard_error
    assert by_day.n_blocks == 30


def test_the_standard_error_of_a_mean_is_that_of_its_formula():
    rng = np.random.default_rng(0)
    block = np.repeat(np.arange(50), 20)
    y = rng.normal(0, 1, 50)[block] + rng.normal(0, 1, 1000)
    found = block_bootstrap(
        task="regression",
        y_true=y,
        scores={"m": np.zeros(1000)},
        blocks=block,
        metrics=["bias"],
        replicates=20_000,
    ).interval("m", "bias")
    means = y.reshape(50, 20).mean(axis=1)
    assert found.standard_error == pytest.approx(means.std(ddof=0) / np.sqrt(50), rel=0.02)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    block, covered, trials = np.repeat(np.arange(40), 5), 0, 300
    for seed in range(trials):
        y = rng.normal(0, 1, 40)[block] + rng.normal(0, 1, 200)
        found = block_bootstrap(
            task="regression",
            y_true=y,
            scores={"m": np.zeros(200)},
            blocks=block,
            metrics=["bias"],
            seed=seed,
        ).interval("m", "bias", confidence=0.9)
        covered += found.lower <= 0.0 <= found.upper
    assert 0.84 <= covered / trials <= 0.94


def one_sided_misses(n_blocks: int, trials: int) -> dict[IntervalMethod, tuple[float, float]]:
    """Share of 95 % intervals wholly above and wholly below the truth, by method."""
    rng = np.random.default_rng(n_blocks)
    missed: dict[IntervalMethod, list[int]] = {"student": [0, 0], "percentile": [0, 0]}
    for seed in range(trials):
        n_rows = rng.poisson(8, n_blocks) + 1
        block = np.repeat(np.arange(n_blocks), n_rows)
        y = rng.normal(0, 1, n_blocks)[block] + rng.normal(0, 1, block.size)
        found = block_bootstrap(
            task="regression",
            y_true=y,
            scores={"m": np.zeros(block.size)},
            blocks=block,
            metrics=["bias"],
            replicates=300,
            seed=seed,
        )
        for method, count in missed.items():
            interval = found.interval("m", "bias", method=method)
            count[0] += interval.lower > 0.0
            count[1] += interval.upper < 0.0
    return {method: (above / trials, below / trials) for method, (above, below) in missed.items()}


@pytest.mark.parametrize("n_blocks", [5, 8])
def test_with_few_blocks_neither_side_misses_more_often_than_it_says(n_blocks):
    trials = 1_000
    missed = one_sided_misses(n_blocks, trials)
    three_errors = 3 * (0.025 * 0.975 / trials) ** 0.5
    assert max(missed["student"]) <= 0.025 + three_errors
    # The quantiles of the replicates do: that is why decisions do not rest on them.
    assert min(missed["percentile"]) > 0.025 + three_errors


def test_many_blocks_have_no_jackknife_and_much_the_same_interval(monkeypatch):
    y, score, block = binary_rows(n_rows=2000, n_days=60)
    one = bootstrap(y, {"m": score}, block, replicates=4000).interval("m", "log_loss")
    monkeypatch.setattr("ml_assets.bootstrap.MAX_JACKKNIFE_BLOCKS", 59)
    found = bootstrap(y, {"m": score}, block, replicates=4000)
    assert found.without["m", "log_loss"].size == 0
    other = found.interval("m", "log_loss")
    assert other.upper - other.lower == pytest.approx(one.upper - one.lower, rel=0.05)


def test_the_three_methods_agree_on_a_symmetric_statistic():
    y, score, block = binary_rows(n_rows=4000, n_days=40)
    found = bootstrap(y, {"m": score}, block, replicates=20_000)
    percentile = found.interval("m", "log_loss")
    for method in ("basic", "student"):
        other = found.interval("m", "log_loss", method=method)
        assert (other.lower, other.upper) == pytest.approx(
            (percentile.lower, percentile.upper), abs=0.35 * percentile.standard_error
        )


def test_an_interval_stays_within_what_the_metric_can_be():
    y, _, block = binary_rows(n_rows=100, n_days=6)
    score = np.clip(y * 0.8 + np.random.default_rng(0).random(100) * 0.25, 0, 1)
    interval = bootstrap(y, {"m": score}, block).interval("m", "roc_auc", confidence=0.999, method="student")
    assert interval.upper <= 1.0


def test_few_blocks_are_refused():
    y, score, _ = binary_rows()
    with pytest.raises(EvaluationError, match="600 rows fall into 4 blocks; an interval needs at least 5"):
        bootstrap(y, {"m": score}, np.arange(600) % 4)


def rare_class(n_blocks: int):
    """One row of class 1 in a single block: absent from (1 − 1/n)^n of the resamplings, about 37 %."""
    block = np.repeat(np.arange(n_blocks), 10)
    y = np.zeros(block.size, dtype=int)
    y[0] = 1
    return y, np.linspace(0.1, 0.9, block.size), block


def test_a_metric_that_is_often_undefined_has_no_interval():
    found = bootstrap(*[{"m": part} if i == 1 else part for i, part in enumerate(rare_class(20))])
    with pytest.raises(EvaluationError, match=r"roc_auc had no value in \d+ of 200 resamplings of 20 blocks"):
        found.interval("m", "roc_auc")
    assert found.interval("m", "log_loss").undefined_replicates == 0


def test_a_few_undefined_replicates_are_counted():
    y, score, block = rare_class(20)
    y[[10, 20, 30, 40]] = 1
    interval = bootstrap(y, {"m": score}, block, replicates=5000).interval("m", "roc_auc")
    # Five of twenty blocks have a positive: none of them is drawn in (15/20)^20 = 0.3 % of the resamplings.
    assert 0 < interval.undefined_replicates < 0.01 * interval.replicates


def test_an_undefined_estimate_is_an_error():
    _, score, block = binary_rows()
    with pytest.raises(EvaluationError, match="roc_auc is not defined on these 600 rows"):
        bootstrap(np.zeros(600), {"m": score}, block)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"blocks": np.arange(10)}, r"blocks has shape \(10,\); expected one label for each of 600 rows"),
        (
            {"blocks": np.where(np.arange(600) < 3, np.nan, np.arange(600))},
            "3 of 600 rows have no block label",
        ),
        ({"replicates": 1}, "replicates is 1"),
        ({"metrics": ["mae"]}, "there is no metric 'mae' for binary"),
    ],
)
def test_wrong_arguments_are_told(changes, message):
    y, score, block = binary_rows()
    arguments = {"blocks": block, "metrics": ["roc_auc"]} | changes
    with pytest.raises(EvaluationError, match=message):
        block_bootstrap(task="binary", y_true=y, scores={"m": score}, **arguments)


def test_confidence_must_be_a_share():
    y, score, block = binary_rows()
    with pytest.raises(EvaluationError, match="confidence is 95"):
        bootstrap(y, {"m": score}, block).interval("m", "roc_auc", confidence=95)


def test_weights_are_drawn_alike_in_chunks_of_any_size(monkeypatch):
    weights = weights_of(7, 1001, 0)
    assert (weights.sum(axis=1) == 7).all()
    assert weights.mean(axis=0) == pytest.approx(np.ones(7), abs=0.12)
    monkeypatch.setattr("ml_assets.bootstrap._CHUNK_ELEMENTS", 21)
    assert len(list(draw_block_weights(7, 1001, 0))) == 334
    np.testing.assert_array_equal(weights_of(7, 1001, 0), weights)
