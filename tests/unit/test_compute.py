"""What a step gets, the tags that say so, and where it therefore runs."""

import json
from datetime import timedelta

import pytest

from ml_assets.compute import (
    GPU_REQUIRED_TAG,
    GPU_TYPE_TAG,
    GPUS_TAG,
    OOM_MEMORY_TAG,
    PRICE_TAG,
    PRIORITY_TAG,
    PROFILE_TAG,
    SPOT_TAG,
    TIME_LIMIT_TAG,
    device_of,
    gpus_asked,
    largest,
    op_tags,
    settled,
)
from ml_assets.interfaces import ComputeProfile, SpotOffer, StepResources
from ml_assets.spec import ComputeSpec, TolerationSpec

GPU = ComputeProfile(
    name="gpu-small",
    cores=4,
    memory_gib=16,
    gpus=1,
    gpu_type="nvidia-t4",
    price_per_hour=0.6,
    node_selector={"pool": "gpu"},
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists"},),
    priority="batch",
    time_limit=timedelta(hours=4),
    retry_memory_gib=(32.0, 64.0),
    on_spot=SpotOffer(price_per_hour=0.2, node_selector={"spot": "true"}, tolerations=({"key": "spot"},)),
)


def spec(**values: object) -> ComputeSpec:
    return ComputeSpec.model_validate({"profile": "gpu-small", **values})


def pod(resources: StepResources) -> dict:
    return op_tags(resources)["dagster-k8s/config"]


def test_without_a_profile_a_step_gets_what_its_description_says() -> None:
    found = settled(ComputeSpec(cores=2, memory_gib=1.5))

    assert (found.cores, found.memory_gib, found.gpus, found.price_per_hour) == (2, 1.5, 0, None)
    assert op_tags(found) == {
        "ml_assets/cores": "2",
        "ml_assets/memory_mib": "1536",
        "dagster-k8s/config": {
            "container_config": {
                "resources": {"requests": {"cpu": "2", "memory": "1536Mi"}, "limits": {"memory": "1536Mi"}}
            }
        },
    }


def test_a_profile_says_everything_that_the_description_does_not() -> None:
    found = settled(spec(), GPU, currency="USD")

    tags = op_tags(found)
    assert {name: tags[name] for name in tags if name != "dagster-k8s/config"} == {
        "ml_assets/cores": "4",
        "ml_assets/memory_mib": "16384",
        GPUS_TAG: "1",
        GPU_TYPE_TAG: "nvidia-t4",
        PROFILE_TAG: "gpu-small",
        PRICE_TAG: "0.6",
        TIME_LIMIT_TAG: "14400",
        PRIORITY_TAG: "batch",
        OOM_MEMORY_TAG: "32768,65536",
    }
    assert tags["dagster-k8s/config"]["pod_spec_config"] == {
        "node_selector": {"pool": "gpu"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
        "priority_class_name": "batch",
    }
    assert found.currency == "USD"


def test_a_gpu_is_asked_for_as_a_limit_alone() -> None:
    resources = pod(settled(spec(), GPU))["container_config"]["resources"]

    assert resources["limits"]["nvidia.com/gpu"] == "1"
    assert "nvidia.com/gpu" not in resources["requests"]


def test_every_tag_but_the_pod_is_a_text_and_the_pod_is_json() -> None:
    tags = op_tags(settled(spec(image="team/train:3", spot=True), GPU))

    assert {type(value) for name, value in tags.items() if name != "dagster-k8s/config"} == {str}
    assert json.loads(json.dumps(tags["dagster-k8s/config"])) == tags["dagster-k8s/config"]
    assert tags["dagster-k8s/config"]["container_config"]["image"] == "team/train:3"


def test_the_description_overrides_the_profile() -> None:
    found = settled(spec(cores=2, memory_gib=32.0, time_limit="2h", cpu_fallback=False), GPU)

    assert (found.cores, found.memory_gib, found.time_limit) == (2, 32.0, timedelta(hours=2))
    assert found.retry_memory_gib == (64.0,)  # what is left above its own
    assert op_tags(found)[GPU_REQUIRED_TAG] == "true"


def test_a_value_that_is_written_down_counts_even_when_it_is_the_default() -> None:
    assert settled(spec(cores=1), GPU).cores == 1
    assert settled(spec(gpus=0), GPU).gpu_type is None


def test_a_spot_step_has_the_offers_price_labels_and_taints() -> None:
    found = settled(spec(spot=True), GPU)

    assert found.price_per_hour == 0.2
    assert found.node_selector == {"pool": "gpu", "spot": "true"}
    assert found.tolerations == (*GPU.tolerations, {"key": "spot"})
    assert op_tags(found)[SPOT_TAG] == "true"


def test_a_description_may_narrow_the_nodes() -> None:
    found = settled(spec(node_selector={"zone": "a"}), GPU)

    assert found.node_selector == {"pool": "gpu", "zone": "a"}


@pytest.mark.parametrize(("price", "text"), [(0.04, "0.04"), (2.0, "2"), (0.0, "0"), (1e-6, "0.000001")])
def test_a_price_is_a_plain_decimal(price: float, text: str) -> None:
    assert op_tags(StepResources(price_per_hour=price))[PRICE_TAG] == text


def test_the_refit_gets_the_largest_of_each_size_and_the_place_of_the_one_with_gpus() -> None:
    cpu = settled(
        ComputeSpec(profile="cpu"),
        ComputeProfile(name="cpu", cores=8, memory_gib=24.0, price_per_hour=0.4, node_selector={"pool": "cpu"}),
    )

    found = largest([cpu, settled(spec(), GPU)])

    assert (found.cores, found.memory_gib, found.gpus, found.gpu_type) == (8, 24.0, 1, "nvidia-t4")
    assert (found.profile, found.node_selector, found.priority) == ("gpu-small", {"pool": "gpu"}, "batch")
    assert found.time_limit is None  # one of them has none
    assert found.retry_memory_gib == (32.0, 64.0)
    assert found.price_per_hour == 0.6


def test_the_refit_needs_a_gpu_if_any_variant_does() -> None:
    needs = settled(spec(cpu_fallback=False), GPU)

    assert largest([settled(spec(), GPU), needs]).gpu_required


def test_one_variant_is_its_own_largest() -> None:
    one = settled(spec(spot=True, checkpoint=True), GPU)

    assert largest([one]) == one


@pytest.mark.parametrize(("gpus", "available", "device"), [(0, 4, "cpu"), (1, 0, "cpu"), (2, 1, "cpu"), (2, 2, "cuda")])
def test_the_device_is_cuda_only_with_all_the_gpus_that_were_asked_for(gpus: int, available: int, device: str) -> None:
    assert device_of(StepResources(gpus=gpus), available) == device


def test_tags_say_how_many_gpus_are_asked_for() -> None:
    assert [gpus_asked(tags) for tags in (None, {}, {GPUS_TAG: "3"})] == [0, 0, 3]


def test_the_cost_is_the_share_of_an_hour() -> None:
    assert StepResources(price_per_hour=0.6).cost(1800) == pytest.approx(0.3)
    assert StepResources().cost(1800) is None


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"operator": "Exists", "value": "x", "key": "k"}, "no value beside operator Exists"),
        ({"value": "x"}, "a key, or operator Exists"),
    ],
)
def test_a_toleration_is_one_that_kubernetes_takes(values: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TolerationSpec.model_validate(values)
