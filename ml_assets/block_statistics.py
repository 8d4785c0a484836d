"""Metrics as functions of block weights, for the block bootstrap."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ml_assets.metric_values import RANK_METRICS, Ranking, sum_terms, value_of_sums
from ml_assets.metrics import Floats

Statistic = Callable[[Floats], Floats]
"""Block weights of shape (replicates, n_blocks) → values of shape (replicates,)."""


def pair_wins(y: NDArray, score: Floats, block: NDArray[np.int64], n_blocks: int) -> Floats:
    """Return shape (n_blocks, n_blocks): pairs that positives of one block win over negatives of another.

    M[b, c] counts the pairs (positive of b, negative of c) in which the positive scores higher, ties as one
    half. Under block weights w the AUC's numerator is w·M·w, without rounding.
    """
    order = np.argsort(score, kind="stable")
    positive, block, ranked = y[order].astype(bool), block[order], score[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), ranked.size - 1)
    group = np.repeat(np.arange(ends.size), np.diff(ends, prepend=-1))[positive]
    winning = block[positive]
    losing = np.where(positive, -1, block)
    wins = np.empty((n_blocks, n_blocks))
    for other in range(n_blocks):
        below = np.cumsum(losing == other)[ends]
        beaten = below - 0.5 * np.diff(below, prepend=0)
        wins[:, other] = np.bincount(winning, beaten[group], minlength=n_blocks)
    return wins


def _auc_statistic(y: NDArray, score: Floats, block: NDArray[np.int64], n_blocks: int) -> Statistic:
    wins = pair_wins(y, score, block, n_blocks)
    positives = np.bincount(block, y.astype(np.float64), minlength=n_blocks)
    negatives = np.bincount(block, minlength=n_blocks) - positives

    def statistic(weights: Floats) -> Floats:
        pairs = (weights @ positives) * (weights @ negatives)
        won = ((weights @ wins) * weights).sum(axis=1)
        return np.divide(won, pairs, out=np.full_like(won, np.nan), where=pairs > 0)

    return statistic


def _ranking_statistic(name: str, y: NDArray, score: Floats, block: NDArray[np.int64]) -> Statistic:
    ranking = Ranking(y, score)
    value = ranking.roc_auc if name == "roc_auc" else ranking.average_precision
    return lambda weights: np.array([value(replicate[block]) for replicate in weights])


def _sum_statistic(name: str, y: NDArray, score: Floats, block: NDArray[np.int64], n_blocks: int) -> Statistic:
    terms = sum_terms(name, y, score)
    sums = np.column_stack([np.bincount(block, column, minlength=n_blocks) for column in terms.T])
    return lambda weights: value_of_sums(name, weights @ sums)


def block_statistic(
    name: str, y: NDArray, score: Floats, block: NDArray[np.int64], n_blocks: int, replicates: int
) -> Statistic:
    """Return the metric as a function of block weights, in its cheapest form."""
    if name not in RANK_METRICS:
        return _sum_statistic(name, y, score, block, n_blocks)
    if name == "roc_auc_ovr":
        parts = [
            block_statistic("roc_auc", y == k, score[:, k], block, n_blocks, replicates) for k in range(score.shape[1])
        ]
        return lambda weights: np.mean([part(weights) for part in parts], axis=0)
    # Counting pairs costs a pass over the rows for each block, weighing them one for each replicate.
    if name == "roc_auc" and n_blocks <= min(replicates, 2_000):
        return _auc_statistic(y, score, block, n_blocks)
    return _ranking_statistic(name, y, score, block)
