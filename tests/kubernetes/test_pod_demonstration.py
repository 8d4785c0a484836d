"""The flights pipeline with two GPU variants and a search of 20 trials on one GPU, with and without faults."""

import itertools
import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from dagster import DagsterEventType as Type

from tests.kubernetes.double import NodeSpec
from tests.kubernetes.gpu_flights import MONTH, Site, installation, write_code
from tests.kubernetes.pod_jobs import GPU_TAINT, wait_for
from tests.kubernetes.trial_gate import ESTIMATOR

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

TRIALS = 20
BEFORE_THE_FAULTS = 5
"""So many trials have ended when the first fault comes; the next one waits until the last fault has come."""
NEW_WORKER = "The run has a new worker"
COMPUTE = {"profile": "gpu-small", "cores": 1, "memory_gib": 3, "checkpoint": True}
VARIANTS = {
    "logistic": {
        "estimator": "sklearn.linear_model.LogisticRegression",
        "params": {"max_iter": 60, "C": 0.1},
        "preprocessing": {"numeric": "standardize", "missing": "median", "categorical": "ordinal"},
        "compute": {**COMPUTE, "checkpoint": False},
    },
    "boosting": {
        "estimator": ESTIMATOR,
        "trusted_types": [ESTIMATOR],
        "params": {"max_iter": 60, "min_samples_leaf": 200, "early_stopping": False},
        "preprocessing": {"categorical": "ordinal"},
        "compute": COMPUTE,
        "search": {
            "trials": TRIALS,
            "folds": 1,
            "metric": "log_loss",
            "space": {
                "estimator.learning_rate": {"float": [0.02, 0.3], "log": True},
                "estimator.max_leaf_nodes": {"int": [4, 15]},
            },
        },
    },
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The code location, and a landing zone with two months."""
    folder = tmp_path_factory.mktemp("prepared")
    write_code(folder, VARIANTS)
    return folder


@pytest.fixture
def build(prepared: Path, tmp_path: Path) -> Iterator[Callable[[str], Site]]:
    """Builds installations, one after the other."""
    machine = NodeSpec("gpu-1", cpu="4", memory="8Gi", gpus=1, labels={"pool": "gpu"}, taints=[GPU_TAINT])
    with ExitStack() as stack:
        yield lambda name: stack.enter_context(installation(prepared, tmp_path / name, [machine]))


MODELS = ["training_set", "models/logistic", "models/boosting", "candidate"]


def _disturb(site: Site, worker: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Kill the run's worker in the middle of the search, and two pods under its successor's eyes; return the successor.

    The search stands still meanwhile, so that every fault comes while its pod has most of its work before it.
    """
    story: Callable[[], str] = lambda: "\n".join(site.story())  # noqa: E731
    wait_for(lambda: len(site.gate.begun()) == BEFORE_THE_FAULTS + 1, story, seconds=480)
    first = site.running_pod("boosting")
    worker.send_signal(signal.SIGKILL)
    worker.wait(30)
    with site.instance() as instance:
        run = instance.get_runs(limit=1)[0]
    successor = site.resume(run)
    wait_for(lambda: any(NEW_WORKER in message for message in site.told()), story, seconds=480)
    site.kube.evict("flights", first)
    second = site.running_pod("boosting", other_than=first)
    wait_for(lambda: second in site.gate.begun(), story, seconds=480)
    site.kube.preempt("flights", second)
    wait_for(lambda: second not in {pod.name for pod in list(site.nodes.running.values())}, story, seconds=480)
    site.gate.open()
    return successor


def test_faults_on_one_gpu_change_nothing_in_the_result(build: Callable[[str], Site]) -> None:
    sites = {}
    for name in ("calm", "stormy"):
        site = sites[name] = build(name)
        if name == "stormy":
            site.gate.hold_at(BEFORE_THE_FAULTS)
        worker = site.start(MODELS, MONTH, MONTH)
        if name == "stormy":
            worker = _disturb(site, worker)
        site.finish(worker)
        assert site.nodes.max_gpu_in_use == {"gpu-1": 1}
        spans = sorted((entry["start"], entry["end"]) for entry in site.nodes.history if entry["gpus"])
        assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))

    calm, stormy = sites["calm"], sites["stormy"]
    assert len(stormy.nodes.history) == len(calm.nodes.history) + 2
    for stage in (("models", "logistic"), ("models", "boosting"), ("candidate",)):
        assert stormy.document(*stage)["prediction_digest"] == calm.document(*stage)["prediction_digest"], stage
    searched = stormy.document("models", "boosting")["search"]
    assert len(searched["trials"]) == TRIALS
    assert json.dumps(searched, sort_keys=True) == json.dumps(
        calm.document("models", "boosting")["search"], sort_keys=True
    )
    with stormy.instance() as instance:
        (run,) = instance.get_runs(limit=1)
        ended = {Type.STEP_FAILURE, Type.STEP_UP_FOR_RETRY}
        assert not instance.get_records_for_run(run.run_id, of_type=ended).records
        told = [entry.message for entry in instance.all_logs(run.run_id)]
    assert sum("lost its pod" in message for message in told) == 2
    assert sum(NEW_WORKER in message for message in told) >= 1
