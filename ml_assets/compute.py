"""What a step may use, as the op tags that executors and queues read, and what it therefore runs on."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from ml_assets.interfaces import ComputeProfile, StepResources
from ml_assets.spec import ComputeSpec

CORES_TAG = "ml_assets/cores"
MEMORY_TAG = "ml_assets/memory_mib"
GPUS_TAG = "ml_assets/gpus"
GPU_TYPE_TAG = "ml_assets/gpu_type"
GPU_REQUIRED_TAG = "ml_assets/gpu_required"
PROFILE_TAG = "ml_assets/compute_profile"
PRICE_TAG = "ml_assets/price_per_hour"
SPOT_TAG = "ml_assets/spot"
TIME_LIMIT_TAG = "ml_assets/time_limit_seconds"
PRIORITY_TAG = "ml_assets/priority"
OOM_MEMORY_TAG = "ml_assets/oom_memory_mib"
K8S_TAG = "dagster-k8s/config"
GPU_RESOURCE = "nvidia.com/gpu"

GPUS_POOL = "gpus"
"""Dagster pool of the steps that ask for GPUs; each takes as many slots as it asks for GPUs."""
MODELS_POOL = "models"
"""Dagster pool of the model stages that ask for none."""

Device = Literal["cpu", "cuda"]


def settled(spec: ComputeSpec, profile: ComputeProfile | None = None, *, currency: str = "EUR") -> StepResources:
    """Return what a step gets: what its description sets, for the rest its profile, for the rest the defaults.

    Args:
        spec: The description; whether the profile allows it was checked before.
        profile: The profile that it names, or None.
        currency: Of the profile's price.
    """
    own = {name: getattr(spec, name) for name in spec.model_fields_set if getattr(spec, name) is not None}
    if profile is None:
        return StepResources(**_own_resources(spec), currency=currency)
    memory = own.get("memory_gib", profile.memory_gib)
    spot = own.get("spot", profile.spot)
    price, labels, taints = profile.price_per_hour, dict(profile.node_selector), list(profile.tolerations)
    if spot:
        offer = profile.on_spot
        price = price if offer.price_per_hour is None else offer.price_per_hour
        labels |= offer.node_selector
        taints += [taint for taint in offer.tolerations if taint not in taints]
    gpus = own.get("gpus", profile.gpus)
    return StepResources(
        profile=profile.name,
        cores=own.get("cores", profile.cores),
        memory_gib=memory,
        gpus=gpus,
        gpu_type=own.get("gpu_type", profile.gpu_type) if gpus else None,
        gpu_required=gpus > 0 and not spec.cpu_fallback,
        spot=spot,
        time_limit=own.get("time_limit", profile.time_limit),
        image=own.get("image", profile.image),
        node_selector=labels | dict(spec.node_selector),
        tolerations=tuple(taints),
        priority=own.get("priority", profile.priority),
        checkpoint=spec.checkpoint,
        retry_memory_gib=tuple(size for size in profile.retry_memory_gib if size > memory),
        price_per_hour=price,
        currency=currency,
    )


def _own_resources(spec: ComputeSpec) -> dict[str, Any]:
    return {
        "cores": spec.cores,
        "memory_gib": spec.memory_gib,
        "gpus": spec.gpus,
        "gpu_type": spec.gpu_type if spec.gpus else None,
        "gpu_required": spec.gpus > 0 and not spec.cpu_fallback,
        "spot": spec.spot,
        "time_limit": spec.time_limit,
        "image": spec.image,
        "node_selector": dict(spec.node_selector),
        "tolerations": tuple(toleration.model_dump(exclude_none=True) for toleration in spec.tolerations),
        "priority": spec.priority,
        "checkpoint": spec.checkpoint,
    }


def op_tags(resources: StepResources) -> dict[str, Any]:
    """Return the op tags of a step: texts, and the pod's configuration as dagster-k8s takes it.

    dagster-k8s reads a step's pod from op tags alone, never from job tags.
    """
    tags: dict[str, Any] = {CORES_TAG: str(resources.cores), MEMORY_TAG: str(_mib(resources.memory_gib))}
    if resources.gpus:
        tags[GPUS_TAG] = str(resources.gpus)
        tags |= {GPU_TYPE_TAG: resources.gpu_type} if resources.gpu_type else {}
        tags |= {GPU_REQUIRED_TAG: "true"} if resources.gpu_required else {}
    if resources.profile is not None:
        tags[PROFILE_TAG] = resources.profile
    if resources.price_per_hour is not None:
        tags[PRICE_TAG] = f"{resources.price_per_hour:.10f}".rstrip("0").rstrip(".")
    if resources.spot:
        tags[SPOT_TAG] = "true"
    if resources.time_limit is not None:
        tags[TIME_LIMIT_TAG] = str(round(resources.time_limit.total_seconds()))
    if resources.priority is not None:
        tags[PRIORITY_TAG] = resources.priority
    if resources.retry_memory_gib:
        tags[OOM_MEMORY_TAG] = ",".join(str(_mib(size)) for size in resources.retry_memory_gib)
    return tags | {K8S_TAG: _pod(resources)}


def _pod(resources: StepResources) -> dict[str, Any]:
    """Return the pod's configuration; a GPU is a limit, since Kubernetes takes no other request for it."""
    memory = f"{_mib(resources.memory_gib)}Mi"
    limits = {"memory": memory} | ({GPU_RESOURCE: str(resources.gpus)} if resources.gpus else {})
    container: dict[str, Any] = {
        "resources": {"requests": {"cpu": str(resources.cores), "memory": memory}, "limits": limits}
    }
    pod: dict[str, Any] = {}
    if resources.image is not None:
        container["image"] = resources.image
    if resources.node_selector:
        pod["node_selector"] = dict(resources.node_selector)
    if resources.tolerations:
        pod["tolerations"] = [dict(toleration) for toleration in resources.tolerations]
    if resources.priority is not None:
        pod["priority_class_name"] = resources.priority
    return {"container_config": container} | ({"pod_spec_config": pod} if pod else {})


def largest(all_resources: Sequence[StepResources]) -> StepResources:
    """Return what a step gets that may do the work of any one of these.

    Sizes are the largest of each. Where it runs (profile, GPU type, spot, labels, taints, priority, image) is taken
    whole from the one with most GPUs, then the dearest: labels of two kinds of node fit no node.
    """
    main = max(all_resources, key=lambda r: (r.gpus, r.price_per_hour or 0.0, r.memory_gib, r.cores))
    limits = [r.time_limit for r in all_resources]
    memory = max(r.memory_gib for r in all_resources)
    prices = [r.price_per_hour for r in all_resources if r.price_per_hour is not None]
    return replace(
        main,
        cores=max(r.cores for r in all_resources),
        memory_gib=memory,
        gpu_required=any(r.gpu_required for r in all_resources),
        time_limit=None if None in limits else max(limit for limit in limits if limit is not None),
        checkpoint=any(r.checkpoint for r in all_resources),
        retry_memory_gib=tuple(sorted({s for r in all_resources for s in r.retry_memory_gib if s > memory})),
        price_per_hour=max(prices, default=None),
    )


def gpus_asked(tags: Mapping[str, str] | None) -> int:
    """Return how many GPUs the tags of a step ask for."""
    text = (tags or {}).get(GPUS_TAG, "0")
    return int(text) if text.isascii() and text.isdigit() else 0


def gpus_granted(asked: int, available: int) -> int:
    """Return how many GPUs a step gets where so many are: all it asks for, or none at all."""
    return asked if asked <= available else 0


def device_of(resources: StepResources, available: int) -> Device:
    """Return what a step computes on: "cuda" when it asks for GPUs and runs where there are enough, else "cpu"."""
    return "cuda" if gpus_granted(resources.gpus, available) else "cpu"


def _mib(gib: float) -> int:
    return round(gib * 1024)
