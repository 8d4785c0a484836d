"""A day of two hundred files whose programs are killed at fifty random moments: each event is carried out once."""

import hashlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median

import dagster as dg
import pytest

from ml_assets.interfaces import InboxEvent
from ml_assets.stages.source_file import made_of
from resources.data_store import ParquetDataStore
from tests.e2e.arriving import NAME, TEAM, partitions
from tests.e2e.crashing import (
    BACKOFF_SECONDS,
    CrashProject,
    Kill,
    Programs,
    Victim,
    at_rest,
    makers,
    unfinished,
)
from tests.e2e.programs import processes_of, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400), pytest.mark.filterwarnings("ignore:Non-compliant tag keys")]

SEED = 20131125
N_EVENTS = 200
VICTIMS: Mapping[Victim, int] = {"daemon": 9, "code server": 3, "run": 22, "warm process": 8, "watch": 8}
"""Few code servers: Dagster's daemon starts a new one only once a minute, and no sensor ticks until then."""
LONGEST_PAUSE_SECONDS = 2.0
START_SECONDS = 15
"""Within this time a daemon that was started looks after runs."""
HEADER = "order_id,ordered_at,amount,region,returned"
POISONED = 2
NOTICED_SECONDS = 20
"""Until a killed run counts as failed; Dagster's monitoring asks every ten seconds."""


@dataclass(frozen=True, kw_only=True)
class Day:
    """What happened.

    Attributes:
        project: The project.
        instance: Its Dagster instance.
        good: Partition → text of its file.
        poisoned: Partitions whose files are read, and whose features fail.
        bad: Partition → text of a file that is no event.
        kills: What was killed, in order.
        events: Every event, by number.
    """

    project: CrashProject
    instance: dg.DagsterInstance
    good: Mapping[str, str]
    poisoned: frozenset[str]
    bad: Mapping[str, str]
    kills: tuple[Kill, ...]
    events: tuple[InboxEvent, ...]


def orders(partition: str, *, amount: str = "", day: str = "", rows: int = 5) -> str:
    """Return the text of a partition's file; an amount or a day other than its own makes it wrong."""
    region, _, own_day = partition.partition("|")
    lines = [
        f"{partition}-{n},{day or own_day} 0{n}:00:00,{amount or f'{n + 1}.5'},{region},{n % 2}" for n in range(rows)
    ]
    return "\n".join([HEADER, *lines]) + "\n"


def bad_files(wanted: list[str]) -> dict[str, str]:
    """Return files that are bad, each in its own way."""
    texts = [
        "",
        "order_id,amount\n1,2\n",
        orders(wanted[2], amount="much"),
        orders(wanted[3], day="2019-05-05"),
        HEADER + "\n",
        "\0" * 300,
    ]
    return dict(zip(wanted, texts, strict=True))


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Day]:
    project = CrashProject(root=tmp_path_factory.mktemp("crashing"))
    project.found()
    draw = random.Random(SEED)  # noqa: S311 - not for secrets
    wanted = partitions(52)[: N_EVENTS + 6]
    draw.shuffle(wanted)
    bad = bad_files(wanted[N_EVENTS:])
    poisoned = frozenset(wanted[:POISONED])
    texts = {p: orders(p, amount="-1.0" if p in poisoned else "") for p in wanted[:N_EVENTS]} | bad
    draw.shuffle(wanted)
    with project.instance() as instance:
        programs = Programs(project=project, instance=instance, random=draw)
        began = time.monotonic()
        with programs.running():
            try:
                live_through(programs, [(p, texts[p]) for p in wanted])
                wait_for("a rest", at_rest(project, instance, N_EVENTS), timeout_seconds=1200, every_seconds=1)
            finally:
                tell(programs.kills, began, project)
        wait_for("an end of all processes", lambda: not processes_of(project.state), timeout_seconds=120)
        yield Day(
            project=project,
            instance=instance,
            good={p: texts[p] for p in wanted if p not in poisoned and p not in bad},
            poisoned=poisoned,
            bad=bad,
            kills=tuple(programs.kills),
            events=tuple(project.inbox.events(limit=1000)),
        )


def live_through(programs: Programs, files: list[tuple[str, str]]) -> None:
    """Let files arrive in bursts while programs are killed."""
    draw = programs.random
    victims: list[Victim] = [victim for victim, count in VICTIMS.items() for _ in range(count)]
    draw.shuffle(victims)
    while victims:
        for _ in range(draw.randint(1, max(1, 2 * len(files) // len(victims) - 1))):
            if files:
                programs.project.land_text(*files.pop())
        if victims[-1] != "run":  # a run is killed at a moment of its work
            time.sleep(draw.uniform(0, LONGEST_PAUSE_SECONDS))
        if programs.kill(victims[-1]):
            victims.pop()
    for partition, text in files:
        programs.project.land_text(partition, text)


def tell(kills: list[Kill], began: float, project: CrashProject) -> None:
    """Print what was killed when, so that a failure can be looked into."""
    start = time.time() - (time.monotonic() - began)
    lines = [f"{kill.at - start:6.1f} s  {kill.victim} {kill.pid} {kill.run_id[:8]}" for kill in kills]
    states, attempts = project.inbox.counts(), Counter(event.attempts for event in project.inbox.events())
    whole = f"\nseed {SEED}: {time.monotonic() - began:.0f} s; {states}; failed attempts → events: {dict(attempts)}"
    sys.stderr.write("\n".join([whole, *lines]) + "\n")


def test_fifty_programs_were_killed(day: Day) -> None:
    assert Counter(kill.victim for kill in day.kills) == VICTIMS
    assert len(day.kills) == 50


def test_every_event_is_done_and_only_the_poisoned_ones_are_dead_letters(day: Day) -> None:
    assert Counter(event.event.partition for event in day.events) == Counter({*day.good, *day.poisoned})
    dead = {e.event.partition: e for e in day.events if e.state == "dead"}
    assert set(dead) == day.poisoned
    assert {e.state for e in day.events} == {"done", "dead"}
    assert all("the amount of an order is negative" in e.reason for e in dead.values()), dead
    assert day.project.inbox.batches() == []


def test_each_partition_is_made_of_the_bytes_that_landed(day: Day) -> None:
    store = ParquetDataStore(str(day.project.state / "data"))
    for partition, text in day.good.items():
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert made_of(store, (TEAM, NAME), partition) == digest, partition
        features = store.read((TEAM, NAME, "features"), partition)
        assert features.num_rows == 5, partition


def test_each_event_was_carried_out_by_one_run(day: Day) -> None:
    done = {e.event.partition: {str(e.run_id)} for e in day.events if e.state == "done"}
    assert makers(day.instance, "features") == done, "features of an event are made by the run that it was bound to"
    succeeded = {run.run_id for run in day.instance.get_runs() if run.status == dg.DagsterRunStatus.SUCCESS}
    raw = makers(day.instance, "raw_data")
    assert {partition: len(runs & succeeded) for partition, runs in raw.items() if len(runs & succeeded) > 1} == {}
    begun = Counter(len(runs) for runs in raw.values())
    sys.stderr.write(f"\nruns that read a file → files: {dict(begun)}\n")


def test_no_run_or_slot_is_left(day: Day) -> None:
    assert unfinished(day.instance) == []
    log = day.instance.event_log_storage
    infos = [log.get_concurrency_info(key) for key in log.get_concurrency_keys()]
    assert [(info.concurrency_key, info.claimed_slots) for info in infos if info.claimed_slots] == []
    assert [(info.concurrency_key, info.pending_steps) for info in infos if info.pending_steps] == []
    keys = Counter(run.tags["dagster/run_key"] for run in day.instance.get_runs())
    assert set(keys.values()) == {1}, "no run was submitted twice"


def test_the_bad_files_are_in_quarantine_each_with_its_reason(day: Day) -> None:
    folder = day.project.state / "landing" / ".quarantine" / TEAM / NAME
    moved = sorted(file for file in folder.iterdir() if not file.name.endswith(".reason.json"))
    reasons = {json.loads(file.read_text(encoding="utf-8"))["place"] for file in folder.glob("*.reason.json")}
    assert len(moved) == len(day.bad)
    assert {place.rpartition("/")[2] for place in reasons} == {day.project.file_of(p).name for p in day.bad}
    assert len(list(folder.glob("*.reason.json"))) == len(day.bad)
    assert not any(day.project.file_of(partition).exists() for partition in day.bad)


def test_a_killed_run_is_noticed_soon_and_its_events_wait_for_their_next_run(day: Day) -> None:
    records = {record.dagster_run.run_id: record for record in day.instance.get_run_records()}
    daemons = [kill.at for kill in day.kills if kill.victim == "daemon"]
    raw = makers(day.instance, "raw_data")
    waited = 0
    noticed: list[float] = []
    for run_id, at in {kill.run_id: kill.at for kill in day.kills if kill.victim == "run"}.items():
        ended_at = records[run_id].end_time
        assert ended_at is not None
        restarts = [d + START_SECONDS for d in daemons if at - START_SECONDS < d < ended_at]
        noticed.append(ended_at - max([at, *restarts]))
        if records[run_id].dagster_run.status == dg.DagsterRunStatus.SUCCESS:
            continue  # it had told its end already
        for event in day.events:
            if run_id in raw.get(event.event.partition, ()) and event.run_id != run_id:
                waited += 1
                again = records[str(event.run_id)].create_timestamp.timestamp()
                assert again >= ended_at + BACKOFF_SECONDS, f"[{event.event.partition}] did not wait"
    sys.stderr.write(
        f"\nkilled runs noticed after (s): {[round(max(0.0, s), 1) for s in sorted(noticed)]}; {waited=}\n"
    )
    assert median(noticed) < NOTICED_SECONDS
    assert max(noticed) < 6 * NOTICED_SECONDS, "a daemon may take long to start where much else goes on"
    assert waited, "some run was killed after it read a file and before its features were there"
