"""The jobs whose steps run in pods of the double; run workers and pods build them by name, with a folder for notes."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from ml_assets.compute import CORES_TAG, GPUS_TAG, K8S_TAG, MEMORY_TAG, OOM_MEMORY_TAG, TIME_LIMIT_TAG
from ml_assets.executors.warm_executor import build_executor

IMAGE = "registry.example/team:1.0"
GPU_TAINT = {"key": "nvidia.com/gpu", "effect": "NoSchedule", "value": "present"}


def note(directory: str, name: str, value: Any) -> None:
    with Path(directory, f"{name}.jsonl").open("a") as file:  # one short line: appends of several do not mix
        file.write(json.dumps(value) + "\n")


def notes(directory: str | Path, name: str) -> list[Any]:
    path = Path(directory, f"{name}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def gpu(pod: dict[str, Any] | None = None, image: str | None = None, **tags: str) -> dict[str, Any]:
    """Op tags of a step with one GPU, as `ml_assets.compute.op_tags` makes them."""
    resources = {"requests": {"cpu": "1", "memory": "1024Mi"}, "limits": {"memory": "1024Mi", "nvidia.com/gpu": "1"}}
    return {
        CORES_TAG: "1",
        MEMORY_TAG: "1024",
        GPUS_TAG: "1",
        K8S_TAG: {
            "container_config": {"resources": resources, **({"image": image} if image else {})},
            "pod_spec_config": {
                "node_selector": {"pool": "gpu"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                **(pod or {}),
            },
        },
        **tags,
    }


def job(assets: list[Any], pods: dict[str, Any] | None = None, **config: Any) -> dg.JobDefinition:
    from resources.kubernetes.access import ClusterAccess
    from resources.kubernetes.pod_runner import KubernetesPods

    def open_cluster(instance: dg.DagsterInstance, run: dg.DagsterRun) -> KubernetesPods:
        return KubernetesPods(ClusterAccess(), instance, run)

    quick = {"look_seconds": 0.3, "event_seconds": 0.2, "notice_seconds": 0.5, "lost_seconds": 2.0}
    executor = build_executor(open_cluster).configured(
        {"max_concurrent": 2, "memory_mib": 4096, "pods": {**quick, **(pods or {})}, **config}
    )
    definitions = dg.Definitions(assets=assets, jobs=[dg.define_asset_job("job", "*")], executor=executor)
    return definitions.resolve_job_def("job")


def hold(directory: str, name: str, seconds: float = 900) -> None:
    """Say where this attempt runs; the first one then waits to be taken away."""
    note(directory, name, os.environ.get("HOSTNAME", ""))
    if len(notes(directory, name)) == 1:
        time.sleep(seconds)


def mixed(directory: str) -> dg.JobDefinition:
    """A light step, two GPU steps that want the only GPU, a step too large for the worker, a light step."""

    @dg.asset
    def before() -> int:
        note(directory, "forked", os.getppid())
        return 1

    def on_gpu(name: str) -> dg.AssetsDefinition:
        def body(before: int) -> int:
            started = time.time()
            time.sleep(0.5)
            where = {"gpu": os.environ["CUDA_VISIBLE_DEVICES"], "threads": os.environ["OMP_NUM_THREADS"]}
            note(directory, "spans", {"start": started, "end": time.time(), **where})
            return before + 1

        return dg.asset(name=name, op_tags=gpu())(body)

    tags = {MEMORY_TAG: "5000", K8S_TAG: {"container_config": {"resources": {"requests": {"memory": "5000Mi"}}}}}

    @dg.asset(op_tags=tags)
    def large(before: int) -> int:
        note(directory, "large", os.environ["HOSTNAME"])
        return before

    @dg.asset
    def after(first: int, second: int, large: int) -> None:
        note(directory, "after", [os.getppid(), first + second + large])

    return job([before, on_gpu("first"), on_gpu("second"), large, after])


def held(directory: str, retries: int = 0, kind: str = "plain") -> dg.JobDefinition:
    """A GPU step whose first attempt waits to be taken away, and a light step behind it."""
    policy = dg.RetryPolicy(max_retries=retries) if retries else None
    tags = {
        "plain": gpu,
        "deaf": lambda: gpu({"termination_grace_period_seconds": 1}),
        "low": lambda: gpu({"priority_class_name": "low"}),
        "limited": lambda: gpu(**{TIME_LIMIT_TAG: "4"}),
        "roomy": lambda: gpu(**{OOM_MEMORY_TAG: "1536,2048"}),
        "hasty": gpu,
    }[kind]()
    if kind == "hasty":
        tags[K8S_TAG]["job_spec_config"] = {"ttl_seconds_after_finished": 0}

    @dg.asset(op_tags=tags, retry_policy=policy, pool="gpus")
    def held(context: dg.AssetExecutionContext) -> int:
        if kind == "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        hold(directory, "held")
        return context.retry_number

    @dg.asset
    def after(held: int) -> None:
        note(directory, "after", held)

    return job([held, after])


def dropped(directory: str) -> dg.JobDefinition:
    """A GPU step that gets its signal in a finalizer, out of which Python raises nothing."""

    class Finalized:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    @dg.asset(op_tags=gpu(), pool="gpus")
    def deafened() -> None:
        Finalized()  # gone at once
        hold(directory, "deafened")

    return job([deafened])


def stuck(directory: str) -> dg.JobDefinition:
    """GPU steps whose pods cannot start, each for another reason."""
    gpus = {"requests": {"cpu": "1"}, "limits": {"nvidia.com/gpu": "3"}}
    reasons = {
        "image": gpu(image="registry.example/nobody:9"),
        "node": gpu({"node_selector": {"pool": "tpu"}}),
        "account": gpu({"service_account_name": "ghost"}),
        "priority": gpu({"priority_class_name": "ghost"}),
        "quota": {**gpu(), GPUS_TAG: "3", K8S_TAG: {"container_config": {"resources": gpus}}},
    }

    def cannot_start(name: str, tags: dict[str, Any]) -> dg.AssetsDefinition:
        def body() -> None:
            note(directory, "ran", name)

        retry = dg.RetryPolicy(max_retries=1)
        return dg.asset(name=name, op_tags=tags, retry_policy=retry, pool="stuck")(body)

    assets = [cannot_start(name, tags) for name, tags in reasons.items()]
    return job(assets, pods={"pending_seconds": 10.0, "queue_seconds": 900.0})


def queued(directory: str) -> dg.JobDefinition:
    """A GPU step that has to wait for longer than a pod may wait for its start."""

    @dg.asset(op_tags=gpu(), pool="gpus")
    def queued() -> None:
        note(directory, "ran", "queued")

    return job([queued], pods={"pending_seconds": 8.0, "queue_seconds": 900.0})


def followed(directory: str) -> dg.JobDefinition:
    """A GPU step, and a light step behind it that waits for a word."""

    @dg.asset(op_tags=gpu(), pool="gpus")
    def heavy() -> int:
        return 1

    @dg.asset
    def behind(heavy: int) -> None:
        note(directory, "behind", heavy)
        wait_for(Path(directory, "go").exists, "the word to go on")

    return job([heavy, behind])


def pods_in_a_row(directory: str) -> dg.JobDefinition:
    """Two GPU steps, one behind the other; the first one waits for a word."""

    @dg.asset(op_tags=gpu(), pool="gpus")
    def first() -> int:
        note(directory, "first", os.environ["HOSTNAME"])
        wait_for(Path(directory, "go").exists, "the word to go on")
        return 1

    @dg.asset(op_tags=gpu(), pool="gpus")
    def second(first: int) -> None:
        note(directory, "second", os.environ["HOSTNAME"])

    return job([first, second])


def two_worlds(directory: str) -> dg.JobDefinition:
    """A pod and a forked step at the same time, both held at first, and a light step behind both."""

    @dg.asset
    def done() -> int:
        note(directory, "done", os.getpid())
        return 1

    @dg.asset(op_tags=gpu(), pool="gpus")
    def in_pod(done: int) -> int:
        note(directory, "in_pod", os.environ["HOSTNAME"])
        wait_for(Path(directory, "go").exists, "the word to go on")
        return done

    @dg.asset
    def forked(done: int) -> int:
        note(directory, "forked", os.getpid())
        wait_for(Path(directory, "go").exists, "the word to go on")
        return done

    @dg.asset
    def after(in_pod: int, forked: int) -> None:
        note(directory, "after", in_pod + forked)

    return job([done, in_pod, forked, after])


def wait_for(condition: Callable[[], Any], what: str | Callable[[], str], seconds: float = 480) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds} s for {what if isinstance(what, str) else what()}")
        time.sleep(0.05)
    return found
