"""EndSuite: what becomes of events when every inbox's batches end: waits, dead letters, and what made up for them."""
# ruff: noqa: D102 - the names of the tests are the sentences

from datetime import timedelta

from ml_assets.interfaces import Inbox, RetryPolicy
from ml_assets.testing.inbox_batches_suite import NO_WAIT, claim, found, ready, receive
from ml_assets.testing.inbox_examples import MINUTE, NOW, OTHER, PIPELINE, RETRY, event, failure


class EndSuite:
    """What every inbox does; subclass it and provide a fixture `inbox` that is empty for each test."""

    def test_a_failed_event_waits_longer_each_time_and_is_dead_in_the_end(self, inbox: Inbox) -> None:
        (number,) = receive(inbox, event())
        now = NOW
        for attempt, wait in enumerate([MINUTE, 2 * MINUTE], start=1):
            claim(inbox, [number], f"b{attempt}", now=now)
            inbox.start(f"b{attempt}", f"run-{attempt}", now=now)
            assert inbox.finish(f"b{attempt}", {number: failure()}, retry=RETRY, now=now) == []

            waiting = found(inbox, number)
            assert (waiting.state, waiting.attempts, waiting.not_before) == ("waiting", attempt, now + wait)
            assert (waiting.batch, waiting.run_id) == (None, f"run-{attempt}")
            assert (waiting.reason, waiting.traceback) == ("The registry did not answer.", "Traceback …")
            assert ready(inbox, now + wait - timedelta(seconds=1)) == []
            assert ready(inbox, now + wait) == [number]
            now += wait

        claim(inbox, [number], "b3", now=now)
        (dead,) = inbox.finish("b3", {number: failure(reason="Again.")}, retry=RETRY, now=now)
        assert dead == found(inbox, number)
        assert (dead.state, dead.attempts, dead.reason, dead.batch) == ("dead", 3, "Again.", "b3")
        assert ready(inbox, now + timedelta(days=9)) == []

    def test_a_new_event_of_the_partition_ends_the_wait_for_a_retry(self, inbox: Inbox) -> None:
        (number,) = receive(inbox, event())
        claim(inbox, [number])
        inbox.finish("b1", {number: failure()}, retry=RETRY, now=NOW)
        assert ready(inbox, NOW) == []

        (corrected,) = receive(inbox, event(key="corrected"))

        assert ready(inbox, NOW) == [number, corrected]

    def test_a_wait_that_a_clock_ahead_of_time_set_is_over(self, inbox: Inbox) -> None:
        ahead = NOW + timedelta(days=365)
        (number,) = receive(inbox, event())
        claim(inbox, [number], now=ahead)
        inbox.finish("b1", {number: failure()}, retry=RETRY, now=ahead)
        assert found(inbox, number).not_before == ahead + MINUTE

        assert ready(inbox, NOW) == [number], "no failure of now makes an event wait until then"

    def test_the_longest_wait_there_can_be_is_waited_for(self, inbox: Inbox) -> None:
        (number,) = receive(inbox, event())
        claim(inbox, [number])
        slow = RetryPolicy(attempts=3, backoff=timedelta(hours=9), longest=timedelta(hours=9))
        inbox.finish("b1", {number: failure()}, retry=slow, now=NOW)

        def of(longest: timedelta) -> list[int]:
            return [kept.number for kept in inbox.ready([PIPELINE], debounce=NO_WAIT, longest=longest, now=NOW)]

        assert of(slow.longest) == of(slow.longest - MINUTE) == []
        assert of(slow.longest - 2 * MINUTE) == [number]

    def test_no_wait_is_longer_than_the_longest(self, inbox: Inbox) -> None:
        (number,) = receive(inbox, event())
        policy, now = RetryPolicy(attempts=200, backoff=MINUTE, longest=5 * MINUTE), NOW
        for attempt in range(6):
            claim(inbox, [number], str(attempt), now=now)
            inbox.finish(str(attempt), {number: failure()}, retry=policy, now=now)
        assert found(inbox, number).not_before == NOW + 5 * MINUTE

    def test_what_cannot_be_mended_is_dead_at_once(self, inbox: Inbox) -> None:
        good, bad = receive(inbox, event(key="1"), event(key="2", partition="JFK|2013-01"))
        claim(inbox, [good, bad])

        (dead,) = inbox.finish("b1", {bad: failure(transient=False)}, retry=RETRY, now=NOW)

        assert (dead.number, dead.attempts) == (bad, 1)
        assert found(inbox, good).state == "done"

    def test_what_a_newer_event_made_up_for_is_no_dead_letter_any_more(self, inbox: Inbox) -> None:
        for key, partition in [("1", "EWR|2013-01"), ("2", "EWR|2013-01"), ("3", "JFK|2013-01"), ("4", "-")]:
            inbox.bury(event(key=key, partition=partition), failure(reason=f"Bad {key}."), now=NOW)
        inbox.bury(event(pipeline=OTHER), failure(), now=NOW)
        corrected, other = receive(inbox, event(key="corrected"), event(key="other", partition="LGA|2013-01"))
        inbox.bury(event(key="late"), failure(), now=NOW)
        claim(inbox, [corrected, other])

        assert inbox.finish("b1", {}, retry=RETRY, now=NOW) == []

        assert [found(inbox, n).state for n in range(1, 9)] == [
            *("discarded", "discarded", "dead", "dead", "dead"),
            *("done", "done", "dead"),
        ], "another partition, none at all, another pipeline, and what came later stay"
        kept = found(inbox, 1)
        assert kept.reason == f"Superseded by event {corrected}, which made the partition. Before: Bad 1."
        assert (kept.traceback, kept.attempts, kept.event.key) == ("Traceback …", 0, "1")
        assert inbox.counts() == {PIPELINE: {"discarded": 2, "dead": 3, "done": 2}, OTHER: {"dead": 1}}
        assert inbox.replay(1, by="ada", now=NOW).state == "waiting"

    def test_a_correction_that_fails_makes_up_for_nothing(self, inbox: Inbox) -> None:
        inbox.bury(event(key="1"), failure(), now=NOW)
        (corrected,) = receive(inbox, event(key="corrected"))
        claim(inbox, [corrected])
        assert inbox.finish("b1", {corrected: failure()}, retry=RETRY, now=NOW) == []
        assert found(inbox, 1).state == "dead"

        claim(inbox, [corrected], "b2", now=NOW + MINUTE)
        (dead,) = inbox.finish("b2", {corrected: failure(transient=False)}, retry=RETRY, now=NOW + MINUTE)

        assert dead.number == corrected
        assert found(inbox, 1).state == "dead"

    def test_what_dies_beside_the_event_that_made_its_partition_is_no_dead_letter(self, inbox: Inbox) -> None:
        older, newer = receive(inbox, event(key="1"), event(key="2"))
        claim(inbox, [older, newer])

        assert inbox.finish("b1", {older: failure(transient=False)}, retry=RETRY, now=NOW) == []

        assert (found(inbox, older).state, found(inbox, newer).state) == ("discarded", "done")

    def test_many_dead_letters_of_many_partitions_are_made_up_for_at_once(self, inbox: Inbox) -> None:
        for n in range(600):
            inbox.bury(event(key=f"bad {n}", partition=f"p{n}"), failure(), now=NOW)
        claim(inbox, receive(inbox, *(event(key=str(n), partition=f"p{n}") for n in range(600))))

        inbox.finish("b1", {}, retry=RETRY, now=NOW)

        assert inbox.counts() == {PIPELINE: {"discarded": 600, "done": 600}}

    def test_a_failure_with_any_characters_is_recorded(self, inbox: Inbox) -> None:
        claim(inbox, receive(inbox, event()))

        (dead,) = inbox.finish(
            "b1", {1: failure(reason="a\x00\udcff", traceback="ü\x00", transient=False)}, retry=RETRY, now=NOW
        )

        assert (dead.reason, dead.traceback) == ("a\\x00\\udcff", "ü\\x00")
