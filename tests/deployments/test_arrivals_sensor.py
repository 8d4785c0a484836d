"""The sensor that carries events into runs: once each, also after crashes, and what failed again or to a person."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from ml_assets.assets.team_pipeline import TeamPipeline
from ml_assets.components.team import pipelines_of
from ml_assets.delivery.tags import AFTER_BATCH_TAG, BATCH_TAG, RANGE_END_TAG, RANGE_START_TAG, RUN_KEY_TAG
from ml_assets.errors import PolicyError
from ml_assets.interfaces import EffectivePolicy, Event, InboxEvent, PipelinePath
from ml_assets.retraining.pauses import pause, resume
from ml_assets.spec import AutomationSpec
from ml_assets.testing.ledger import decision
from ml_assets.testing.policy_source import FakePolicySource
from sensors import arrivals
from sensors.arrivals import Cursor, build_arrivals_sensor
from tests.components.shop import Shop, land_orders, services

pytestmark = pytest.mark.filterwarnings("ignore:Non-compliant tag keys")  # Dagster's own, of two dimensions

PATH: PipelinePath = ("shop", "returns")
LENIENT = {
    "inbox.debounce_seconds": 0,
    "inbox.backoff_seconds": 30,
    "inbox.attempts": 2,
    "arrivals.settle_seconds": 0,
    "inbox.dedup_hours": 24,
}
MONTHS = ("2024-01", "2024-02", "2024-03")


class Location:
    """A code location with one pipeline, its sensor, and the daemon's part played by the test."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance, **policy: Any) -> None:
        self.landing = folder / "landing"
        (self.landing / "shop").mkdir(parents=True)
        self.source = folder / "source"
        land_orders(self.source, MONTHS, per_day=3)
        world = services(self.landing, **{**LENIENT, **policy})
        self.shop = Shop(folder, world, instance, automation=AutomationSpec(arrivals=True, after=("team/upstream",)))
        self.world, self.instance = world, instance
        self.cursor: str | None = None
        self.pipelines = pipelines_of(self.shop.definitions)
        self.said = ""
        self.watch(self.pipelines)

    def watch(self, pipelines: Mapping[PipelinePath, TeamPipeline]) -> None:
        """Let the sensor watch pipelines."""
        sensor = build_arrivals_sensor(pipelines)
        assert sensor is not None
        self.sensor = sensor
        sensors = dg.Definitions(sensors=[sensor], resources=dict(vars(self.world)))
        self.repository = dg.Definitions.merge(self.shop.definitions, sensors).get_repository_def()

    def land(self, *names: str) -> None:
        for name in names:
            shutil.copy(self.source / "shop" / name, self.landing / "shop" / name)

    def offer(self, *partitions: str, key: str = "1") -> None:
        """Put events into the inbox as something else than a file brings them."""
        events = [Event(source="http", key=f"{key} {p}", pipeline=PATH, partition=p) for p in partitions]
        self.world.inbox.receive(events, dedup=timedelta(hours=1), now=datetime.now(UTC))

    def tick(self) -> list[dg.RunRequest]:
        """Evaluate the sensor as the daemon does, and keep its cursor."""
        resources = dict(vars(self.world))
        with dg.build_sensor_context(
            instance=self.instance, resources=resources, cursor=self.cursor, repository_def=self.repository
        ) as context:
            found = self.sensor.evaluate_tick(context)
        self.said = found.skip_message or ""
        self.cursor = found.cursor
        return list(found.run_requests or [])

    def carry_out(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        """Run what was asked for."""
        assert request.job_name is not None
        return self.repository.get_job(request.job_name).execute_in_process(
            instance=self.instance,
            asset_selection=list(request.asset_selection or []),
            partition_key=request.partition_key,
            tags={**request.tags, RUN_KEY_TAG: request.run_key or ""},
            raise_on_error=False,
        )

    def events(self) -> dict[str, str]:
        """Return partition → state of its newest event."""
        return {e.event.partition: e.state for e in reversed(self.world.inbox.events())}

    def only(self) -> InboxEvent:
        (event,) = self.world.inbox.events()
        return event

    def made(self, stage: str) -> list[str]:
        records = self.instance.fetch_materializations(dg.AssetKey([*PATH, stage]), limit=1000).records
        return sorted({record.partition_key or "" for record in records})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    return Clock(monkeypatch)


class Clock:
    """The sensor's clock, which a test may put forward."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = timedelta(0)
        clock = self

        class Ahead(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:
                return datetime.now(tz) + clock.ahead

        monkeypatch.setattr("sensors.arrivals.datetime", Ahead)

    def forward(self, **time: float) -> None:
        self.ahead += timedelta(**time)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture
def make(tmp_path: Path, instance: dg.DagsterInstance, clock: Clock) -> Callable[..., Location]:
    return lambda **policy: Location(tmp_path, instance, **policy)


def test_a_file_becomes_a_run_whose_end_is_the_events_end(make: Callable[..., Location]) -> None:
    location = make()
    assert location.tick() == []
    assert location.said == "Nothing to start."
    location.land("2024-01_DE.csv")

    (request,) = location.tick()

    assert request.partition_key == "DE|2024-01"
    assert request.asset_selection == [dg.AssetKey([*PATH, "raw_data"]), dg.AssetKey([*PATH, "features"])]
    assert request.tags[BATCH_TAG] == request.run_key
    assert request.tags["ml_assets/launched_by"] == "sensor:arrivals"
    assert location.only().state == "claimed"
    assert location.tick() == [], "the daemon is submitting it"
    run = location.carry_out(request)
    assert run.success
    assert (location.only().state, location.only().run_id) == ("running", run.run_id)
    assert location.tick() == []
    assert location.events() == {"DE|2024-01": "done"}
    assert location.made("features") == ["DE|2024-01"]


def test_repeats_start_nothing_and_a_corrected_file_starts_a_run(make: Callable[..., Location]) -> None:
    location = make()
    location.land("2024-01_DE.csv")
    (first,) = location.tick()
    location.carry_out(first)
    location.tick()
    location.land("2024-01_DE.csv")  # the same bytes at another time
    assert location.tick() == []
    file = location.landing / "shop" / "2024-01_DE.csv"
    file.write_text("\n".join(file.read_text().splitlines()[:-1]) + "\n")

    (second,) = location.tick()

    assert second.partition_key == "DE|2024-01"
    assert second.run_key != first.run_key


def test_a_file_that_has_not_settled_yet_is_waited_for_and_not_left_to_the_next_tick(
    make: Callable[..., Location],
) -> None:
    location = make(**{"arrivals.settle_seconds": 0.3, "inbox.debounce_seconds": 0.3})
    location.land("2024-01_DE.csv")

    (request,) = location.tick()

    assert request.partition_key == "DE|2024-01"


def test_a_tick_does_not_wait_for_what_settles_late(make: Callable[..., Location]) -> None:
    location = make(**{"arrivals.settle_seconds": 30})
    location.land("2024-01_DE.csv")
    began = time.monotonic()
    assert location.tick() == []
    assert time.monotonic() - began < 10
    assert location.events() == {}


def test_a_burst_is_one_run_over_the_range(make: Callable[..., Location]) -> None:
    location = make()
    location.land(*(f"{month}_{country}.csv" for month in MONTHS for country in ("DE", "FR")))

    (request,) = location.tick()

    assert (request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]) == ("DE|2024-01", "FR|2024-03")
    assert location.carry_out(request).success
    assert location.tick() == []
    assert set(location.events().values()) == {"done"}
    assert location.made("features") == sorted(f"{c}|{m}" for m in MONTHS for c in ("DE", "FR"))


def test_what_is_over_the_rate_comes_later(make: Callable[..., Location], clock: Clock) -> None:
    location = make(**{"inbox.events_per_minute": 2})
    location.land(*(f"{month}_DE.csv" for month in MONTHS))

    location.tick()
    assert len(location.events()) == 2
    location.tick()
    assert len(location.events()) == 2
    clock.forward(seconds=70)
    location.tick()

    assert len(location.events()) == 3


def test_a_bad_file_goes_to_quarantine_and_its_neighbour_into_a_run(make: Callable[..., Location]) -> None:
    location = make()
    location.land("2024-01_DE.csv")
    (location.landing / "shop" / "2024-01_FR.csv").write_text("order_id,amount\n1,two\n")

    (request,) = location.tick()

    assert request.partition_key == "DE|2024-01"
    assert not (location.landing / "shop" / "2024-01_FR.csv").exists()
    assert list((location.landing / ".quarantine").rglob("*.reason.json"))


def test_a_claim_whose_tick_crashed_is_asked_for_again_under_the_same_key(
    make: Callable[..., Location], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = make()
    location.land("2024-01_DE.csv")

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("sensors.arrivals.batch_request", crash)
        with pytest.raises(KeyboardInterrupt):
            location.tick()
    name = location.only().batch
    assert name is not None, "it is claimed, and no run was asked for"
    assert location.tick() == [], "its submitter may be at it"
    clock.forward(seconds=61)

    (request,) = location.tick()

    assert request.run_key == name
    (again,) = location.tick()
    assert again.run_key == name, "Dagster drops the second one"
    location.carry_out(request)
    location.tick()
    assert location.events() == {"DE|2024-01": "done"}


def test_of_two_runs_of_a_batch_one_works(make: Callable[..., Location]) -> None:
    location = make()
    location.land("2024-01_DE.csv")
    (request,) = location.tick()

    first, second = location.carry_out(request), location.carry_out(request)

    assert first.success
    assert not second.success
    failure = second.failure_data_for_node("shop__returns__raw_data")
    assert failure is not None
    assert failure.user_failure_data is not None
    said = failure.user_failure_data.description or ""
    assert said.startswith(f"Another run carries the events of batch {request.run_key}, or a later batch does"), said
    assert location.made("raw_data") == ["DE|2024-01"]
    location.tick()
    assert location.events() == {"DE|2024-01": "done"}


def test_a_run_that_was_killed_is_tried_again_with_backoff_and_then_is_a_dead_letter(
    make: Callable[..., Location], clock: Clock
) -> None:
    location = make()
    location.offer("DE|2024-01")
    for attempt in (1, 2):
        (request,) = location.tick()
        run = location.instance.create_run_for_job(
            location.repository.get_job(request.job_name or ""),
            tags={**request.tags, RUN_KEY_TAG: request.run_key or ""},
        )
        location.instance.report_run_failed(run, "its process was killed")
        assert location.tick() == []
        event = location.only()
        assert event.attempts == attempt
        assert event.reason == f"Run {run.run_id} failed before it made [DE|2024-01]: its process was killed"
        if attempt == 1:
            assert event.state == "waiting"
            clock.forward(seconds=29)
            assert location.tick() == []
            clock.forward(seconds=2)
    assert location.only().state == "dead"


def test_a_partition_that_cannot_be_made_is_a_dead_letter_and_its_neighbours_go_on(
    make: Callable[..., Location], clock: Clock
) -> None:
    location = make()
    land_orders(location.landing, MONTHS[:2], per_day=3)
    location.tick()
    for event in location.world.inbox.events():
        assert event.state == "claimed"
    (location.landing / "shop" / "2024-01_FR.csv").unlink()
    (batch,) = location.world.inbox.batches()
    location.cursor, saved = None, location.cursor
    clock.forward(seconds=61)
    (request,) = location.tick()
    assert request.run_key == batch.name
    location.cursor = saved

    location.carry_out(request)
    location.tick()

    states = location.events()
    assert states.pop("FR|2024-01") == "dead"
    assert set(states.values()) == {"waiting"}, "they were kept from their features"
    (dead,) = location.world.inbox.events(states=["dead"])
    assert "No file has arrived" in dead.reason
    assert "SourceError" in dead.traceback
    clock.forward(seconds=31)
    for again in location.tick():
        assert location.carry_out(again).success
    location.tick()
    assert set(location.events().values()) == {"dead", "done"}
    assert location.made("features") == ["DE|2024-01", "DE|2024-02", "FR|2024-02"]


def test_a_closed_gate_is_a_dead_letter_with_the_gates_sentence(make: Callable[..., Location]) -> None:
    location = make()
    land_orders(location.landing, MONTHS[:1], per_day=3)
    file = location.landing / "shop" / "2024-01_FR.csv"
    lines = file.read_text().splitlines()
    columns = lines[0].split(",")
    row = lines[1].split(",")
    row[columns.index("amount")] = "5000.0"
    file.write_text("\n".join([lines[0], ",".join(row), *lines[2:]]) + "\n")
    (request,) = location.tick()

    location.carry_out(request)
    location.tick()

    assert location.events() == {"DE|2024-01": "done", "FR|2024-01": "dead"}
    (dead,) = location.world.inbox.events(states=["dead"])
    assert dead.reason.startswith("[FR|2024-01] raw_data: gate expectations is closed:"), dead.reason


def test_what_a_champion_can_score_is_scored_and_watched_once(make: Callable[..., Location]) -> None:
    location = make()
    location.world.ledger.record_decision(
        decision(pipeline=PATH, partition="2024-01", outcome="promoted", recorded_at=datetime.now(UTC))
    )
    location.land("2024-01_DE.csv", "2024-02_DE.csv")
    (request,) = location.tick()
    location.carry_out(request)

    (follow_up,) = location.tick()

    assert follow_up.run_key == f"{request.run_key}:monitor:0"
    assert follow_up.partition_key == "DE|2024-02", "January has no champion before it"
    stages = [key.path[2] for key in follow_up.asset_selection or []]
    assert stages[0] == "predictions"
    assert set(stages) <= {"predictions", "drift", "performance"}
    assert follow_up.tags[AFTER_BATCH_TAG] == request.run_key
    assert BATCH_TAG not in follow_up.tags
    assert set(location.events().values()) == {"running"}, "a crash now asks for it again"
    assert location.tick() == []
    assert set(location.events().values()) == {"done"}
    assert location.tick() == []


def test_nothing_starts_while_it_is_paused_and_nothing_is_lost(make: Callable[..., Location]) -> None:
    location = make()
    now = datetime.now(UTC)
    pause(location.world.ledger, PATH, by="lena", reason="The source is under repair.", now=now)
    location.land("2024-01_DE.csv")

    assert location.tick() == []
    assert location.events() == {"DE|2024-01": "waiting"}
    resume(location.world.ledger, PATH, by="lena", reason="It is repaired.", now=now)

    (request,) = location.tick()
    assert request.partition_key == "DE|2024-01"


def test_a_materialization_upstream_is_an_event_of_the_same_partition(
    make: Callable[..., Location], clock: Clock
) -> None:
    location = make()

    def upstream(partition: str) -> None:
        made = dg.AssetMaterialization(dg.AssetKey(["team", "upstream"]), partition=partition)
        location.instance.report_runless_asset_event(made)

    upstream("DE|2024-01")
    assert location.tick() == [], "the past is no event"
    upstream("DE|2024-02")
    upstream("2024-02")
    assert location.tick() == [], "another writer may still commit a row with a smaller id"
    clock.forward(seconds=2)

    (request,) = location.tick()

    assert request.partition_key == "DE|2024-02"
    assert location.only().event.source == "upstream:team/upstream"
    assert location.tick() == []


def test_a_row_of_an_upstream_asset_that_is_committed_late_is_not_passed_by(
    make: Callable[..., Location], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = make()
    location.tick()
    for partition in ("DE|2024-01", "DE|2024-02"):
        made = dg.AssetMaterialization(dg.AssetKey(["team", "upstream"]), partition=partition)
        location.instance.report_runless_asset_event(made)
    fetch = location.instance.fetch_materializations

    def without_the_first(*args: Any, **named: Any) -> Any:
        found = fetch(*args, **named)
        return SimpleNamespace(records=[r for r in found.records if r.partition_key != "DE|2024-01"])

    with monkeypatch.context() as patched:  # its writer has the smaller id, and has not committed yet
        patched.setattr(location.instance, "fetch_materializations", without_the_first)
        assert location.tick() == []
    clock.forward(seconds=3)

    (request,) = location.tick()

    assert (request.tags[RANGE_START_TAG], request.tags[RANGE_END_TAG]) == ("DE|2024-01", "DE|2024-02")


class PolicyWithTrouble(FakePolicySource):
    """A policy source whose file for one pipeline is wrong."""

    def effective(self, pipeline: PipelinePath, at: datetime | None = None) -> EffectivePolicy:
        if pipeline == ("shop", "broken"):
            raise PolicyError("broken.yaml: unexpected key")
        return super().effective(pipeline, at)


def test_one_pipelines_trouble_is_told_and_keeps_no_other_waiting(make: Callable[..., Location]) -> None:
    location = make()
    good = location.pipelines[PATH]
    spec = good.spec.model_copy(update={"name": "broken"})
    bad = replace(good, loaded=replace(good.loaded, spec=spec))
    location.watch({("shop", "broken"): bad, PATH: good})
    location.world = replace(location.world, policy=PolicyWithTrouble(LENIENT))

    location.land("2024-01_DE.csv")  # both read it
    (request,) = location.tick()

    assert request.asset_selection == [good.key("raw_data"), good.key("features")]
    assert location.tick() == []
    assert location.said == "Nothing to start.\nshop/broken: PolicyError: broken.yaml: unexpected key"


def test_a_cursor_that_cannot_be_read_is_told_once_and_costs_one_look_at_all_files(
    make: Callable[..., Location], capfd: pytest.CaptureFixture[str]
) -> None:
    location = make()
    location.land("2024-01_DE.csv")
    assert len(location.tick()) == 1
    location.cursor = "no cursor"
    location.land("2024-02_DE.csv")

    requests = location.tick() + location.tick()

    assert [request.partition_key for request in requests if request.partition_key != "DE|2024-01"] == ["DE|2024-02"]
    assert [event.event.partition for event in location.world.inbox.events()] == ["DE|2024-02", "DE|2024-01"]
    assert capfd.readouterr().err.count("The cursor of the sensor arrivals cannot be read, and was replaced") == 1


@pytest.mark.parametrize(
    "text", ["x", "[]", '"x"', '{"turn": "1"}', '{"landing": {"shop/returns": 1}}', '{"monitored": 1}', "[" * 100_000]
)
def test_what_is_no_cursor_is_an_error_of_one_kind(text: str) -> None:
    with pytest.raises(ValueError, match="Cursor"):
        Cursor.of(text)


def test_the_cursor_reads_what_it_writes() -> None:
    cursor = Cursor(landing={"a/b": "{}"}, upstream={"a/b c": 7}, monitored=("x", "y"), mark="m", turn=3)
    assert Cursor.of(cursor.text) == cursor
    assert Cursor.of('{"turn": 3, "of_a_later_release": 1}') == Cursor(turn=3)
    assert Cursor.of(None) == Cursor.of("") == Cursor()


def test_an_idle_tick_leaves_the_cursor_as_it_is_and_asks_the_inbox_one_thing(make: Callable[..., Location]) -> None:
    location = make()
    os.utime(location.landing / "shop", (1e9, 1e9))  # a folder that changed just now is looked at once more
    location.tick()
    before = location.cursor
    asked: list[str] = []
    inbox = location.world.inbox

    class Counting:
        """Notes what is asked of an inbox."""

        def __getattr__(self, name: str) -> Any:
            if not name.startswith("_"):  # Dagster asks whether it made this class
                asked.append(name)
            return getattr(inbox, name)

    location.world = replace(location.world, inbox=Counting())

    assert location.tick() == []

    assert json.loads(location.cursor or "") == json.loads(before or "")
    assert asked == ["mark"]


class Crash(BaseException):
    """The process ends here."""


class Crashing:
    """An inbox whose process ends before or after its n-th call."""

    def __init__(self, inbox: Any, at: int, *, after: bool) -> None:
        self._inbox, self._at, self._after = inbox, at, after
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inbox, name)
        if name.startswith("_") or not callable(found):
            return found

        def called(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == self._at and not self._after:
                raise Crash
            answer = found(*arguments, **named)
            if self.calls == self._at:
                raise Crash
            return answer

        return called


class Daemon:
    """Submits what ticks ask for: once a key, and only of ticks that came to their end."""

    def __init__(self, location: Location) -> None:
        self.location, self.keys = location, set[str]()

    def turn(self) -> None:
        for request in self.location.tick():
            if request.run_key in self.keys:
                continue
            self.keys.add(request.run_key or "")
            self.location.carry_out(request)


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True])
def test_a_tick_that_dies_at_any_call_of_the_inbox_neither_loses_nor_doubles(
    tmp_path: Path, clock: Clock, *, after: bool
) -> None:
    crashes = 0
    for at in range(1, 100):
        with dg.DagsterInstance.ephemeral() as instance:
            location = Location(tmp_path / str(at), instance)
            location.land("2024-01_DE.csv", "2024-01_FR.csv")
            sane = location.world
            crashing = Crashing(sane.inbox, at, after=after)
            location.world = replace(sane, inbox=crashing)
            daemon = Daemon(location)
            try:
                for _ in range(3):
                    daemon.turn()
            except Crash:
                crashes += 1
            location.world = sane
            for _ in range(4):
                clock.forward(seconds=61)
                daemon.turn()
            records = instance.fetch_materializations(dg.AssetKey([*PATH, "features"]), limit=100).records
            made_by: dict[str | None, set[str]] = {}
            for record in records:
                made_by.setdefault(record.partition_key, set()).add(record.run_id)
            assert location.events() == {"DE|2024-01": "done", "FR|2024-01": "done"}, at
            assert {p: len(ids) for p, ids in made_by.items()} == {"DE|2024-01": 1, "FR|2024-01": 1}, at
        if crashing.calls < at:
            break
    assert crashes > 8, "several steps were hit"


def test_an_event_of_a_period_that_is_not_over_stops_no_tick(make: Callable[..., Location], tmp_path: Path) -> None:
    location = make()
    (tmp_path / "endless").mkdir()
    endless = location.shop.component.partitions.model_copy(update={"end": None})
    location.shop = Shop(
        tmp_path / "endless",
        location.world,
        location.instance,
        automation=AutomationSpec(arrivals=True),
        partitions=endless,
    )
    location.watch(pipelines_of(location.shop.definitions))
    this_month = f"DE|{datetime.now(UTC):%Y-%m}"
    location.offer(this_month, "DE|2024-02")

    assert [request.partition_key for request in location.tick()] == ["DE|2024-02"]
    assert location.events() == {this_month: "waiting", "DE|2024-02": "claimed"}


def test_events_that_cannot_be_ready_yet_cost_a_look_a_minute(
    make: Callable[..., Location], clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = make()
    (tmp_path / "endless").mkdir()
    endless = location.shop.component.partitions.model_copy(update={"end": None})
    automation = AutomationSpec(arrivals=True)
    location.shop = Shop(
        tmp_path / "endless", location.world, location.instance, automation=automation, partitions=endless
    )
    location.watch(pipelines_of(location.shop.definitions))
    looks: list[datetime] = []
    claim_batches = arrivals.claim_batches

    def noted(*args: Any, now: datetime, **named: Any) -> Any:
        looks.append(now)
        return claim_batches(*args, now=now, **named)

    monkeypatch.setattr(arrivals, "claim_batches", noted)
    now = datetime.now(UTC)
    location.offer(f"DE|{now:%Y-%m}")
    for _ in range(30):  # two and a half minutes
        assert location.tick() == []
        clock.forward(seconds=5)
    assert len(looks) in (3, 4)

    location.offer("DE|2024-02")  # something that is ready is not kept waiting
    assert [request.partition_key for request in location.tick()] == ["DE|2024-02"]


def test_a_clock_that_is_put_back_does_not_keep_the_sensor_asleep(
    make: Callable[..., Location], clock: Clock, tmp_path: Path
) -> None:
    location = make(**{"inbox.backoff_seconds": 30})
    location.offer("DE|2024-01")
    (request,) = location.tick()
    inbox, now = location.world.inbox, datetime.now(UTC)
    assert inbox.start(request.run_key or "", "gone", now=now)
    location.tick()  # the run is gone: the event waits for half a minute
    assert location.events() == {"DE|2024-01": "waiting"}
    location.tick()
    assert Cursor.of(location.cursor).wake > now.timestamp()

    clock.forward(days=-1)  # what waits was stamped by a clock that was ahead, and is due
    assert len(location.tick()) == 1


def test_a_lease_from_before_the_clock_was_put_back_holds_nothing_up(
    make: Callable[..., Location], clock: Clock
) -> None:
    location = make()
    clock.forward(days=30)
    location.offer("DE|2024-01")
    (first,) = location.tick()  # the daemon dies before it submits this
    clock.forward(days=-30)

    (again,) = location.tick()
    assert again.run_key == first.run_key
