"""InboxMachine: an inbox under any sequence of steps, next to what one remembers of it on paper.

Hypothesis draws the steps. The paper knows nothing of batches' rows, windows or indexes: only which events there
must be, in which of the four piles each lies, and which run may work.
"""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from ml_assets.interfaces import EventFailure, Inbox, RetryPolicy
from ml_assets.testing.inbox_examples import NOW, OTHER, PIPELINE, event

_WINDOW = timedelta(minutes=10)
_RETRY = RetryPolicy(attempts=2, backoff=timedelta(minutes=2))
_PIPELINES = (PIPELINE, OTHER)
_keys = st.tuples(st.sampled_from(_PIPELINES), st.sampled_from("abc"), st.sampled_from(["p1", "p2"]))
_positions = st.integers(0, 50)


class InboxMachine(RuleBasedStateMachine):
    """What holds of every inbox; subclass it and give an empty `make_inbox()`."""

    def __init__(self) -> None:
        super().__init__()
        self.inbox = self.make_inbox()
        self.now = NOW
        self.piles: dict[int, str] = {}
        self.arrived: dict[int, Any] = {}
        self.carried: dict[str, set[int]] = {}
        self.runs: dict[str, str | None] = {}
        self.ended: set[str] = set()
        self.times_done: dict[int, int] = {}
        self.attempts: dict[int, int] = {}
        self.places: dict[int, Any] = {}

    def make_inbox(self) -> Inbox:
        """Return the inbox under test, empty."""
        raise NotImplementedError

    @rule(minutes=st.integers(1, 12))
    def time_passes(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(offered=st.lists(_keys, min_size=1, max_size=4), cap=st.sampled_from([None, 3]))
    def events_come(self, offered: list[Any], cap: int | None) -> None:
        events = [event(pipeline=p, key=f"{key}{part}", partition=part) for p, key, part in offered]
        receipt = self.inbox.receive(events, dedup=_WINDOW, per_minute=cap, now=self.now)

        assert len(receipt.new) + len(receipt.repeated) + len(receipt.refused) == len(events)
        assert cap is not None or not receipt.refused
        for kept in receipt.new:
            identity = (kept.event.pipeline, kept.event.key)
            before = [n for n, other in self.arrived.items() if other[0] == identity]
            assert all(self.piles[n] in {"done", "discarded"} for n in before), "a repeat was taken for new"
            assert all(self.now - self.arrived[n][1] >= _WINDOW for n in before), "a repeat was taken for new"
            self.arrived[kept.number] = (identity, self.now)
            self.piles[kept.number] = "waiting"
            self.places[kept.number] = (kept.event.pipeline, kept.event.partition)
        for repeat in receipt.repeated:
            assert (repeat.pipeline, repeat.key) in {identity for identity, _ in self.arrived.values()}

    @rule(pipeline=st.sampled_from(_PIPELINES), debounce=st.integers(0, 3))
    def a_batch_is_claimed_of_what_is_ready(self, pipeline: Any, debounce: int) -> None:
        ready = self.inbox.ready([pipeline], debounce=timedelta(minutes=debounce), now=self.now)
        for partition in {kept.event.partition for kept in ready}:
            assert any(k.not_before <= self.now for k in ready if k.event.partition == partition)
        assert {self.piles[kept.number] for kept in ready} <= {"waiting"}
        name = f"batch-{len(self.carried)}"
        batch = self.inbox.claim([kept.number for kept in ready], name, lease=timedelta(0), now=self.now)
        assert (batch is None) == (not ready)
        if batch is not None:
            assert [kept.number for kept in batch.events] == [kept.number for kept in ready]
            self._claimed(name, {kept.number for kept in batch.events})

    @rule(numbers=st.sets(_positions, max_size=6), pipeline=st.sampled_from(_PIPELINES))
    def a_batch_is_claimed_of_anything(self, numbers: set[int], pipeline: Any) -> None:
        own = {n for n in numbers if n not in self.arrived or self.arrived[n][0][0] == pipeline}
        name = f"batch-{len(self.carried)}"
        batch = self.inbox.claim(own, name, lease=timedelta(0), now=self.now)
        if batch is not None:
            self._claimed(name, {kept.number for kept in batch.events})

    def _claimed(self, name: str, numbers: set[int]) -> None:
        assert {self.piles[n] for n in numbers} == {"waiting"}, "an event is in two batches"
        self.carried[name], self.runs[name] = numbers, None
        self.piles |= dict.fromkeys(numbers, name)

    @rule(position=_positions, run=st.sampled_from(["r1", "r2"]))
    def a_run_starts(self, position: int, run: str) -> None:
        if (name := self._batch(position)) is not None:
            may = name not in self.ended and self.runs[name] in {None, run}
            assert self.inbox.start(name, run, now=self.now) == may
            self.runs[name] = run if may else self.runs[name]

    @rule(position=_positions, failing=st.sets(_positions), transient=st.booleans())
    def a_batch_is_finished(self, position: int, failing: set[int], transient: bool) -> None:
        if (name := self._batch(position)) is None:
            return
        going_on = name not in self.ended
        failed = {n for index, n in enumerate(sorted(self.carried[name])) if index in failing}
        failures = {n: EventFailure(reason="no", transient=transient) for n in failed}
        dead = {kept.number for kept in self.inbox.finish(name, failures, retry=_RETRY, now=self.now)}
        if not going_on:
            assert not dead
            return
        self.ended.add(name)
        done = self.carried[name] - failed
        for number in self.carried[name]:
            self.attempts[number] = self.attempts.get(number, 0) + (number in failed)
            dies = number in failed and (not transient or self.attempts[number] >= _RETRY.attempts)
            self.piles[number] = "dead" if dies else "waiting" if number in failed else "done"
            self.times_done[number] = self.times_done.get(number, 0) + (number in done)
        for number, pile in self.piles.items():
            if pile == "dead" and any(self.places[number] == self.places[n] and number < n for n in done):
                self.piles[number] = "discarded"
        assert dead == {n for n in failed if self.piles[n] == "dead"}

    @rule(position=_positions)
    def a_batch_is_released(self, position: int) -> None:
        if (name := self._batch(position)) is None:
            return
        self.inbox.release(name, now=self.now)
        if name not in self.ended and self.runs[name] is None:
            self.ended.add(name)
            self.piles |= dict.fromkeys(self.carried[name], "waiting")

    @rule(position=_positions, discard=st.booleans())
    def a_person_looks_at_a_dead_letter(self, position: int, discard: bool) -> None:
        dead = sorted(n for n, pile in self.piles.items() if pile == "dead")
        if not dead:
            return
        number = dead[position % len(dead)]
        if discard:
            self.inbox.discard(number, by="ada", reason="no", now=self.now)
        else:
            assert self.inbox.replay(number, by="ada", now=self.now).attempts == 0
            self.attempts[number] = 0
        self.piles[number] = "discarded" if discard else "waiting"

    def _batch(self, position: int) -> str | None:
        names = list(self.carried)
        return names[position % len(names)] if names else None

    @invariant()
    def no_event_is_lost_or_in_two_places(self) -> None:
        kept = {one.number: one for one in self.inbox.events()}
        assert sorted(kept) == list(range(1, len(self.piles) + 1))
        carried = [one.number for batch in self.inbox.batches() for one in batch.events]
        assert len(carried) == len(set(carried))
        for number, pile in self.piles.items():
            state = kept[number].state
            assert state == pile if pile in {"waiting", "done", "dead", "discarded"} else kept[number].batch == pile
            assert (state in {"claimed", "running"}) == (number in carried)

    @invariant()
    def nothing_is_done_twice(self) -> None:
        assert set(self.times_done.values()) <= {0, 1}

    @invariant()
    def no_partition_is_in_two_batches(self) -> None:
        for batch in self.inbox.batches():
            assert {one.event.pipeline for one in batch.events} == {batch.pipeline}
            assert batch.run_id == self.runs[batch.name]
        places = [
            place
            for batch in self.inbox.batches()
            for place in {(batch.pipeline, one.event.partition) for one in batch.events}
        ]
        assert len(places) == len(set(places))

    @invariant()
    def counts_are_those_of_the_events(self) -> None:
        counted: dict[Any, dict[Any, int]] = {}
        for one in self.inbox.events():
            own = counted.setdefault(one.event.pipeline, {})
            own[one.state] = own.get(one.state, 0) + 1
        assert self.inbox.counts() == counted
