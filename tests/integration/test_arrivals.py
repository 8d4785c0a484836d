"""Files on a disk and in a store: good ones become events, bad ones go to quarantine with their reason."""

import gzip
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec
import pandas as pd
import pytest

from ml_assets import file_formats, sources
from ml_assets.arrivals import ArrivalSettings, Arrived, Cursor, arrive, arrive_one
from ml_assets.arrivals import inspect as inspect_module
from ml_assets.arrivals import quarantine as quarantine_module
from ml_assets.cli.validate import crossings
from ml_assets.errors import SourceError
from ml_assets.interfaces import EventFailure, RetryPolicy
from ml_assets.reading.pipeline_file import check_pipeline
from ml_assets.sources import LandingZone, read_rows
from ml_assets.spec import AutomationSpec, PipelineSpec
from ml_assets.stages.source_file import write_source_file
from ml_assets.stages.step import Services
from ml_assets.texts import visible_text
from tests.components.shop import FEATURES, orders, policy, services, shop

PATH = ("shop", "returns")
SETTINGS = ArrivalSettings.of(policy(**{"arrivals.max_mb": 1}).effective(PATH))


class Landing:
    """A landing zone and one who looks at it every ten seconds."""

    def __init__(self, folder: Path, **source: Any) -> None:
        self.folder = folder / "landing" / "shop"
        self.folder.mkdir(parents=True)
        (folder / "features.py").write_text(FEATURES, encoding="utf-8")
        component = shop()
        fields: dict[str, Any] = {name: getattr(component, name) for name in PipelineSpec.model_fields}
        fields["source"] = component.source.model_copy(update=source)
        self.pipeline = check_pipeline(PipelineSpec(**fields), folder)
        self.world: Services = services(folder / "landing")
        self.cursor = Cursor()
        self.now = datetime.now(UTC) + timedelta(seconds=10)

    def land(self, name: str, content: str | bytes) -> Path:
        """Write a file in one move, as it should be done."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name("x.part")
        part.write_bytes(content if isinstance(content, bytes) else content.encode())
        return part.replace(path)

    def look(self, **more: Any) -> Arrived:
        self.now += timedelta(seconds=10)
        cursor = Cursor.read(self.cursor.text)
        arrived = arrive(self.world, self.pipeline, cursor, **{"settings": SETTINGS, "now": self.now, **more})
        self.cursor = arrived.cursor
        return arrived

    def quarantined(self) -> dict[str, str]:
        """Return original name → reason of all that is in quarantine, after checking that each file has its reason."""
        folder = self.folder.parent / ".quarantine" / "shop" / "returns"
        notes = sorted(folder.glob("*.reason.json"))
        files = {path.name for path in folder.iterdir() if not path.name.endswith(".reason.json")}
        assert files == {note.name.removesuffix(".reason.json") for note in notes}
        read = [json.loads(note.read_text(encoding="utf-8")) for note in notes]
        return {note["place"].rpartition("/")[2]: note["reason"] for note in read}


@pytest.fixture
def landing(tmp_path: Path) -> Landing:
    return Landing(tmp_path)


def csv(month: str = "2024-01", country: str = "DE", *, per_day: int = 2) -> str:
    return orders(month, country, per_day=per_day, signal=1.0).to_csv(index=False)


def partitions(arrived: Arrived) -> list[str]:
    return sorted(kept.event.partition for kept in arrived.receipt.new)


def outside(landing: Landing) -> Path:
    target = landing.folder.parents[1] / "secret.csv"
    target.write_text(csv(), encoding="utf-8")
    return target


BAD: dict[str, tuple[str, Callable[[Landing], object], str]] = {
    "not parsable": ("2024-02_DE.csv", lambda z: z.land("2024-02_DE.csv", b"\x00\xff\xfe\x01\n\x00\n"), "lacks|cannot"),
    "wrong schema": ("2024-02_DE.csv", lambda z: z.land("2024-02_DE.csv", "a,b\n1,2\n"), "lacks the declared columns"),
    "wrong type": (
        "2024-02_DE.csv",
        lambda z: z.land("2024-02_DE.csv", csv("2024-02").replace(",DE,", ",DE,x")),
        "cannot be read as csv",
    ),
    "empty": ("2024-02_DE.csv", lambda z: z.land("2024-02_DE.csv", ""), "is empty"),
    "header alone": ("2024-02_DE.csv", lambda z: z.land("2024-02_DE.csv", csv().split("\n")[0] + "\n"), "has no rows"),
    "truncated in a row": (
        "2024-02_DE.csv",
        lambda z: z.land("2024-02_DE.csv", csv("2024-02")[:-9]),
        "its last line is cut",
    ),
    "truncated in its last value": (
        "2024-02_DE.csv",
        lambda z: z.land("2024-02_DE.csv", csv("2024-02")[:-1]),
        "its last line is cut",
    ),
    "too large": ("2024-02_DE.csv", lambda z: z.land("2024-02_DE.csv", b"x" * 1_000_001), "arrivals.max_mb allows"),
    "of another period": ("2024-02_DE.csv", lambda z: z.land("2024-02_DE.csv", csv("2024-01")), "event time outside"),
    "of another group": ("2024-02_DE.csv", lambda z: z.land("2024-02_DE.csv", csv("2024-02", "FR")), "another country"),
    "repeated rows": (
        "2024-02_DE.csv",
        lambda z: z.land("2024-02_DE.csv", csv("2024-02") + csv("2024-02").split("\n", 1)[1]),
        "repeat the row id",
    ),
    "a link out": (
        "2024-02_DE.csv",
        lambda z: (z.folder / "2024-02_DE.csv").symlink_to(outside(z)),
        "outside of the landing zone",
    ),
    "a link to a device": (
        "2024-02_DE.csv",
        lambda z: (z.folder / "2024-02_DE.csv").symlink_to("/dev/zero"),
        "outside of the landing zone",
    ),
    "a link to nothing": (
        "2024-02_DE.csv",
        lambda z: (z.folder / "2024-02_DE.csv").symlink_to("nowhere.csv"),
        "a link to a file that does not exist",
    ),
    "a link to a folder": (
        "2024-02_DE.csv",
        lambda z: (z.folder / "2024-02_DE.csv").symlink_to(z.folder),
        "no regular file",
    ),
    "a pipe": ("2024-02_DE.csv", lambda z: os.mkfifo(z.folder / "2024-02_DE.csv"), "a device, a socket or a pipe"),
    "an escape": ("%2e%2e%2f_DE.csv", lambda z: z.land("%2e%2e%2f_DE.csv", csv()), "step to another folder"),
    "dots": ("..2024-01_DE.csv", lambda z: z.land("..2024-01_DE.csv", csv()), "step to another folder"),
    "control characters": ("2024-01\t_DE.csv", lambda z: z.land("2024-01\t_DE.csv", csv()), "cannot be printed"),
    "an unknown group": ("2024-01_US.csv", lambda z: z.land("2024-01_US.csv", csv()), "one of DE, FR"),
    "a period outside": ("2031-01_DE.csv", lambda z: z.land("2031-01_DE.csv", csv()), "Period 2031-01 is none"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_goes_to_quarantine_and_its_neighbours_proceed(landing: Landing, kind: str) -> None:
    name, make, reason = BAD[kind]
    landing.land("2024-01_DE.csv", csv())
    make(landing)
    landing.land("2024-03_FR.csv", csv("2024-03", "FR"))

    arrived = landing.look()

    assert partitions(arrived) == ["DE|2024-01", "FR|2024-03"]
    assert list(landing.quarantined()) == [name]
    assert pd.Series(landing.quarantined()).str.contains(reason).all(), landing.quarantined()
    assert [one.place for one in arrived.quarantined] == [f"shop/{visible_text(name)}"]
    assert not os.path.lexists(landing.folder / name)
    assert landing.world.data_store.partitions((*PATH, "raw_data")) == []
    assert landing.look().receipt.new == ()


def test_a_name_that_is_no_unicode(landing: Landing) -> None:
    place = os.fsencode(landing.folder) + b"/2024-01\xff_DE.csv"
    Path(os.fsdecode(place)).write_text(csv(), encoding="utf-8")

    assert "cannot be printed" in landing.look().quarantined[0].reason
    assert list(landing.quarantined()) == ["2024-01\udcff_DE.csv"]  # as Python gives the name


def test_the_linked_file_itself_stays(landing: Landing) -> None:
    target = outside(landing)
    (landing.folder / "2024-01_DE.csv").symlink_to(target)

    moved = Path(landing.look().quarantined[0].moved_to)

    assert moved.is_symlink()
    note = json.loads(moved.with_name(f"{moved.name}.reason.json").read_text(encoding="utf-8"))
    assert note["details"] == {"target": str(target.resolve())}
    assert target.read_text(encoding="utf-8") == csv()


def test_a_link_inside_the_landing_zone_is_as_good_as_its_file(landing: Landing) -> None:
    store = landing.folder.parent / "store.csv"
    store.write_text(csv(), encoding="utf-8")
    (landing.folder / "2024-01_DE.csv").symlink_to(store)

    assert partitions(landing.look()) == ["DE|2024-01"]


def test_ten_times_the_usual_size(landing: Landing) -> None:
    for month in range(1, 6):
        landing.land(f"2024-{month:02d}_DE.csv", csv(f"2024-{month:02d}"))
    assert len(landing.look().receipt.new) == 5
    landing.land("2024-06_DE.csv", csv("2024-06", per_day=25))
    landing.land("2024-06_FR.csv", csv("2024-06", "FR", per_day=15))

    arrived = landing.look()

    assert partitions(arrived) == ["FR|2024-06"]
    assert "times the median of the last 5 files of DE" in landing.quarantined()["2024-06_DE.csv"]


def test_a_group_of_many_rows_is_held_against_its_own_files(landing: Landing) -> None:
    months = [f"2024-{month:02d}" for month in range(1, 6)]
    for month in months:
        landing.land(f"{month}_DE.csv", csv(month))
    landing.land("2024-01_FR.csv", csv("2024-01", "FR", per_day=30))
    assert len(landing.look().receipt.new) == 6
    for month in months[1:]:
        landing.land(f"{month}_FR.csv", csv(month, "FR", per_day=30))
        assert partitions(landing.look()) == [f"FR|{month}"]
    landing.land("2024-06_FR.csv", csv("2024-06", "FR", per_day=45))
    landing.land("2024-06_DE.csv", csv("2024-06", per_day=30))

    assert partitions(landing.look()) == ["FR|2024-06"]
    assert "of the last 5 files of DE" in landing.quarantined()["2024-06_DE.csv"]

    landing.land("2024-06_FR.csv", csv("2024-06", "FR", per_day=330))
    landing.look(settings=replace(SETTINGS, max_bytes=10**9))
    assert "of the last 5 files of FR" in landing.quarantined()["2024-06_FR.csv"]


def test_the_first_files_of_a_group_are_held_against_the_largest_of_all(landing: Landing) -> None:
    for month in range(1, 6):
        landing.land(f"2024-{month:02d}_DE.csv", csv(f"2024-{month:02d}", per_day=month))
    landing.look()
    landing.land("2024-06_FR.csv", csv("2024-06", "FR", per_day=60))
    landing.land("2024-05_FR.csv", csv("2024-05", "FR", per_day=45))

    assert partitions(landing.look()) == ["FR|2024-05"]
    assert "times the largest of the last 5 files" in landing.quarantined()["2024-06_FR.csv"]


def test_parquet_without_a_footer(tmp_path: Path) -> None:
    landing = Landing(tmp_path, url="shop/{time}_{group}.parquet", format="parquet")
    frame = orders("2024-01", "DE", per_day=5, signal=1.0)
    frame.to_parquet(landing.folder / "2024-01_DE.parquet")
    whole = (landing.folder / "2024-01_DE.parquet").read_bytes()
    landing.land("2024-01_FR.parquet", whole[:-40])

    assert partitions(landing.look()) == ["DE|2024-01"]
    assert "cannot be read as parquet" in landing.quarantined()["2024-01_FR.parquet"]


@pytest.mark.parametrize("share", [0.0, 0.5], ids=["nothing", "a half"])
@pytest.mark.parametrize("file_format", ["csv", "parquet"])
def test_a_writer_that_pauses_has_time_to_go_on(tmp_path: Path, file_format: str, share: float) -> None:
    landing = Landing(tmp_path, url=f"shop/{{time}}_{{group}}.{file_format}", format=file_format)
    frame = orders("2024-01", "DE", per_day=5, signal=1.0)
    whole = frame.to_parquet() if file_format == "parquet" else frame.to_csv(index=False).encode()
    path = landing.land(f"2024-01_DE.{file_format}", whole[: int(len(whole) * share) - 3 if share else 0])

    def look_after(seconds: float) -> Arrived:
        then = landing.now.timestamp() + 10 - seconds
        os.utime(path, (then, then))
        return landing.look()

    waiting = look_after(14)
    assert (waiting.waiting, waiting.quarantined) == (1, ())
    assert "it counts as cut once it was unchanged for 15 s" in waiting.reasons[0]
    path.write_bytes(whole)
    assert partitions(look_after(2)) == ["DE|2024-01"]

    landing.now += timedelta(seconds=60)  # a rewrite in place does not change the folder
    path.write_bytes(whole[: int(len(whole) * share) - 3 if share else 0])
    assert len(look_after(16).quarantined) == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(b"a,b\n1,2\n"), "a gzip archive"),
        (b"PK\x03\x04 a workbook", "a zip archive, such as an Excel workbook"),
        ("a,b\n1,2\n".encode("utf-16"), "text in UTF-16"),
        (b"PAR1 columns PAR1", "a Parquet file"),
    ],
    ids=["gzip", "zip", "utf-16", "parquet"],
)
def test_a_file_of_another_format_is_not_called_cut(landing: Landing, content: bytes, told: str) -> None:
    landing.land("2024-01_DE.csv", content)

    landing.look()

    (reason,) = landing.quarantined().values()
    assert reason == (
        f"shop/2024-01_DE.csv begins like {told}; expected CSV in UTF-8. Unpack or convert it, and land that."
    )


def test_a_file_waits_until_it_settled_and_parts_are_not_looked_at(landing: Landing) -> None:
    (landing.folder / "2024-02_DE.csv.part").write_text("", encoding="utf-8")
    path = landing.land("2024-01_DE.csv", "")
    just_now = landing.now.timestamp() + 9.5
    os.utime(path, (just_now, just_now))

    waiting = landing.look()
    path.write_text(csv(), encoding="utf-8")
    os.utime(path, (just_now, just_now))
    settled = landing.look()

    assert (waiting.waiting, waiting.receipt.new) == (1, ())
    assert "may not be complete" in waiting.reasons[0]
    assert waiting.cursor.pending
    assert (settled.waiting, partitions(settled)) == (0, ["DE|2024-01"])


def test_a_time_in_the_far_future_does_not_wait_for_it(landing: Landing) -> None:
    path = landing.land("2024-01_DE.csv", csv())
    os.utime(path, (4e9, 4e9))

    assert partitions(landing.look()) == ["DE|2024-01"]


def test_a_late_file_with_an_old_time(landing: Landing) -> None:
    landing.land("2024-02_DE.csv", csv("2024-02"))
    landing.look()
    os.utime(landing.land("2024-01_DE.csv", csv()), (1e9, 1e9))

    assert partitions(landing.look()) == ["DE|2024-01"]


def test_a_rewritten_file_and_the_old_bytes_again(landing: Landing) -> None:
    path = landing.land("2024-01_DE.csv", csv())
    first = landing.look()
    landing.land("2024-01_DE.csv", csv(per_day=3))
    second = landing.look()
    landing.land("2024-01_DE.csv", csv())
    third = landing.look()
    path.write_text(csv(per_day=4), encoding="utf-8")  # in place: the folder's time stays
    landing.now += timedelta(seconds=60)
    fourth = landing.look()

    assert [partitions(one) for one in (first, second, third, fourth)] == [["DE|2024-01"]] * 4
    assert len({kept.event.key for kept in landing.world.inbox.events()}) == 4


def test_the_same_bytes_again_are_no_event(landing: Landing) -> None:
    landing.land("2024-01_DE.csv", csv())
    landing.look()
    landing.land("2024-01_DE.csv", csv())
    os.utime(landing.folder / "2024-01_DE.csv", (1e9, 1e9))

    again = landing.look()

    assert (again.receipt.new, again.receipt.repeated, again.waiting) == ((), (), 0)


def make(landing: Landing, month: str, country: str) -> None:
    """Do what the raw_data stage does for a partition."""
    url = f"shop/{month}_{country}.csv"
    table, file = read_rows(landing.world.landing, url, landing.pipeline.spec.source)
    stored = landing.world.data_store.write((*PATH, "raw_data"), f"{country}|{month}", table)
    write_source_file(landing.world.data_store, stored, file)


def test_bytes_that_the_partition_was_made_of_are_no_event_unless_it_was_made_of_others_since(landing: Landing) -> None:
    landing.land("2024-01_DE.csv", csv())
    make(landing, "2024-01", "DE")
    assert landing.look().receipt.new == ()

    landing.land("2024-01_DE.csv", csv(per_day=3))
    make(landing, "2024-01", "DE")
    landing.land("2024-01_DE.csv", csv())

    assert partitions(landing.look()) == ["DE|2024-01"]


def test_old_bytes_come_back_while_the_run_for_new_ones_is_under_way(landing: Landing) -> None:
    landing.land("2024-01_DE.csv", csv())
    make(landing, "2024-01", "DE")
    landing.land("2024-01_DE.csv", csv(per_day=3))
    assert partitions(landing.look()) == ["DE|2024-01"]  # waits for its run
    landing.land("2024-01_DE.csv", csv())

    assert partitions(landing.look()) == ["DE|2024-01"]


def test_a_file_over_the_rate_cap_is_offered_again(landing: Landing) -> None:
    settings = ArrivalSettings.of(policy(**{"inbox.events_per_minute": 2}).effective(PATH))
    for month in (1, 2, 3):
        landing.land(f"2024-{month:02d}_DE.csv", csv(f"2024-{month:02d}"))

    first = landing.look(settings=settings)
    landing.now += timedelta(minutes=2)
    second = landing.look(settings=settings)

    assert (len(first.receipt.new), first.waiting) == (2, 1)
    assert (len(second.receipt.new), second.waiting) == (1, 0)
    assert len(landing.world.inbox.events()) == 3


def test_a_time_budget_leaves_the_rest_for_later(landing: Landing) -> None:
    for month in range(1, 6):
        landing.land(f"2024-{month:02d}_DE.csv", csv(f"2024-{month:02d}"))

    looks = [landing.look(time_budget_seconds=0.0) for _ in range(6)]

    assert [len(one.receipt.new) for one in looks] == [1, 1, 1, 1, 1, 0]
    assert [one.waiting for one in looks] == [4, 3, 2, 1, 0, 0]


def test_a_lost_cursor_loses_and_doubles_nothing(landing: Landing) -> None:
    landing.land("2024-01_DE.csv", csv())
    landing.land("2024-02_DE.csv", "")
    landing.look()
    landing.land("2024-03_DE.csv", csv("2024-03"))
    landing.cursor = Cursor()

    assert partitions(landing.look()) == ["DE|2024-03"]
    assert list(landing.quarantined()) == ["2024-02_DE.csv"]


def test_a_file_deleted_after_it_was_listed(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    path = landing.land("2024-01_DE.csv", csv())
    landing.land("2024-02_DE.csv", csv("2024-02"))
    opened = LandingZone.open

    def open_late(zone: LandingZone, url: str) -> Any:
        path.unlink(missing_ok=True)
        return opened(zone, url)

    monkeypatch.setattr(LandingZone, "open", open_late)

    assert partitions(landing.look()) == ["DE|2024-02"]
    assert not (landing.folder.parent / ".quarantine").exists()


def test_killed_between_the_reason_and_the_move(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    landing.land("2024-01_DE.csv", "a\n1\n")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            landing.look()
    assert (landing.folder / "2024-01_DE.csv").exists()

    landing.look()

    assert list(landing.quarantined()) == ["2024-01_DE.csv"]  # one reason, beside its file


def test_a_good_file_that_replaces_a_bad_one_is_not_put_aside(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.land("2024-01_DE.csv", "a\n1\n")
    checked = quarantine_module._require_same

    def replaced_after(place: Path, candidate: Any) -> None:
        checked(place, candidate)
        landing.land("2024-01_DE.csv", csv())

    with monkeypatch.context() as patched:
        patched.setattr(quarantine_module, "_require_same", replaced_after)
        first = landing.look()
    second = landing.look()

    assert (first.quarantined, first.waiting) == ((), 1)
    assert partitions(second) == ["DE|2024-01"]
    assert landing.quarantined() == {}


@pytest.mark.parametrize(("state", "words"), [("dead", "is a dead letter"), ("discarded", "was discarded")])
def test_bytes_that_were_given_up_and_come_again_say_what_starts_them(landing: Landing, state: str, words: str) -> None:
    landing.land("2024-01_DE.csv", csv())
    (event,) = landing.look().receipt.new
    inbox = landing.world.inbox
    inbox.claim([event.number], "b1", lease=timedelta(minutes=1), now=landing.now)
    failure = EventFailure(reason="Wrong.", transient=False)
    inbox.finish("b1", {event.number: failure}, retry=RetryPolicy(attempts=1, backoff=timedelta(0)), now=landing.now)
    if state == "discarded":
        inbox.discard(event.number, by="lena", reason="A test.", now=landing.now)
    landing.land("2024-02_FR.csv", csv("2024-02", "FR"))
    assert landing.look().in_vain == (), "the file only lies there still"

    landing.land("2024-01_DE.csv", csv())
    again = landing.look()

    told = (
        f"These bytes came before as event 1, which {words}. Once its cause is mended: ml-assets dead-letters replay 1"
    )
    assert (again.receipt.new, again.in_vain) == ((), (f"shop/2024-01_DE.csv: {told}",))
    one = arrive_one(landing.world, landing.pipeline, "shop/2024-01_DE.csv", settings=SETTINGS, now=landing.now)
    assert (one.fate, one.reason) == ("unchanged", told)
    landing.land("2024-02_FR.csv", csv("2024-02", "FR"))
    assert landing.look().in_vain == (), "its event waits for its run"


def test_a_landing_zone_that_cannot_be_written_buries_a_dead_letter_once(landing: Landing) -> None:
    landing.land("2024-01_DE.csv", "")
    landing.land("2024-02_DE.csv", csv("2024-02"))
    (landing.folder.parent / ".quarantine").write_text("no folder", encoding="utf-8")

    first = landing.look()
    landing.cursor = Cursor()
    landing.look()

    assert partitions(first) == ["DE|2024-02"]
    (dead,) = landing.world.inbox.events(states=["dead"])
    assert "cannot be put into quarantine" in dead.reason
    assert "is empty" in dead.reason
    assert first.buried[0].number == dead.number
    (landing.folder.parent / ".quarantine").unlink()
    landing.land("2024-01_DE.csv", csv())
    assert partitions(landing.look()) == ["DE|2024-01"]


def test_a_quarantine_that_leads_out_is_refused(landing: Landing, tmp_path: Path) -> None:
    landing.land("2024-01_DE.csv", "")
    (tmp_path / "elsewhere").mkdir()
    (landing.folder.parent / ".quarantine").symlink_to(tmp_path / "elsewhere")

    assert "is a link out of" in landing.look().buried[0].reason
    assert not list((tmp_path / "elsewhere").rglob("*.json"))


def test_groups_and_times_in_folder_names(tmp_path: Path) -> None:
    landing = Landing(tmp_path, url="shop/{group}/{time}.csv")
    landing.land("DE/2024-01.csv", csv())
    landing.land("US/2024-01.csv", csv())
    (landing.folder / "FR").symlink_to(landing.folder / "DE")

    arrived = landing.look()
    landing.land("DE/2024-02.csv", csv("2024-02"))

    assert partitions(arrived) == ["DE|2024-01"]
    assert [one.place for one in arrived.quarantined] == ["shop/US/2024-01.csv"]
    assert partitions(landing.look()) == ["DE|2024-02"]


def test_one_file_that_was_pushed(landing: Landing) -> None:
    path = landing.land("2024-01_DE.csv", csv())
    landing.land("2024-02_DE.csv", "")

    def push(place: str) -> Any:
        landing.now += timedelta(seconds=5)
        return arrive_one(landing.world, landing.pipeline, place, settings=SETTINGS, now=landing.now)

    assert push(str(path)).event.event.partition == "DE|2024-01"
    assert push("shop/2024-01_DE.csv").fate == "unchanged"
    assert push("shop/2024-03_DE.csv").fate == "gone"
    assert push("shop/../../etc/passwd").fate == "not_ours"
    assert push(str(path.parent / "price.txt")).fate == "not_ours"
    assert push("shop/2024-02_DE.csv").quarantined.reason.startswith("The file is empty")
    assert landing.look().receipt.new == ()  # the net under it finds nothing more


def test_a_store_in_memory(tmp_path: Path) -> None:
    landing = Landing(tmp_path)
    store = fsspec.filesystem("memory")
    root = f"memory://arrivals-{tmp_path.name}"
    world = services(tmp_path)
    landing.world = Services(**{**vars(world), "landing": LandingZone(root=root)})
    store.pipe_file(f"{root}/shop/2024-01_DE.csv", csv().encode())
    store.pipe_file(f"{root}/shop/2024-02_DE.csv", b"a,b\n1,2\n")
    try:
        arrived = landing.look()
        store.pipe_file(f"{root}/shop/2024-01_DE.csv", csv(per_day=3).encode())
        rewritten = landing.look()
        moved = arrived.quarantined[0].moved_to

        assert partitions(arrived) == partitions(rewritten) == ["DE|2024-01"]
        assert "lacks the declared columns" in store.cat_file(f"{moved}.reason.json").decode()
        assert not store.exists(f"{root}/shop/2024-02_DE.csv")
        assert landing.look().receipt.new == ()
        pushed = arrive_one(
            landing.world, landing.pipeline, f"{root}/shop/2024-01_DE.csv", settings=SETTINGS, now=landing.now
        )
        assert pushed.fate == "unchanged"
    finally:
        store.rm(root, recursive=True)


def test_an_idle_look_lists_nothing_and_a_missing_folder_has_no_files(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.land("2024-01_DE.csv", csv())
    landing.look()
    landing.look()
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", lambda *_: pytest.fail("the folder was listed"))
        landing.look()
    shutil.rmtree(landing.folder)

    assert landing.look().receipt.new == ()


def test_two_who_put_the_same_file_aside_leave_one_file_and_its_reason(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    landing.land("2024-01_DE.csv", "a\n1\n")
    checked, other = quarantine_module._require_same, Landing.look

    def other_is_faster(place: Path, candidate: Any) -> None:
        checked(place, candidate)
        monkeypatch.setattr(quarantine_module, "_require_same", checked)
        other(landing)

    monkeypatch.setattr(quarantine_module, "_require_same", other_is_faster)

    assert landing.look().quarantined == ()
    assert list(landing.quarantined()) == ["2024-01_DE.csv"]
    assert landing.look().waiting == 0


def test_a_file_that_is_written_to_while_it_is_read(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    path = landing.land("2024-01_DE.csv", csv())
    source, parse = landing.pipeline.spec.source, file_formats.parse_table

    def parse_late(*given: Any, **more: Any) -> Any:
        table = parse(*given, **more)
        path.write_text(csv(per_day=3), encoding="utf-8")
        return table

    with monkeypatch.context() as patched:
        patched.setattr(inspect_module, "parse_table", parse_late)
        waiting = landing.look()
        path.write_text(csv(), encoding="utf-8")
        patched.setattr(sources, "parse_table", parse_late)
        with pytest.raises(SourceError, match=r"was written to while it was read. Write such files under another name"):
            read_rows(landing.world.landing, "shop/2024-01_DE.csv", source)

    assert (waiting.receipt.new, waiting.waiting) == ((), 1)
    assert "was written to while it was read" in waiting.reasons[0]
    assert partitions(landing.look()) == ["DE|2024-01"]


def test_no_run_follows_a_link_out_of_the_landing_zone(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    (landing.folder / "2024-01_DE.csv").symlink_to(outside(landing))

    with pytest.raises(SourceError, match=r"shop/2024-01_DE.csv is a link that leads outside of the landing zone"):
        landing.world.landing.open("shop/2024-01_DE.csv")
    monkeypatch.setattr(LandingZone, "target", LandingZone.local_path)  # a link that came after it was looked for
    with pytest.raises(SourceError, match=r"A link took the place of .* while it was opened"):
        landing.world.landing.open("shop/2024-01_DE.csv")


def test_a_file_that_cannot_be_opened_for_now_comes_again(landing: Landing, monkeypatch: pytest.MonkeyPatch) -> None:
    landing.land("2024-01_DE.csv", csv())

    def refuse(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(LandingZone, "open", refuse)
        refused = landing.look()

    assert "cannot be read now: [Errno 13] Permission denied" in refused.reasons[0]
    assert partitions(landing.look()) == ["DE|2024-01"]


def test_a_column_that_comes_twice_puts_the_file_aside_and_keeps_no_other_waiting(landing: Landing) -> None:
    head, _, rows = csv("2024-02").partition("\n")
    landing.land("2024-02_DE.csv", "\n".join([f"{head},country", *(f"{row},DE" for row in rows.splitlines()), ""]))
    landing.land("2024-03_DE.csv", csv("2024-03"))

    assert partitions(landing.look()) == ["DE|2024-03"]
    assert "more than once" in landing.quarantined()["2024-02_DE.csv"]


def test_whatever_a_file_makes_a_parser_do_keeps_no_other_waiting(
    landing: Landing, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(file: Any, place: str, *args: Any, **more: Any) -> Any:
        if "2024-02" in place:
            raise KeyError("a parser's own mistake")
        return file_formats.parse_table(file, place, *args, **more)

    monkeypatch.setattr(inspect_module, "parse_table", parse)
    landing.land("2024-02_DE.csv", csv("2024-02"))
    landing.land("2024-03_DE.csv", csv("2024-03"))

    assert partitions(landing.look()) == ["DE|2024-03"]
    assert "a parser's own mistake" in landing.quarantined()["2024-02_DE.csv"]


def test_names_and_contents_command_no_terminal_and_forge_no_line_of_a_log(landing: Landing) -> None:
    landing.land("\x1b[2J2024-02\n\x9b_DE.csv", csv("2024-02"))
    landing.land("2024-03_DE.csv", csv("2024-03").replace("2024-03-DE-0,", "\x1b]0;x\x07\x9b\n", 1))

    arrived = landing.look()

    assert len(arrived.quarantined) == 2
    assert all((moved.place + moved.moved_to + moved.reason).isprintable() for moved in arrived.quarantined)
    for note in (landing.folder.parent / ".quarantine").rglob("*.reason.json"):
        text = note.read_text(encoding="utf-8")
        assert text.replace("\n", "").isprintable()
        assert json.loads(text)["pipeline"] == "shop/returns"
    landing.quarantined()


def test_a_file_below_a_folder_that_is_a_link_is_not_taken_up_by_its_name(tmp_path: Path) -> None:
    landing = Landing(tmp_path, url="shop/{group}/{time}.csv")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "2024-01.csv").write_text("not,the\nzone,s\n", encoding="utf-8")
    (landing.folder / "DE").symlink_to(elsewhere)

    became = arrive_one(landing.world, landing.pipeline, "shop/DE/2024-01.csv", settings=SETTINGS, now=landing.now)

    assert became.fate == "gone"
    assert landing.look().quarantined == ()
    assert (elsewhere / "2024-01.csv").is_file(), "nothing is moved out of another folder"


@pytest.mark.parametrize("name", ["2024\0-01_DE.csv", f"2024-01_{'x' * 300}.csv"], ids=["nul", "long"])
def test_a_name_that_no_file_can_have_is_none_of_the_pipelines(landing: Landing, name: str) -> None:
    became = arrive_one(landing.world, landing.pipeline, f"shop/{name}", settings=SETTINGS, now=landing.now)
    assert became.fate == "not_ours"


def test_a_small_parquet_file_that_unpacks_to_a_huge_one_is_put_aside_unread(tmp_path: Path) -> None:
    landing = Landing(tmp_path, url="shop/{time}_{group}.parquet", format="parquet")
    row = pd.DataFrame(orders("2024-02", "DE", per_day=1, signal=1.0).iloc[:1])
    bomb = tmp_path / "bomb.parquet"
    row.loc[row.index.repeat(200_000)].to_parquet(bomb)
    assert bomb.stat().st_size < 100_000
    landing.land("2024-02_DE.parquet", bomb.read_bytes())

    landing.look()

    assert "unpacks to about 9,600,000 bytes" in landing.quarantined()["2024-02_DE.parquet"]


@pytest.mark.parametrize("header", ["{}", '"a\nb",{}'], ids=["plain", "after a line end in quotes"])
def test_a_csv_file_of_a_million_columns_takes_no_memory(landing: Landing, header: str) -> None:
    wide = header.format("," * 900_000) + "\n" + "," * 900_000 + "\n"
    landing.land("2024-02_DE.csv", wide)
    landing.land("2024-03_DE.csv", csv("2024-03"))

    arrived = landing.look(settings=ArrivalSettings.of(policy().effective(PATH)))

    assert partitions(arrived) == ["DE|2024-03"]
    assert "of at most 5,000" in landing.quarantined()["2024-02_DE.csv"]


def test_validate_tells_of_a_pipeline_that_would_put_anothers_files_aside(tmp_path: Path) -> None:
    ours = Landing(tmp_path / "ours").pipeline
    spec = ours.spec.model_copy(
        update={
            "name": "greedy",
            "automation": AutomationSpec(arrivals=True),
            "partitions": ours.spec.partitions.model_copy(update={"group": None}),
            "source": ours.spec.source.model_copy(update={"url": "shop/{time}.csv"}),
        }
    )
    greedy = replace(ours, spec=spec)

    (line,) = crossings([ours, greedy])

    assert line.startswith("shop/greedy: source.url 'shop/{time}.csv' fits 'shop/2024-01_DE.csv' of shop/returns")
