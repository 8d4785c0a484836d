"""The Jobs of runs and of steps, as dagster-k8s makes them of what the chart configures."""

import json
from typing import Any

import pytest
import yaml
from dagster import DagsterRun
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._serdes import ConfigurableClassData
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import UserDefinedDagsterK8sConfig, construct_dagster_k8s_job

from ml_assets.compute import K8S_TAG
from ml_assets.executors.pods import PodLaunch, StepDemand
from resources.kubernetes.step_jobs import _hold
from tests.charts.rendering import Object, dagster_yaml, only, rendered

IMAGE = "registry.example/ml-assets:0.1.0"


def made_launcher(monkeypatch: pytest.MonkeyPatch) -> K8sRunLauncher:
    """Return Dagster's launcher of runs, made of the chart's configuration as Dagster makes it."""
    monkeypatch.setattr("kubernetes.config.load_incluster_config", lambda *_, **__: None)
    config = dagster_yaml(rendered(), "team-flights")["run_launcher"]
    data = ConfigurableClassData(config["module"], config["class"], yaml.safe_dump(config["config"]))
    return data.rehydrate(as_type=K8sRunLauncher)


def container_context(objects: list[Object], namespace: str) -> dict[str, Any]:
    """Return what a team's code server tells Dagster of the pods of its runs."""
    server = only(objects, "Deployment", "code-server", namespace=namespace)
    [container] = server["spec"]["template"]["spec"]["containers"]
    [text] = [e["value"] for e in container["env"] if e["name"] == "DAGSTER_CONTAINER_CONTEXT"]
    return json.loads(text)


def job_of(launcher: K8sRunLauncher, tags: dict[str, Any] | None = None, *, name: str = "job") -> Any:
    """Return the Job of a run of team flights, or of a step of it that has op tags of its own."""
    origin = RepositoryPythonOrigin(
        executable_path="python",
        code_pointer=ModuleCodePointer("deployments.flights.definitions", "defs"),
        container_image=IMAGE,
        container_context=container_context(rendered(), "team-flights"),
    )
    run = DagsterRun(job_name="job", job_code_origin=JobPythonOrigin("job", origin))
    context = K8sContainerContext.create_for_run(run, launcher, include_run_tags=tags is None)
    if tags is not None:
        own = UserDefinedDagsterK8sConfig.from_dict(tags[K8S_TAG])
        context = context.merge(K8sContainerContext(run_k8s_config=own))
    job = construct_dagster_k8s_job(
        job_config=context.get_k8s_job_config(IMAGE, launcher),
        args=["dagster"],
        job_name=name,
        pod_name=name,
        component="run_worker" if tags is None else "step_worker",
        user_defined_k8s_config=context.run_k8s_config,
    )
    if tags is not None:
        _hold(job, PodLaunch(job=name), StepDemand())
    return job
