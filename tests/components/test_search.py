"""A variant with a search through the whole graph: what it stores, shows, records, and does not do twice."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.errors import StudyLostError
from ml_assets.search.helping import Helper
from ml_assets.spec import ComputeSpec, PreprocessingSpec, SearchSpec, VariantSpec
from ml_assets.stages import models, search
from ml_assets.testing.model_registry import FakeModelRegistry
from ml_assets.testing.studies import FakeStudy
from tests.components.shop import Shop, services

MakeShop = Callable[..., Shop]
MONTH = "2024-03"
STAGE = ("shop", "returns", "models", "logistic")
SPACE = {
    "estimator.C": {"float": [0.001, 10.0], "log": True},
    "estimator.fit_intercept": {"choice": [True, False]},
    "estimator.intercept_scaling": {"float": [0.5, 2.0], "when": {"estimator.fit_intercept": [True]}},
    "preprocessing.categorical": {"choice": ["one_hot", "target"]},
}


def searched(space: dict[str, Any] | None = None, *, cores: int = 1, **changes: Any) -> dict[str, VariantSpec]:
    search = {"trials": 6, "folds": 2, "metric": "log_loss", "space": space or SPACE} | changes
    return {
        "logistic": VariantSpec(
            estimator="sklearn.linear_model.LogisticRegression",
            preprocessing=PreprocessingSpec(numeric="standardize"),
            compute=ComputeSpec(cores=cores),
            search=SearchSpec.model_validate(search),
        )
    }


def prepared(make_shop: MakeShop, **changes: Any) -> Shop:
    shop = make_shop(**changes)
    for month in ("2024-01", "2024-02", MONTH):
        shop.data(month)
        assert shop.run("row_index", partition=month).success
    assert shop.run("training_set", partition=MONTH).success
    return shop


def document(shop: Shop) -> dict[str, Any]:
    return shop.world.data_store.read_document(STAGE, MONTH)


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (found,) = result.asset_materializations_for_node("shop__returns__models__logistic")
    return {name: value.value for name, value in found.metadata.items()}


def registry(shop: Shop) -> FakeModelRegistry:
    assert isinstance(shop.world.model_registry, FakeModelRegistry)
    return shop.world.model_registry


def test_a_search_is_stored_shown_and_recorded(make_shop: MakeShop) -> None:
    shop = prepared(make_shop, variants=searched())
    result = shop.run("models/logistic", partition=MONTH)

    assert result.success
    stored, shown = document(shop), metadata(result)
    search = stored["search"]
    assert [trial["number"] for trial in search["trials"]] == list(range(6))
    assert search["best"]["value"] == min(trial["value"] for trial in search["trials"])
    assert len(search["trials"][0]["folds"]) == 2
    assert stored["search_record"]["kept"] == 0
    assert shown["search_trials"] == "6: 6 completed"
    assert shown["search_log_loss"] == pytest.approx(search["best"]["value"], rel=1e-5)
    assert shown["search_study"] == search["study"]
    assert shown["picture/search_history"].startswith("![search_history](data:image/png;base64,")
    assert shown["picture/search_importance"].startswith("![search_importance](data:image/png;base64,")
    assert "| log_loss | seconds | C | fit_intercept |" in shown["table/search_trials"].splitlines()[0]

    runs = registry(shop)
    trials = runs.trials[stored["run_id"]]
    assert [trials[n].params["estimator.C"] for n in range(6)] == [t["params"]["estimator.C"] for t in search["trials"]]
    assert {trial.state for trial in trials.values()} == {"completed"}
    assert trials[0].metrics == {"log_loss": search["trials"][0]["value"]}
    assert trials[0].params["seed"] == 7
    fitted = runs.runs[stored["run_id"]].run
    assert fitted.params["estimator.C"] == search["best"]["params"]["estimator.C"]
    assert fitted.run_id == stored["run_id"]


def test_inner_folds_lie_before_the_validation_split(make_shop: MakeShop) -> None:
    shop = prepared(make_shop, variants=searched())
    assert shop.run("models/logistic", partition=MONTH).success

    folds = document(shop)["search"]["folds"]

    # The training set for March validates on February: a search may see January alone.
    assert [fold["validation"] for fold in folds] == ["2024-01-12 to 2024-01-21", "2024-01-22 to 2024-01-31"]


def test_the_candidate_is_fitted_with_what_was_found(make_shop: MakeShop) -> None:
    shop = prepared(make_shop, variants=searched())
    assert shop.models(MONTH).success

    best = document(shop)["search"]["best"]["params"]
    candidate = shop.world.data_store.read_document(("shop", "returns", "candidate"), MONTH)
    refitted = registry(shop).runs[candidate["run_id"]].run
    names = ("estimator.C", "estimator.fit_intercept", "preprocessing.categorical")
    assert {name: refitted.params[name] for name in names} == {name: best[name] for name in names}
    assert ("estimator.intercept_scaling" in refitted.params) == best["estimator.fit_intercept"]
    assert candidate["fingerprint"]["params"]["C"] == str(best["estimator.C"])


def test_an_unchanged_search_is_not_run_again(make_shop: MakeShop) -> None:
    shop = prepared(make_shop, variants=searched())
    assert shop.run("models/logistic", partition=MONTH).success
    first = document(shop)
    version = shop.world.data_store.describe(STAGE, MONTH)

    again = shop.run("models/logistic", partition=MONTH)

    # The same data version is the same document, that of the run which searched.
    assert document(shop) == first
    described = shop.world.data_store.describe(STAGE, MONTH)
    assert version is not None
    assert described is not None
    assert described.data_version == version.data_version
    shown = metadata(again)
    assert shown["notes"] == ["the search was not run again: its 6 trials are those of an earlier run"]
    assert shown["search_seconds"] == first["search_record"]["seconds"]
    assert registry(shop).trials[shown["mlflow_run_id"]] == {}


def test_workers_search_before_the_stage_and_the_model_is_the_same(make_shop: MakeShop, tmp_path: Path) -> None:
    alone = prepared(make_shop, variants=searched(parallel=2, cores=2))
    assert alone.run("models/logistic", partition=MONTH).success
    (tmp_path / "shared").mkdir()
    shared = Shop(tmp_path / "shared", services(tmp_path / "landing"), alone.instance, variants=two_workers())
    for month in ("2024-01", "2024-02", MONTH):
        shared.data(month)
        assert shared.run("row_index", partition=month).success
    assert shared.run("training_set", partition=MONTH).success

    result = shared.run("models/logistic", partition=MONTH)

    assert result.success
    name = "shop__returns__models__logistic"
    steps = [event.step_key for event in result.all_events if event.is_step_success]
    assert steps == [f"{name}.worker_1", f"{name}.worker_2", f"{name}.fit"]
    stored = document(shared)
    assert stored["search"] == document(alone)["search"]
    assert stored["prediction_digest"] == document(alone)["prediction_digest"]
    (made,) = [event.materialization for event in result.all_events if event.is_step_materialization]
    assert made.asset_key == dg.AssetKey(["shop", "returns", "models", "logistic"])
    assert made.metadata["notes"].value == ["6 trials were evaluated by 2 workers"]
    assert made.tags is not None
    assert "dagster/input_data_version/shop/returns/training_set" in made.tags
    assert sorted(registry(shared).trials[stored["run_id"]]) == list(range(6))
    assert list(registry(shared).trials) == [stored["run_id"]]

    again = shared.run("models/logistic", partition=MONTH)
    (made,) = [event.materialization for event in again.all_events if event.is_step_materialization]
    assert made.metadata["notes"].value == ["the search was not run again: its 6 trials are those of an earlier run"]


def two_workers() -> dict[str, VariantSpec]:
    return searched(parallel=2, workers=2)


def test_the_graph_of_a_shared_search_looks_like_that_of_any_other(make_shop: MakeShop) -> None:
    key = dg.AssetKey(["shop", "returns", "models", "logistic"])

    def node(variants: dict[str, VariantSpec]) -> Any:
        made = make_shop(variants=variants)
        return dg.Definitions(made.definitions.assets, resources=dict(vars(made.world))).resolve_asset_graph().get(key)

    alone, shared = node(searched(parallel=2, cores=2)), node(two_workers())

    for name in ("parent_keys", "child_keys", "code_version", "tags", "kinds", "owners", "group_name", "description"):
        assert getattr(shared, name) == getattr(alone, name), name
    assert shared.partitions_def == alone.partitions_def
    assert shared.partition_mappings == alone.partition_mappings
    assert shared.backfill_policy == alone.backfill_policy
    assert shared.pools == alone.pools
    assert {k for k in shared.metadata if not k.startswith("dagster/")} == {
        k for k in alone.metadata if not k.startswith("dagster/")
    }


def test_workers_that_fail_tell_why_each(make_shop: MakeShop) -> None:
    variants = searched({"estimator.C": {"float": [-2.0, -1.0]}}, trials=4, parallel=2, workers=2)
    shop = prepared(make_shop, variants=variants)

    result = shop.run("models/logistic", partition=MONTH)

    assert not result.success
    failed = [event for event in result.all_events if event.is_step_failure]
    assert len(failed) == 2
    for event in failed:
        error = event.step_failure_data.user_failure_data
        assert error is not None
        assert "4 of its 4 trials failed" in (error.description or "")
    ((_, trials),) = registry(shop).trials.items()
    assert sorted(trials) == [0, 1, 2, 3]


def test_a_worker_that_helped_with_a_search_that_failed_fails_and_records_nothing_again(
    make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = prepared(make_shop, variants=searched({"estimator.C": {"float": [-2.0, -1.0]}}, trials=4))
    assert not shop.run("models/logistic", partition=MONTH).success
    monkeypatch.setattr(search, "Helper", partial(Helper, evaluated=1))  # as if it had been there

    assert not shop.run("models/logistic", partition=MONTH).success

    ((_, trials),) = registry(shop).trials.items()
    assert sorted(trials) == [0, 1, 2]


def test_two_runs_that_fit_the_same_search_at_once_have_a_run_in_the_tracker_each(
    make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = prepared(make_shop, variants=searched(trials=2))
    fit = models.fit_for

    def fit_while_another_run_does(*args: Any) -> Any:
        monkeypatch.setattr(models, "fit_for", fit)
        assert shop.run("models/logistic", partition=MONTH).success
        return fit(*args)

    monkeypatch.setattr(models, "fit_for", fit_while_another_run_does)
    assert shop.run("models/logistic", partition=MONTH).success

    assert sorted(len(trials) for trials in registry(shop).trials.values()) == [0, 2]
    assert registry(shop).started == {}
    assert set(registry(shop).runs) == set(registry(shop).trials)


@pytest.mark.parametrize("name", ["worker_1", "fit", "input", "training_set"])
def test_a_variant_with_workers_may_have_any_name(make_shop: MakeShop, name: str) -> None:
    made = make_shop(variants={name: two_workers()["logistic"]})

    graph = dg.Definitions(made.definitions.assets, resources=dict(vars(made.world))).resolve_asset_graph()

    assert graph.has(dg.AssetKey(["shop", "returns", "models", name]))


def test_more_trials_extend_the_search(make_shop: MakeShop, tmp_path: Path) -> None:
    shop = prepared(make_shop, variants=searched(trials=3))
    assert shop.run("models/logistic", partition=MONTH).success
    first = document(shop)["search"]

    longer = Shop(tmp_path, shop.world, shop.instance, variants=searched(trials=5))
    result = longer.run("models/logistic", partition=MONTH)

    second = document(longer)
    assert second["search"]["study"] == first["study"]
    assert second["search"]["trials"][:3] == first["trials"]
    assert metadata(result)["notes"] == ["3 of 5 trials of the search were kept from an earlier run"]
    assert sorted(registry(shop).trials[second["run_id"]]) == [3, 4]


@pytest.mark.parametrize(
    "changes",
    [{"folds": 1}, {"sampler": "qmc"}, {"metric": "brier_score"}, {"space": {"estimator.C": {"float": [0.1, 1.0]}}}],
    ids=["folds", "sampler", "metric", "space"],
)
def test_another_search_is_another_study(make_shop: MakeShop, tmp_path: Path, changes: dict[str, Any]) -> None:
    shop = prepared(make_shop, variants=searched(trials=2))
    assert shop.run("models/logistic", partition=MONTH).success
    first = document(shop)["search"]["study"]

    other = Shop(tmp_path, shop.world, shop.instance, variants=searched(**({"trials": 2} | changes)))
    assert other.run("models/logistic", partition=MONTH).success

    assert document(other)["search"]["study"] != first
    assert document(other)["search_record"]["kept"] == 0


def test_a_grid_tries_every_point(make_shop: MakeShop) -> None:
    space = {
        "estimator.fit_intercept": {"choice": [True, False]},
        "estimator.C": {"float": [0.5, 1.5], "step": 0.5, "when": {"estimator.fit_intercept": [True]}},
    }
    shop = prepared(make_shop, variants=searched(space, sampler="grid", trials=None, folds=1))
    assert shop.run("models/logistic", partition=MONTH).success

    tried = [trial["params"] for trial in document(shop)["search"]["trials"]]

    expected = [{"estimator.fit_intercept": True, "estimator.C": c} for c in (0.5, 1.0, 1.5)]
    assert sorted(tried, key=str) == sorted([{"estimator.fit_intercept": False}, *expected], key=str)


def test_whoever_lost_the_lead_leaves_the_run_to_the_next(make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(study: FakeStudy, results: Any) -> None:
        raise StudyLostError("another process leads the search")

    monkeypatch.setattr(FakeStudy, "tell", lost)
    shop = prepared(make_shop, variants=searched(trials=1))

    assert not shop.run("models/logistic", partition=MONTH).success
    assert len(registry(shop).started) == 1


def test_a_search_whose_trials_fail_tells_why(make_shop: MakeShop) -> None:
    shop = prepared(make_shop, variants=searched({"estimator.C": {"float": [-2.0, -1.0]}}, trials=4))
    result = shop.run("models/logistic", partition=MONTH)

    assert not result.success
    (failure,) = (
        [e.step_failure_data for e in result.get_failed_step_events()]
        if hasattr(result, "get_failed_step_events")
        else [e.step_failure_data for e in result.all_events if e.is_step_failure]
    )
    text = failure.user_failure_data.description
    assert "The search shop/returns logistic [2024-03] failed: 3 of its 4 trials failed because of:" in text
    assert "The 'C' parameter of LogisticRegression must be a float in the range (0.0, inf]" in text
    (run_id,) = registry(shop).trials
    assert {trial.state for trial in registry(shop).trials[run_id].values()} == {"failed"}
    assert "InvalidParameterError" in registry(shop).trials[run_id][0].tags["reason"]
    assert registry(shop).started == {}


def test_a_pruner_ends_trials_between_rounds_of_training(make_shop: MakeShop) -> None:
    boosting = VariantSpec(
        estimator="sklearn.ensemble.HistGradientBoostingClassifier",
        params={"max_iter": 20, "early_stopping": False},
        search=SearchSpec.model_validate(
            {
                "trials": 10,
                "folds": 1,
                "pruner": "median",
                "metric": "log_loss",
                "space": {"estimator.learning_rate": {"float": [0.001, 0.5], "log": True}},
            }
        ),
    )
    shop = prepared(make_shop, variants={"logistic": boosting})
    assert shop.run("models/logistic", partition=MONTH).success

    trials = document(shop)["search"]["trials"]

    states = [trial["state"] for trial in trials]
    assert states.count("pruned") > 0
    assert [len(trial["reports"]) for trial in trials if trial["state"] == "completed"] == [10] * states.count(
        "completed"
    )
    assert max(len(trial["reports"]) for trial in trials if trial["state"] == "pruned") < 10


def test_the_run_with_the_trials_is_looked_for_and_ended_by_one_stage_at_a_time(
    make_shop: MakeShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = prepared(make_shop, variants=searched(trials=2))
    inside: list[bool] = []
    log, find = FakeModelRegistry.log_model, FakeModelRegistry.start_run

    def noted(ask: Any) -> Any:
        def asked(registry: Any, *args: Any, **kwargs: Any) -> Any:
            inside.append(bool(shop.world.studies._inside))  # pyright: ignore[reportAttributeAccessIssue]
            return ask(registry, *args, **kwargs)

        return asked

    monkeypatch.setattr(FakeModelRegistry, "log_model", noted(log))
    monkeypatch.setattr(FakeModelRegistry, "start_run", noted(find))

    assert shop.run("models/logistic", partition=MONTH).success

    # Before the search a run is looked for by whoever leads; after the fit for the model, which is logged then.
    assert inside == [False, True, True]
