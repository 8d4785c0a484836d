"""What a comparison found, column by column, and its form as a document."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from ml_assets.drift.verdicts import PartitionVerdict
from ml_assets.errors import StoreError

FORMAT = 1
ColumnKind = Literal["numeric", "category"]
AspectName = Literal["distribution", "nulls", "unseen", "vanished"]


@dataclass(frozen=True, kw_only=True)
class Aspect:
    """One way in which a column can move.

    Attributes:
        name: distribution: how values are spread; nulls: how many are missing; unseen: values outside of what the
            reference had (new categories, numbers outside its range); vanished: categories that no row has any more.
        effect: Its size in its own unit, ≥ 0: PSI for the distribution, else a share of rows.
        limit: Size that matters.
        beyond: Whether the size matters; a distribution also counts by its distance.
        p_value: Chance of this without drift, rows of one day being dependent; None with too few days.
        p_adjusted: The same corrected over all tests of the report; None with too few days.
        moved: Whether it is beyond the limit and significant.
    """

    name: AspectName
    effect: float
    limit: float
    beyond: bool
    p_value: float | None
    p_adjusted: float | None
    moved: bool


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Two distributions as they are drawn.

    Attributes:
        labels: Categories, the last one being all others; empty for numbers.
        edges: Ends of the bins for numbers, one more than bins; empty for categories.
        reference: Share of the reference's known values in each bin.
        current: The same of the current side.
    """

    labels: tuple[str, ...] = ()
    edges: tuple[float, ...] = ()
    reference: tuple[float, ...]
    current: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class ColumnDrift:
    """How one column moved.

    Attributes:
        name: The column.
        kind: Numbers or categories.
        importance: Its share of the model's importance, 0 to 1.
        psi: Population stability index over the reference's deciles, or over categories.
        distance: Kolmogorov-Smirnov distance of numbers, largest change of one category's share: 0 to 1.
        distance_limit: Distance that matters.
        wasserstein: Mean distance of quantiles in interquartile ranges of the reference; None for categories.
        null_rates: Share of missing values in (reference, current).
        reference_range: Least and largest number of the reference; None for categories and without any.
        current_range: The same of the current side.
        unseen: Up to ten new categories, most frequent first.
        vanished: Up to ten vanished categories.
        aspects: What was tested.
        bars: Both distributions.
    """

    name: str
    kind: ColumnKind
    importance: float
    psi: float
    distance: float
    distance_limit: float
    wasserstein: float | None
    null_rates: tuple[float, float]
    reference_range: tuple[float, float] | None = None
    current_range: tuple[float, float] | None = None
    unseen: tuple[str, ...] = ()
    vanished: tuple[str, ...] = ()
    aspects: tuple[Aspect, ...]
    bars: Bars

    @property
    def moved(self) -> bool:
        """Return whether it moved in any way."""
        return any(aspect.moved for aspect in self.aspects)

    @property
    def p_adjusted(self) -> float | None:
        """Return the least corrected p-value of its aspects, or None."""
        known = [a.p_adjusted for a in self.aspects if a.p_adjusted is not None]
        return min(known, default=None)

    @property
    def strength(self) -> float:
        """Return its largest effect as a multiple of what matters, to order columns by."""
        return max((self.multiple(aspect) for aspect in self.aspects), default=0.0)

    def multiple(self, aspect: Aspect) -> float:
        """Return the effect of one of its aspects as a multiple of what matters; a distribution has two sizes."""
        sizes = [aspect.effect / aspect.limit if aspect.limit else aspect.effect]
        if aspect.name == "distribution" and self.distance_limit:
            sizes.append(self.distance / self.distance_limit)
        return max(sizes)


@dataclass(frozen=True, kw_only=True)
class DriftReport:
    """A comparison of two sets of days.

    Attributes:
        columns: In the order of the reference.
        rows: Rows of (reference, current).
        days: Days of (reference, current).
        alpha: False discovery rate that columns were named at.
        importance_limit: Share of importance that must move for the partition to count.
        problem: Why nothing was tested, or empty.
        not_compared: Column → why it could not be compared.
    """

    columns: tuple[ColumnDrift, ...]
    rows: tuple[int, int]
    days: tuple[int, int]
    alpha: float
    importance_limit: float
    problem: str = ""
    not_compared: Mapping[str, str]

    @cached_property
    def moved(self) -> tuple[str, ...]:
        """Return the columns that moved, by importance and then by strength, largest first."""
        found = sorted((c for c in self.columns if c.moved), key=lambda c: (-c.importance, -c.strength, c.name))
        return tuple(column.name for column in found)

    @cached_property
    def importance_moved(self) -> float:
        """Return the share of the model's importance, 0 to 1, whose columns moved."""
        return round(min(1.0, sum(column.importance for column in self.columns if column.moved)), 6)

    @property
    def verdict(self) -> PartitionVerdict:
        """Return whether enough of the model's input moved."""
        if self.problem:
            return "unknown"
        return "moved" if self.moved and self.importance_moved >= self.importance_limit else "stable"

    @property
    def worst(self) -> ColumnDrift | None:
        """Return the column with the largest effect, or None without columns."""
        return max(self.columns, key=lambda c: (c.strength, c.name), default=None)

    def column(self, name: str) -> ColumnDrift:
        """Return one column; raises KeyError when it was not compared."""
        return {column.name: column for column in self.columns}[name]

    def to_document(self) -> dict[str, Any]:
        """Return it as JSON-ready values; `from_document` gives it back."""
        columns = [asdict(column) | {"moved": column.moved} for column in self.columns]
        return {
            "format": FORMAT,
            "columns": columns,
            "rows": list(self.rows),
            "days": list(self.days),
            "alpha": self.alpha,
            "importance_limit": self.importance_limit,
            "problem": self.problem,
            "not_compared": dict(sorted(self.not_compared.items())),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "DriftReport":
        """Return the report that a document holds.

        Raises:
            StoreError: If it has another format.
        """
        if document.get("format") != FORMAT:
            raise StoreError(
                f"A drift report has format {document.get('format')!r}; expected {FORMAT}. Another release wrote it: "
                "materialize `drift` of the partition again."
            )
        return cls(
            columns=tuple(_column(entry) for entry in document["columns"]),
            rows=_pair(document["rows"]),
            days=_pair(document["days"]),
            alpha=document["alpha"],
            importance_limit=document["importance_limit"],
            problem=document["problem"],
            not_compared=dict(document["not_compared"]),
        )


def _pair(values: Any) -> tuple[Any, Any]:
    first, second = values
    return first, second


def _column(entry: Mapping[str, Any]) -> ColumnDrift:
    given = {key: value for key, value in entry.items() if key != "moved"}
    for name in ("reference_range", "current_range"):
        given[name] = None if given[name] is None else _pair(given[name])
    return ColumnDrift(
        **given
        | {
            "null_rates": _pair(given["null_rates"]),
            "unseen": tuple(given["unseen"]),
            "vanished": tuple(given["vanished"]),
            "aspects": tuple(Aspect(**aspect) for aspect in given["aspects"]),
            "bars": Bars(**{key: tuple(values) for key, values in given["bars"].items()}),
        }
    )
