"""Watching landing folders: files become submitted runs once they are complete, and trouble is left to the sensor."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import fsspec
import pytest

from ml_assets.delivery.plan import BatchPlan
from ml_assets.delivery.push import Push
from ml_assets.delivery.watching import Watch
from ml_assets.errors import LedgerError, PolicyError
from ml_assets.interfaces import EffectivePolicy, PipelinePath
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.retraining.pauses import pause
from ml_assets.sources import LandingZone
from ml_assets.spec import AutomationSpec
from tests.components.shop import Shop, land_orders, services

PATH: PipelinePath = ("shop", "returns")


@dataclass
class NotedRuns:
    """Submits nothing; notes what it was asked to submit, and fails as often as it is told to."""

    pipelines: Mapping[PipelinePath, LoadedPipeline]
    plans: list[BatchPlan] = field(default_factory=list)
    failures: int = 0

    def submit(self, plan: BatchPlan) -> str:
        """Note a plan and return a run id."""
        if self.failures:
            self.failures -= 1
            raise LedgerError("The database is locked.")
        self.plans.append(plan)
        return f"run-{len(self.plans)}"

    def changed(self) -> list[str]:
        """Return nothing: code does not change here."""
        return []


@dataclass
class Desk:
    """A watch, with what it did."""

    watch: Watch
    runs: NotedRuns
    said: list[str]
    landing: Path

    def land(self, name: str, *, age_seconds: float, now: datetime | None = None) -> Path:
        """Let a file be there that was written some time before now."""
        file = self.landing / "shop" / name
        land_orders(self.landing.parent / "source", ("2024-01",), per_day=3)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((self.landing.parent / "source" / "shop" / name).read_bytes())
        then = (now or datetime.now(UTC)).timestamp() - age_seconds
        os.utime(file, (then, then))
        return file


@pytest.fixture
def make(tmp_path: Path, instance: dg.DagsterInstance) -> Callable[..., Desk]:
    def made(**policy: Any) -> Desk:
        landing = tmp_path / "landing"
        (landing / "shop").mkdir(parents=True)
        world = services(landing, **{"inbox.debounce_seconds": 3, "arrivals.settle_seconds": 2, **policy})
        shop = Shop(tmp_path, world, instance, automation=AutomationSpec(arrivals=True))
        runs, said = NotedRuns(pipelines={PATH: shop.pipeline}), []
        watch = Watch(push=Push(services=world, submission=runs), say=said.append)
        return Desk(watch=watch, runs=runs, said=said, landing=landing)

    return made


def test_a_file_is_submitted_once_it_settled_and_its_partition_was_quiet(make: Callable[..., Desk]) -> None:
    desk = make()
    file = desk.land("2024-01_DE.csv", age_seconds=10)
    now = datetime.now(UTC)
    desk.watch.notice(str(file), now=now)

    assert desk.watch.step(now) == []
    assert desk.said == [f"shop/returns: {file} is event 1 for [DE|2024-01]"]
    assert desk.watch.step(now + timedelta(seconds=0.9)) == [], "3 s of quiet, of which 2 s were before"

    assert desk.watch.step(now + timedelta(seconds=1.1)) == ["run-1"]
    assert desk.runs.plans[0].partitions == ("DE|2024-01",)
    assert desk.watch.push.services.inbox.batches()[0].run_id == "run-1"
    assert desk.watch.step(now + timedelta(seconds=5)) == []


def test_a_file_that_is_being_written_is_looked_at_when_it_is_complete(make: Callable[..., Desk]) -> None:
    desk = make()
    now = datetime.now(UTC)
    file = desk.land("2024-01_DE.csv", age_seconds=0.5, now=now)
    desk.watch.notice(str(file), now=now)

    desk.watch.step(now + timedelta(seconds=1.4))
    assert desk.said == []
    os.utime(file, (now.timestamp() - 20, now.timestamp() - 20))
    desk.watch.step(now + timedelta(seconds=1.6))

    assert desk.said == [f"shop/returns: {file} is event 1 for [DE|2024-01]"]


def test_a_file_that_settles_late_is_looked_at_again(make: Callable[..., Desk]) -> None:
    desk = make()
    file = desk.land("2024-01_DE.csv", age_seconds=10)
    now = datetime.now(UTC)
    desk.watch.notice(str(file), now=now)
    desk.land("2024-01_DE.csv", age_seconds=0, now=now)

    desk.watch.step(now)

    assert desk.said == []
    assert desk.watch.looks == {(PATH, str(file)): (now + timedelta(seconds=0.1), 2)}


def test_a_bad_file_is_told_and_nothing_is_submitted(make: Callable[..., Desk]) -> None:
    desk = make()
    file = desk.land("2024-01_DE.csv", age_seconds=10)
    file.write_text("order_id\n1\n")
    os.utime(file, (1e9, 1e9))
    now = datetime.now(UTC)
    desk.watch.notice(str(file), now=now)

    desk.watch.step(now)

    (line,) = desk.said
    assert line.startswith(f"shop/returns: {file} was refused:")
    moved_to = Path(line.rpartition(" It is now ")[2].removesuffix("."))
    assert (moved_to.parent.name, moved_to.is_file(), file.exists()) == ("returns", True, False)
    assert desk.watch.due == {}


def test_what_is_elsewhere_is_not_looked_at(make: Callable[..., Desk]) -> None:
    desk = make()
    desk.watch.notice("/else/2024-01_DE.csv", now=datetime.now(UTC))
    assert desk.watch.looks == {}


def test_a_burst_reads_the_policy_once_and_only_of_the_pipeline_that_it_is_of(make: Callable[..., Desk]) -> None:
    desk = make(**{"inbox.debounce_seconds": 0})
    policy, read = desk.watch.push.services.policy, list[PipelinePath]()

    def effective(path: PipelinePath, at: datetime | None = None) -> EffectivePolicy:
        read.append(path)
        return policy.effective(path, at)

    services = replace(desk.watch.push.services, policy=SimpleNamespace(effective=effective))
    runs = replace(desk.runs, pipelines={**desk.runs.pipelines, ("shop", "other"): _elsewhere(desk)})
    desk.watch.push = Push(services=services, submission=runs)
    now = datetime.now(UTC)
    for name in ("2024-01_DE.csv", "2024-01_FR.csv"):
        desk.watch.notice(str(desk.land(name, age_seconds=10, now=now)), now=now)

    assert desk.watch.step(now) == ["run-1"]
    assert len(desk.watch.push.services.inbox.events()) == 2
    assert read == [PATH, PATH], "once for the files, and once when the run is submitted"


def _elsewhere(desk: Desk) -> LoadedPipeline:
    """Return a pipeline of the same folder whose files have other names."""
    loaded = desk.runs.pipelines[PATH]
    source = loaded.spec.source.model_copy(update={"url": "shop/other_{time}_{group}.csv"})
    return replace(loaded, spec=loaded.spec.model_copy(update={"source": source, "name": "other"}))


def test_a_policy_that_cannot_be_read_is_told_and_does_not_end_the_watch(make: Callable[..., Desk]) -> None:
    desk = make()
    file = desk.land("2024-01_DE.csv", age_seconds=10)

    def broken(path: PipelinePath) -> EffectivePolicy:
        raise PolicyError(f"The policy of {'/'.join(path)} has a typo.")

    services = replace(desk.watch.push.services, policy=SimpleNamespace(effective=broken))
    whole, desk.watch.push = desk.watch.push, Push(services=services, submission=desk.runs)
    now = datetime.now(UTC)
    desk.watch.notice(str(file), now=now)
    assert desk.said == ["shop/returns: The policy of shop/returns has a typo. The sensor will try again."]

    desk.watch.push, later = whole, now + timedelta(seconds=1)
    desk.watch.notice(str(file), now=later)
    desk.watch.step(later)
    assert desk.said[-1] == f"shop/returns: {file} is event 1 for [DE|2024-01]"


def test_what_cannot_be_submitted_is_told_and_left_to_the_sensor(make: Callable[..., Desk]) -> None:
    desk = make(**{"inbox.debounce_seconds": 0})
    desk.runs.failures = 1
    file = desk.land("2024-01_DE.csv", age_seconds=10)
    now = datetime.now(UTC)
    desk.watch.notice(str(file), now=now)

    assert desk.watch.step(now) == []

    assert desk.said[-1] == "shop/returns: The database is locked. The sensor will try again."
    (batch,) = desk.watch.push.services.inbox.batches()
    assert batch.run_id is None, "it is leased for a minute, then the sensor submits it"


def test_nothing_is_submitted_while_it_is_paused(make: Callable[..., Desk]) -> None:
    desk = make(**{"inbox.debounce_seconds": 0})
    world = desk.watch.push.services
    pause(world.ledger, PATH, by="lena", reason="Repairs.", now=datetime.now(UTC))
    file = desk.land("2024-01_DE.csv", age_seconds=10)
    now = datetime.now(UTC)
    desk.watch.notice(str(file), now=now)

    assert desk.watch.step(now) == []

    assert [event.state for event in world.inbox.events()] == ["waiting"]


def test_a_landing_zone_without_notices_is_listed(make: Callable[..., Desk]) -> None:
    desk = make(**{"inbox.debounce_seconds": 0, "arrivals.settle_seconds": 0})
    content = desk.land("2024-01_DE.csv", age_seconds=10).read_bytes()
    remote = fsspec.filesystem("memory")
    landing = LandingZone(root="memory://watched")
    desk.watch.push = replace(desk.watch.push, services=replace(desk.watch.push.services, landing=landing))
    assert desk.watch.folders == {PATH: None}
    now = datetime.now(UTC)
    assert desk.watch.step(now) == []
    remote.pipe("/watched/shop/2024-01_DE.csv", content)

    assert desk.watch.step(now + timedelta(seconds=0.5)) == []
    assert desk.watch.step(now + timedelta(seconds=1.1)) == ["run-1"]
    remote.rm("/watched", recursive=True)
