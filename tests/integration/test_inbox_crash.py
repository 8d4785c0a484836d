"""A process that is killed between any two steps of an event neither loses nor doubles it."""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest
import sqlalchemy as sa

from ml_assets.interfaces import Event, EventFailure, Inbox, RetryPolicy
from ml_assets.testing.inbox import NOW, PIPELINE, event
from resources.ledger.inbox import SqlInbox

DATABASES = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
FORKS = multiprocessing.get_context("fork")
DEDUP, LEASE, NO_WAIT = timedelta(days=400), timedelta(0), timedelta(0)
RETRY = RetryPolicy(attempts=1000, backoff=NO_WAIT)
LOST = EventFailure(reason="The run's process is gone.", transient=True)
Moment = Literal["before", "inside", "after"]
MOMENTS: tuple[Moment, ...] = ("before", "inside", "after")


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("postgres_database")


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=[pytest.mark.postgres, pytest.mark.slow])])
def url_of_many(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """As `url`, for a test of many cases, each with a database of its own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/ledger.db"
    return request.getfixturevalue("postgres_database")


@dataclass
class Deadly:
    """Kills this process at a moment of its nth transaction that changes the inbox, counted from 0."""

    nth: int
    moment: Moment

    def arm(self, inbox: SqlInbox) -> None:
        """Put this between an inbox and its transactions."""
        writing = inbox._database.writing

        @contextmanager
        def deadly(action: str, locks: Any) -> Iterator[sa.Connection]:
            self._strike("before")
            with writing(action, locks) as connection:
                yield connection
                self._strike("inside")
            self._strike("after")
            self.nth -= 1

        inbox._database.writing = deadly  # pyright: ignore[reportAttributeAccessIssue]

    def _strike(self, moment: Moment) -> None:
        if (self.nth, self.moment) == (0, moment):
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Workplace:
    """Where processes of a test meet: the inbox, a source that offers all its events again, and a log of work."""

    url: str
    log: Path
    events: tuple[Event, ...]

    def work(self, name: str, deadly: Deadly | None = None) -> None:
        """Do everything that a daemon and its runs do once, in one process that may die at any step."""
        inbox = SqlInbox(self.url)
        if deadly is not None:
            deadly.arm(inbox)
        self.recover(inbox)
        inbox.receive(self.events, dedup=DEDUP, now=NOW)
        ready = inbox.ready([PIPELINE], debounce=NO_WAIT, now=NOW)
        batch = inbox.claim([kept.number for kept in ready][:20], f"batch-{name}", lease=LEASE, now=NOW)
        if batch is None:
            return
        inbox.start(batch.name, f"run-{name}", now=NOW)  # by whoever submits the run
        assert inbox.start(batch.name, f"run-{name}", now=NOW)  # by the run itself
        for kept in batch.events:
            self.note(f"{batch.name} {kept.number}")
        inbox.finish(batch.name, {}, retry=RETRY, now=NOW)

    def recover(self, inbox: Inbox) -> None:
        """End what a dead process has left: batches without a run wait again, those of a dead run have failed."""
        for batch in inbox.batches([PIPELINE]):
            if batch.run_id is None:
                inbox.release(batch.name, now=NOW)
            else:
                failures = dict.fromkeys((kept.number for kept in batch.events), LOST)
                inbox.finish(batch.name, failures, retry=RETRY, now=NOW)

    def note(self, line: str) -> None:
        """Append a line in one write."""
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, f"{line}\n".encode())
        os.close(descriptor)

    def noted(self) -> Counter[tuple[str, int]]:
        """Return how often each (batch, event's number) was worked on."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return Counter((batch, int(number)) for batch, number in map(str.split, lines))


def workplace(url: str, folder: Path, n_events: int) -> Workplace:
    events = tuple(event(key=f"file-{n}", partition=f"EWR|{n // 2}") for n in range(n_events))
    SqlInbox(url).mark()  # the schema is there before anybody dies
    return Workplace(url=url, log=folder / "work.log", events=events)


def run(target: Callable[[], None], *, killed: bool) -> None:
    """Run in a forked process, and check how it ended."""
    process = FORKS.Process(target=target)
    process.start()
    process.join(300)
    assert process.exitcode == (-signal.SIGKILL if killed else 0)


def check_exactly_once(place: Workplace) -> None:
    """Check that each event is there once, done, and that the one run of its last batch worked on it, once."""
    inbox = SqlInbox(place.url)
    kept = inbox.events()
    assert sorted(one.event.key for one in kept) == sorted(one.key for one in place.events)
    assert inbox.counts() == {PIPELINE: {"done": len(place.events)}}
    assert inbox.batches() == []
    noted = place.noted()
    assert {noted[str(one.batch), one.number] for one in kept} == {1}
    for one in kept:
        worked = [batch for batch, number in noted if number == one.number]
        assert len(worked) <= 1 + one.attempts, "a run worked on it that nobody counted"
    inbox.close()


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("step", ["receive", "claim", "start by who submits", "start by the run", "finish"])
def test_a_process_killed_at_any_step_is_followed_by_one_that_completes_its_work(
    url_of_many: str, tmp_path: Path, step: str, moment: Moment
) -> None:
    url = url_of_many
    place = workplace(url, tmp_path, 6)
    nth = ["receive", "claim", "start by who submits", "start by the run", "finish"].index(step)
    run(lambda: place.work("killed", Deadly(nth, moment)), killed=True)
    states = SqlInbox(url).counts().get(PIPELINE, {})

    # What is committed is there, and what is not has left nothing.
    reached = nth + (moment == "after")
    assert states == [{}, {"waiting": 6}, {"claimed": 6}, {"running": 6}, {"running": 6}, {"done": 6}][reached]

    run(lambda: place.work("next"), killed=False)
    check_exactly_once(place)
    attempts = {kept.attempts for kept in SqlInbox(url).events()}
    assert attempts == ({1} if 3 <= reached < 5 else {0}), "only a run that had begun counts as an attempt"


@pytest.mark.slow
def test_two_hundred_events_and_fifty_killed_processes(url: str, tmp_path: Path) -> None:
    place, draw = workplace(url, tmp_path, 200), random.Random(20131125)  # noqa: S311 not for secrets
    for number in range(50):
        deadly = Deadly(draw.randrange(6), draw.choice(MOMENTS))
        process = FORKS.Process(target=place.work, args=(str(number), deadly))
        process.start()
        process.join(300)
        assert process.exitcode in {-signal.SIGKILL, 0}
    for number in range(50, 62):
        run(lambda number=number: place.work(str(number)), killed=False)

    check_exactly_once(place)


def test_of_processes_that_take_up_a_batch_of_a_dead_one_its_first_run_has_it(url: str, tmp_path: Path) -> None:
    place = workplace(url, tmp_path, 6)
    run(lambda: place.work("killed", Deadly(2, "before")), killed=True)
    (batch,) = SqlInbox(url).batches()
    barrier = FORKS.Barrier(5)

    def submit_and_run(number: int) -> None:
        inbox = SqlInbox(url)
        barrier.wait(120)
        if inbox.start(batch.name, f"run-{number}", now=NOW):
            for kept in batch.events:
                place.note(f"{batch.name} {kept.number}")
            time.sleep(0.05)
            inbox.finish(batch.name, {}, retry=RETRY, now=NOW)

    processes = [FORKS.Process(target=submit_and_run, args=(number,)) for number in range(5)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)

    assert [process.exitcode for process in processes] == [0] * 5
    check_exactly_once(place)


def test_a_run_that_comes_after_its_batch_was_released_does_not_work(url: str, tmp_path: Path) -> None:
    place = workplace(url, tmp_path, 2)
    run(lambda: place.work("slow", Deadly(2, "before")), killed=True)
    run(lambda: place.work("next"), killed=False)

    assert not SqlInbox(url).start("batch-slow", "run-slow", now=datetime.now(UTC))
    check_exactly_once(place)
