"""InboxSuite: what every inbox takes up, keeps and shows, beside what BatchSuite and EndSuite ask of it."""
# ruff: noqa: D102 - the names of the tests are the sentences

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from ml_assets.errors import InboxError
from ml_assets.interfaces import Inbox, InboxEvent, Receipt
from ml_assets.testing.inbox_batches_suite import BatchSuite, claim, found, ready, receive
from ml_assets.testing.inbox_ends_suite import EndSuite
from ml_assets.testing.inbox_examples import DEDUP, MINUTE, NOW, OTHER, PIPELINE, RETRY, event, failure


class InboxSuite(BatchSuite, EndSuite):
    """What every inbox does; subclass it and provide a fixture `inbox` that is empty for each test."""

    def test_an_event_comes_back_as_it_was_received(self, inbox: Inbox) -> None:
        given = event(payload={"place": "größe/东.csv", "n": [1, 0.1 + 0.2, None], "\x00": "\ud800"})

        receipt = inbox.receive([given], dedup=DEDUP, now=NOW)

        kept = InboxEvent(number=1, event=given, state="waiting", received_at=NOW, seen_at=NOW, not_before=NOW)
        assert receipt == Receipt(new=(kept,))
        assert inbox.event(1) == kept
        assert inbox.events() == [kept]
        assert inbox.event(2) is None

    def test_numbers_are_the_order_of_receipt(self, inbox: Inbox) -> None:
        assert receive(inbox, *(event(key=str(n)) for n in range(700))) == list(range(1, 701))
        assert receive(inbox, event(key="last"), now=NOW - MINUTE) == [701]
        assert [kept.event.key for kept in inbox.events(limit=2)] == ["last", "699"]

    def test_a_repeat_within_the_window_is_counted_and_dropped(self, inbox: Inbox) -> None:
        claim(inbox, receive(inbox, event()))
        inbox.finish("b1", {}, retry=RETRY, now=NOW)

        late = NOW + DEDUP - timedelta(seconds=1)
        again = event(payload={"other": "payload"})
        assert inbox.receive([again, again], dedup=DEDUP, now=late) == Receipt(repeated=(again, again))

        kept = found(inbox, 1)
        assert (kept.state, kept.repeats, kept.received_at, kept.seen_at) == ("done", 2, NOW, late)
        assert len(inbox.events()) == 1

    def test_one_after_the_window_is_a_new_event(self, inbox: Inbox) -> None:
        claim(inbox, receive(inbox, event()))
        inbox.finish("b1", {}, retry=RETRY, now=NOW)
        receive(inbox, event(), now=NOW + DEDUP / 2)

        assert receive(inbox, event(), now=NOW + DEDUP) == [2]
        assert inbox.receive([event()], dedup=DEDUP, now=NOW + DEDUP).repeated == (event(),)
        assert (found(inbox, 1).repeats, found(inbox, 2).repeats) == (1, 1)

    @pytest.mark.parametrize("state", ["waiting", "claimed", "running", "dead"])
    def test_what_has_not_ended_is_repeated_for_as_long(self, inbox: Inbox, state: str) -> None:
        (number,) = receive(inbox, event())
        if state != "waiting":
            claim(inbox, [number])
        if state == "running":
            inbox.start("b1", "run-1", now=NOW)
        if state == "dead":
            inbox.finish("b1", {number: failure(transient=False)}, retry=RETRY, now=NOW)

        assert receive(inbox, event(), now=NOW + 9 * DEDUP) == []
        assert (found(inbox, number).state, found(inbox, number).repeats) == (state, 1)

    def test_a_discarded_event_is_repeated_within_the_window_only(self, inbox: Inbox) -> None:
        inbox.bury(event(), failure(), now=NOW)
        inbox.discard(1, by="ada", reason="A test file.", now=NOW)

        assert receive(inbox, event(), now=NOW + DEDUP / 2) == []
        assert receive(inbox, event(), now=NOW + DEDUP) == [2]

    def test_repeats_within_the_sequence_count(self, inbox: Inbox) -> None:
        receipt = inbox.receive([event(), event(key="2"), event(), event()], dedup=DEDUP, now=NOW)

        assert [(kept.event.key, kept.repeats) for kept in receipt.new] == [(event().key, 2), ("2", 0)]
        assert receipt.repeated == (event(), event())
        assert found(inbox, 1) == receipt.new[0]

    def test_without_a_window_only_what_has_ended_comes_again(self, inbox: Inbox) -> None:
        assert len(inbox.receive([event(), event()], dedup=timedelta(0), now=NOW).new) == 1
        claim(inbox, [1])
        inbox.finish("b1", {}, retry=RETRY, now=NOW)

        assert len(inbox.receive([event()], dedup=timedelta(0), now=NOW).new) == 1

    @pytest.mark.parametrize("other", [{"key": "Ewr/2013-01.csv:7f3a"}, {"source": "http"}, {"pipeline": OTHER}])
    def test_another_key_source_or_pipeline_is_another_event(self, inbox: Inbox, other: dict[str, Any]) -> None:
        assert receive(inbox, event(), event(**other)) == [1, 2]

    def test_nothing_received_is_no_mistake(self, inbox: Inbox) -> None:
        before = inbox.mark()

        assert inbox.receive([], dedup=DEDUP, now=NOW) == Receipt()
        assert inbox.mark() == before

    def test_the_rate_of_a_source_is_capped(self, inbox: Inbox) -> None:
        events = [event(key=str(n)) for n in range(5)]

        first = inbox.receive([*events, event(key="0"), event(source="http")], dedup=DEDUP, per_minute=3, now=NOW)
        assert [kept.event.key for kept in first.new] == ["0", "1", "2", event().key]
        assert (first.refused, first.repeated) == ((events[3], events[4]), (event(key="0"),))

        mark = inbox.mark()
        again = inbox.receive(events[3:], dedup=DEDUP, per_minute=3, now=NOW + MINUTE - timedelta(seconds=1))
        assert again == Receipt(refused=tuple(events[3:]))
        assert inbox.mark() == mark

        later = inbox.receive(events[3:], dedup=DEDUP, per_minute=3, now=NOW + MINUTE)
        assert [kept.event.key for kept in later.new] == ["3", "4"]

    def test_a_clock_that_was_ahead_and_was_put_back_keeps_nothing_waiting(self, inbox: Inbox) -> None:
        ahead = NOW + timedelta(days=365)
        inbox.receive([event(key="0"), event(key="1")], dedup=DEDUP, per_minute=2, now=ahead)

        assert [kept.event.key for kept in inbox.ready([PIPELINE], debounce=MINUTE, now=NOW)] == ["0", "1"]
        assert len(inbox.receive([event(key="2")], dedup=DEDUP, per_minute=2, now=NOW).new) == 1
        assert inbox.ready([PIPELINE], debounce=MINUTE, now=NOW) == [], "what came now is not quiet yet"
        assert len(inbox.ready([PIPELINE], debounce=MINUTE, now=NOW + MINUTE)) == 3

    def test_a_payload_that_is_nested_deeply_is_refused(self, inbox: Inbox) -> None:
        nested: Any = 1
        for _ in range(900):  # JSON of this depth can be written here and not be read from deep within a program
            nested = [nested]

        with pytest.raises(InboxError, match="nested deeper than 20 levels"):
            inbox.receive([event(payload={"x": nested})], dedup=DEDUP, now=NOW)

    @pytest.mark.parametrize("field", ["source", "key", "partition"])
    @pytest.mark.parametrize(
        ("text", "problem"),
        [("", "is empty"), ("a\x00b", "cannot store"), ("\udcff", "cannot store"), ("é" * 800, "has 1,600 bytes")],
        ids=["empty", "nul", "surrogate", "long"],
    )
    def test_an_event_that_cannot_be_stored_is_refused(self, inbox: Inbox, field: str, text: str, problem: str) -> None:
        for take in (
            lambda bad: inbox.receive([event(), bad], dedup=DEDUP, now=NOW),
            lambda bad: inbox.bury(bad, failure(), now=NOW),
        ):
            with pytest.raises(InboxError, match=f"cannot be taken up: its {field} .*{problem}"):
                take(event(**{field: text}))

        assert inbox.events() == []

    @pytest.mark.parametrize("value", [float("nan"), {1}, NOW], ids=["nan", "set", "instant"])
    def test_a_payload_that_is_not_json_is_refused(self, inbox: Inbox, value: Any) -> None:
        with pytest.raises(InboxError, match="its payload is not JSON"):
            inbox.receive([event(payload={"x": value})], dedup=DEDUP, now=NOW)

    def test_a_payload_is_not_changed_by_its_sender(self, inbox: Inbox) -> None:
        payload: dict[str, Any] = {"list": [1]}
        receive(inbox, event(payload=payload))
        payload["list"].append(2)

        assert found(inbox, 1).event.payload == {"list": [1]}

    def test_what_no_run_can_be_made_of_is_buried(self, inbox: Inbox) -> None:
        dead = inbox.bury(event(), failure(reason="The file is empty.", transient=False), now=NOW)

        assert dead == found(inbox, dead.number)
        assert (dead.state, dead.attempts, dead.reason) == ("dead", 0, "The file is empty.")
        assert (dead.traceback, dead.received_at) == ("Traceback …", NOW)
        assert ready(inbox, NOW + DEDUP) == []

    def test_a_repeat_of_a_dead_letter_is_counted(self, inbox: Inbox) -> None:
        inbox.bury(event(), failure(), now=NOW)

        again = inbox.bury(event(), failure(reason="Another."), now=NOW + 9 * DEDUP)
        assert (again.number, again.repeats, again.seen_at) == (1, 1, NOW + 9 * DEDUP)
        assert again.reason == "The registry did not answer."

        assert inbox.bury(event(key="2"), failure(), now=NOW).number == 2
        inbox.discard(1, by="ada", reason="A test file.", now=NOW)
        assert inbox.bury(event(), failure(), now=NOW).number == 3

    def test_events_are_found_by_pipeline_and_state(self, inbox: Inbox) -> None:
        receive(inbox, *(event(key=str(n), partition=f"p{n}") for n in range(4)))
        receive(inbox, event(pipeline=OTHER))
        claim(inbox, [2])
        inbox.finish("b1", {}, retry=RETRY, now=NOW)

        def numbers(**wanted: Any) -> list[int]:
            return [kept.number for kept in inbox.events(**wanted)]

        assert numbers() == [5, 4, 3, 2, 1]
        assert numbers(pipelines=[PIPELINE], limit=3) == [4, 3, 2]
        assert numbers(states=["done"]) == [2]
        assert numbers(states=["done", "waiting"], limit=4) == [5, 4, 3, 2]
        assert numbers(pipelines=[OTHER], states=["waiting"]) == [5]
        assert numbers(limit=None) == numbers(states=["done", "waiting"], limit=None) == [5, 4, 3, 2, 1]
        assert numbers(pipelines=[OTHER], states=["done"]) == numbers(states=[]) == numbers(pipelines=[]) == []

    def test_the_last_event_of_each_place_is_found(self, inbox: Inbox) -> None:
        for key, place in [("1", "a.csv"), ("2", "b.csv"), ("3", "a.csv"), ("4", "é.csv")]:
            receive(inbox, event(key=key, partition=key, payload={"place": place}))
        receive(inbox, event(key="5", source="http", payload={"place": "a.csv"}), event(key="6", payload={}))
        claim(inbox, [3])
        inbox.finish("b1", {}, retry=RETRY, now=NOW)

        last = inbox.last_of(PIPELINE, "arrivals", ["a.csv", "é.csv", "c.csv", "a.csv"])
        assert {place: kept.number for place, kept in last.items()} == {"a.csv": 3, "é.csv": 4}
        assert last["a.csv"] == found(inbox, 3)
        assert inbox.last_of(PIPELINE, "arrivals", []) == inbox.last_of(OTHER, "arrivals", ["a.csv"]) == {}

    def test_many_places_are_looked_up_at_once(self, inbox: Inbox) -> None:
        places = [f"{n}.csv" for n in range(1200)]
        receive(inbox, *(event(key=place, payload={"place": place}) for place in places))

        last = inbox.last_of(PIPELINE, "arrivals", places)
        assert {place: kept.event.key for place, kept in last.items()} == {place: place for place in places}

    def test_places_that_no_event_can_have_are_looked_up_without_harm(self, inbox: Inbox) -> None:
        assert inbox.last_of(PIPELINE, "arrivals", ["", "a\x00b", "\udcff"]) == {}

    def test_a_dead_letter_is_replayed_from_the_start(self, inbox: Inbox) -> None:
        claim(inbox, receive(inbox, event()))
        inbox.start("b1", "run-1", now=NOW)
        inbox.finish("b1", {1: failure(transient=False)}, retry=RETRY, now=NOW)

        kept = inbox.replay(1, by="ada", now=NOW + MINUTE)

        assert kept == found(inbox, 1)
        assert (kept.state, kept.attempts, kept.not_before) == ("waiting", 0, NOW + MINUTE)
        assert (kept.batch, kept.run_id) == (None, None)
        assert kept.reason == "Replayed by ada. Before: The registry did not answer."
        assert ready(inbox, NOW + MINUTE) == [1]

    def test_a_dead_letter_is_discarded_and_may_come_back(self, inbox: Inbox) -> None:
        inbox.bury(event(), failure(), now=NOW)

        kept = inbox.discard(1, by="ada", reason="A test file.", now=NOW)
        assert kept == found(inbox, 1)
        assert kept.state == "discarded"
        assert kept.reason == "Discarded by ada: A test file. Before: The registry did not answer."

        assert inbox.replay(1, by="grace", now=NOW).state == "waiting"

    @pytest.mark.parametrize("state", ["waiting", "claimed", "running", "done"])
    def test_only_what_was_given_up_can_be_replayed_or_discarded(self, inbox: Inbox, state: str) -> None:
        receive(inbox, event())
        if state != "waiting":
            claim(inbox, [1])
        if state == "running":
            inbox.start("b1", "run-1", now=NOW)
        if state == "done":
            inbox.finish("b1", {}, retry=RETRY, now=NOW)
        mark = inbox.mark()

        with pytest.raises(InboxError, match=f"Event 1 of flights/arrival_delay is {state}, and cannot be replayed"):
            inbox.replay(1, by="ada", now=NOW)
        with pytest.raises(InboxError, match=f"is {state}, and cannot be discarded"):
            inbox.discard(1, by="ada", reason="No.", now=NOW)
        with pytest.raises(InboxError, match="no event 2"):
            inbox.replay(2, by="ada", now=NOW)
        assert inbox.mark() == mark

    def test_a_discarded_event_is_not_discarded_again(self, inbox: Inbox) -> None:
        inbox.bury(event(), failure(), now=NOW)
        inbox.discard(1, by="ada", reason="A test file.", now=NOW)

        with pytest.raises(InboxError, match="is discarded, and cannot be discarded"):
            inbox.discard(1, by="ada", reason="A test file.", now=NOW)

    def test_the_mark_moves_with_every_change_and_with_no_reading(self, inbox: Inbox) -> None:
        marks = [inbox.mark()]
        steps: list[Callable[[], Any]] = [
            lambda: receive(inbox, event()),
            lambda: receive(inbox, event()),
            lambda: claim(inbox, [1]),
            lambda: inbox.release("b1", now=NOW),
            lambda: claim(inbox, [1], "b2"),
            lambda: inbox.start("b2", "run-1", now=NOW),
            lambda: inbox.finish("b2", {1: failure(transient=False)}, retry=RETRY, now=NOW),
            lambda: inbox.bury(event(), failure(), now=NOW),
            lambda: inbox.discard(1, by="ada", reason="A test file.", now=NOW),
            lambda: inbox.replay(1, by="ada", now=NOW),
        ]
        for step in steps:
            step()
            marks.append(inbox.mark())
            for read in (inbox.counts, inbox.events, inbox.batches, lambda: ready(inbox)):
                read()
            assert inbox.mark() == marks[-1]

        assert len(set(marks)) == len(marks)

    def test_threads_that_receive_the_same_take_it_up_once(self, inbox: Inbox) -> None:
        events = [event(key=str(n)) for n in range(10)]

        with ThreadPoolExecutor(6) as pool:
            receipts = list(pool.map(lambda _: inbox.receive(events, dedup=DEDUP, now=NOW), range(6)))

        assert sum(len(receipt.new) for receipt in receipts) == 10
        assert sum(len(receipt.repeated) for receipt in receipts) == 50
        assert [(kept.number, kept.repeats) for kept in inbox.events()] == [(n, 5) for n in range(10, 0, -1)]
