"""What all pictures share: palette, sizes, figures without a screen, small PNGs, names and numbers in words."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from ml_assets.bootstrap import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart by every common form of colour blindness, and by lightness.
COLOURS = {"candidate": "#0072B2", "champion": "#D55E00", "baseline": "#7F7F7F"}
INK, MUTED, GRID, BAND = "#222222", "#6B6B6B", "#E4E4E4", "#DCE9F3"
SMALL, NORMAL, TITLE = 7.5, 8.5, 10.5

DPI = 100
FIGURE_BYTES = 40_000

Corner = Literal["upper left", "upper right", "lower left", "lower right"]


def new_figure(size: tuple[float, float]) -> "Figure":
    """Return an empty figure of a size in inches, drawn without a screen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    engine = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.09, wspace=0.03, hspace=0.03)
    figure = Figure(figsize=size, dpi=DPI, layout=engine, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def to_png(figure: "Figure", limit: int) -> bytes:
    """Return the picture with as many palette colours as fit into `limit` bytes, 16 at the least."""
    from PIL import Image

    canvas = io.BytesIO()
    figure.savefig(canvas, format="png", metadata={"Software": None})
    with Image.open(canvas) as image:
        full = image.convert("RGB")
    data = b""
    for n_colours in (128, 64, 32, 16):
        reduced = full.quantize(n_colours, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        buffer = io.BytesIO()
        reduced.save(buffer, format="png", optimize=True)
        data = buffer.getvalue()
        if len(data) <= limit:
            break
    return data


def style_axes(ax: "Axes", title: str, x: str = "", y: str = "", *, grid: str = "both") -> None:
    """Give axes the project's title, labels, colours and grid."""
    ax.set_title(title, loc="left", fontsize=TITLE, fontweight="bold", color=INK)
    ax.set_xlabel(x, fontsize=NORMAL, color=MUTED)
    ax.set_ylabel(y, fontsize=NORMAL, color=MUTED)
    ax.tick_params(labelsize=NORMAL, colors=MUTED, length=0)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#BDBDBD")
    ax.set_axisbelow(True)
    if grid:
        ax.grid(axis=grid, color=GRID, linewidth=0.8)  # pyright: ignore[reportArgumentType]


def in_words(interval: Interval, sign: str = "") -> str:
    """Return "0.649 [0.620, 0.683]", with more digits for small numbers."""
    largest = max(abs(interval.lower), abs(interval.upper))
    digits = 4 if largest < 0.1 else 3 if largest < 10 else 1
    if sign and interval.lower == interval.upper == 0.0:
        return "no difference"
    ends = (interval.estimate, interval.lower, interval.upper)
    words = [f"{value:{sign}.{digits}f}".replace("-", "−") for value in ends]
    return f"{words[0]} [{words[1]}, {words[2]}]"


def label_corner(ax: "Axes", lines: Sequence[tuple[str, str]], corner: Corner, columns: int = 1) -> None:
    """Write coloured words, such as the names of curves, into a corner of the axes in place of a legend."""
    from matplotlib.lines import Line2D

    spacing = {"columnspacing": 1.4, "labelspacing": 0.25, "borderpad": 0.2}
    bare = {"handlelength": 0, "handletextpad": 0}
    words, colours = zip(*lines, strict=True)
    handles = [Line2D([], []) for _ in lines]
    legend = ax.legend(handles, words, labelcolor=colours, loc=corner, ncols=columns, **spacing, **bare)
    legend.get_frame().set(alpha=0.8, edgecolor="none")
    for text in legend.get_texts():
        text.set(fontsize=NORMAL, fontweight="bold")
