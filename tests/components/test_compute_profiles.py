"""A pipeline whose variants name profiles: what its steps carry and record, and what does not change with them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.errors import SpecError
from ml_assets.interfaces import ComputeProfile, ComputeRules, Machine
from ml_assets.spec import ComputeSpec, VariantSpec
from tests.components.shop import Shop, land_orders, policy, services

MakeShop = Callable[..., Shop]
KEY = ("shop", "returns")
RULES = ComputeRules(
    currency="USD",
    profiles={
        "cpu-small": ComputeProfile(name="cpu-small", price_per_hour=3600.0),
        "cpu-large": ComputeProfile(name="cpu-large", cores=8, memory_gib=32, price_per_hour=7200.0),
        "gpu": ComputeProfile(name="gpu", cores=4, gpus=1, price_per_hour=9000.0, node_selector={"pool": "gpu"}),
    },
)
LOGISTIC = "sklearn.linear_model.LogisticRegression"


def variants(**compute: ComputeSpec) -> dict[str, VariantSpec]:
    return {name: VariantSpec(estimator=LOGISTIC, compute=given) for name, given in compute.items()}


@pytest.fixture
def make_priced(tmp_path: Path, instance: dg.DagsterInstance) -> MakeShop:
    def make(gpus: int = 0, **changes: Any) -> Shop:
        land_orders(tmp_path / "landing")
        world = replace(services(tmp_path / "landing"), policy=policy(RULES), machine=Machine(gpus=gpus))
        return Shop(tmp_path, world, instance, **changes)

    return make


@pytest.fixture
def shop_with(make_priced: MakeShop) -> Callable[..., Shop]:
    def make(gpus: int = 0, **compute: ComputeSpec) -> Shop:
        return make_priced(gpus, variants=variants(**compute))

    return make


def asset(shop: Shop, *stage: str) -> dg.AssetsDefinition:
    key = dg.AssetKey([*KEY, *stage])
    return next(a for a in shop.definitions.assets or [] if isinstance(a, dg.AssetsDefinition) and key in a.keys)


def train(shop: Shop) -> None:
    for month in ("2024-01", "2024-02"):
        shop.data(month)
    assert shop.run("row_index", partition="2024-01").success
    models = [f"models/{name}" for name in shop.component.variants]
    assert shop.run("row_index", "training_set", *models, "candidate", partition="2024-02").success


def recorded(shop: Shop, *stage: str) -> dict[str, Any]:
    """Return the metadata of the newest materialization of a stage."""
    event = shop.instance.get_latest_materialization_event(dg.AssetKey([*KEY, *stage]))
    assert event is not None
    assert event.asset_materialization is not None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def document(shop: Shop, *stage: str) -> dict[str, Any]:
    return shop.world.data_store.read_document((*KEY, *stage), "2024-02")


def test_the_steps_carry_what_their_profiles_give(shop_with: Callable[..., Shop]) -> None:
    shop = shop_with(small=ComputeSpec(profile="cpu-small"), wide=ComputeSpec(profile="gpu", cores=2))

    small, wide, candidate = (
        asset(shop, *stage).op for stage in (("models", "small"), ("models", "wide"), ("candidate",))
    )
    assert small.tags["ml_assets/compute_profile"] == "cpu-small"
    assert (wide.tags["ml_assets/cores"], wide.tags["ml_assets/gpus"]) == ("2", "1")
    assert (candidate.tags["ml_assets/compute_profile"], candidate.tags["ml_assets/gpus"]) == ("gpu", "1")
    assert '"nvidia.com/gpu": "1"' in wide.tags["dagster-k8s/config"]
    assert (small.pool, wide.pool, candidate.pool) == ("models", "gpus", "gpus")


def test_steps_without_gpus_stay_in_the_pool_of_models(shop_with: Callable[..., Shop]) -> None:
    shop = shop_with(small=ComputeSpec())

    assert asset(shop, "models", "small").op.pool == "models"
    assert asset(shop, "candidate").op.pool is None
    assert "ml_assets/gpus" not in asset(shop, "models", "small").op.tags


def test_a_model_records_what_it_ran_on_and_what_that_cost(shop_with: Callable[..., Shop]) -> None:
    shop = shop_with(small=ComputeSpec(profile="cpu-small"))
    train(shop)

    shown, stored = recorded(shop, "models", "small"), document(shop, "models", "small")["compute"]
    assert (shown["compute_profile"], shown["device"], shown["cores"], shown["gpus"]) == ("cpu-small", "cpu", 1, 0)
    assert shown["currency"] == "USD"
    assert 0 < shown["cost"] <= shown["ml_assets/duration_seconds"] + 0.01  # a unit of money a second
    assert stored["cost"] == pytest.approx(stored["seconds"], abs=0.001)
    assert (stored["profile"], stored["price_per_hour"]) == ("cpu-small", 3600.0)
    assert recorded(shop, "candidate")["compute_profile"] == "cpu-small"


def test_without_a_profile_there_is_no_cost(shop_with: Callable[..., Shop]) -> None:
    shop = shop_with(small=ComputeSpec(cores=2))
    train(shop)

    shown = recorded(shop, "models", "small")
    assert (shown["device"], shown["cores"]) == ("cpu", 2)
    assert not {"compute_profile", "cost", "currency"} & set(shown)


def test_another_profile_changes_neither_code_versions_nor_data_versions(
    shop_with: Callable[..., Shop],
) -> None:
    versions = []
    for profile in ("cpu-small", "cpu-large"):
        with dg.DagsterInstance.ephemeral() as instance:
            shop = shop_with(small=ComputeSpec(profile=profile))
            shop.instance = instance
            train(shop)
            keys = ("code_version", "data_version")
            stages = (("models", "small"), ("candidate",))
            versions.append([recorded(shop, *stage)[f"ml_assets/{key}"] for stage in stages for key in keys])

    assert versions[0] == versions[1]


def test_a_gpu_changes_the_code_version_of_its_variant_and_of_the_candidate(shop_with: Callable[..., Shop]) -> None:
    cpu, gpu = (
        shop_with(one=ComputeSpec(), two=ComputeSpec()),
        shop_with(one=ComputeSpec(), two=ComputeSpec(profile="gpu")),
    )

    def versions(shop: Shop) -> list[str | None]:
        stages = (("models", "one"), ("models", "two"), ("candidate",))
        return [asset(shop, *stage).code_versions_by_key[dg.AssetKey([*KEY, *stage])] for stage in stages]

    same = [one == other for one, other in zip(versions(cpu), versions(gpu), strict=True)]
    assert same == [True, False, False]


def test_scikit_learn_on_a_step_with_gpus_is_recorded_as_on_the_cpu(shop_with: Callable[..., Shop]) -> None:
    shop = shop_with(gpus=1, wide=ComputeSpec(profile="gpu"))
    train(shop)

    shown = recorded(shop, "models", "wide")
    assert (shown["device"], shown["gpus"]) == ("cpu", 1)
    assert document(shop, "models", "wide")["compute"]["gpus_asked"] == 1


def test_a_step_on_a_machine_without_its_gpus_records_none(shop_with: Callable[..., Shop]) -> None:
    shop = shop_with(gpus=0, wide=ComputeSpec(profile="gpu"))
    train(shop)

    stored = document(shop, "models", "wide")["compute"]
    assert (stored["device"], stored["gpus"], stored["gpus_asked"]) == ("cpu", 0, 1)


def test_lightgbm_on_the_cpu_is_what_a_gpu_step_falls_back_to(make_priced: MakeShop) -> None:
    boosted = VariantSpec(
        estimator="lightgbm.LGBMClassifier", params={"n_estimators": 5}, compute=ComputeSpec(profile="gpu")
    )
    shop = make_priced(variants={"boosted": boosted})
    train(shop)

    assert recorded(shop, "models", "boosted")["device"] == "cpu"


def test_an_unknown_profile_of_a_pipeline_made_in_python_is_refused(shop_with: Callable[..., Shop]) -> None:
    with pytest.raises(SpecError, match="there is no compute profile 'gp'"):
        shop_with(a=ComputeSpec(profile="gp"))
