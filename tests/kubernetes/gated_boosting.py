"""Histogram boosting whose trials pass the gate of `trial_gate`; pods import it by name."""

import multiprocessing
import os
from functools import cache
from pathlib import Path
from typing import Any

from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: TID253 - its base

from tests.kubernetes.trial_gate import VARIABLE, Gate


class GatedBoostingClassifier(HistGradientBoostingClassifier):
    """scikit-learn's, whose fits pass the gate once in each process that a search has forked for a trial."""

    def fit(self, X: Any, y: Any, *more: Any, **named: Any) -> "GatedBoostingClassifier":
        if multiprocessing.parent_process() is not None:
            _pass_once()
        super().fit(X, y, *more, **named)
        return self


@cache
def _pass_once() -> None:
    if folder := os.environ.get(VARIABLE):
        Gate(Path(folder)).pass_by(os.environ["HOSTNAME"])
