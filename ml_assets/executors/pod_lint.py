"""Pod configuration that would strand a step: refused before its run starts, since Kubernetes only waits."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ml_assets.compute import GPU_RESOURCE, K8S_TAG, gpus_asked
from ml_assets.errors import MlAssetsError


class PodConfigError(MlAssetsError):
    """The pod configuration of a step would leave it hanging, or start it twice."""


def require_sound_pod(step_key: str, tags: Mapping[str, str] | None) -> None:
    """Refuse a step whose own pod configuration (op tag `dagster-k8s/config`) would strand it.

    Raises:
        PodConfigError: With everything that is wrong.
    """
    config = _config(tags)
    problems = pod_problems(config, gpus=gpus_asked(tags))
    if problems:
        listing = "\n".join(f"  {problem}" for problem in problems)
        raise PodConfigError(f"Step {step_key}: its op tag {K8S_TAG!r} would strand it:\n{listing}")


def pod_problems(config: Mapping[str, Any], *, gpus: int = 0) -> list[str]:
    """Return what is wrong with a step's pod configuration, a sentence each.

    Args:
        config: As dagster-k8s takes it, such as {"job_spec_config": {"backoff_limit": 3}}; snake case or Kubernetes'
            own names.
        gpus: GPUs that the step's tags ask for.
    """
    job, pod = _normal(config.get("job_spec_config")), _normal(config.get("pod_spec_config"))
    container = _normal(config.get("container_config"))
    resources = _normal(container.get("resources"))
    return [*_job_problems(job), *_pod_problems(pod), *_gpu_problems(resources, gpus)]


def selector_problems(tags: Mapping[str, str] | None, merged: Mapping[str, str]) -> list[str]:
    """Return which labels keep a GPU step from every node that has GPUs, a sentence each.

    dagster-k8s merges node selectors by key, so that a GPU step gets also those that the run launcher or the code
    location gives to all pods, such as the pool of nodes without GPUs.

    Args:
        tags: Op tags of the step.
        merged: Node selector that its pod would have.
    """
    if not gpus_asked(tags):
        return []
    own = _normal(_config(tags).get("pod_spec_config")).get("nodeselector") or {}
    return [
        f"node selector {label}: {value} comes from the run launcher or the code location and is not the step's; a "
        f"node must have all labels, so a GPU node without it never fits. Set {label} in the profile's "
        "`node_selector` too, or take it out of the launcher's `run_k8s_config`."
        for label, value in sorted(merged.items())
        if label not in own
    ]


def _job_problems(job: Mapping[str, Any]) -> Iterator[str]:
    if _number(job.get("backofflimit")) > 0:
        yield (
            f"job_spec_config.backoff_limit is {job['backofflimit']}; expected 0: Kubernetes would start the step "
            "again while Dagster takes it for ended. Use a retry policy of the asset."
        )
    for count in ("parallelism", "completions"):
        if _number(job.get(count)) > 1:
            yield f"job_spec_config.{count} is {job[count]}; expected 1: a step has one pod."
    rules = _normal(job.get("podfailurepolicy")).get("rules") or []
    if any(_normal(rule).get("action") == "Ignore" for rule in rules):
        yield (
            "job_spec_config.pod_failure_policy has a rule with action Ignore; expected none: a pod that is replaced "
            "behind its back leaves the step in progress for ever. Evicted steps are started again without it."
        )


def _pod_problems(pod: Mapping[str, Any]) -> Iterator[str]:
    policy = pod.get("restartpolicy", "Never")
    if policy != "Never":
        yield (
            f"pod_spec_config.restart_policy is {policy}; expected Never: a container that starts again runs a step "
            "that Dagster takes for started already."
        )


def _gpu_problems(resources: Mapping[str, Any], gpus: int) -> Iterator[str]:
    asked = (resources.get("requests") or {}).get(GPU_RESOURCE)
    limit = (resources.get("limits") or {}).get(GPU_RESOURCE)
    for value in (asked, limit):
        if value is not None and not re.fullmatch(r"\d+", str(value)):
            yield f"{GPU_RESOURCE} is {value}; expected a whole number: Kubernetes divides no GPU."
    if asked is not None and str(asked) != str(limit):
        yield (
            f"{GPU_RESOURCE} is {asked} among the requests and {limit or 'absent'} among the limits; expected it as a "
            "limit alone."
        )
    elif str(limit or 0) != str(gpus):
        yield (
            f"the limit of {GPU_RESOURCE} is {limit or 0} and the tags ask for {gpus}; expected the same number, or "
            "the step is counted wrongly where teams share GPUs."
        )


def _config(tags: Mapping[str, str] | None) -> Mapping[str, Any]:
    return json.loads((tags or {}).get(K8S_TAG, "{}"))


def _normal(node: Any) -> dict[str, Any]:
    """Return a mapping with names such as backofflimit, which snake case and Kubernetes' own case have in common."""
    return (
        {str(key).replace("_", "").lower(): value for key, value in node.items()} if isinstance(node, Mapping) else {}
    )


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0
