"""What the reaper does when the cluster lets it remove some Jobs and not others."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import dagster as dg
import pytest

from ml_assets.executors.pods import ClusterAwayError, PodRefusedError
from resources.kubernetes import reaper as reaper_module
from resources.kubernetes.access import Cluster
from resources.kubernetes.reaper import Reaper, ReapError


class Jobs:
    """A cluster with Jobs of runs that Dagster knows no more; what `fails` names does as it says."""

    def __init__(self, jobs: Mapping[str, Sequence[str]], fails: Mapping[str, Exception]) -> None:
        self.left = {namespace: list(names) for namespace, names in jobs.items()}
        self.fails = fails
        self.asked: list[str] = []

    def jobs(self, namespace: str, _: str) -> list[dict[str, Any]]:
        self._ask(namespace)
        labels = {"dagster/run-id": "gone", "dagster/op": "train"}
        return [{"metadata": {"name": name, "labels": labels}} for name in self.left[namespace]]

    def delete_job(self, namespace: str, name: str) -> None:
        self._ask(name)
        self.left[namespace].remove(name)

    def _ask(self, what: str) -> None:
        self.asked.append(what)
        if what in self.fails:
            raise self.fails[what]


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def _reaper(instance: dg.DagsterInstance, jobs: Jobs) -> Reaper:
    return Reaper(instance=instance, cluster=cast("Cluster", jobs), namespaces=list(jobs.left))


def test_a_job_that_cannot_be_removed_keeps_no_other_and_what_was_removed_is_told(
    instance: dg.DagsterInstance,
) -> None:
    fails = {"b": ClusterAwayError("Kubernetes Job b: 500 a webhook failed"), "no": PodRefusedError("403 forbidden")}
    jobs = Jobs({"team": ["a", "b", "c"], "no": ["d"], "other": ["e"]}, fails)
    with pytest.raises(ReapError) as failed:
        _reaper(instance, jobs).reap()
    assert jobs.left == {"team": ["b"], "no": ["d"], "other": []}
    assert [one.job for one in failed.value.reaped] == ["a", "c", "e"]
    message = str(failed.value)
    assert "Kubernetes Job b: 500 a webhook failed" in message
    assert "403 forbidden" in message
    removed = [f"  team/{name} of step train (run gone): its run was deleted" for name in "ac"]
    assert "\n".join(["Removed were:", *removed]) in message


def test_a_cluster_that_is_away_is_not_asked_for_each_job(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper_module, "_SILENCE_SECONDS", 0.0)
    names = [f"job-{number}" for number in range(50)]
    jobs = Jobs({"team": names}, dict.fromkeys(names[1:], ClusterAwayError("ConnectTimeoutError")))
    with pytest.raises(ReapError, match=r"not answered for 0 s; no more was tried") as failed:
        _reaper(instance, jobs).reap()
    assert [one.job for one in failed.value.reaped] == ["job-0"]
    assert len(jobs.asked) < 10


def test_many_jobs_that_stay_keep_no_other_and_are_told_in_short(instance: dg.DagsterInstance) -> None:
    names = [f"job-{number}" for number in range(50)]
    jobs = Jobs({"team": names}, dict.fromkeys(names[:49], ClusterAwayError("500 a webhook failed")))
    with pytest.raises(ReapError, match="and 29 more") as failed:
        _reaper(instance, jobs).reap()
    assert [one.job for one in failed.value.reaped] == ["job-49"]


def test_where_all_goes_well_the_jobs_are_returned(instance: dg.DagsterInstance) -> None:
    jobs = Jobs({"team": ["a", "b"]}, {})
    assert [one.job for one in _reaper(instance, jobs).reap()] == ["a", "b"]
    assert jobs.left == {"team": []}
