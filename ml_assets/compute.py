"""What a step may use, as the tags that executors read: threads here, requests and limits on Kubernetes."""

from typing import Any

from ml_assets.spec import ComputeSpec

CORES_TAG = "ml_assets/cores"
K8S_TAG = "dagster-k8s/config"
GPU_RESOURCE = "nvidia.com/gpu"


def op_tags(compute: ComputeSpec) -> dict[str, Any]:
    """Return the op tags of a step with this compute profile.

    The warm executor reads `ml_assets/cores` for its budget and for the threads of numeric libraries;
    dagster-k8s reads container resources from op tags alone, never from job tags.
    """
    requests = {"cpu": str(compute.cores), "memory": f"{round(compute.memory_gib * 1024)}Mi"}
    # A GPU is asked for as a limit: Kubernetes takes no other request for it, and no fraction.
    limits = {"memory": requests["memory"]} | ({GPU_RESOURCE: str(compute.gpus)} if compute.gpus else {})
    return {
        CORES_TAG: str(compute.cores),
        K8S_TAG: {"container_config": {"resources": {"requests": requests, "limits": limits}}},
    }


def largest(profiles: list[ComputeSpec]) -> ComputeSpec:
    """Return a profile that has at least what each of these asks for."""
    return ComputeSpec(
        cores=max(p.cores for p in profiles),
        memory_gib=max(p.memory_gib for p in profiles),
        gpus=max(p.gpus for p in profiles),
    )
