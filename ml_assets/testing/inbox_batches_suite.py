"""BatchSuite: how every inbox carries events into runs."""
# ruff: noqa: D102 - the names of the tests are the sentences

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ml_assets.errors import InboxError
from ml_assets.interfaces import Batch, Event, Inbox, InboxEvent
from ml_assets.testing.inbox_examples import DEDUP, MINUTE, NOW, OTHER, PIPELINE, RETRY, event, failure

NO_WAIT = timedelta(0)


def receive(inbox: Inbox, *events: Event, now: Any = NOW) -> list[int]:
    """Take up events and return the numbers of the new ones."""
    return [kept.number for kept in inbox.receive(events, dedup=DEDUP, now=now).new]


def claim(inbox: Inbox, numbers: list[int], name: str = "b1", now: Any = NOW) -> Batch:
    """Claim events that are free."""
    batch = inbox.claim(numbers, name, lease=MINUTE, now=now)
    assert batch is not None
    return batch


def ready(inbox: Inbox, now: Any = NOW, debounce: timedelta = NO_WAIT) -> list[int]:
    """Return the numbers of what is ready of one pipeline."""
    return [kept.number for kept in inbox.ready([PIPELINE], debounce=debounce, now=now)]


def found(inbox: Inbox, number: int) -> InboxEvent:
    """Return an event that there is."""
    kept = inbox.event(number)
    assert kept is not None
    return kept


class BatchSuite:
    """What every inbox does; subclass it and provide a fixture `inbox` that is empty for each test."""

    def test_an_event_goes_from_waiting_through_a_run_to_done(self, inbox: Inbox) -> None:
        (number,) = receive(inbox, event())

        batch = claim(inbox, [number], now=NOW + MINUTE)
        carried = found(inbox, number)
        assert (carried.state, carried.batch, carried.run_id) == ("claimed", "b1", None)
        assert batch == Batch(
            name="b1",
            pipeline=PIPELINE,
            events=(carried,),
            run_id=None,
            claimed_at=NOW + MINUTE,
            leased_until=NOW + 2 * MINUTE,
        )
        assert inbox.batches() == inbox.batches([PIPELINE, OTHER]) == [batch]

        assert inbox.start("b1", "run-1", now=NOW + MINUTE)
        (running,) = inbox.batches()
        assert (running.run_id, running.events[0].state, running.events[0].run_id) == ("run-1", "running", "run-1")

        assert inbox.finish("b1", {}, retry=RETRY, now=NOW + MINUTE) == []
        done = found(inbox, number)
        assert (done.state, done.batch, done.run_id, done.attempts) == ("done", "b1", "run-1", 0)
        assert inbox.batches() == []
        assert ready(inbox, NOW + timedelta(days=9)) == []

    def test_batches_are_of_the_pipelines_that_are_asked_for(self, inbox: Inbox) -> None:
        first, second = receive(inbox, event(pipeline=OTHER), event())
        claim(inbox, [second], "late", now=NOW + MINUTE)
        claim(inbox, [first], "early")

        assert [batch.name for batch in inbox.batches()] == ["early", "late"]
        assert [batch.name for batch in inbox.batches([PIPELINE])] == ["late"]
        assert inbox.batches([("births", "weight")]) == inbox.batches([]) == []

    def test_nothing_is_ready_before_its_partition_was_quiet(self, inbox: Inbox) -> None:
        receive(inbox, event(key="1"))
        receive(inbox, event(key="2"), now=NOW + MINUTE)
        receive(inbox, event(key="3", partition="JFK|2013-01"))

        assert ready(inbox, NOW + timedelta(seconds=119), debounce=2 * MINUTE) == []
        assert ready(inbox, NOW + timedelta(seconds=120), debounce=2 * MINUTE) == [3]
        assert ready(inbox, NOW + timedelta(seconds=180), debounce=2 * MINUTE) == [1, 2, 3]

    def test_repeats_do_not_put_a_partition_off(self, inbox: Inbox) -> None:
        receive(inbox, event())
        receive(inbox, event(), now=NOW + MINUTE)

        assert ready(inbox, NOW + MINUTE, debounce=MINUTE) == [1]

    def test_only_the_pipelines_that_are_asked_for_are_ready(self, inbox: Inbox) -> None:
        receive(inbox, event(), event(pipeline=OTHER))

        assert [kept.number for kept in inbox.ready([OTHER], debounce=NO_WAIT, now=NOW)] == [2]
        assert [kept.number for kept in inbox.ready([OTHER, PIPELINE], debounce=NO_WAIT, now=NOW)] == [1, 2]
        assert inbox.ready([], debounce=NO_WAIT, now=NOW) == []

    def test_a_partition_is_in_one_batch_at_a_time(self, inbox: Inbox) -> None:
        (first,) = receive(inbox, event(key="1"))
        claim(inbox, [first])
        second, third = receive(inbox, event(key="2"), event(key="3", partition="JFK|2013-01"))

        assert ready(inbox) == [third]
        assert inbox.claim([second], "b2", lease=MINUTE, now=NOW) is None
        assert [kept.number for kept in claim(inbox, [first, second, third], "b3").events] == [third]

        inbox.finish("b1", {}, retry=RETRY, now=NOW)
        assert ready(inbox) == [second]
        claim(inbox, [second], "b4")

    def test_the_same_partition_of_another_pipeline_is_free(self, inbox: Inbox) -> None:
        first, second = receive(inbox, event(), event(pipeline=OTHER))
        claim(inbox, [first])

        assert claim(inbox, [second], "b2").pipeline == OTHER

    def test_nothing_is_claimed_that_is_gone_or_unknown(self, inbox: Inbox) -> None:
        (number,) = receive(inbox, event())
        claim(inbox, [number])
        before = inbox.mark()

        assert inbox.claim([number], "b2", lease=MINUTE, now=NOW) is None
        assert inbox.claim([99], "b3", lease=MINUTE, now=NOW) is None
        assert inbox.claim([], "b4", lease=MINUTE, now=NOW) is None
        assert inbox.mark() == before

    def test_the_name_of_a_batch_is_used_once(self, inbox: Inbox) -> None:
        first, second = receive(inbox, event(), event(key="2", partition="JFK|2013-01"))
        claim(inbox, [first])
        for _ in range(2):
            with pytest.raises(InboxError, match="The batch 'b1' has been claimed before"):
                inbox.claim([second], "b1", lease=MINUTE, now=NOW)
            inbox.finish("b1", {}, retry=RETRY, now=NOW)
        assert found(inbox, second).state == "waiting"

    def test_a_batch_is_of_one_pipeline(self, inbox: Inbox) -> None:
        numbers = receive(inbox, event(), event(pipeline=OTHER))

        with pytest.raises(InboxError, match="would have events of flights/arrival_delay, flights/cancellation"):
            inbox.claim(numbers, "b1", lease=MINUTE, now=NOW)
        assert inbox.batches() == []

    def test_the_first_run_has_the_batch(self, inbox: Inbox) -> None:
        claim(inbox, receive(inbox, event()))

        assert inbox.start("b1", "run-1", now=NOW)
        assert not inbox.start("b1", "run-2", now=NOW)
        assert inbox.start("b1", "run-1", now=NOW)

        inbox.finish("b1", {}, retry=RETRY, now=NOW)
        assert not inbox.start("b1", "run-1", now=NOW)
        assert not inbox.start("unknown", "run-1", now=NOW)
        assert found(inbox, 1).run_id == "run-1"

    def test_a_batch_ends_once(self, inbox: Inbox) -> None:
        (number,) = receive(inbox, event())
        claim(inbox, [number])
        inbox.finish("b1", {number: failure()}, retry=RETRY, now=NOW)
        mark, waiting = inbox.mark(), found(inbox, number)

        assert inbox.finish("b1", {}, retry=RETRY, now=NOW) == []
        assert inbox.finish("b1", {number: failure()}, retry=RETRY, now=NOW) == []
        inbox.release("b1", now=NOW)
        assert (found(inbox, number), inbox.mark()) == (waiting, mark)

        claim(inbox, [number], "b2")
        assert inbox.finish("b1", {}, retry=RETRY, now=NOW) == []
        assert found(inbox, number).state == "claimed"

    def test_a_failure_of_another_batches_event_ends_nothing(self, inbox: Inbox) -> None:
        first, second = receive(inbox, event(key="1"), event(key="2", partition="JFK|2013-01"))
        claim(inbox, [first])

        with pytest.raises(InboxError, match=f"The batch 'b1' has no event {second}; it has {first}"):
            inbox.finish("b1", {second: failure()}, retry=RETRY, now=NOW)
        assert [batch.name for batch in inbox.batches()] == ["b1"]

    def test_a_batch_that_never_was_cannot_end(self, inbox: Inbox) -> None:
        with pytest.raises(InboxError, match="has no batch 'b9'"):
            inbox.finish("b9", {}, retry=RETRY, now=NOW)
        with pytest.raises(InboxError, match="has no batch 'b9'"):
            inbox.release("b9", now=NOW)

    def test_a_released_event_waits_as_before(self, inbox: Inbox) -> None:
        (number,) = receive(inbox, event())
        waiting = found(inbox, number)
        claim(inbox, [number])

        inbox.release("b1", now=NOW + MINUTE)

        assert found(inbox, number) == waiting
        assert ready(inbox) == [number]
        assert not inbox.start("b1", "run-1", now=NOW)
        assert inbox.batches() == []

    def test_a_batch_that_a_run_has_is_not_released(self, inbox: Inbox) -> None:
        (number,) = receive(inbox, event())
        claim(inbox, [number])
        inbox.start("b1", "run-1", now=NOW)

        inbox.release("b1", now=NOW)

        assert found(inbox, number).state == "running"
        assert inbox.start("b1", "run-1", now=NOW)

    def test_of_threads_that_claim_and_start_one_does(self, inbox: Inbox) -> None:
        numbers = receive(inbox, *(event(key=str(n), partition=f"p{n}") for n in range(20)))

        def work(thread: int) -> tuple[list[int], bool]:
            batch = inbox.claim(numbers, f"b{thread}", lease=MINUTE, now=NOW)
            return [kept.number for kept in batch.events] if batch else [], inbox.start("b0", str(thread), now=NOW)

        with ThreadPoolExecutor(6) as pool:
            results = list(pool.map(work, range(6)))

        assert sorted(n for claimed, _ in results for n in claimed) == numbers
        started = [run for run, (_, has) in enumerate(results) if has]
        assert len(started) <= 1
        assert [batch.run_id for batch in inbox.batches() if batch.name == "b0" and started] == list(map(str, started))

    def test_counts_follow_every_step(self, inbox: Inbox) -> None:
        numbers = receive(inbox, *(event(key=str(n), partition=f"p{n}") for n in range(6)))
        receive(inbox, event(pipeline=OTHER))
        claim(inbox, numbers[:4])
        assert inbox.counts() == {PIPELINE: {"claimed": 4, "waiting": 2}, OTHER: {"waiting": 1}}

        inbox.start("b1", "run-1", now=NOW)
        inbox.finish("b1", {1: failure(), 2: failure(transient=False)}, retry=RETRY, now=NOW)
        assert inbox.counts() == {PIPELINE: {"done": 2, "waiting": 3, "dead": 1}, OTHER: {"waiting": 1}}

        inbox.discard(2, by="ada", reason="A test file.", now=NOW)
        claim(inbox, [5], "b2")
        inbox.release("b2", now=NOW)
        assert inbox.counts() == {PIPELINE: {"done": 2, "waiting": 3, "discarded": 1}, OTHER: {"waiting": 1}}

    def test_a_claimed_event_is_what_it_was_but_for_its_batch(self, inbox: Inbox) -> None:
        (number,) = receive(inbox, event())
        waiting = found(inbox, number)

        assert claim(inbox, [number]).events == (replace(waiting, state="claimed", batch="b1"),)
