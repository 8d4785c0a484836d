"""The Kubernetes Job of a step: what dagster-k8s makes of it, with retries and limits left to the executor."""

from collections.abc import Mapping
from math import ceil
from typing import Any

from dagster import DagsterRun
from dagster._core.executor.step_delegating import StepHandlerContext  # noqa: TID251 what step handlers are given
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.executor import K8sStepHandler
from dagster_k8s.job import construct_dagster_k8s_job, get_k8s_job_name

from ml_assets.compute import gpus_asked
from ml_assets.errors import MlAssetsError
from ml_assets.executors.pod_lint import pod_problems, selector_problems
from ml_assets.executors.pods import PodLaunch, PodRefusedError, StepDemand

INSTANCE_LABEL = "ml-assets/instance"
RUN_LABEL = "dagster/run-id"
STEP_WORKER = "app.kubernetes.io/component=step_worker"
STEP_ACCOUNT = "ml-assets/step-account"
"""Annotation that a code location gives to its pods: the service account of steps, where run workers have another."""
WORKER_MODULE = "ml_assets.executors.pod_worker"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class StepJobs(K8sStepHandler):
    """dagster-k8s's step handler, whose Jobs have a name for each start of a step and leave retries to the executor.

    Args:
        reach: How it reaches the cluster, as dagster-k8s takes it.
        instance_id: Of Dagster's instance; the Jobs carry it, so that nobody removes those of another instance.
    """

    def __init__(self, reach: Mapping[str, Any], instance_id: str) -> None:
        super().__init__(image=None, container_context=K8sContainerContext(), **reach)
        self._instance_id = instance_id

    def build(self, context: StepHandlerContext, launch: PodLaunch, demand: StepDemand) -> tuple[Any, str]:
        """Return the Job (a V1Job) of one start of a step, and its namespace.

        The layers are merged as dagster-k8s does it: run launcher, code location, op tags.

        Raises:
            MlAssetsError: If nothing says which image or namespace the pod has.
            PodRefusedError: If no node would take the pod, or it would hold other GPUs than the step's tags ask for.
        """
        step_key = self._get_step_key(context)
        container = self._get_container_context(context)
        args = context.execute_step_args
        config = container.get_k8s_job_config(None, context.instance.run_launcher)
        image = config.job_image or args.job_origin.repository_origin.container_image
        if not image and "image" not in container.run_k8s_config.container_config:
            raise MlAssetsError(
                f"step {step_key}: nothing says which image its pod has; expected `job_image` of the run launcher, the "
                "image of the code location (DAGSTER_CURRENT_IMAGE), or `image` of the step's `compute`."
            )
        if not container.namespace:
            raise MlAssetsError(f"step {step_key}: nothing says which namespace its pod has; set `job_namespace`.")
        job: Any = construct_dagster_k8s_job(
            job_config=config.with_image(image) if image else config,
            args=None,
            job_name=launch.job,
            pod_name=launch.job,
            component="step_worker",
            user_defined_k8s_config=container.run_k8s_config,
            labels=self._labels(context.dagster_run, step_key),
            env_vars=[
                *args.get_command_env(),
                {"name": "DAGSTER_RUN_JOB_NAME", "value": context.dagster_run.job_name},
                {"name": "DAGSTER_RUN_STEP_KEY", "value": step_key},
                *({"name": name, "value": str(demand.cores)} for name in _THREADS),
            ],
        )
        _hold(job, launch, demand)
        _refuse(job, step_key, context.step_tags[step_key])
        main = job.spec.template.spec.containers[0]
        main.command, main.args = [*_python(args.job_origin.repository_origin.entry_point), "-m", WORKER_MODULE], None
        return job, container.namespace

    def _labels(self, run: DagsterRun, step_key: str) -> dict[str, str]:
        labels = {
            "dagster/job": run.job_name,
            "dagster/op": step_key,
            RUN_LABEL: run.run_id,
            INSTANCE_LABEL: self._instance_id,
        }
        if run.remote_job_origin:
            location = run.remote_job_origin.repository_origin.code_location_origin.location_name
            labels["dagster/code-location"] = location
        return labels


def job_name(run_id: str, step_key: str, number: int) -> str:
    """Return the name of the Job of a start of a step: the same for the same start, another one for each."""
    return f"dagster-step-{get_k8s_job_name(run_id, step_key)}-{number}"


def _hold(job: Any, launch: PodLaunch, demand: StepDemand) -> None:
    """Keep the Job to one pod, the pod to its time limit, and give it what the step asks for in this start."""
    from kubernetes.client import V1ResourceRequirements

    spec, pod = job.spec, job.spec.template.spec
    # Kubernetes must not start a second pod: the executor decides what becomes of a step that lost the first.
    spec.backoff_limit, spec.pod_failure_policy, pod.restart_policy = 0, None, "Never"
    spec.completions = spec.parallelism = None
    if spec.ttl_seconds_after_finished is not None:
        # With a Job that goes before the executor has looked at it goes the way in which its pod ended: a crash would
        # count as a pod that was taken away, and the step would start again and use up no retry.
        spec.ttl_seconds_after_finished = max(spec.ttl_seconds_after_finished, ceil(launch.keep_seconds))
    # A step has no business with the cluster: where there is an account without rights, it gets that one.
    account = (job.spec.template.metadata.annotations or {}).get(STEP_ACCOUNT)
    pod.service_account_name = account or pod.service_account_name
    if demand.time_limit_seconds is not None:
        # Of the pod, not of the Job: time that it waits for a free node does not count.
        pod.active_deadline_seconds = demand.time_limit_seconds
    container = pod.containers[0]
    container.resources = resources = container.resources or V1ResourceRequirements()
    # A pod that asks for nothing is put on any node, and a namespace with a quota does not take it at all.
    asked = {"cpu": str(demand.cores), **({"memory": f"{demand.memory_mib}Mi"} if demand.memory_mib else {})}
    said = {**(resources.limits or {}), **(resources.requests or {})}
    resources.requests = {**(resources.requests or {}), **{k: v for k, v in asked.items() if k not in said}}
    if launch.memory_mib is not None:
        size = f"{launch.memory_mib}Mi"
        resources.requests = {**resources.requests, "memory": size}
        resources.limits = {**(resources.limits or {}), "memory": size}


def _refuse(job: Any, step_key: str, tags: Mapping[str, str]) -> None:
    """Refuse what strands a step only with what the run launcher and the code location add to it."""
    pod = job.spec.template.spec
    if problems := selector_problems(tags, pod.node_selector or {}):
        raise PodRefusedError(f"step {step_key}: no node would take its pod: {' '.join(problems)}")
    resources = {"requests": pod.containers[0].resources.requests, "limits": pod.containers[0].resources.limits}
    if problems := pod_problems({"container_config": {"resources": resources}}, gpus=gpus_asked(tags)):
        raise PodRefusedError(
            f"step {step_key}: with what the run launcher and the code location add, {' '.join(problems)} Take it out "
            "of their configuration, or give the step a profile with as many GPUs."
        )


def _python(entry_point: Any) -> list[str]:
    """Return the Python of the step's image: the one of `python -m dagster`, or that on the path."""
    words = list(entry_point or [])
    return words[:1] if words[1:] == ["-m", "dagster"] else ["python"]
