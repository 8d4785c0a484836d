"""A search whose workers are pods, each with a GPU of its own: one study, and pods that come and go change nothing."""

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest

from tests.kubernetes.double import NodeSpec
from tests.kubernetes.gpu_flights import MONTH, describe, installation, write_code
from tests.kubernetes.pod_jobs import GPU_TAINT, wait_for
from tests.kubernetes.trial_gate import ESTIMATOR

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TRIALS = 12
STAGE = ("models", "boosting")
TWO_GPUS = [
    NodeSpec(f"gpu-{number}", cpu="2", memory="8Gi", gpus=1, labels={"pool": "gpu"}, taints=[GPU_TAINT])
    for number in (1, 2)
]


def variants(*, workers: int, cores: int) -> dict[str, Any]:
    search = {
        "trials": TRIALS,
        "parallel": 2,
        "workers": workers,
        "folds": 1,
        "metric": "log_loss",
        "space": {
            "estimator.learning_rate": {"float": [0.02, 0.3], "log": True},
            "estimator.max_leaf_nodes": {"int": [4, 15]},
        },
    }
    return {
        "boosting": {
            "estimator": ESTIMATOR,
            "trusted_types": [ESTIMATOR],
            "params": {"max_iter": 60, "min_samples_leaf": 200, "early_stopping": False},
            "preprocessing": {"categorical": "ordinal"},
            "compute": {"profile": "gpu-small", "cores": cores, "memory_gib": 3, "checkpoint": True},
            "search": search,
        }
    }


def told_trials(state: Path) -> int:
    """Return how many trials have ended."""
    with closing(sqlite3.connect(state / "ledger.db")) as ledger:
        if not ledger.execute("SELECT 1 FROM sqlite_master WHERE name = 'trials'").fetchone():
            return 0
        return ledger.execute("SELECT count(*) FROM trials WHERE state = 'COMPLETE'").fetchone()[0]


def evaluators(state: Path) -> dict[int, str]:
    """Return which process evaluated each trial, by number."""
    with closing(sqlite3.connect(state / "ledger.db")) as ledger:
        rows = ledger.execute(
            "SELECT number, value_json FROM trials JOIN trial_user_attributes USING (trial_id) WHERE key = 'record'"
        ).fetchall()
    return {number: json.loads(record)["claim"] for number, record in rows}


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_two_pods_share_a_search_and_an_eviction_changes_nothing(tmp_path: Path, stack: ExitStack) -> None:
    prepared = tmp_path / "prepared"
    write_code(prepared, variants(workers=1, cores=2))
    alone = stack.enter_context(installation(prepared, tmp_path / "alone", TWO_GPUS))
    alone.run(["training_set", "models/boosting"], MONTH, MONTH)
    expected = alone.document(*STAGE)

    describe(prepared, variants(workers=2, cores=1))
    shared = stack.enter_context(installation(prepared, tmp_path / "shared", TWO_GPUS))
    story: Callable[[], str] = lambda: "\n".join(shared.story())  # noqa: E731
    shared.gate.share()
    shared.gate.hold_at(4)  # two rounds; both pods are at their third trial then
    worker = shared.start(["training_set", "models/boosting"], MONTH, MONTH)
    first, second = shared.running_pod("worker_1"), shared.running_pod("worker_2")
    wait_for(lambda: Counter(shared.gate.begun()) == {first: 3, second: 3}, story, seconds=480)
    assert told_trials(shared.state) == 4
    shared.kube.evict("flights", first)
    third = shared.running_pod("worker_1", other_than=first)
    wait_for(lambda: third in shared.gate.begun(), story, seconds=480)
    shared.gate.open()
    shared.finish(worker)

    found = shared.document(*STAGE)
    assert json.dumps(found["search"], sort_keys=True) == json.dumps(expected["search"], sort_keys=True)
    assert found["prediction_digest"] == expected["prediction_digest"]
    searching = [entry for entry in shared.nodes.history if "worker_" in entry["labels"]["dagster/op"]]
    assert {entry["node"] for entry in searching} == {"gpu-1", "gpu-2"}
    assert len(searching) == 3
    evaluated = evaluators(shared.state)
    assert len(evaluated) == TRIALS
    shares = sorted(Counter(evaluated.values()).values())
    assert len(shares) == 3
    assert shares[0] >= 2, evaluated
