"""What the executor makes of the Job that dagster-k8s builds for a step."""

from typing import Any

import pytest

from ml_assets.compute import GPUS_TAG
from ml_assets.executors.pods import PodLaunch, PodRefusedError, PodRules, StepDemand
from resources.kubernetes.step_jobs import _hold, _refuse

DEMAND = StepDemand(cores=4, memory_mib=5000)


def _job(resources: dict[str, Any] | None) -> Any:
    from kubernetes import client

    container = client.V1Container(
        name="dagster", resources=None if resources is None else client.V1ResourceRequirements(**resources)
    )
    pod = client.V1PodTemplateSpec(metadata=client.V1ObjectMeta(), spec=client.V1PodSpec(containers=[container]))
    return client.V1Job(spec=client.V1JobSpec(template=pod, backoff_limit=3))


@pytest.mark.parametrize(
    ("resources", "requests"),
    [
        (None, {"cpu": "4", "memory": "5000Mi"}),
        ({"requests": {"memory": "6Gi"}}, {"cpu": "4", "memory": "6Gi"}),
        ({"limits": {"cpu": "8", "memory": "8Gi"}}, {}),  # a limit is a request, too
    ],
)
def test_a_pod_requests_what_the_tags_ask_for_where_nobody_says_otherwise(
    resources: dict[str, Any] | None, requests: dict[str, str]
) -> None:
    job = _job(resources)
    _hold(job, PodLaunch(job="job-0"), DEMAND)
    assert job.spec.template.spec.containers[0].resources.requests == requests
    assert job.spec.backoff_limit == 0


def test_a_start_with_more_memory_has_it_as_request_and_limit() -> None:
    job = _job({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"memory": "1Gi"}})
    _hold(job, PodLaunch(job="job-1", memory_mib=2048), DEMAND)
    resources = job.spec.template.spec.containers[0].resources
    assert (resources.requests, resources.limits) == ({"cpu": "2", "memory": "2048Mi"}, {"memory": "2048Mi"})


@pytest.mark.parametrize(
    ("asked", "away_seconds", "kept"),
    [(0, 60.0, 3600), (0, 7200.0, 14410), (86400, 1800.0, 86400), (None, 1800.0, None)],
)
def test_a_job_stays_until_the_executor_has_certainly_seen_its_end(
    asked: int | None, away_seconds: float, kept: int | None
) -> None:
    job = _job(None)
    job.spec.ttl_seconds_after_finished = asked
    launch = PodLaunch(job="job-0", keep_seconds=PodRules(away_seconds=away_seconds).keep_seconds)
    _hold(job, launch, DEMAND)
    assert job.spec.ttl_seconds_after_finished == kept


def test_gpus_that_come_with_the_run_launcher_are_refused() -> None:
    job = _job({"limits": {"nvidia.com/gpu": "1"}})
    _refuse(job, "train", {GPUS_TAG: "1"})
    with pytest.raises(PodRefusedError, match=r"step train: .*the limit of nvidia.com/gpu is 1 and the tags ask for 0"):
        _refuse(job, "train", {})
