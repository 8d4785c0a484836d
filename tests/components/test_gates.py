"""A failed gate holds its data version back wherever it is read from; raw Dagster lets each of these through."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from ml_assets.interfaces import Verdict
from ml_assets.testing.ledger import FakeLedger
from ml_assets.testing.policy_source import FakePolicySource
from tests.components.shop import Shop

BAD = "DE|2024-01"
MakeShop = Callable[..., Shop]


def spoil(shop: Shop, partition: str = BAD) -> None:
    """Rewrite a partition's file with an amount that its expectation refuses."""
    country, month = partition.split("|")
    path = Path(shop.world.landing.root) / "shop" / f"{month}_{country}.csv"
    frame = pd.read_csv(path)
    frame.loc[0, "amount"] = 5000.0
    frame.to_csv(path, index=False)


def verdicts(shop: Shop, stage: str, partition: str) -> list[Verdict]:
    assert isinstance(shop.world.ledger, FakeLedger)
    return shop.world.ledger.verdicts(("shop", "returns", stage), partition)


def failure(result: dg.ExecuteInProcessResult, stage: str) -> str:
    (event,) = [e for e in result.all_events if e.is_step_failure and e.step_key == f"shop__returns__{stage}"]
    data = event.step_failure_data.user_failure_data
    return (data.description if data else event.step_failure_data.error_display_string) or ""


class TestRawDagster:
    """What the gate is for: a blocking check of Dagster holds nothing back outside its own run (FACTS §1)."""

    @staticmethod
    def graph() -> tuple[dg.AssetsDefinition, dg.AssetsDefinition]:
        days = dg.StaticPartitionsDefinition(["good", "bad"])

        @dg.asset(partitions_def=days, check_specs=[dg.AssetCheckSpec("sound", asset="data", blocking=True)])
        def data(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=context.partition_key == "good")])

        @dg.asset(partitions_def=days, deps=[data])
        def model() -> None:
            return None

        return data, model

    def test_downstream_in_a_run_of_its_own_proceeds(self, instance: dg.DagsterInstance) -> None:
        data, model = self.graph()
        first = dg.materialize([data, model], partition_key="bad", instance=instance, raise_on_error=False)
        assert not first.success

        later = dg.materialize([data, model], selection=[model], partition_key="bad", instance=instance)

        assert later.success

    def test_a_run_that_leaves_the_check_out_proceeds(self, instance: dg.DagsterInstance) -> None:
        days = dg.StaticPartitionsDefinition(["bad"])

        @dg.asset(partitions_def=days)
        def data() -> None:
            return None

        @dg.asset(partitions_def=days, deps=[data])
        def model() -> None:
            return None

        @dg.asset_check(asset=data, blocking=True)
        def sound() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=False)

        definitions = dg.Definitions(assets=[data, model], asset_checks=[sound])
        with_check = definitions.resolve_implicit_global_asset_job_def()
        assert not with_check.execute_in_process(partition_key="bad", instance=instance, raise_on_error=False).success

        job = dg.define_asset_job("without", dg.AssetSelection.assets(data, model).without_checks())
        without = dg.Definitions(assets=[data, model], asset_checks=[sound], jobs=[job]).resolve_job_def("without")

        assert without.execute_in_process(partition_key="bad", instance=instance).success


def automated(condition: dg.AutomationCondition, instance: dg.DagsterInstance) -> set[str | None]:
    """Materialize a bad partition and then a good one, and return the partitions that the condition requests below."""
    days = dg.StaticPartitionsDefinition(["bad", "good"])

    @dg.asset(partitions_def=days, check_specs=[dg.AssetCheckSpec("sound", asset="data", blocking=True)])
    def data(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=context.partition_key == "good")])

    @dg.asset(partitions_def=days, deps=[data], automation_condition=condition)
    def model() -> None:
        return None

    definitions = dg.Definitions(assets=[data, model])
    first = dg.evaluate_automation_conditions(definitions, instance)
    for partition in ("bad", "good"):
        dg.materialize([data], partition_key=partition, instance=instance, raise_on_error=False)
    result = dg.evaluate_automation_conditions(definitions, instance, cursor=first.cursor)
    return {p for p in ("bad", "good") if p in result.get_requested_partitions(dg.AssetKey("model"))}


@pytest.mark.filterwarnings("ignore::dagster_shared.utils.warnings.BetaWarning")  # inside Dagster's own evaluation
class TestRawAutomation:
    """Automation asks for what a failed check should hold back (FACTS §1); here such a run is refused at its gate."""

    def test_eager_ignores_checks(self, instance: dg.DagsterInstance) -> None:
        assert "bad" in automated(dg.AutomationCondition.eager(), instance)

    def test_of_an_unpartitioned_check_the_last_writer_speaks_for_all_partitions(
        self, instance: dg.DagsterInstance
    ) -> None:
        condition = dg.AutomationCondition.eager() & dg.AutomationCondition.all_deps_blocking_checks_passed()

        assert "bad" in automated(condition, instance)


def test_downstream_stops_in_the_same_run(make_shop: MakeShop) -> None:
    shop = make_shop()
    spoil(shop)

    result = shop.run("raw_data", "features", partition=BAD)

    assert not result.success
    assert result.asset_materializations_for_node("shop__returns__raw_data")
    assert not result.asset_materializations_for_node("shop__returns__features")
    assert [v.outcome for v in verdicts(shop, "raw_data", BAD) if v.check == "expectations"] == ["failed"]


def test_downstream_stops_in_a_later_run_of_its_own(make_shop: MakeShop) -> None:
    shop = make_shop()
    spoil(shop)
    shop.run("raw_data", partition=BAD)

    result = shop.run("features", partition=BAD)

    assert not result.success
    message = failure(result, "features")
    assert "Gate 'expectations' failed on shop/returns/raw_data [DE|2024-01]" in message
    assert "column_values_to_be_between(amount)" in message


def test_a_run_cannot_leave_the_check_out(make_shop: MakeShop) -> None:
    shop = make_shop()
    spoil(shop)

    with pytest.raises(dg.DagsterInvalidDefinitionError):
        shop.run("raw_data", partition=BAD, checks=False)


def test_data_without_a_verdict_are_closed(make_shop: MakeShop) -> None:
    shop = make_shop()
    assert shop.run("raw_data", partition=BAD).success
    table = shop.world.data_store.read(("shop", "returns", "raw_data"), BAD)
    shop.world.data_store.write(("shop", "returns", "raw_data"), BAD, table.slice(1))

    result = shop.run("features", partition=BAD)

    assert not result.success
    assert "has no verdict on shop/returns/raw_data [DE|2024-01]" in failure(result, "features")
    assert "no verdict means closed" in failure(result, "features")


def test_a_range_keeps_the_bad_partition_back_and_does_its_neighbours(make_shop: MakeShop) -> None:
    shop = make_shop()
    spoil(shop)

    raw = shop.run("raw_data", span=("DE|2024-01", "FR|2024-02"))
    features = shop.run("features", span=("DE|2024-01", "FR|2024-02"))

    assert raw.success  # the range itself goes on: the gate of the bad partition holds it back
    assert not features.success
    assert "1 of 4 partitions failed; the others are done." in failure(features, "features")
    done = shop.instance.get_materialized_partitions(dg.AssetKey(["shop", "returns", "features"]))
    assert done == {"DE|2024-02", "FR|2024-01", "FR|2024-02"}


def test_a_correction_opens_the_gate(make_shop: MakeShop) -> None:
    shop = make_shop()
    path = Path(shop.world.landing.root) / "shop" / "2024-01_DE.csv"
    good = path.read_bytes()
    spoil(shop)
    shop.run("raw_data", partition=BAD)

    path.write_bytes(good)

    assert shop.run("raw_data", "features", partition=BAD).success


def test_a_month_with_a_closed_gate_never_reaches_training(make_shop: MakeShop) -> None:
    shop = make_shop()
    shop.data("2024-01")
    assert shop.run("row_index", partition="2024-01").success
    spoil(shop)
    shop.run("raw_data", partition=BAD)
    shop.run("features", partition=BAD)

    assert shop.run("row_index", partition="2024-01").success, "the features it had before are still sound"
    shop.data("2024-02")
    stale = shop.run("features", partition="FR|2024-01")
    assert stale.success


def test_a_metric_gate_stops_promotion_and_records_the_refusal(make_shop: MakeShop) -> None:
    shop = make_shop(thresholds={"roc_auc.floor": 0.99})
    for month in ("2024-01", "2024-02"):
        shop.data(month)
    shop.run("row_index", partition="2024-01")

    result = shop.models("2024-02")
    alone = shop.run("promotion", partition="2024-02")

    assert not result.success
    assert not alone.success
    assert "Gate 'roc_auc.floor' failed" in failure(alone, "promotion")
    (decision,) = shop.world.ledger.decisions(("shop", "returns"))
    assert decision.outcome == "refused"
    assert "its lower end must be at least 0.99" in decision.reason
    assert shop.world.model_registry.version_by_alias("shop.returns", "champion") is None


def test_a_changed_threshold_closes_until_the_evaluation_is_judged_by_it(make_shop: MakeShop) -> None:
    shop = make_shop()
    for month in ("2024-01", "2024-02"):
        shop.data(month)
    shop.run("row_index", partition="2024-01")
    assert shop.models("2024-02").success

    shop.world = replace(shop.world, policy=FakePolicySource({"roc_auc.floor": 0.5, "roc_auc.margin": 0.02}))
    stale = shop.run("promotion", partition="2024-02")
    assert "has no verdict" in failure(stale, "promotion")

    assert shop.run("evaluation", "promotion", partition="2024-02").success


@pytest.mark.parametrize("stage", ["raw_data", "features"])
def test_each_partition_has_its_own_check_history(make_shop: MakeShop, stage: str) -> None:
    shop = make_shop()
    shop.run("raw_data", "features", span=("DE|2024-01", "FR|2024-01"))

    events = shop.instance.all_logs(
        shop.instance.get_runs()[0].run_id, of_type=dg.DagsterEventType.ASSET_CHECK_EVALUATION
    )
    evaluations = [e.dagster_event.asset_check_evaluation_data for e in events if e.dagster_event]
    partitions = {
        (e.check_name, e.partition) for e in evaluations if e.asset_key.path[-1] == stage and e.partition is not None
    }

    assert partitions == {
        (check, p) for check in ("expectations", "expectation_warnings") for p in ("DE|2024-01", "FR|2024-01")
    }
