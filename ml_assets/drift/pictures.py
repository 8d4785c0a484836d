"""Pictures of a drift report as small PNGs, drawn from the report alone; equal reports give equal bytes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ml_assets.drift.report import Aspect, ColumnDrift, DriftReport
from ml_assets.plot_style import (
    BAND,
    COLOURS,
    GRID,
    INK,
    MUTED,
    NORMAL,
    SMALL,
    new_figure,
    style_axes,
    to_png,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

THEN, NOW = COLOURS["baseline"], COLOURS["champion"]
SHOWN = 6
EFFECT_ROWS = 25
PICTURE_BYTES = 50_000
WORDS = {"distribution": "PSI", "nulls": "nulls", "unseen": "new values", "vanished": "vanished"}


def shown_columns(report: DriftReport) -> tuple[ColumnDrift, ...]:
    """Return the columns that moved, or when none did those with the largest effects: at most six."""
    moved = [report.column(name) for name in report.moved]
    others = sorted((c for c in report.columns if not c.moved), key=lambda c: (-c.strength, c.name))
    return tuple((moved or others)[:SHOWN])


def distributions(columns: Sequence[ColumnDrift], *, title: str = "") -> bytes:
    """Return a PNG with both distributions of each column.

    Args:
        columns: What to draw, at least one; see `shown_columns`.
        title: Written above, such as "EWR|2013-04 against 2013-01 to 2013-03".
    """
    width = min(3, len(columns))
    height = -(-len(columns) // width)
    figure = new_figure((3.4 * width + 0.2, 2.55 * height + 0.5))
    cells = figure.subplots(height, width, squeeze=False).ravel()
    for number, (ax, column) in enumerate(zip(cells, columns, strict=False)):
        _draw_column(ax, column)
        if not number:
            _legend(ax)
    for ax in cells[len(columns) :]:
        ax.set_axis_off()
    figure.suptitle(title, x=0.012, ha="left", fontsize=NORMAL, color=MUTED)
    return to_png(figure, PICTURE_BYTES)


def _legend(ax: "Axes") -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=THEN, alpha=0.55, label="reference"), Patch(color=NOW, alpha=0.75, label="now")]
    ax.legend(handles=handles, fontsize=SMALL, frameon=False, loc="best", labelcolor=INK, handlelength=1.0)


def _draw_column(ax: "Axes", column: ColumnDrift) -> None:
    bars = column.bars
    then, now = np.array(bars.reference), np.array(bars.current)
    if not then.size:
        ax.text(0.5, 0.5, "no values to draw", transform=ax.transAxes, ha="center", color=MUTED, fontsize=NORMAL)
        ax.set_xticks([])
        ax.set_yticks([])
    elif bars.edges:
        ax.stairs(then, bars.edges, fill=True, color=THEN, alpha=0.4)
        ax.stairs(now, bars.edges, color=NOW, lw=1.8)
        ax.locator_params(axis="x", nbins=5)
    else:
        place = np.arange(then.size)
        ax.bar(place - 0.2, then, 0.4, color=THEN, alpha=0.55)
        ax.bar(place + 0.2, now, 0.4, color=NOW, alpha=0.85)
        ax.set_xticks(place, [_short(label) for label in bars.labels])
        if max(len(_short(label)) for label in bars.labels) * then.size > 24:
            ax.tick_params(axis="x", rotation=90)
    style_axes(ax, _short(column.name, 24), _caption(column), "", grid="y")
    ax.title.set_fontsize(NORMAL + 0.5)
    ax.tick_params(labelsize=SMALL)
    ax.xaxis.label.set_fontsize(SMALL)
    ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g} %")
    ax.locator_params(axis="y", nbins=4)


def _caption(column: ColumnDrift) -> str:
    """Return one or two lines: what is beyond its limit, how sure, and how much it matters."""
    kind = "KS" if column.kind == "numeric" else "largest change"
    parts = [f"PSI {column.psi:.2g}, {kind} {column.distance:.2g}"]
    parts += [
        f"{WORDS[a.name]} {100 * a.effect:.3g} %" for a in column.aspects if a.name != "distribution" and a.beyond
    ]
    lines = [", ".join(parts)]
    p = column.p_adjusted
    sure = "not tested" if p is None else f"p {_p(p)}"
    lines.append(f"{sure}, {100 * column.importance:.3g} % of importance" + (" · moved" if column.moved else ""))
    return "\n".join(lines)


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def effects(report: DriftReport, *, title: str = "") -> bytes:
    """Return a PNG with each column's largest effect as a multiple of the limit that it has, and what was significant.

    Args:
        report: What was found; the columns with the largest effects are drawn.
        title: Written above.
    """
    columns = sorted(report.columns, key=lambda c: (not c.moved, -_largest(c)[1], c.name))[:EFFECT_ROWS]
    figure = new_figure((6.4, 1.3 + 0.24 * max(3, len(columns))))
    ax = figure.subplots()
    place = np.arange(len(columns))
    sizes = [min(_largest(column)[1], 10.0) for column in columns]
    limit = max(2.0, max(sizes, default=0.0)) * 1.05
    ax.axvspan(0.0, 1.0, color=BAND, lw=0, zorder=0)
    ax.barh(place, sizes, 0.62, color=[NOW if column.moved else THEN for column in columns], alpha=0.85)
    side = ax.get_yaxis_transform()
    for row, column in enumerate(columns):
        aspect = _largest(column)[0]
        p = "" if aspect.p_adjusted is None else f", p {_p(aspect.p_adjusted)}"
        words = f"{_size(aspect, column)}{p}"
        ax.text(1.015, row, words, transform=side, va="center", fontsize=SMALL, color=NOW if column.moved else MUTED)
    ax.set_yticks(place, [_short(column.name, 26) for column in columns])
    ax.set_ylim(len(columns) - 0.4, -0.6)
    ax.set_xlim(0, limit)
    hidden = len(report.columns) - len(columns)
    note = f"; {hidden} more columns" if hidden else ""
    style_axes(ax, "Size of each column's change", f"multiple of the policy's limit; orange: also significant{note}")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", color=GRID)
    ax.tick_params(axis="y", labelsize=SMALL, colors=INK)
    figure.suptitle(title, x=0.012, ha="left", fontsize=NORMAL, color=MUTED)
    return to_png(figure, PICTURE_BYTES)


def _largest(column: ColumnDrift) -> tuple[Aspect, float]:
    """Return the aspect that is drawn, of those that moved if any did, and its multiple of the limit."""
    sizes = [(aspect, column.multiple(aspect)) for aspect in column.aspects]
    return max(sizes, key=lambda pair: (pair[0].moved, pair[1]))


def _size(aspect: Aspect, column: ColumnDrift) -> str:
    if aspect.name != "distribution":
        return f"{WORDS[aspect.name]} {100 * aspect.effect:.3g} %"
    return f"PSI {column.psi:.2g}, {'KS' if column.kind == 'numeric' else 'change'} {column.distance:.2g}"


def _short(text: str, longest: int = 10) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
