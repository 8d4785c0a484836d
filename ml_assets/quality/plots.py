"""Pictures of a champion's performance on one partition as small PNGs; equal verdicts give equal bytes."""

from typing import TYPE_CHECKING

import numpy as np

from ml_assets.metrics import METRICS, Task
from ml_assets.plot_style import (
    BAND,
    COLOURS,
    FIGURE_BYTES,
    INK,
    MUTED,
    SMALL,
    new_figure,
    style_axes,
    to_png,
)
from ml_assets.quality.realised import Performance
from ml_assets.quality.verdict import Quality, bounded

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE = (6.4, 4.2)
WARNING = COLOURS["champion"]


def calibration_picture(quality: Quality, *, task: Task, partition: str) -> bytes:
    """Return what happened against what was predicted, with intervals over days, and the gap in words.

    Raises:
        ValueError: If the calibration was not judged.
    """
    if quality.calibration is None:
        raise ValueError("the calibration was not judged; expected a verdict with labels of enough days.")
    bins, worst = quality.calibration.bins, quality.calibration.worst
    figure = new_figure(SIZE)
    ax = figure.subplots()
    x, y = np.array([b.mean_predicted for b in bins]), np.array([b.mean_true for b in bins])
    ends = np.array([[b.lower for b in bins], [b.upper for b in bins]])
    if task != "regression":
        ends = np.clip(ends, 0.0, 1.0)
    low, high = min(float(x.min()), float(ends.min())), max(float(x.max()), float(ends.max()))
    room = 0.04 * (high - low or 1.0)
    line = np.array([low - room, high + room])
    ax.plot(line, line, color="#BDBDBD", lw=1, zorder=0)
    if task != "regression":
        gap = quality.settings.calibration_gap
        ax.fill_between(line, line - gap, line + gap, color=BAND, lw=0, zorder=0)
    colour = WARNING if worst.miscalibrated else COLOURS["candidate"]
    ax.errorbar(x, y, np.abs(ends - y), fmt="o-", color=colour, ms=4.5, lw=1.4, elinewidth=1)
    ax.set_xlim(*line)
    ax.set_ylim(*line)
    whose = f" of class {worst.label}" if worst.label else ""
    words = f"mean gap {worst.gap.estimate:+.3f}, p = {worst.adjusted:.2g}".replace("-", "−")
    ax.text(0.03, 0.95, words, transform=ax.transAxes, va="top", color=colour, fontweight="bold", fontsize=9)
    if task != "regression":
        ax.text(0.03, 0.89, "band: the policy's gap", transform=ax.transAxes, va="top", color=MUTED, fontsize=SMALL)
    truth = "mean target, 95 %" if task == "regression" else "observed rate, 95 %"
    predicted = "mean prediction" if task == "regression" else "mean predicted probability"
    style_axes(ax, f"Calibration{whose}  {partition}", predicted, truth)
    return to_png(figure, FIGURE_BYTES)


def performance_picture(quality: Quality, *, partition: str) -> bytes:
    """Return each metric at the champion's evaluation, as estimated and as realised, with intervals."""
    known = dict.fromkeys([*quality.reference.gains, *quality.estimated.gains])
    metrics = [metric for metric in known if not METRICS[metric].zero_is_best]
    figure = new_figure((SIZE[0], 1.5 + 1.25 * max(1, len(metrics))))
    cells = figure.subplots(max(1, len(metrics)), 1, squeeze=False)[:, 0]
    for ax in cells[len(metrics) :]:
        ax.set_axis_off()
    for ax, metric in zip(cells, metrics, strict=False):
        _draw_metric(ax, quality, metric)
    basis = "by labels" if quality.basis == "realised" else "by the estimate"
    colour = {"decayed": WARNING, "suspected": "#E69F00"}.get(quality.verdict, INK)
    figure.suptitle(f"{partition}: {quality.verdict} ({basis})", x=0.01, ha="left", fontsize=10.5, color=colour)
    return to_png(figure, FIGURE_BYTES)


def _draw_metric(ax: "Axes", quality: Quality, metric: str) -> None:
    """Draw one metric's rows from top to bottom; a sure loss in the colour of a warning."""
    now: dict[str, Performance | None] = {"estimated": quality.estimated, "realised": quality.realised}
    rows = ["reference", *now]
    confidence, side = quality.settings.confidence, ax.get_yaxis_transform()
    for position, row in enumerate(rows):
        performance = now.get(row)
        gains = quality.reference.gains if row == "reference" else {} if performance is None else performance.gains
        if metric not in gains:
            why = "not measured"
            if row == "realised" and performance is None:
                why = "too few labelled days" if quality.n_labelled else "no labels yet"
            ax.text(0.015, position, why, transform=side, va="center", fontsize=SMALL, color=MUTED, style="italic")
            continue
        sure = performance is not None and any(loss.metric == metric for loss in performance.lost)
        colour = WARNING if sure else COLOURS["baseline"] if row == "reference" else COLOURS["candidate"]
        value = bounded(metric, gains[metric].value, confidence)
        ax.plot((value["lower"], value["upper"]), (position, position), color=colour, lw=2, alpha=0.6)
        ax.plot(value["value"], position, "o", color=colour, ms=4.5)
        if row == "reference":
            ax.axvline(value["value"], color=COLOURS["baseline"], lw=1, ls=":", zorder=0)
        text = f"{value['value']:.4g}"
        ax.text(1.02, position, text, transform=side, va="center", fontsize=SMALL, color=colour)
    ax.set_yticks(range(len(rows)), rows)
    ax.set_ylim(len(rows) - 0.4, -0.6)
    arrow = "higher is better" if METRICS[metric].greater_is_better else "lower is better"
    style_axes(ax, metric, arrow, grid="x")
