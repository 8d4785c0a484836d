"""Every setting that a policy may have: its direction, range, unit, default and meaning."""

import math
import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ml_assets.interfaces import Setting, SettingKind, SettingValue
from ml_assets.metrics import METRICS, Metric
from ml_assets.reading import wording

BUILT_IN = "built-in"
ROLE_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
SLICE_PATTERN = r"^[^\s=][^=]*(=.*\S.*)?$"

_ROLE_WORDS = "a name of lower-case letters, digits and underscores"
_SLICE_WORDS = 'a column such as origin, or a column and a value such as "origin=JFK"'
_LIMITS: Mapping[str, Callable[[float, float], bool]] = {
    "minimum": operator.ge,
    "exclusiveMinimum": operator.gt,
    "maximum": operator.le,
    "exclusiveMaximum": operator.lt,
}


@dataclass(frozen=True, kw_only=True)
class Definition:
    """What is known of a setting before any file is read.

    Attributes:
        name: Such as "roc_auc.floor".
        kind: Its direction; see `SettingKind`.
        description: What it decides, in a sentence.
        default: Value when no file sets it; None when it then does not exist.
        unit: Of a number; empty for a pure number.
        limits: Of a number, in the words of JSON schema: minimum, exclusiveMinimum, maximum, exclusiveMaximum.
        whole: Whether a number must be whole.
        gate: Whether it judges an evaluation, and so may have a severity and be unwaivable.
        entries: Pattern that each name of a set must match.
        entry_words: The pattern in words.
    """

    name: str
    kind: SettingKind
    description: str
    default: SettingValue = None
    unit: str = ""
    limits: Mapping[str, float] = field(default_factory=dict)
    whole: bool = False
    gate: bool = False
    entries: str = ""
    entry_words: str = ""

    @property
    def is_set(self) -> bool:
        """Whether its value is a set of names."""
        return self.kind in {"allowed", "required"}

    @property
    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the value."""
        if self.kind == "flag":
            return {"type": "boolean"}
        if self.is_set:
            return {"type": "array", "items": {"type": "string", "pattern": self.entries}, "uniqueItems": True}
        return {"type": "integer" if self.whole else "number", **self.limits}

    @property
    def expected(self) -> str:
        """Return in words what its value must be."""
        if self.is_set:
            return f"a list, each entry once: {self.entry_words}"
        return wording.expected(self.schema, {})

    def accepts(self, value: Any) -> bool:
        """Whether a value as YAML gives it is of the right type and in range."""
        if self.kind == "flag":
            return isinstance(value, bool)
        if self.is_set:
            return isinstance(value, list | tuple) and not self.wrong_entries(value)
        # Not math.isfinite: a whole number may be too large for a float, which it answers by raising.
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
            return False
        within = all(_LIMITS[name](value, limit) for name, limit in self.limits.items())
        return within and (not self.whole or float(value).is_integer())

    def wrong_entries(self, names: Sequence[Any]) -> list[tuple[int, str]]:
        """Return place and description of each entry of a set that has a wrong form or stands there twice."""
        wrong = []
        for i, name in enumerate(names):
            if not (isinstance(name, str) and re.fullmatch(self.entries, name)):
                wrong.append((i, wording.found(name)))
            elif name in names[:i]:
                wrong.append((i, f"{wording.quoted(name)} a second time"))
        return wrong

    def built_in(self) -> Setting | None:
        """Return the library's default, or None when there is none."""
        if self.default is None:
            return None
        return Setting(
            name=self.name,
            value=self.default,
            kind=self.kind,
            reason=self.description,
            level="built-in",
            file=BUILT_IN,
            line=0,
        )


def as_value(value: Any) -> SettingValue:
    """Return a value in the one form in which it is compared and digested.

    >>> as_value(2000), as_value(["b", "a"]), as_value(True)
    (2000.0, ('a', 'b'), True)
    """
    if isinstance(value, list | tuple):
        return tuple(sorted(set(value)))
    if value is None or isinstance(value, bool):
        return value
    return float(value) + 0.0  # -0.0 becomes 0.0: they are the same setting


def shown(value: SettingValue) -> str:
    """Return a value as a file would have it.

    >>> shown(0.55), shown(2000.0), shown(("a", "b")), shown(False), shown(None)
    ('0.55', '2000', '[a, b]', 'false', '0')
    """
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(value)}]"
    return f"{0.0 if value is None else value:.15g}"


def _metric_settings(metric: Metric) -> Iterator[Definition]:
    name, unit = metric.name, "the label's" if metric.unit == "target" else metric.unit
    low, high = metric.bounds
    bounds = {"minimum": low, "maximum": high}
    limits = {key: _figure(limit) for key, limit in bounds.items() if math.isfinite(limit)}

    def number(rule: str, kind: SettingKind, description: str, **facts: Any) -> Definition:
        return Definition(name=f"{name}.{rule}", kind=kind, description=description, unit=unit, **facts)

    yield number("floor", "floor", "The lower end of the interval must be at least this.", limits=limits, gate=True)
    yield number("ceiling", "ceiling", "The upper end of the interval must be at most this.", limits=limits, gate=True)
    yield number(
        "beats_baseline",
        "floor",
        "The lower end of the improvement over the baseline must be more than this.",
        gate=True,
    )
    at_least_0 = {"minimum": 0}
    yield number("margin", "ceiling", "Largest loss against the champion that does not matter.", limits=at_least_0)
    yield number("slice_margin", "ceiling", "Largest loss on a guarded slice that does not matter.", limits=at_least_0)
    yield number(
        "material_band", "ceiling", "A move by more than this, up or down, is a material change.", limits=at_least_0
    )


def _figure(limit: float) -> float:
    return int(limit) if float(limit).is_integer() else limit


def _number(name: str, kind: SettingKind, default: float, description: str, unit: str = "", **facts: Any) -> Definition:
    limits = {_LIMIT_NAMES[key]: facts.pop(key) for key in list(facts) if key in _LIMIT_NAMES}
    return Definition(
        name=name, kind=kind, default=float(default), description=description, unit=unit, limits=limits, **facts
    )


_LIMIT_NAMES = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def _flag(name: str, default: bool, description: str) -> Definition:
    return Definition(name=name, kind="flag", default=default, description=description)


def _roles(name: str, description: str) -> Definition:
    return Definition(
        name=name,
        kind="allowed",
        default=("model_reviewer",),
        description=description,
        entries=ROLE_PATTERN,
        entry_words=_ROLE_WORDS,
    )


def _slices(name: str, description: str) -> Definition:
    return Definition(
        name=name,
        kind="required",
        default=(),
        description=description,
        entries=SLICE_PATTERN,
        entry_words=_SLICE_WORDS,
    )


# fmt: off
_FIXED: tuple[Definition, ...] = (
    _number("comparison.confidence", "floor", 0.95, "Confidence of the intervals that compare two models.",
            "fraction", gt=0.5, lt=1),
    _number("comparison.replicates", "floor", 2000, "Bootstrap replicates of a comparison.", "replicates",
            ge=100, le=100_000, whole=True),
    _number("comparison.block_days", "floor", 1, "Length of the blocks that are drawn together.", "days",
            ge=1, le=366, whole=True),
    _flag("comparison.calibration_guard", True, "A challenger may not be worse calibrated than the prior rate."),
    _slices("slices.guarded", "Slices on which a challenger may not be worse by more than the slice margin."),
    _slices("material.protected_slices", "Slices on which a move beyond the band is a material change."),
    _flag("material.first_model", True, "The first model of a pipeline is a material change."),
    _flag("material.data_source", True, "Another data source is a material change."),
    _flag("material.columns", True, "Another set of source columns is a material change."),
    _flag("material.features", True, "Another set of features is a material change."),
    _flag("material.estimator", True, "Another class of estimator is a material change."),
    _flag("material.feature_code", True, "Other code of a feature is a material change."),
    _flag("material.label", True, "Another label is a material change."),
    _flag("material.classification", True, "Another classification of the data is a material change."),
    _flag("material.metric", True, "A metric that moved beyond its band is a material change."),
    _flag("material.protected_slice", True, "A protected slice that moved beyond the band is a material change."),
    _flag("approval.always", False, "Every promotion needs approval, material or not."),
    _number("approval.needed", "floor", 1, "People who must approve.", "people", ge=1, le=20, whole=True),
    _roles("approval.roles", "Roles that may approve."),
    _number("approval.valid_days", "ceiling", 7, "How long an approval, and a wait for one, lasts.", "days",
            gt=0, le=365),
    _roles("waiver.roles", "Roles that may waive a failed gate."),
    _number("waiver.valid_days", "ceiling", 7, "How long a waiver lasts at most.", "days", gt=0, le=365),
    _number("serving.latency_ms", "ceiling", 2000, "Longest median time to score 1,000 rows in a clean process.",
            "milliseconds", gt=0),
    _number("serving.model_mb", "ceiling", 200, "Largest size of a stored model, in 10⁶ bytes.", "MB", gt=0),
    _number("serving.score_tolerance", "ceiling", 1e-9,
            "Largest difference between a score of the stored model and the evaluated one.", ge=0),
    _flag("shadow.enabled", False, "The shadow model scores beside the champion."),
    _number("ab.challenger_share", "ceiling", 0, "Share of rows that the challenger scores.", "fraction", ge=0, le=0.5),
    _number("ab.alpha", "ceiling", 0.05, "Chance of a false stop that the sequential test may have.", "fraction",
            gt=0, lt=0.5),
    _flag("rollback.automatic", True, "A champion that fails its check in scoring is rolled back without asking."),
    # Events
    _number("inbox.dedup_hours", "floor", 24, "A repeat of an event within this time is dropped.", "hours",
            gt=0, le=8760),
    _number("inbox.debounce_seconds", "floor", 1, "Quiet time of a partition before its run starts.", "seconds",
            ge=0, le=86_400),
    _number("inbox.events_per_minute", "ceiling", 3000, "New events that one source may bring in a minute.", "events",
            gt=0, le=1_000_000, whole=True),
    _number("inbox.attempts", "ceiling", 4, "Runs that may fail for an event before it is a dead letter.", "runs",
            ge=1, le=100, whole=True),
    _number("inbox.backoff_seconds", "floor", 30, "Wait after a first failure; it doubles with each further one.",
            "seconds", gt=0, le=86_400),
    _number("inbox.batch_partitions", "ceiling", 400, "Partitions that one run may make.", "partitions",
            ge=1, le=10_000, whole=True),
    _number("arrivals.settle_seconds", "floor", 1, "How long a file must be unchanged before it counts as complete.",
            "seconds", ge=0, le=86_400),
    _number("arrivals.size_ratio", "ceiling", 10, "Largest size of a file, as a multiple of what is usual.", "times",
            gt=1, le=1_000_000),
    _number("arrivals.max_mb", "ceiling", 4000, "Largest size of a file, in 10⁶ bytes.", "MB", gt=0),
    # Drift
    _number("drift.alpha", "ceiling", 0.05, "Share of comparisons without drift that may name a column.", "fraction",
            gt=0, lt=0.5),
    _number("drift.psi", "ceiling", 0.2, "Population stability index from which a column has moved.", gt=0, le=100),
    _number("drift.ks", "ceiling", 0.1, "Kolmogorov-Smirnov distance from which a column has moved.", "fraction",
            gt=0, le=1),
    _number("drift.new_category_share", "ceiling", 0.02, "Share of rows with new or vanished values that matters.",
            "fraction", ge=0, le=1),
    _number("drift.null_rate_change", "ceiling", 0.05, "Change of the share of missing values that matters.",
            "fraction", ge=0, le=1),
    _number("drift.block_days", "floor", 5, "Days in a row that are drawn together.", "days", ge=1, le=366, whole=True),
    _number("drift.min_days", "floor", 10, "Days that each side must have to be compared.", "days", ge=2, le=3660,
            whole=True),
    _number("drift.importance_share", "ceiling", 0.1, "Share of the model's importance that must have moved.",
            "fraction", ge=0, le=1),
    _number("drift.persistence_k", "ceiling", 2, "Partitions, of the last n, that must have moved.", "partitions",
            ge=1, le=100, whole=True),
    _number("drift.persistence_n", "floor", 3, "Partitions that persistence looks back over.", "partitions",
            ge=1, le=100, whole=True),
    # Performance
    _number("performance.alpha", "ceiling", 0.05, "Share of unchanged partitions that may be called decayed.",
            "fraction", gt=0, lt=0.5),
    _number("performance.calibration_gap", "ceiling", 0.05, "Mean of label minus prediction that matters.", "fraction",
            gt=0, le=1),
    _number("performance.relative_loss", "ceiling", 0.1,
            "Loss of a metric without a margin that matters, as a share of its distance to the baseline.", "fraction",
            gt=0, le=10),
    _number("performance.block_days", "floor", 3, "Days in a row that are taken together.", "days", ge=1, le=366,
            whole=True),
    _number("performance.min_days", "floor", 7, "Labelled days that a partition must have to be judged.", "days", ge=2,
            le=3660, whole=True),
    # Retraining
    _flag("retraining.on_new_data", True, "New labelled rows, enough of them, start a retraining."),
    _flag("retraining.on_drift", True, "Harmful drift starts a retraining."),
    _flag("retraining.on_decay", True, "Decayed performance starts a retraining."),
    _number("retraining.every_days", "ceiling", 3650, "Age of the newest training at which one starts anyway.", "days",
            gt=0, le=36_500),
    _number("retraining.min_new_labels", "floor", 1000, "New labelled rows since the last training that suffice.",
            "rows", ge=0, whole=True),
    _number("retraining.cooldown_hours", "floor", 24, "Shortest time between two retrainings.", "hours",
            ge=0, le=87_600),
    _number("retraining.runs_per_week", "ceiling", 7, "Retrainings that may start within seven days.", "runs", ge=0,
            whole=True),
    _number("retraining.cost_per_week", "ceiling", 24, "Core hours that retrainings may use within seven days.",
            "core hours", ge=0),
    _number("retraining.breaker_failures", "ceiling", 3, "Failed or refused retrainings in a row that open it.",
            "runs", ge=1, le=1000, whole=True),
    _number("retraining.breaker_hours", "floor", 24, "How long the breaker stays open before one retraining is tried.",
            "hours", gt=0, le=87_600),
)
# fmt: on

CATALOGUE: Mapping[str, Definition] = MappingProxyType(
    {
        definition.name: definition
        for definition in (*(d for metric in METRICS.values() for d in _metric_settings(metric)), *_FIXED)
    }
)
"""Every setting by name: those of each metric first, then the others."""
