import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from ml_assets.bootstrap import Interval
from ml_assets.evaluation import evaluate
from ml_assets.evaluation_report import EvaluationReport
from ml_assets.plot_style import in_words
from ml_assets.plots import _short, figures, overview
from ml_assets.slices import Slice

N = 900
DAY = np.repeat(np.arange(9), 100)
CLASSIFICATION = [
    "roc",
    "precision_recall",
    "calibration",
    "score_distribution",
    "confusion",
    "slices",
    "improvement",
]


def rows(seed: int):
    rng = np.random.default_rng(seed)
    columns = pd.DataFrame(
        {
            "origin": rng.choice(["EWR", "JFK"], N),
            "period": np.where(np.arange(N) < 120, "only at first", "always"),
        }
    )
    return rng, columns


def binary(*, champion: bool = True) -> EvaluationReport:
    rng, columns = rows(1)
    logit = rng.normal(-1, 1, N)
    score = 1 / (1 + np.exp(-logit))
    scores = {"candidate": score, "champion": score**1.3, "baseline": np.full(N, 0.3)}
    return evaluate(
        task="binary",
        y_true=(rng.random(N) < score).astype(int),
        scores=scores if champion else {k: v for k, v in scores.items() if k != "champion"},
        blocks=DAY,
        metrics=["roc_auc", "log_loss", "average_precision"],
        slice_columns=columns,
        replicates=50,
        event_time=pd.Timestamp("2013-03-01") + pd.to_timedelta(DAY, unit="D"),
    )


def multiclass(n_classes: int = 3) -> EvaluationReport:
    rng, columns = rows(2)
    score = rng.dirichlet(np.ones(n_classes), N)
    classes = [f"class {number}" for number in range(n_classes)]
    return evaluate(
        task="multiclass",
        y_true=np.array(classes)[[rng.choice(n_classes, p=p) for p in score]],
        scores={"candidate": score, "baseline": np.full((N, n_classes), 1 / n_classes)},
        classes=classes,
        blocks=DAY,
        metrics=["log_loss", "accuracy"],
        slice_columns=columns,
        replicates=50,
    )


def regression() -> EvaluationReport:
    rng, columns = rows(3)
    y = rng.gamma(3, 20, N)
    return evaluate(
        task="regression",
        y_true=y,
        scores={"candidate": y + rng.normal(2, 5, N), "baseline": np.full(N, 60.0)},
        blocks=DAY,
        metrics=["wape", "bias"],
        slice_columns=columns,
        replicates=50,
    )


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (binary, CLASSIFICATION),
        (multiclass, CLASSIFICATION),
        (regression, ["predicted_vs_actual", "residuals_over_time", "error_by_slice", "improvement"]),
    ],
)
def test_each_task_has_its_pictures_small_and_of_their_size(make, names):
    report = make()
    found = figures(report, partition="flights/arrival_delay 2013-03")
    assert list(found) == names
    for data in found.values():
        image = opened(data)
        assert (image.format, image.size) == ("PNG", (640, 420))
        assert len(data) <= 40_000
        # More than a frame: there is ink of many shades in it.
        assert len(image.convert("RGB").getcolors(1_000_000) or []) > 10
    together = overview(report, partition="2013-03")
    assert opened(together).size == (900, 600)
    assert len(together) <= 60_000


def test_the_same_report_gives_the_same_bytes_without_a_date_or_program_in_them():
    report = binary()
    one, other = figures(report), figures(EvaluationReport.from_document(report.to_document()))
    assert one == other
    assert overview(report) == overview(report)
    for data in one.values():
        assert opened(data).info.keys() <= {"dpi"}


def test_the_partition_is_written_on_it():
    report = binary()
    assert figures(report, partition="2013-03")["roc"] != figures(report, partition="2013-04")["roc"]


def test_the_champion_is_drawn_when_there_is_one():
    with_champion, without = (
        opened(figures(binary(champion=champion))["roc"]).convert("RGB") for champion in (True, False)
    )

    def orange(image: Image.Image) -> int:
        red, green, blue = np.moveaxis(np.asarray(image, dtype=int), -1, 0)
        return int(((red > 180) & (green < 130) & (blue < 80)).sum())

    assert orange(with_champion) > 300
    assert orange(without) == 0


def test_many_slices_get_a_taller_picture():
    report = binary()
    assert report.slices is not None
    many = replace(report, slices=replace(report.slices, slices=report.slices.slices * 12))
    assert opened(figures(many)["slices"]).size[1] > 420
    assert opened(overview(many)).size == (900, 600)


def test_many_classes_and_slices_without_a_value_can_be_drawn():
    report = multiclass(n_classes=12)
    assert report.slices is not None
    assert any(part.interval is None for part in report.slices.slices)
    assert list(figures(report)) == CLASSIFICATION


def test_without_slices_the_overview_keeps_its_other_panels():
    assert opened(overview(replace(binary(), slices=None))).size == (900, 600)
    assert "slices" not in figures(replace(binary(), slices=None))


def test_without_a_slice_that_has_a_value_the_overview_can_be_drawn():
    report = binary()
    assert report.slices is not None
    bare = tuple(replace(part, interval=None, reason="no rows") for part in report.slices.slices)
    assert overview(replace(report, slices=replace(report.slices, slices=bare)))


def test_one_class_leaves_out_the_curves():
    score = np.random.default_rng(0).random(N)
    report = evaluate(
        task="binary",
        y_true=np.zeros(N),
        scores={"candidate": score, "baseline": score},
        blocks=DAY,
        metrics=["log_loss"],
        replicates=20,
    )
    assert "roc" not in figures(report)
    assert overview(report)


def interval(lower: float, estimate: float, upper: float) -> Interval:
    return Interval(
        estimate=estimate,
        lower=lower,
        upper=upper,
        standard_error=0.1,
        n_blocks=9,
        confidence=0.95,
        replicates=10,
    )


def test_numbers_have_as_many_digits_as_their_size_asks_for():
    assert in_words(interval(0.62, 0.649, 0.683)) == "0.649 [0.620, 0.683]"
    assert in_words(interval(-0.009, -0.0023, 0.0036), "+") == "−0.0023 [−0.0090, +0.0036]"
    assert in_words(interval(4306.21, 4595.84, 4899.33)) == "4595.8 [4306.2, 4899.3]"
    assert in_words(interval(0.0, 0.0, 0.0), "+") == "no difference"


@pytest.mark.parametrize(
    ("column", "value", "expected"),
    [
        ("carrier", "UA", "carrier  UA"),
        ("a_long_column_name", "always", "a_long_colu…  always"),
        ("a_long_column_name", "a value that is long", "a_long…  a value th…"),
    ],
)
def test_long_names_of_slices_are_cut(column, value, expected):
    part = Slice(column=column, value=value, n_rows=1, mean_true=0, mean_predicted=0, metric="mae", interval=None)
    assert _short(part, 20) == expected
    assert len(expected) <= 20
