"""Compares two sets of days column by column: effect sizes, tests by day, and their correction over columns."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ml_assets.drift.binning import sides_of
from ml_assets.drift.day_test import day_test, mean_test
from ml_assets.drift.effects import adjusted, ks_distance, largest_change, psi, shares, wasserstein
from ml_assets.drift.report import Aspect, AspectName, Bars, ColumnDrift, DriftReport
from ml_assets.drift.settings import DriftSettings
from ml_assets.drift.sides import ColumnSides, Side
from ml_assets.profiles.profile import Profile

Floats = NDArray[np.float64]
DIGITS = 9
"""Digits that are kept, so that equal data give equal documents on every machine."""


def compare(
    reference: Profile,
    current: Profile,
    *,
    importance: Mapping[str, float],
    settings: DriftSettings,
    columns: Sequence[str] | None = None,
) -> DriftReport:
    """Compare two profiles column by column.

    Args:
        reference: What the champion learned from.
        current: What is compared with it.
        importance: Column → share of the champion's importance, ≥ 0; scaled to sum 1. Equal when there is none.
        settings: What matters.
        columns: What to compare; the reference's columns when None.
    """
    found: list[ColumnSides] = []
    not_compared: dict[str, str] = {}
    for name in sorted(reference.columns) if columns is None else columns:
        lacking = [side for side, p in (("reference", reference), ("current side", current)) if name not in p.columns]
        sides = f"the {' and the '.join(lacking)} has no such column" if lacking else None
        sides = sides or sides_of(name, reference.columns[name], current.columns[name], block_days=settings.block_days)
        if isinstance(sides, str):
            not_compared[name] = sides
        else:
            found.append(sides)
    return compare_sides(
        found,
        importance=importance,
        rows=(reference.n_rows, current.n_rows),
        days=(len(reference.days), len(current.days)),
        settings=settings,
        not_compared=not_compared,
    )


def compare_sides(
    columns: Iterable[ColumnSides],
    *,
    importance: Mapping[str, float],
    rows: tuple[int, int],
    days: tuple[int, int],
    settings: DriftSettings,
    not_compared: Mapping[str, str] | None = None,
) -> DriftReport:
    """Judge columns that were counted by day on both sides.

    Args:
        columns: What to judge.
        importance: Column → share of the champion's importance, ≥ 0; scaled to sum 1. Equal when there is none.
        rows: Rows of (reference, current).
        days: Days of (reference, current).
        settings: What matters.
        not_compared: Column → why it could not be counted.
    """
    enough = min(days) >= settings.min_days
    measured = [_measured(sides, settings, tested=enough) for sides in columns]
    weights = _weights(importance, [column.name for column in measured])
    found = _corrected(measured, settings.alpha) if enough else measured
    return DriftReport(
        columns=tuple(replace(column, importance=weights[column.name]) for column in found),
        rows=rows,
        days=days,
        alpha=settings.alpha,
        importance_limit=settings.importance_share,
        problem="" if enough else _too_few(days, settings),
        not_compared=dict(not_compared or {}),
    )


def _too_few(days: tuple[int, int], settings: DriftSettings) -> str:
    return (
        f"not enough days: the reference has {days[0]} and the current side {days[1]}; "
        f"the policy's drift.min_days asks for {settings.min_days} on each."
    )


def _weights(importance: Mapping[str, float], names: Sequence[str]) -> dict[str, float]:
    total = sum(max(0.0, importance.get(name, 0.0)) for name in names)
    if total <= 0.0:
        return {name: rounded(1.0 / len(names)) for name in names}
    return {name: rounded(max(0.0, importance.get(name, 0.0)) / total) for name in names}


def _measured(sides: ColumnSides, settings: DriftSettings, *, tested: bool) -> ColumnDrift:
    """Return a column's effects and, where there are days enough, its p-values before correction."""
    reference, current = sides.reference, sides.current
    then, now = shares(reference.values), shares(current.values)
    numeric = sides.kind == "numeric"
    known = bool(reference.values.any() and current.values.any())
    # Where a side has no value at all, only the share of missing values tells anything.
    distance = (ks_distance if numeric else largest_change)(then, now) if known else 0.0
    index = psi(then, now) if known else 0.0
    aspects = [_aspect("distribution", index, settings.psi, distance >= settings.ks)]
    tables: list[tuple[Floats, Floats]] = [(reference.values, current.values)]
    for name, effect, limit, pair in _shares_that_matter(reference, current, settings):
        aspects.append(_aspect(name, effect, limit, beyond=False))
        tables.append(pair)
    if tested:
        found = [day_test(*pair, block_days=settings.block_days, ordered=numeric).p_value for pair in tables]
        if numeric:
            means = mean_test(reference.sums, current.sums, block_days=settings.block_days).p_value
            found[0] = min(1.0, 2.0 * min(found[0], means))
        aspects = [
            # Days that hang together leave any range for days in a row: it tells something only where the values moved.
            replace(aspect, p_value=rounded(max(p, found[0]) if numeric and aspect.name == "unseen" else p))
            for aspect, p in zip(aspects, found, strict=True)
        ]
    return ColumnDrift(
        name=sides.name,
        kind=sides.kind,
        importance=0.0,
        psi=rounded(index),
        distance=rounded(distance),
        distance_limit=settings.ks,
        wasserstein=rounded(wasserstein(reference.quantiles, current.quantiles)) if numeric else None,
        null_rates=(rounded(reference.null_rate), rounded(current.null_rate)),
        reference_range=reference.range,
        current_range=current.range,
        unseen=sides.unseen,
        vanished=sides.vanished,
        aspects=tuple(aspects),
        bars=_rounded_bars(sides.bars),
    )


def _aspect(name: AspectName, effect: float, limit: float, beyond: bool) -> Aspect:
    return Aspect(
        name=name,
        effect=rounded(effect),
        limit=limit,
        beyond=beyond or (effect >= limit and effect > 0.0),
        p_value=None,
        p_adjusted=None,
        moved=False,
    )


def _shares_that_matter(
    reference: Side, current: Side, settings: DriftSettings
) -> Iterable[tuple[AspectName, float, float, tuple[Floats, Floats]]]:
    """Yield aspects of two bins that any row is in: (name, effect, limit, rows by day and bin of both sides)."""
    if reference.nulls.any() or current.nulls.any():
        change = abs(current.null_rate - reference.null_rate)
        pair = _two_bins(reference.known, reference.nulls), _two_bins(current.known, current.nulls)
        yield "nulls", change, settings.null_rate_change, pair
    if current.unseen.any():
        more = max(0.0, current.share(current.unseen) - reference.share(reference.unseen))
        yield "unseen", more, settings.new_category_share, _parts(reference, current, "unseen")
    if reference.vanished.any() and current.values.any():
        gone = reference.share(reference.vanished)
        yield "vanished", gone, settings.new_category_share, _parts(reference, current, "vanished")


def _parts(reference: Side, current: Side, name: str) -> tuple[Floats, Floats]:
    first, second = (_two_bins(s.known - getattr(s, name), getattr(s, name)) for s in (reference, current))
    return first, second


def _two_bins(rest: Floats, part: Floats) -> Floats:
    return np.column_stack([rest, part])


def _corrected(columns: Sequence[ColumnDrift], alpha: float) -> list[ColumnDrift]:
    """Return the columns with p-values corrected over every test of every column."""
    found = [a.p_value for column in columns for a in column.aspects]
    p_adjusted = iter(adjusted(np.array([1.0 if p is None else p for p in found])).tolist())
    result = []
    for column in columns:
        aspects = []
        for aspect, p in zip(column.aspects, p_adjusted, strict=False):
            aspects.append(replace(aspect, p_adjusted=rounded(p), moved=aspect.beyond and p <= alpha))
        result.append(replace(column, aspects=tuple(aspects)))
    return result


def rounded(value: float) -> float:
    """Return a number with as many digits as are kept."""
    return float(f"{value:.{DIGITS}g}")


def _rounded_bars(bars: Bars) -> Bars:
    return replace(
        bars,
        edges=tuple(rounded(v) for v in bars.edges),
        reference=tuple(rounded(v) for v in bars.reference),
        current=tuple(rounded(v) for v in bars.current),
    )
