"""Pictures of a search as small PNGs, drawn from its document alone; equal documents give equal bytes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ml_assets.plots import COLOURS, FIGURE_BYTES, INK, MUTED, NORMAL, new_figure, style_axes, to_png

_SHOWN = 12


def history(document: Mapping[str, Any], *, title: str = "") -> bytes:
    """Return each trial's value in the order of asking, and the best so far.

    Args:
        document: As `search_document` gives it.
        title: Written above, such as "flights/arrival_delay forest [2013-02]".
    """
    from matplotlib.ticker import MaxNLocator

    figure = new_figure((6.4, 3.6))
    ax = figure.subplots()
    sign = 1.0 if document["direction"] == "minimize" else -1.0
    shapes = (("completed", "o", COLOURS["candidate"]), ("pruned", "x", COLOURS["baseline"]))
    for state, marker, colour in shapes:
        points = [(t["number"], t["value"]) for t in document["trials"] if t["state"] == state]
        if points:
            x, y = zip(*points, strict=True)
            ax.plot(x, y, marker, color=colour, ms=5, label=state)
    failed = [t["number"] for t in document["trials"] if t["state"] == "failed"]
    if failed:
        low = ax.get_ylim()[0]
        ax.plot(failed, [low] * len(failed), "v", color=COLOURS["champion"], ms=5, label="failed", clip_on=False)
    done = [(t["number"], sign * t["value"]) for t in document["trials"] if t["state"] == "completed"]
    numbers, values = zip(*done, strict=True)
    best = sign * np.minimum.accumulate(values)
    ax.step([*numbers, len(document["trials"]) - 1], [*best, best[-1]], where="post", color=INK, lw=1.2, label="best")
    better = "lower" if document["direction"] == "minimize" else "higher"
    style_axes(ax, "Trials", "trial", f"{document['metric']}, {better} is better")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(fontsize=NORMAL, frameon=False, ncols=4, loc="upper right", bbox_to_anchor=(1.0, 1.13), labelcolor=INK)
    figure.suptitle(title, x=0.012, ha="left", fontsize=NORMAL, color=MUTED)
    return to_png(figure, FIGURE_BYTES)


def importance(document: Mapping[str, Any], *, title: str = "") -> bytes | None:
    """Return each parameter's share in what decides the metric; None when that cannot be told.

    Args:
        document: As `search_document` gives it.
        title: Written above.
    """
    shares = sorted(document["importance"].items(), key=lambda pair: pair[1], reverse=True)[:_SHOWN][::-1]
    if not shares:
        return None
    figure = new_figure((6.4, 1.2 + 0.34 * len(shares)))
    ax = figure.subplots()
    names = [name.partition(".")[2] for name, _ in shares]
    bars = ax.barh(names, [share for _, share in shares], color=COLOURS["candidate"], height=0.62)
    ax.bar_label(bars, [f"{share:.0%}" for _, share in shares], padding=4, fontsize=NORMAL, color=MUTED)
    ax.set_xlim(0, 1.12 * max(share for _, share in shares))
    ax.set_xticks([])
    style_axes(ax, f"Importance for {document['metric']}", "share by PED-ANOVA", grid="")
    figure.suptitle(title, x=0.012, ha="left", fontsize=NORMAL, color=MUTED)
    return to_png(figure, FIGURE_BYTES)
