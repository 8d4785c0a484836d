"""The config schema of the executor: what dagster.yaml, a profile or a run may set of it."""

from dagster import Array, Field, Float, Int, Noneable, Shape, String
from dagster._core.execution.retries import get_retries_config  # noqa: TID251 config of executors
from dagster._core.execution.tags import get_tag_concurrency_limits_config  # noqa: TID251 config of executors

from ml_assets.executors.pods import PodRules

_RULES = PodRules()

_PODS = {
    "pending_seconds": (Float, _RULES.pending_seconds, "Longest that a pod may wait for its start."),
    "queue_seconds": (Float, _RULES.queue_seconds, "The same where it only waits for a free GPU or quota."),
    "notice_seconds": (Float, _RULES.notice_seconds, "Time of waiting after which the run's log tells why."),
    "look_seconds": (Float, _RULES.look_seconds, "Time between two looks at the cluster."),
    "event_seconds": (Float, _RULES.event_seconds, "Time between two looks at the run's log."),
    "lost_seconds": (Float, _RULES.lost_seconds, "Time after its grace period at which a leaving pod is lost."),
    "away_seconds": (Float, _RULES.away_seconds, "Longest that the cluster's API may be away."),
    "free_starts": (Int, _RULES.free_starts, "Starts after evictions and the like that use up no retry."),
}

EXECUTOR_CONFIG = {
    "max_concurrent": Field(
        Noneable(Int),
        default_value=None,
        description="Cores that the steps of one run share, and so the most steps at once; by default the "
        "cores this process may run on.",
    ),
    "retries": get_retries_config(),
    "tag_concurrency_limits": get_tag_concurrency_limits_config(),
    "preload": Field(
        Array(String),
        default_value=[],
        description="Modules the run process imports once before the first step, such as those that most steps import.",
    ),
    "memory_mib": Field(
        Noneable(Int),
        default_value=None,
        description="Memory in MiB that forked steps share: those of one run where there is a cluster, else those of "
        "all runs of this Dagster instance on this machine. A step that asks for more gets a pod where there is a "
        "cluster, and else all of it. By default the limit of this process's container, or the machine's memory.",
    ),
    "gpus": Field(
        Noneable(Array(String)),
        default_value=None,
        description="GPUs of this machine as CUDA names them, in order, such as ['0', '1']. Steps that ask for GPUs "
        "share them where there is no cluster; with too few, a step runs on the CPU or its run is refused.",
    ),
    "pods": Field(
        Shape(
            {name: Field(kind, default_value=value, description=text) for name, (kind, value, text) in _PODS.items()}
        ),
        description="Times in seconds, and counts, for steps in pods.",
    ),
}
"""Schema of the config by the name of each setting."""
