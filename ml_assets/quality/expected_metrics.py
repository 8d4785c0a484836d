"""Metrics of rows whose labels are chances: each row counts as every class, by its chance of it."""

import numpy as np
from numpy.typing import NDArray

from ml_assets.metric_values import RANK_METRICS, sum_terms, value_of_sums
from ml_assets.metrics import Floats


class ExpectedMetrics:
    """Metrics of scored rows under chances of their classes.

    Args:
        score: Shape (n,) for binary, (n, n_classes) for multiclass.
        unit: Number of each row's day, or block of days, 0 to n_units − 1, shape (n,).
        n_units: Days or blocks.
    """

    def __init__(self, score: Floats, unit: NDArray[np.int64], n_units: int) -> None:
        self._score, self._unit, self._n_units = score, unit, n_units
        self._n_classes = 2 if score.ndim == 1 else score.shape[1]
        self._rankings: dict[int, _ExpectedRanking] = {}
        self._terms: dict[str, list[Floats]] = {}

    def values(self, metric: str, chances: Floats, weights: Floats) -> tuple[Floats, Floats]:
        """Return a metric of the model and of the best constant, for each weighing of the days.

        Args:
            metric: A classification metric of `METRICS`.
            chances: Shape (n, n_classes).
            weights: Weight of each unit, ≥ 0, shape (k, n_units).

        Returns:
            Two arrays of shape (k,); NaN where the metric has no value.
        """
        if metric in RANK_METRICS:
            return self._ranked(metric, chances, weights)
        by_unit = [self._by_unit(self._class_terms(metric)[k] * chances[:, [k]]) for k in range(self._n_classes)]
        model = value_of_sums(metric, weights @ np.sum(by_unit, axis=0))
        return model, value_of_sums(metric, weights @ self._constant_sums(metric, chances))

    def _class_terms(self, metric: str) -> list[Floats]:
        """Return what each row adds to the metric's sums if it is of a class: shape (n, n_terms) for each class."""
        if metric not in self._terms:
            n_rows = len(self._score)
            labels = [self._labels(k, n_rows) for k in range(self._n_classes)]
            self._terms[metric] = [sum_terms(metric, label, self._score) for label in labels]
        return self._terms[metric]

    def _labels(self, k: int, n_rows: int) -> NDArray:
        return np.full(n_rows, k, dtype=np.float64 if self._score.ndim == 1 else np.int64)

    def _constant_sums(self, metric: str, chances: Floats) -> Floats:
        """Return the sums by unit of a model that always gives the mean chances, shape (n_units, n_terms)."""
        share = chances.mean(axis=0)
        constant = share[1:] if self._score.ndim == 1 else share[None, :]
        terms = np.vstack([sum_terms(metric, self._labels(k, 1), constant) for k in range(self._n_classes)])
        return self._by_unit(chances) @ terms

    def _by_unit(self, columns: Floats) -> Floats:
        sums = [np.bincount(self._unit, column, minlength=self._n_units) for column in columns.T]
        return np.column_stack(sums).astype(np.float64)

    def _ranked(self, metric: str, chances: Floats, weights: Floats) -> tuple[Floats, Floats]:
        if metric == "roc_auc_ovr":
            parts = [self._auc(k, chances[:, k], weights) for k in range(self._n_classes)]
            return np.mean(parts, axis=0), np.full(len(weights), 0.5)
        chance = chances[:, 1]
        if metric == "roc_auc":
            return self._auc(1, chance, weights), np.full(len(weights), 0.5)
        ranking = self._ranking(1)
        value = np.array([ranking.average_precision(chance, weight[self._unit]) for weight in weights])
        positives = np.bincount(self._unit, chance, minlength=self._n_units)
        return value, (weights @ positives) / (weights @ np.bincount(self._unit, minlength=self._n_units))

    def _auc(self, k: int, chance: Floats, weights: Floats) -> Floats:
        ranking = self._ranking(k)
        return np.array([ranking.roc_auc(chance, weight[self._unit]) for weight in weights])

    def _ranking(self, k: int) -> "_ExpectedRanking":
        if k not in self._rankings:
            self._rankings[k] = _ExpectedRanking(self._score if self._score.ndim == 1 else self._score[:, k])
        return self._rankings[k]


class _ExpectedRanking:
    """Rows sorted by score once; those of one score form a group, between which no threshold passes."""

    def __init__(self, score: Floats) -> None:
        self._order = np.argsort(score, kind="stable")
        ranked = score[self._order]
        self._ends = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)

    def _groups(self, weight: Floats) -> Floats:
        return np.diff(np.cumsum(weight[self._order])[self._ends], prepend=0.0)

    def roc_auc(self, chance: Floats, weight: Floats) -> float:
        """Return expected won pairs over expected pairs; a row is no pair with itself."""
        positives, negatives = self._groups(weight * chance), self._groups(weight * (1.0 - chance))
        own = float((weight**2 * chance * (1.0 - chance)).sum())
        pairs = positives.sum() * negatives.sum() - own
        wins = positives @ (np.cumsum(negatives) - 0.5 * negatives) - 0.5 * own
        return float(wins / pairs) if pairs > 0 else float("nan")

    def average_precision(self, chance: Floats, weight: Floats) -> float:
        """Return the average precision of expected counts."""
        positives, everything = self._groups(weight * chance)[::-1], self._groups(weight)[::-1]
        total, rows = positives.sum(), np.cumsum(everything)
        if total <= 0.0:
            return float("nan")
        precision = np.divide(np.cumsum(positives), rows, out=np.zeros_like(rows), where=rows > 0)
        return float(positives @ precision / total)
