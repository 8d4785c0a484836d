"""Pod configuration that would strand a step is refused in words."""

import json
from typing import Any

import pytest

from ml_assets.compute import GPUS_TAG, K8S_TAG, op_tags
from ml_assets.executors.pod_lint import PodConfigError, pod_problems, require_sound_pod, selector_problems
from ml_assets.interfaces import StepResources

SOUND = {"container_config": {"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}}


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ({"job_spec_config": {"backoff_limit": 3}}, "backoff_limit is 3; expected 0"),
        ({"job_spec_config": {"backoffLimit": 1}}, "backoff_limit is 1; expected 0"),
        ({"job_spec_config": {"completions": 2}}, "completions is 2; expected 1"),
        (
            {"job_spec_config": {"pod_failure_policy": {"rules": [{"action": "Count"}, {"action": "Ignore"}]}}},
            "a rule with action Ignore",
        ),
        ({"pod_spec_config": {"restart_policy": "Always"}}, "restart_policy is Always; expected Never"),
        ({"pod_spec_config": {"restartPolicy": "OnFailure"}}, "restart_policy is OnFailure; expected Never"),
        (
            {"container_config": {"resources": {"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "0.5"}}}},
            "nvidia.com/gpu is 0.5; expected a whole number",
        ),
        (
            {"container_config": {"resources": {"limits": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"}}}},
            "the limit of nvidia.com/gpu is 1 and the tags ask for 0",
        ),
        (
            {
                "container_config": {
                    "resources": {
                        "requests": {"cpu": "1", "memory": "1Gi", "nvidia.com/gpu": "1"},
                        "limits": {"nvidia.com/gpu": "2"},
                    }
                }
            },
            "1 among the requests and 2 among the limits",
        ),
    ],
)
def test_what_strands_a_step_is_told(part: dict[str, Any], told: str) -> None:
    assert any(told in problem for problem in pod_problems(SOUND | part))


@pytest.mark.parametrize(
    "config",
    [
        SOUND,
        SOUND | {"job_spec_config": {"backoff_limit": 0, "ttl_seconds_after_finished": 60}},
        SOUND | {"job_spec_config": {"podFailurePolicy": {"rules": [{"action": "FailJob"}]}}},
        SOUND | {"pod_spec_config": {"restart_policy": "Never"}},
    ],
)
def test_a_sound_configuration_passes(config: dict[str, Any]) -> None:
    assert pod_problems(config) == []


@pytest.mark.parametrize("gpus", [0, 1, 4])
def test_the_tags_that_are_made_here_pass(gpus: int) -> None:
    tags = op_tags(StepResources(gpus=gpus, node_selector={"pool": "gpu"}))
    written = {name: value if isinstance(value, str) else json.dumps(value) for name, value in tags.items()}

    require_sound_pod("step", written)
    assert pod_problems(tags[K8S_TAG], gpus=gpus) == []


def test_a_step_is_refused_with_everything_that_is_wrong() -> None:
    config = {"job_spec_config": {"backoff_limit": 3}, "pod_spec_config": {"restart_policy": "Always"}}

    with pytest.raises(PodConfigError, match=r"(?s)Step train: .*backoff_limit is 3.*restart_policy is Always"):
        require_sound_pod("train", {K8S_TAG: json.dumps(config)})


def test_a_label_that_a_gpu_step_got_from_elsewhere_fits_no_gpu_node() -> None:
    own = {"pod_spec_config": {"node_selector": {"accelerator": "t4"}}}
    tags = {GPUS_TAG: "1", K8S_TAG: json.dumps(own)}

    (problem,) = selector_problems(tags, {"accelerator": "t4", "pool": "cpu"})
    assert problem.startswith("node selector pool: cpu comes from the run launcher or the code location")
    assert selector_problems(tags, {"accelerator": "t4"}) == []
    assert selector_problems({K8S_TAG: json.dumps(own)}, {"accelerator": "t4", "pool": "cpu"}) == []
