"""Bad files in quarantine: told once, and held against a pipeline until a good one has their place."""

import json
import os
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest

from ml_assets.alerting import Cursor, look_at_quarantines
from ml_assets.alerting.quarantines import DISK_EVERY
from ml_assets.arrivals.put_aside import standing_files
from ml_assets.interfaces import Alert, InboxEvent
from ml_assets.retraining.attempts import History
from ml_assets.retraining.gathering import gather
from ml_assets.sources import LandingZone
from ml_assets.spec import AutomationSpec
from ml_assets.stages.step import Services, Step
from ml_assets.testing.inbox_examples import MINUTE, RETRY, failure
from tests.integration.test_arrivals import Landing, csv, make

BAD = "a,b\n1,2\n"
FILE = "2024-01_DE.csv"
PATH = ("shop", "returns")


class Watched(Landing):
    """A landing zone whose quarantine somebody watches for alerts."""

    alerts: Cursor | None = None

    def standing(self) -> list[str | None]:
        files = standing_files(self.world.landing, self.world.inbox, self.pipeline.spec)
        return sorted((file.partition for file in files), key=str)

    def told(self) -> list[Alert]:
        """Return what is told at a look some seconds later."""
        self.now += timedelta(seconds=10)
        cursor = self.alerts or Cursor(start=self.now, channels=("log",))
        specs = [self.pipeline.spec]
        found, self.alerts, unseen = look_at_quarantines(self.world.landing, self.world.inbox, specs, cursor, self.now)
        assert unseen == []
        return found

    def finish(self, event: InboxEvent, *, dies: bool = False) -> None:
        """Let the run of an event end."""
        name, inbox = f"batch {event.number} {dies}", self.world.inbox
        inbox.claim([event.number], name, lease=MINUTE, now=self.now)
        failures = {event.number: failure(transient=False)} if dies else {}
        inbox.finish(name, failures, retry=RETRY, now=self.now)

    def settle(self) -> None:
        """Let the quarantine be unchanged for some time."""
        folder = self.folder.parent / ".quarantine" / "shop" / "returns"
        os.utime(folder, (folder.stat().st_atime, folder.stat().st_mtime - 5))


@pytest.fixture
def landing(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_a_bad_file_stands_until_a_good_one_has_its_place(landing: Watched) -> None:
    landing.land(FILE, BAD)
    landing.land("2024-02_FR.csv", BAD)
    landing.look()
    assert landing.standing() == ["DE|2024-01", "FR|2024-02"]

    landing.land(FILE, csv())
    (event,) = landing.look().receipt.new
    assert landing.standing() == ["FR|2024-02"], "it was read and found good"
    landing.finish(event, dies=True)
    assert landing.standing() == ["DE|2024-01", "FR|2024-02"], "its gate was closed"

    landing.world.inbox.replay(event.number, by="lena", now=landing.now)
    landing.finish(event)
    assert landing.standing() == ["FR|2024-02"]


def test_a_bad_rewrite_stands_until_the_old_bytes_lie_there_again(landing: Watched) -> None:
    landing.land(FILE, csv())
    (event,) = landing.look().receipt.new
    make(landing, "2024-01", "DE")
    landing.finish(event)
    landing.land(FILE, BAD)
    landing.look()
    assert landing.standing() == ["DE|2024-01"], "the event is older than the bad file"

    landing.land(FILE, csv())
    assert landing.look().receipt.new == (), "these bytes are known"

    assert landing.standing() == []


def test_what_is_in_a_store_stands_as_well(tmp_path: Path) -> None:
    landing = Watched(tmp_path)
    root = f"memory://put-aside-{tmp_path.name}"
    landing.world = Services(**{**vars(landing.world), "landing": LandingZone(root=root)})
    store = fsspec.filesystem("memory")
    try:
        store.pipe_file(f"{root}/shop/{FILE}", BAD.encode())
        landing.look()
        assert landing.standing() == ["DE|2024-01"]
        (alert,) = landing.told()
        assert "lacks the declared columns" in alert.body
        assert landing.told() == []

        store.pipe_file(f"{root}/shop/{FILE}", csv().encode())
        landing.look()
        assert landing.standing() == []
    finally:
        store.rm(root, recursive=True)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"reason": 7, "after_event": "x", "landed_as": "../../x\\u0000"}'])
def test_a_reason_that_is_none_leaves_the_file_standing(landing: Watched, text: str) -> None:
    landing.land(FILE, BAD)
    landing.look()
    (note,) = (landing.folder.parent / ".quarantine" / "shop" / "returns").glob("*.reason.json")
    note.write_text(text)

    assert landing.standing() == [None]
    (alert,) = landing.told()
    assert "No reason lies beside it." in alert.body


def test_a_bad_file_is_told_once_with_what_to_do(landing: Watched) -> None:
    landing.land(FILE, BAD)
    landing.look()

    (alert,) = landing.told()

    assert (alert.kind, alert.pipeline) == ("quarantined", PATH)
    assert alert.title == "shop/returns: a file for [DE|2024-01] was put into quarantine"
    assert "lacks the declared columns" in alert.body
    assert "It came as 'shop/2024-01_DE.csv' and is now " in alert.body
    assert "/.quarantine/shop/returns/" in alert.body
    assert "[DE|2024-01] stays as it is until then." in alert.body
    assert landing.told() == []
    landing.land(FILE, BAD)
    landing.look()
    assert len(landing.quarantined()) == 1
    assert {a.key for a in landing.told()} <= {alert.key}, "the same bytes at the same place"
    landing.land(FILE, "a,b\n1,3\n")
    landing.look()
    (other,) = (a for a in landing.told() if a.key != alert.key)
    assert other.title == alert.title


def test_the_same_bad_bytes_are_told_again_after_a_good_file(landing: Watched) -> None:
    landing.land(FILE, BAD)
    landing.look()
    (first,) = landing.told()
    landing.land(FILE, csv())
    landing.look()
    landing.land(FILE, BAD)
    landing.look()

    (again,) = landing.told()

    assert again.key != first.key


def test_files_that_were_not_read_are_told_each(landing: Watched) -> None:
    for name in ("2024-13_DE.csv", "2024-02_XX.csv"):
        landing.land(name, csv())
    landing.land("2024-02_FR.csv", "")
    landing.look()

    alerts = landing.told()

    assert len({alert.key for alert in alerts}) == 3
    assert sorted(alert.title.partition("file for ")[2].partition(" was")[0] for alert in alerts) == [
        "[FR|2024-02]",
        "[no partition]",
        "[no partition]",
    ]


def test_what_a_good_file_has_made_up_for_needs_nobody(landing: Watched) -> None:
    landing.land(FILE, BAD)
    landing.look()
    landing.land(FILE, csv())
    landing.look()

    assert landing.told() == []


def test_a_quarantine_at_rest_is_not_read(landing: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    landing.land(FILE, BAD)
    landing.look()
    landing.settle()
    assert len(landing.told()) == 1
    read: list[str] = []

    def reading(*_: object) -> list[object]:
        read.append("read")
        return []

    monkeypatch.setattr("ml_assets.alerting.quarantines.standing_files", reading)
    for _ in range(5):
        landing.told()
    assert read == []

    landing.now += DISK_EVERY
    landing.told()
    assert read == ["read"], "its files may stand for another reason than its own change"


def test_a_quarantine_that_cannot_be_looked_at_is_told_and_tried_again(landing: Watched) -> None:
    folder = landing.folder.parent / ".quarantine" / "shop" / "returns"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(folder)  # a circle: listing it fails even for root
    cursor = Cursor(start=landing.now, channels=("log",))

    found, after, unseen = look_at_quarantines(
        landing.world.landing, landing.world.inbox, [landing.pipeline.spec], cursor, landing.now
    )

    assert (found, after) == ([], cursor)
    assert unseen[0].startswith("The quarantine of shop/returns cannot be looked at:")


def test_what_a_file_in_quarantine_holds_is_explained(landing: Watched) -> None:
    spec = landing.pipeline.spec.model_copy(update={"automation": AutomationSpec(arrivals=True, retraining=True)})
    pipeline = landing.pipeline.__class__(**{**vars(landing.pipeline), "spec": spec})
    landing.land(FILE, BAD)
    landing.look()

    def incomplete() -> tuple[str, ...]:
        step = Step(pipeline=pipeline, services=landing.world, partition="", run_id="")
        return gather(step, History(), landing.now).incomplete

    (why,) = incomplete()
    assert why.startswith("2024-01: no features have been made. A file for [DE|2024-01] lies in quarantine: ")
    assert "lacks the declared columns" in why
    note = next((landing.folder.parent / ".quarantine" / "shop" / "returns").glob("*.reason.json"))
    assert json.loads(note.read_text())["landed_as"] == "shop/2024-01_DE.csv"

    landing.land(FILE, csv())
    landing.look()

    assert incomplete() == ()


def test_of_many_periods_that_are_not_complete_the_newest_are_told(landing: Watched) -> None:
    spec = landing.pipeline.spec.model_copy(update={"automation": AutomationSpec(arrivals=True, retraining=True)})
    pipeline = landing.pipeline.__class__(**{**vars(landing.pipeline), "spec": spec})
    for month in range(1, 7):
        landing.land(f"2024-{month:02d}_DE.csv", BAD)
    landing.look()

    step = Step(pipeline=pipeline, services=landing.world, partition="", run_id="")
    told = gather(step, History(), landing.now).incomplete

    assert [one[:7] for one in told[:3]] == ["2024-06", "2024-05", "2024-04"]
    assert told[3:] == ("3 earlier ones are not complete either.",)
