"""The retraining sensor: what it asks for, what it sees become of it, and that it rests when nothing happens."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.sensor_definition import SensorExecutionData

from ml_assets.assets.team_pipeline import TeamPipeline
from ml_assets.components.team import pipelines_of
from ml_assets.interfaces import Event, PipelinePath
from ml_assets.retraining.pauses import pause
from ml_assets.retraining.recording import history_of
from ml_assets.spec import AutomationSpec
from ml_assets.testing.ledger import FakeLedger
from sensors.conditions import attach_conditions, build_conditions_sensor
from sensors.retraining import ATTEMPT_TAG, RUN_TAG, Cursor, build_retraining_sensor, cores_of
from sensors.training_runs import DagsterRuns
from tests.components.shop import Shop, land_orders, services

PATH: PipelinePath = ("shop", "returns")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Yield the shop with data of three months and the row index of two."""
    folder = tmp_path_factory.mktemp("shop")
    land_orders(folder / "landing", per_day=20)
    world = services(folder / "landing", **{"retraining.cooldown_hours": 0, "retraining.min_new_labels": 100})
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(folder, world, instance, automation=AutomationSpec(retraining=True))
        for month in ("2024-01", "2024-02", "2024-03"):
            shop.data(month)
            assert shop.run("row_index", partition=month).success
        yield shop


@pytest.fixture
def shop(made: Shop) -> Iterator[Shop]:
    """Yield a copy of the shop over an instance of its own."""
    with dg.DagsterInstance.ephemeral() as instance:
        yield made.copy(instance)


def pipelines(shop: Shop) -> dict[PipelinePath, TeamPipeline]:
    return pipelines_of(shop.definitions)


def ask(shop: Shop, cursor: str | None = None) -> SensorExecutionData:
    """Evaluate the sensor as the daemon does, in a code location with the pipeline."""
    sensor, resources = build_retraining_sensor(pipelines(shop)), dict(vars(shop.world))
    location = dg.Definitions(assets=shop.definitions.assets, sensors=[sensor], resources=resources)
    with dg.build_sensor_context(
        instance=shop.instance, resources=resources, cursor=cursor, repository_def=location.get_repository_def()
    ) as context:
        return sensor.evaluate_tick(context)


def run_for(shop: Shop, tags: dict[str, str], *, only: str | None = None) -> dg.ExecuteInProcessResult:
    """Carry out what was asked for, or one stage of it, with its tags."""
    stages = [only] if only else [*("row_index", "training_set", "models/logistic", "models/boosting")]
    stages += [] if only else ["candidate", "evaluation", "promotion"]
    return dg.materialize(
        list(shop.definitions.assets or []),
        selection=dg.AssetSelection.assets(*[dg.AssetKey(["shop", "returns", *s.split("/")]) for s in stages]),
        partition_key="2024-03",
        instance=shop.instance,
        resources=dict(vars(shop.world)),
        raise_on_error=False,
        tags={name: text for name, text in tags.items() if not name.startswith("dagster/")},
    )


def test_it_asks_for_the_models_of_the_newest_period_and_sees_the_run_end(shop: Shop) -> None:
    first = ask(shop)

    (request,) = first.run_requests or []
    assert request.partition_key == "2024-03" or request.tags["dagster/partition"] == "2024-03"
    assert [key.to_user_string().removeprefix("shop/returns/") for key in request.asset_selection or []] == [
        "row_index",
        "training_set",
        "models/logistic",
        "models/boosting",
        "candidate",
        "evaluation",
        "promotion",
    ]
    assert request.tags["ml_assets/launched_by"] == "sensor:retraining"
    assert request.tags["ml_assets/why"] == "new_data"
    assert request.run_key == request.tags[RUN_TAG] == f"{request.tags[ATTEMPT_TAG]}:1"

    assert run_for(shop, dict(request.tags)).success
    second = ask(shop)

    assert not second.run_requests
    (attempt,) = history_of(shop.world.ledger, PATH).attempts
    assert (attempt.ending, attempt.period) == ("succeeded", "2024-03")
    assert attempt.ends[0].core_hours > 0
    assert shop.world.ledger.decisions(PATH)[-1].launched_by == ("sensor:retraining",)


def test_a_start_without_a_run_is_asked_for_again_under_its_key(shop: Shop) -> None:
    (request,) = ask(shop).run_requests or []
    (again,) = ask(shop).run_requests or []

    assert again.run_key == request.run_key
    pause(shop.world.ledger, PATH, by="lena", reason="Inventory", now=datetime.now(UTC))
    assert not ask(shop).run_requests


def test_when_nothing_happened_nothing_but_the_mark_is_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    pause(shop.world.ledger, ("shop", "*"), by="lena", reason="Inventory", now=datetime.now(UTC))
    cursor = ask(shop, ask(shop).cursor).cursor
    read: list[str] = []

    def noted(name: str) -> Any:
        original = getattr(FakeLedger, name)

        def reading(self: FakeLedger, *args: Any, **options: Any) -> Any:
            read.append(name)
            return original(self, *args, **options)

        return reading

    for name in ("mark", "heads", "records", "decisions", "verdicts"):
        monkeypatch.setattr(FakeLedger, name, noted(name))
    resting = ask(shop, cursor)

    assert read == ["mark"]
    assert (resting.skip_message, resting.cursor) == ("Nothing changed.", cursor)


def test_a_pipeline_that_cannot_be_read_is_told_and_tried_again_later(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise KeyError("verdict")

    monkeypatch.setattr("sensors.retraining.take_turn", broken)

    told = ask(shop)

    assert "shop/returns: KeyError: 'verdict'" in (told.skip_message or "")
    next_look = Cursor.of(told.cursor).seen["shop/returns"][1]
    assert timedelta(seconds=30) < datetime.fromtimestamp(next_look, UTC) - datetime.now(UTC) < timedelta(minutes=2)


def test_a_tick_ends_in_time_and_the_next_one_goes_on_with_what_is_left(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    (pipeline,) = pipelines(shop).values()
    paths = [("shop", f"p{number}") for number in range(3)]
    looked: list[str] = []

    def turn(step: Any, runs: DagsterRuns, now: datetime) -> Any:
        looked.append(runs.pipeline[1])
        decision = SimpleNamespace(outcome="wait", reasons=("nothing is new",))
        return SimpleNamespace(start=None, decision=decision, next_look=None)

    monkeypatch.setattr("sensors.retraining.take_turn", turn)
    monkeypatch.setattr("sensors.retraining.BUDGET_SECONDS", 0.0)
    sensor, resources = build_retraining_sensor(dict.fromkeys(paths, pipeline)), dict(vars(shop.world))
    location = dg.Definitions(assets=shop.definitions.assets, sensors=[sensor], resources=resources)
    cursor, said = None, []
    for _ in range(4):
        with dg.build_sensor_context(
            instance=shop.instance, resources=resources, cursor=cursor, repository_def=location.get_repository_def()
        ) as context:
            tick = sensor.evaluate_tick(context)
        cursor, said = tick.cursor, [*said, tick.skip_message or ""]

    assert looked == ["p0", "p1", "p2"]
    assert "2 pipelines are left for the next tick." in said[0]
    assert said[-1] == "Nothing changed."


def test_a_cursor_of_another_form_only_costs_a_look() -> None:
    assert Cursor.of('{"a": 1}') == Cursor.of("[]") == Cursor.of(None) == Cursor()
    some = Cursor(mark="7", seen={"shop/returns": ("d1r2", 3.5)})
    assert Cursor.of(some.text) == some


def test_each_worker_of_a_search_counts_with_its_cores() -> None:
    def stats(step: str) -> Any:
        return SimpleNamespace(step_key=f"shop__returns__{step}", start_time=0.0, end_time=3600.0)

    steps = ["models__forest", "models__boosting.worker_1", "models__boosting.worker_2", "models__boosting.fit"]
    instance: Any = SimpleNamespace(get_run_step_stats=lambda run_id: [stats(step) for step in steps])

    runs = DagsterRuns(instance=instance, pipeline=PATH, cores={"shop__returns__models__boosting": 4})

    assert runs._core_hours("r") == 1 + 3 * 4


def history(shop: Shop) -> DagsterRuns:
    return DagsterRuns(instance=shop.instance, pipeline=PATH, cores=cores_of(shop.pipeline))


def test_runs_are_found_by_their_key_with_what_became_of_them(shop: Shop) -> None:
    assert history(shop).find("none:1") is None

    failed = run_for(shop, {RUN_TAG: "failed:1"}, only="evaluation")
    found = history(shop).find("failed:1")

    assert not failed.success
    assert found is not None
    assert found.state == "lost", "the candidate is missing in the store, which may be an outage"
    assert "evaluation: [2024-03] shop/returns/candidate [2024-03] has not been materialized" in found.reason


@pytest.mark.parametrize(("ending", "state"), [("failed", "lost"), ("canceled", "failed"), ("none", "running")])
def test_runs_that_never_began_a_step(shop: Shop, ending: str, state: str) -> None:
    job = dg.Definitions(
        assets=shop.definitions.assets, resources=dict(vars(shop.world))
    ).resolve_implicit_global_asset_job_def()
    run = shop.instance.create_run_for_job(job_def=job, tags={RUN_TAG: "k:1"})
    if ending == "failed":
        shop.instance.report_run_failed(run, "The process of this run is gone.")
    elif ending == "canceled":
        shop.instance.report_run_canceled(run)

    found = history(shop).find("k:1")

    assert found is not None
    assert (found.state, found.run_id) == (state, run.run_id)
    if ending == "failed":
        assert found.reason == "The process of this run is gone."


def test_the_code_location_loads_with_both_sensors(shop: Shop) -> None:
    definitions = attach_conditions(shop.definitions, shop.world)
    own = pipelines_of(definitions)
    location = dg.Definitions(
        assets=definitions.assets,
        sensors=[build_retraining_sensor(own), build_conditions_sensor(own, shop.world.ledger.mark)],
        resources=dict(vars(shop.world)),
    )

    dg.Definitions.validate_loadable(location)
    assert own.keys() == {PATH}


def test_events_in_progress_hold_it_back(shop: Shop) -> None:
    event = Event(source="http", key="k", pipeline=PATH, partition="DE|2024-03")
    shop.world.inbox.receive([event], dedup=timedelta(hours=1), now=datetime.now(UTC))

    told = ask(shop)

    assert not told.run_requests
    assert told.skip_message == "shop/returns: wait: 1 event of 2024-03 waiting for a run, or in one."


def test_conditions_rest_while_nothing_happens_and_look_again_when_something_does(shop: Shop) -> None:
    definitions = attach_conditions(shop.definitions, shop.world)
    sensor = build_conditions_sensor(pipelines_of(definitions), shop.world.ledger.mark)
    location = dg.Definitions(assets=definitions.assets, sensors=[sensor], resources=dict(vars(shop.world)))
    repository, cursor = location.get_repository_def(), None

    def tick() -> SensorExecutionData:
        nonlocal cursor
        with dg.build_sensor_context(instance=shop.instance, cursor=cursor, repository_def=repository) as context:
            told = sensor.evaluate_tick(context)
        cursor = told.cursor
        return told

    resting = "Nothing happened since the last look."
    assert [tick().skip_message == resting for _ in range(4)] == [False, False, False, True]

    features = dg.AssetKey([*PATH, "features"])
    shop.instance.report_runless_asset_event(dg.AssetMaterialization(features, partition="DE|2024-03"))
    told = [tick() for _ in range(4)]
    assert [t.skip_message == resting for t in told[:2]] == [False, False]
    assert told[-1].skip_message == resting

    pause(shop.world.ledger, PATH, by="lena", reason="Looking", now=datetime.now(UTC))
    assert tick().skip_message != resting
