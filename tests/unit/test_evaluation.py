import json

import numpy as np
import pandas as pd
import pytest

from ml_assets.bootstrap import block_bootstrap
from ml_assets.errors import EvaluationError
from ml_assets.evaluation import evaluate
from ml_assets.evaluation_report import EvaluationReport
from ml_assets.metric_values import compute

N = 800
RNG = np.random.default_rng(9)
DAY = pd.Timestamp("2013-03-01") + pd.to_timedelta(np.repeat(np.arange(10), 80), unit="D")
TIME = pd.Series(DAY + pd.to_timedelta(RNG.integers(0, 24 * 60, N), unit="min"), index=np.arange(N) + 7)
LOGIT = RNG.normal(-1, 1, N)
Y = (RNG.random(N) < 1 / (1 + np.exp(-LOGIT))).astype(int)
CANDIDATE = np.round(1 / (1 + np.exp(-LOGIT)), 3)
CHAMPION = np.clip(CANDIDATE + RNG.normal(0, 0.15, N), 0, 1)
PRIOR = np.full(N, 0.3)
COLUMNS = pd.DataFrame({"origin": RNG.choice(["EWR", "JFK"], N), "distance": RNG.normal(900, 300, N)})
CLASSES = ("early", "late", "on time")


def binary(**changes) -> EvaluationReport:
    arguments = {
        "y_true": Y,
        "scores": {"candidate": CANDIDATE, "champion": CHAMPION, "baseline": PRIOR},
        "blocks": DAY,
        "metrics": ["roc_auc", "log_loss", "f1"],
        "slice_columns": COLUMNS,
        "replicates": 60,
        "seed": 3,
        "event_time": TIME,
    } | changes
    return evaluate(task="binary", **arguments)


def multiclass() -> EvaluationReport:
    score = RNG.dirichlet([1, 1, 1], N)
    y = np.array(CLASSES)[[RNG.choice(3, p=p) for p in score]]
    return evaluate(
        task="multiclass",
        y_true=y,
        scores={"baseline": np.full((N, 3), 1 / 3), "candidate": score},
        classes=CLASSES,
        blocks=DAY,
        metrics=["log_loss", "accuracy", "roc_auc_ovr"],
        slice_columns=COLUMNS,
        replicates=40,
    )


def regression() -> EvaluationReport:
    y = RNG.gamma(3.0, 20.0, N)
    return evaluate(
        task="regression",
        y_true=y,
        scores={"candidate": y + RNG.normal(2, 5, N), "baseline": np.full(N, 60.0)},
        blocks=[f"shift {9 - number}" for number in np.repeat(np.arange(10), 80)],
        metrics=["wape", "bias"],
        replicates=40,
        event_time=TIME,
    )


def test_the_intervals_are_those_of_the_bootstrap():
    report = binary()
    drawn = block_bootstrap(
        task="binary",
        y_true=Y,
        scores={"champion": CHAMPION},
        blocks=DAY,
        metrics=["log_loss"],
        replicates=60,
        seed=3,
    )
    assert report.interval("champion", "log_loss") == drawn.interval("champion", "log_loss")
    assert report.models == ("candidate", "champion", "baseline")
    assert (report.n_rows, report.n_blocks) == (N, 10)
    assert (report.first_event, report.last_event) == (TIME.min().isoformat(), TIME.max().isoformat())


def test_differences_point_to_better_for_every_metric():
    report = binary()
    assert [(d.reference, d.metric) for d in report.differences] == [
        (reference, metric) for reference in ("champion", "baseline") for metric in ("roc_auc", "log_loss", "f1")
    ]
    loss = report.difference("log_loss", "champion")
    assert loss.difference.estimate < 0 < loss.improvement.lower
    auc = report.difference("roc_auc", "baseline")
    assert auc.improvement.estimate == pytest.approx(compute("roc_auc", Y, CANDIDATE) - 0.5)


def test_a_first_candidate_has_no_champion():
    report = binary(scores={"candidate": CANDIDATE, "baseline": PRIOR})
    assert report.models == ("candidate", "baseline")
    assert {d.reference for d in report.differences} == {"baseline"}
    with pytest.raises(EvaluationError, match="the evaluation has no roc_auc of champion; it has roc_auc"):
        report.difference("roc_auc", "champion")


def test_slices_are_of_the_first_metric_and_of_the_candidate():
    report = binary()
    assert report.slices is not None
    assert report.slices.metric == "roc_auc"
    assert {part.column for part in report.slices.slices} == {"origin", "distance"}
    inside = (COLUMNS["origin"] == "EWR").to_numpy()
    part = next(part for part in report.slices.slices if part.value == "EWR")
    assert part.interval is not None
    assert part.interval.estimate == pytest.approx(compute("roc_auc", Y[inside], CANDIDATE[inside]))
    assert binary(slice_columns=None).slices is None


def test_confusion_tables_at_one_half_and_at_the_rate():
    half, rate = binary().confusion
    assert half.threshold == 0.5
    assert rate.threshold == pytest.approx(Y.mean())
    for table in (half, rate):
        predicted = table.threshold <= CANDIDATE
        expected = [[int(((t == Y) & (p == predicted)).sum()) for p in (0, 1)] for t in (0, 1)]
        assert [list(row) for row in table.counts] == expected


def test_curves_are_thin_and_keep_their_area():
    report = binary()
    for curve in report.curves:
        assert len(curve.x) == len(curve.y) <= 200
        assert (np.diff(curve.x) >= 0).all()
    roc = next(c for c in report.curves if c.kind == "roc" and c.model == "candidate")
    assert (roc.x[0], roc.y[0], roc.x[-1], roc.y[-1]) == (0, 0, 1, 1)
    assert np.trapezoid(roc.y, roc.x) == pytest.approx(compute("roc_auc", Y, CANDIDATE), abs=0.002)
    precision = next(c for c in report.curves if c.kind == "precision_recall" and c.model == "baseline")
    assert (precision.x, precision.y) == ((1.0,), (pytest.approx(Y.mean(), abs=1e-6),))


def test_histograms_count_the_rows_of_each_class():
    zero, one = binary().histograms
    assert (zero.label, sum(zero.counts)) == ("0", N - Y.sum())
    assert (one.label, sum(one.counts)) == ("1", Y.sum())


def test_multiclass_sets_each_class_against_the_rest():
    report = multiclass()
    assert {(c.kind, c.label) for c in report.curves} == {
        (kind, label) for kind in ("roc", "precision_recall") for label in CLASSES
    }
    (table,) = report.confusion
    assert (table.threshold, table.labels) == (None, CLASSES)
    counts = np.array(table.counts)
    assert np.trace(counts) / counts.sum() == report.interval("candidate", "accuracy").estimate
    assert [h.label for h in report.histograms] == ["wrong", "right"]
    assert sum(b.n_rows for b in report.calibration[0].bins) == N


def test_regression_has_residuals_in_order_of_time():
    report = regression()
    candidate = [r for r in report.residuals if r.model == "candidate"]
    assert [r.block for r in candidate] == [f"shift {9 - number}" for number in range(10)]
    assert all(r.low < r.mean < r.high for r in candidate)
    weighted = np.average([r.mean for r in candidate], weights=[r.n_rows for r in candidate])
    assert weighted == pytest.approx(report.interval("candidate", "bias").estimate)
    assert report.heatmap is not None
    assert np.sum(report.heatmap.counts) == N
    assert report.curves == report.confusion == report.calibration == ()


def test_days_are_written_without_their_midnight():
    report = evaluate(
        task="regression",
        y_true=CANDIDATE,
        scores={"candidate": CHAMPION, "baseline": PRIOR},
        blocks=DAY,
        metrics=["mae"],
        replicates=10,
    )
    assert report.residuals[0].block == "2013-03-01"
    assert report.first_event is None


@pytest.mark.parametrize("make", [binary, multiclass, regression])
def test_the_document_is_json_and_gives_the_report_back(make):
    report = make()
    text = json.dumps(report.to_document(), allow_nan=False)
    assert EvaluationReport.from_document(json.loads(text)) == report
    assert len(text) < 100_000


def test_the_same_rows_give_the_same_document():
    assert json.dumps(binary().to_document()) == json.dumps(binary().to_document())


def test_a_document_of_another_release_is_refused():
    document = binary().to_document() | {"format": 99}
    with pytest.raises(EvaluationError, match=r"has format 99; expected 1.*materialize the evaluation again"):
        EvaluationReport.from_document(document)


def test_one_class_can_be_evaluated_by_what_is_defined():
    report = binary(y_true=np.zeros(N), metrics=["log_loss"], slice_columns=None)
    assert report.curves == ()
    assert report.interval("baseline", "log_loss").estimate == pytest.approx(-np.log(0.7))


def test_a_constant_target_has_a_heatmap():
    report = evaluate(
        task="regression",
        y_true=np.full(N, 2.0),
        scores={"candidate": np.full(N, 2.0), "baseline": np.full(N, 2.0)},
        blocks=DAY,
        metrics=["mae"],
        replicates=10,
    )
    assert report.heatmap is not None
    assert np.sum(report.heatmap.counts) == N


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": {"candidate": CANDIDATE}}, "scores are of candidate; expected candidate and baseline"),
        (
            {"scores": {"candidate": CANDIDATE, "baseline": PRIOR, "shadow": PRIOR}},
            "scores are of baseline, candidate, shadow",
        ),
        ({"y_true": np.zeros(N)}, "roc_auc is not defined on these 800 rows"),
        ({"blocks": np.arange(N) % 3}, "800 rows fall into 3 blocks"),
        ({"event_time": TIME[:5]}, "event_time has 5 values for 800 rows"),
        ({"metrics": ["auc"]}, "there is no metric 'auc' for binary"),
    ],
)
def test_wrong_arguments_are_told(changes, message):
    with pytest.raises(EvaluationError, match=message):
        binary(**({"metrics": ["roc_auc"]} | changes))


def test_the_candidate_is_not_compared_with_itself():
    with pytest.raises(EvaluationError, match="not compared with itself"):
        binary().difference("roc_auc", "candidate")
