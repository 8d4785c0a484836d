"""Pictures of an evaluation as small PNGs, drawn from the report alone; equal reports give equal bytes."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from ml_assets.evaluation_report import ConfusionTable, Curve, EvaluationReport, Heatmap
from ml_assets.metrics import METRICS
from ml_assets.plot_style import (
    BAND,
    COLOURS,
    FIGURE_BYTES,
    INK,
    MUTED,
    NORMAL,
    SMALL,
    Corner,
    in_words,
    label_corner,
    new_figure,
    style_axes,
    to_png,
)
from ml_assets.slices import Slice, SliceTable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DASHES = {"candidate": "-", "champion": "-", "baseline": "--"}
MARKERS = {"candidate": "o-", "champion": "s-", "baseline": "D"}
CLASS_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MIN_RECALL = 0.01

FIGURE_SIZE = (6.4, 4.2)
OVERVIEW_SIZE = (9.0, 6.0)
OVERVIEW_BYTES = 60_000
OVERVIEW_SLICES = 8

Draw = Callable[["Axes"], None]


def _curves(ax: "Axes", report: EvaluationReport, curves: Sequence[Curve], metric: str, *, brief: bool) -> str:
    """Draw and name a curve for each model or, for multiclass, frequent class; return words for the title."""
    table = report.confusion[0]
    n_rows = dict(zip(table.labels, map(sum, table.counts), strict=True))
    shown = sorted(curves, key=lambda curve: -n_rows.get(curve.label, 0))[: len(CLASS_COLOURS)]
    lines: list[tuple[str, str]] = []
    for curve, class_colour in zip(shown, CLASS_COLOURS, strict=False):
        colour = class_colour if curve.label else COLOURS[curve.model]
        # A constant score gives one threshold: a point, drawn as the level it stands for.
        x, y = (curve.x, curve.y) if len(curve.x) > 1 else ((0.0, 1.0), curve.y * 2)
        ax.plot(x, y, DASHES[curve.model], color=colour, lw=1.3 if curve.model == "baseline" else 1.8)
        words = curve.label or curve.model
        if not curve.label and metric in report.metrics:
            interval = report.interval(curve.model, metric)
            words += f"  {interval.estimate:.3f}" if brief else f"  {in_words(interval)}"
        lines.append((words, colour))
    crowded = np.interp(0.8, shown[0].x, shown[0].y) > 0.7
    free: Corner = "lower left" if crowded else "upper right"
    label_corner(ax, lines, "lower right" if shown[0].kind == "roc" else free)
    ax.set_xlim(-0.01, 1.01)
    ax.set_ylim(-0.01, 1.01)
    if not shown[0].label:
        return ""
    return f", {len(shown)} most frequent classes" if len(shown) < len(curves) else ", class against the rest"


def draw_roc(ax: "Axes", report: EvaluationReport, *, brief: bool = False) -> None:
    """Draw the ROC curves, named with their AUC; `brief` leaves out its interval."""
    ax.plot((0, 1), (0, 1), color="#BDBDBD", lw=1)
    curves = [curve for curve in report.curves if curve.kind == "roc"]
    which = _curves(ax, report, curves, "roc_auc", brief=brief)
    style_axes(ax, f"ROC curve{which}", "false-positive rate", "true-positive rate")


def draw_precision_recall(ax: "Axes", report: EvaluationReport) -> None:
    """Draw precision against recall, named with the average precision."""
    curves = []
    for curve in (curve for curve in report.curves if curve.kind == "precision_recall"):
        # The precision of the first few rows is noise that hides the rest.
        first = int(np.searchsorted(curve.x, MIN_RECALL))
        curves.append(replace(curve, x=curve.x[first:], y=curve.y[first:]))
    which = _curves(ax, report, curves, "average_precision", brief=False)
    style_axes(ax, f"Precision and recall{which}", f"recall (from {MIN_RECALL:g})", "precision")


def draw_calibration(ax: "Axes", report: EvaluationReport) -> None:
    """Draw observed rate against mean score with block errors, over a histogram of the candidate's scores."""
    low, high = 1.0, 0.0
    for table in reversed(report.calibration):
        x = np.array([b.mean_predicted for b in table.bins])
        rate = np.array([b.observed_rate for b in table.bins])
        half = np.array([1.96 * (b.standard_error or 0.0) for b in table.bins])
        ends = np.maximum(rate - half, 0.0), np.minimum(rate + half, 1.0)
        errors, colour = [rate - ends[0], ends[1] - rate], COLOURS[table.model]
        ax.errorbar(x, rate, errors, fmt=MARKERS[table.model], color=colour, ms=4, lw=1.3, elinewidth=1)
        low, high = min(low, x.min(), ends[0].min()), max(high, x.max(), ends[1].max())
    # Scores far from zero (of many classes' best) get the room to themselves.
    low, high = (0.9 * low if low > high / 3 else 0.0), min(1.0, high * 1.08)
    ax.plot((low, high), (low, high), color="#BDBDBD", lw=1, zorder=0)
    counts = np.sum([histogram.counts for histogram in report.histograms], axis=0)
    edges, tallest = np.linspace(0.0, 1.0, counts.size + 1), 0.16 * (high - low)
    heights = low + counts / max(1, counts.max()) * tallest
    ax.stairs(heights, edges, baseline=low, fill=True, color=BAND, zorder=0)
    ax.set_xlim(low, high)
    ax.set_ylim(low, high)
    label_corner(ax, [*((c.model, COLOURS[c.model]) for c in report.calibration)], "upper left")
    what = "share right" if report.task == "multiclass" else "observed rate"
    style_axes(ax, "Calibration", "mean predicted probability", f"{what}, 95 %")


def draw_score_distribution(ax: "Axes", report: EvaluationReport) -> None:
    """Draw the candidate's scores by true class, each as shares of its own rows."""
    lines = []
    for histogram, colour in zip(report.histograms, (COLOURS["baseline"], COLOURS["candidate"]), strict=True):
        shares = np.array(histogram.counts) / max(1, sum(histogram.counts))
        edges = np.linspace(0.0, 1.0, shares.size + 1)
        ax.stairs(shares, edges, fill=True, color=colour, alpha=0.25)
        ax.stairs(shares, edges, color=colour, lw=1.6)
        name = f"class {histogram.label}" if report.task == "binary" else histogram.label
        lines.append((f"{name}  ({sum(histogram.counts):,} rows)", colour))
    ax.set_ylim(0, 1.15 * ax.get_ylim()[1])
    label_corner(ax, lines, "upper right", columns=2)
    ax.set_xlim(0, 1)
    what = "highest class probability" if report.task == "multiclass" else "predicted probability"
    style_axes(ax, "Scores of the candidate by outcome", what, "share of rows")


def draw_confusion(ax: "Axes", table: ConfusionTable) -> None:
    """Draw one confusion table, each row shaded by shares of its true class."""
    counts = np.array(table.counts)
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    ax.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    size = NORMAL if len(table.labels) <= 4 else SMALL
    for row, column in np.ndindex(*counts.shape) if len(table.labels) <= 10 else ():
        text = f"{counts[row, column]:,}\n{shares[row, column]:.0%}"
        dark = shares[row, column] > 0.55
        ax.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if dark else INK)
    ax.set_xticks(range(len(table.labels)), table.labels)
    ax.set_yticks(range(len(table.labels)), table.labels)
    title = "Confusion" if table.threshold is None else f"Class 1 from p ≥ {table.threshold:.2f}"
    style_axes(ax, title, "predicted class", "true class", grid="")
    ax.spines[:].set_visible(False)
    if len(table.labels) > 5:
        ax.tick_params(labelsize=SMALL)
        ax.tick_params(axis="x", rotation=45)


def _slice_row(ax: "Axes", part: Slice, y: float, *, unit: str) -> None:
    interval, side = part.interval, ax.get_yaxis_transform()
    if interval is None:
        short = f"no value: {part.reason.split(';')[0].split('.')[0]}"[:70]
        ax.text(0.015, y, short, transform=side, va="center", fontsize=SMALL, color=MUTED, style="italic")
    else:
        ax.plot((interval.lower, interval.upper), (y, y), color=COLOURS["candidate"], lw=1.6, alpha=0.55)
        ax.plot(interval.estimate, y, "o", color=COLOURS["candidate"], ms=4.5)
    ax.text(1.015, y, f"{part.n_rows:,}{unit}", transform=side, va="center", fontsize=SMALL, color=MUTED)


def _short(part: Slice, longest: int) -> str:
    """Return column and value in at most so many characters, cutting the column first."""
    room = max(7, longest - len(part.value) - 2)
    column = part.column if len(part.column) <= room else f"{part.column[: room - 1]}…"
    words = f"{column}  {part.value}"
    return words if len(words) <= longest else f"{words[: longest - 1]}…"


def _weakest(report: EvaluationReport, table: SliceTable) -> list[Slice]:
    known = [part for part in table.slices if part.interval is not None]
    values = np.array([part.interval.estimate for part in known if part.interval is not None])
    overall = np.array(report.interval("candidate", table.metric).estimate)
    gains = METRICS[table.metric].improvement(values, overall)
    return [known[number] for number in np.argsort(gains, kind="stable")[:OVERVIEW_SLICES]]


def draw_slices(ax: "Axes", report: EvaluationReport, table: SliceTable, *, brief: bool = False) -> None:
    """Draw the slices from top to bottom, the value of all rows as a line; `brief` shows the weakest."""
    overall = report.interval("candidate", table.metric)
    parts = _weakest(report, table) if brief else list(table.slices)
    ax.axvspan(overall.lower, overall.upper, color=BAND, lw=0, zorder=0)
    ax.axvline(overall.estimate, color=COLOURS["candidate"], lw=1, ls=":", zorder=1)
    new_column = [i > 0 and part.column != parts[i - 1].column for i, part in enumerate(parts)]
    positions = np.arange(len(parts)) + (0.0 if brief else 0.6) * np.cumsum(new_column)
    for number, (part, position) in enumerate(zip(parts, positions.tolist(), strict=True)):
        _slice_row(ax, part, position, unit="" if number else " rows")
    ax.set_yticks(positions, [_short(part, 20 if brief else 40) for part in parts])
    ax.set_ylim(len(parts) - 0.4 + 0.6 * (0 if brief else sum(new_column)), -0.6)
    ax.locator_params(axis="x", nbins=5 if brief else 9)
    level = f"dotted: all rows; intervals hold together at {100 * table.family_confidence:g} %"
    title = f"Weakest slices by {table.metric}" if brief else f"{table.metric} by slice"
    style_axes(ax, title, level, grid="x")
    ax.tick_params(axis="y", labelsize=SMALL, colors=INK)


def draw_improvement(ax: "Axes", report: EvaluationReport) -> None:
    """Draw the candidate's paired improvement by every metric, each on its own scale, with the numbers."""
    references = [model for model in report.models if model != "candidate"]
    side = ax.get_yaxis_transform()
    ax.plot((0, 0), (-0.5, len(report.metrics) - 0.5), color=INK, lw=1)
    for row, metric in enumerate(report.metrics):
        intervals = [report.difference(metric, reference).improvement for reference in references]
        scale = max(max(abs(i.lower), abs(i.upper)) for i in intervals) or 1.0
        for number, (reference, i) in enumerate(zip(references, intervals, strict=True)):
            y = row + 0.3 * (number - (len(references) - 1) / 2)
            colour = COLOURS[reference]
            ax.plot((i.lower / scale, i.upper / scale), (y, y), color=colour, lw=2, alpha=0.6)
            ax.plot(i.estimate / scale, y, "o", color=colour, ms=4.5)
            ax.text(1.02, y, in_words(i, "+"), transform=side, va="center", fontsize=SMALL, color=colour)
    ax.set_yticks(range(len(report.metrics)), report.metrics)
    # Above the first metric stays a line for the names.
    ax.set_ylim(len(report.metrics) - 0.5, -0.5 - 0.12 * len(report.metrics))
    label_corner(ax, [(f"over {name}", COLOURS[name]) for name in references], "upper left", columns=2)
    ax.set_xlim(-1.08, 1.08)
    ax.set_xticks((-0.55, 0.55), ["← worse", "better →"])
    level = f"paired, {report.n_blocks} blocks, {100 * report.confidence:g} %"
    style_axes(ax, "Improvement by the candidate", level, grid="")
    ax.tick_params(axis="y", colors=INK)


def draw_predicted_vs_actual(ax: "Axes", heatmap: Heatmap) -> None:
    """Draw how many rows lie at each pair of target and prediction."""
    from matplotlib.colors import LogNorm

    edges, counts = np.array(heatmap.edges), np.array(heatmap.counts, dtype=float)
    shown = np.ma.masked_equal(counts, 0)
    scale = LogNorm(0.4, max(2.0, counts.max()))
    mesh = ax.pcolormesh(edges, edges, shown.T, cmap="Blues", norm=scale, linewidth=0)
    ax.plot((edges[0], edges[-1]), (edges[0], edges[-1]), color=INK, lw=0.8, ls="--")
    ax.locator_params(nbins=5)
    bar = ax.figure.colorbar(mesh, cax=ax.inset_axes((1.015, 0.0, 0.025, 1.0)))
    bar.set_label("rows", fontsize=SMALL, color=MUTED)
    bar.ax.tick_params(labelsize=SMALL, colors=MUTED, length=0)
    bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
    style_axes(ax, "Prediction against target", "target", "prediction")


def draw_residuals_over_time(ax: "Axes", report: EvaluationReport) -> None:
    """Draw each model's mean error by block, and the candidate's middle 80 % as a band."""
    names: list[str] = []
    for model in reversed(report.models):
        rows = [residual for residual in report.residuals if residual.model == model]
        names, x = [row.block for row in rows], np.arange(len(rows))
        if model == "candidate":
            ax.fill_between(x, [r.low for r in rows], [r.high for r in rows], color=BAND, lw=0, zorder=0)
        ax.plot(x, [r.mean for r in rows], color=COLOURS[model], lw=1.5 if model == "candidate" else 0.9)
    ax.axhline(0.0, color=INK, lw=0.8)
    ticks = np.unique(np.linspace(0, len(names) - 1, min(3, len(names))).round().astype(int))
    ax.set_xticks(ticks, [names[tick][:10] for tick in ticks])
    ax.set_xlim(0, max(1, len(names) - 1))
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.12 * (high - low))
    label_corner(ax, [(model, COLOURS[model]) for model in report.models], "upper left", columns=3)
    style_axes(ax, "Error over time", "band: 80 % of the candidate's rows", "prediction − target")


def _headed(figure: "Figure", report: EvaluationReport, partition: str) -> None:
    """Write above all axes which rows these are."""
    parts = [partition, f"{report.n_rows:,} rows in {report.n_blocks} blocks"]
    if report.first_event and report.last_event:
        parts.append(f"{report.first_event[:10]} to {report.last_event[:10]}")
    text = "  ·  ".join(part for part in parts if part)
    figure.suptitle(text, x=0.012, ha="left", fontsize=NORMAL, color=MUTED)


def _pictures(report: EvaluationReport, *, brief: bool) -> dict[str, list[Draw]]:
    """Return for each picture what is drawn in it, side by side; only what the report has."""
    pictures: dict[str, list[Draw]] = {}
    if report.curves:
        pictures["roc"] = [partial(draw_roc, report=report, brief=brief)]
        pictures["precision_recall"] = [partial(draw_precision_recall, report=report)]
    if report.calibration:
        pictures["calibration"] = [partial(draw_calibration, report=report)]
        pictures["score_distribution"] = [partial(draw_score_distribution, report=report)]
        pictures["confusion"] = [partial(draw_confusion, table=table) for table in report.confusion]
    if report.heatmap is not None:
        pictures["predicted_vs_actual"] = [partial(draw_predicted_vs_actual, heatmap=report.heatmap)]
        pictures["residuals_over_time"] = [partial(draw_residuals_over_time, report=report)]
    if report.slices is not None:
        name = "error_by_slice" if report.task == "regression" else "slices"
        pictures[name] = [partial(draw_slices, report=report, table=report.slices, brief=brief)]
    pictures["improvement"] = [partial(draw_improvement, report=report)]
    return pictures


def figures(report: EvaluationReport, *, partition: str = "") -> dict[str, bytes]:
    """Return the report's pictures as PNGs by name.

    Binary has roc, precision_recall, calibration, score_distribution, confusion, slices and improvement;
    multiclass the same, its curves one for each class; regression has predicted_vs_actual,
    residuals_over_time, error_by_slice and improvement.

    Args:
        report: What was measured.
        partition: Written above each picture, such as "flights/arrival_delay 2013-03".
    """
    found: dict[str, bytes] = {}
    for name, draws in _pictures(report, brief=False).items():
        width, height = FIGURE_SIZE
        if name in ("slices", "error_by_slice") and report.slices is not None:
            height = max(height, 1.2 + 0.17 * len(report.slices.slices))
        figure = new_figure((width, height))
        for ax, draw in zip(figure.subplots(1, len(draws), squeeze=False)[0], draws, strict=True):
            draw(ax)
        _headed(figure, report, partition)
        found[name] = to_png(figure, FIGURE_BYTES)
    return found


def overview(report: EvaluationReport, *, partition: str = "") -> bytes:
    """Return one picture of four panels: how good, where, and against what.

    Args:
        report: What was measured.
        partition: Written above the panels.
    """
    pictures = _pictures(report, brief=True)
    wanted = {
        "binary": ("roc", "calibration", "slices", "improvement"),
        "multiclass": ("confusion", "calibration", "slices", "improvement"),
        "regression": ("predicted_vs_actual", "residuals_over_time", "error_by_slice", "improvement"),
    }[report.task]
    draws = [pictures[name][-1] for name in wanted if name in pictures]
    figure = new_figure(OVERVIEW_SIZE)
    cells = figure.subplots(2, 2).ravel()
    for ax, draw in zip(cells, draws, strict=False):
        draw(ax)
    for ax in cells[len(draws) :]:
        ax.set_axis_off()
    _headed(figure, report, partition)
    return to_png(figure, OVERVIEW_BYTES)
