"""A search as it is stored and shown: what it tried and found, apart from what differs from run to run."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_assets.interfaces import StudyPlan, Trial
from ml_assets.search.folds import Fold
from ml_assets.search.leading import Found

if TYPE_CHECKING:
    import pandas as pd

LEAST_DIGITS = 5
"""Significant digits of a parameter in a table."""


def search_document(
    plan: StudyPlan, found: Found, *, metric: str, folds: Sequence[Fold], importance: Mapping[str, float]
) -> dict[str, Any]:
    """Return what a search found; the same trials give the same document."""
    best = found.best
    return {
        "study": plan.name,
        "metric": metric,
        "direction": plan.direction,
        "sampler": plan.sampler,
        "pruner": plan.pruner,
        "seed": plan.seed,
        "parallel": plan.parallel,
        "folds": [
            {"validation": f.span, "training_rows": len(f.train), "validation_rows": len(f.validation)} for f in folds
        ],
        "best": {"number": best.number, "value": None if best.result is None else best.result.value}
        | {"params": dict(best.params)},
        "out_of_time": found.out_of_time,
        "importance": dict(importance),
        "trials": [_trial_document(trial) for trial in found.trials],
    }


def search_record(found: Found) -> dict[str, Any]:
    """Return how a search went: what differs between runs that find the same."""
    return {
        "kept": found.kept,
        "resumed": found.resumed,
        "seconds": round(sum(t.result.seconds for t in found.trials if t.result), 3),
        "trials": [
            {"number": t.number, "seconds": t.result.seconds if t.result else 0.0}
            | {"deaths": t.deaths, "resumes": t.resumes}
            for t in found.trials
        ],
    }


def trials_table(document: Mapping[str, Any], record: Mapping[str, Any]) -> "pd.DataFrame":
    """Return the trials of a stored search as a table, the best first, failed ones last."""
    import pandas as pd

    best, metric = document["best"]["number"], document["metric"]
    names = list(dict.fromkeys(name for trial in document["trials"] for name in trial["params"]))
    columns = _columns(names, taken=("trial", "state", metric, "seconds", "reason"))
    seconds = {trial["number"]: trial["seconds"] for trial in record["trials"]}
    rows = [
        {"trial": f"{trial['number']} ★" if trial["number"] == best else str(trial["number"]), "state": trial["state"]}
        | {metric: trial["value"], "seconds": seconds[trial["number"]]}
        | {columns[name]: _shown(trial["params"], name) for name in names}
        | ({"reason": trial["reason"][:200]} if any(t["reason"] for t in document["trials"]) else {})
        for trial in sorted(document["trials"], key=lambda t: _rank(t, document["direction"]))
    ]
    return pd.DataFrame(rows)


def _columns(names: Sequence[str], *, taken: Sequence[str]) -> dict[str, str]:
    """Return the column of each parameter: its name without the prefix, where that is no other column's."""
    short = [name.partition(".")[2] for name in names]
    return {
        name: name if brief in taken or short.count(brief) > 1 else brief
        for name, brief in zip(names, short, strict=True)
    }


def state_counts(document: Mapping[str, Any]) -> str:
    """Return how the trials of a stored search ended, such as "20: 15 completed, 4 pruned, 1 failed"."""
    states = [trial["state"] for trial in document["trials"]]
    counts = [f"{states.count(state)} {state}" for state in ("completed", "pruned", "failed") if state in states]
    return f"{len(states)}: {', '.join(counts)}"


def shown_params(params: Mapping[str, Any]) -> str:
    """Return parameters in one line.

    >>> shown_params({"estimator.max_depth": None, "estimator.learning_rate": 0.123456})
    'max_depth: null, learning_rate: 0.12346'
    """
    return ", ".join(f"{name.partition('.')[2]}: {_shown(params, name)}" for name in params)


def _trial_document(trial: Trial) -> dict[str, Any]:
    result = trial.result
    return {
        "number": trial.number,
        "state": trial.state,
        "value": None if result is None else result.value,
        "params": dict(trial.params),
        "folds": list(trial.folds),
        "reports": {} if result is None else {str(step): value for step, value in sorted(result.reports.items())},
        "reason": "" if result is None else result.reason,
    }


def _rank(trial: Mapping[str, Any], direction: str) -> tuple[int, float]:
    order = ("completed", "pruned", "failed").index(trial["state"])
    value = trial["value"] or 0.0
    return order, value if direction == "minimize" else -value


def _shown(params: Mapping[str, Any], name: str) -> str:
    if name not in params:
        return ""
    value = params[name]
    return f"{value:.{LEAST_DIGITS}g}" if isinstance(value, float) else json.dumps(value).strip('"')
