"""What a model stage ran on and what that cost, for its document and its metadata."""

import time
from collections.abc import Mapping
from typing import Any

from ml_assets.stages.step import Step


def execution(step: Step, *, device: str) -> dict[str, Any]:
    """Return what the step has used until now, JSON-ready.

    Args:
        step: The step, near its end.
        device: What its estimator computed on: "cpu" or "cuda".

    Returns:
        profile (None without one), device, cores, gpus (those it got), gpus_asked, gpu_type, spot, seconds of wall
        time, price_per_hour and cost in currency (None without a price).
    """
    resources = step.resources
    seconds = time.perf_counter() - step.started
    cost = resources.cost(seconds)
    return {
        "profile": resources.profile,
        "device": device,
        "cores": resources.cores,
        "gpus": resources.gpus if step.device == "cuda" else 0,
        "gpus_asked": resources.gpus,
        "gpu_type": resources.gpu_type,
        "spot": resources.spot,
        "seconds": round(seconds, 3),
        "price_per_hour": resources.price_per_hour,
        "cost": None if cost is None else round(cost, 6),
        "currency": resources.currency,
    }


def execution_facts(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an execution is shown on the asset: plain facts, and the cost where there is a price."""
    facts: dict[str, Any] = {"device": found["device"], "cores": found["cores"], "gpus": found["gpus"]}
    if found["profile"] is not None:
        facts["compute_profile"] = found["profile"]
    if found["cost"] is not None:
        facts |= {"cost": found["cost"], "currency": found["currency"]}
    return facts
