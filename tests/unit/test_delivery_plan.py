"""From waiting events to batches: boxes that hold exactly the events' partitions, few, and claimed as a whole."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.delivery.boxes import cover, is_over, is_partition, span
from ml_assets.delivery.claiming import claim_batches, nothing_before
from ml_assets.delivery.plan import plan_batches, plan_of
from ml_assets.delivery.settings import DeliverySettings
from ml_assets.interfaces import Event, EventFailure, InboxEvent, RetryPolicy
from ml_assets.partitions import data_partitions
from ml_assets.periods import Periods, join_partition, split_partition
from ml_assets.spec import GroupSpec, PartitionsSpec, PipelineSpec
from ml_assets.testing.inbox import FakeInbox
from tests.components.shop import shop

GROUPS = ("west", "east", "north", "south")
"""Not in the order of the alphabet."""
PATH = ("shop", "returns")
NOW = datetime(2026, 2, 1, 6, 0, tzinfo=UTC)
SETTINGS = DeliverySettings(
    dedup=timedelta(hours=24),
    per_minute=3000,
    debounce=timedelta(0),
    settle=timedelta(0),
    max_partitions=400,
    retry=RetryPolicy(attempts=4, backoff=timedelta(seconds=30)),
)


def spec_of(groups: tuple[str, ...] = GROUPS, every: str = "day") -> PipelineSpec:
    start, end = {"day": ("2024-01-01", "2025-01-01"), "month": ("2024-01", "2026-01")}[every]
    partitions = PartitionsSpec.model_validate(
        {"every": every, "start": start, "end": end, "group": {"column": "country", "values": list(groups)}}
        if groups
        else {"every": every, "start": start, "end": end}
    )
    component = shop(partitions=partitions)
    return PipelineSpec(**{name: getattr(component, name) for name in PipelineSpec.model_fields})


SPEC = spec_of()
DAYS = Periods.of(SPEC.partitions, "UTC").between("2024-02-20", "2024-03-10")
ANY = [join_partition(group, day) for day in DAYS for group in GROUPS]


def waiting(number: int, partition: str, attempts: int = 0) -> InboxEvent:
    event = Event(source="arrivals", key=f"k{number}", pipeline=PATH, partition=partition)
    return InboxEvent(
        number=number, event=event, state="waiting", received_at=NOW, seen_at=NOW, not_before=NOW, attempts=attempts
    )


@given(st.sets(st.sampled_from(ANY), min_size=1), st.integers(1, 50))
def test_boxes_hold_exactly_the_given_partitions_once_and_no_more_than_allowed(wanted: set[str], most: int) -> None:
    boxes = cover(SPEC, wanted, most=most)

    held = [partition for box in boxes for partition in box.partitions]
    assert sorted(held) == sorted(wanted)
    assert all(len(box.partitions) <= most for box in boxes)
    assert [box.periods[0] for box in boxes] == sorted(box.periods[0] for box in boxes)


@given(st.sets(st.sampled_from(ANY), min_size=1, max_size=20))
def test_dagster_understands_the_range_of_a_box_as_the_same_partitions(wanted: set[str]) -> None:
    from dagster import PartitionKeyRange

    for box in cover(SPEC, wanted, most=400):
        keys = data_partitions(SPEC).get_partition_keys_in_range(PartitionKeyRange(box.first, box.last))
        assert {str(key) for key in keys} == set(box.partitions)


def test_a_thousand_files_are_few_batches_oldest_first() -> None:
    days = Periods.of(SPEC.partitions, "UTC").between("2024-01-01", "2024-09-06")
    partitions = [join_partition(group, day) for group in GROUPS for day in days]
    assert len(partitions) == 1000

    plans = plan_batches([waiting(n, p) for n, p in enumerate(partitions)], SPEC, 400)

    assert [len(plan.partitions) for plan in plans] == [400, 400, 200]
    assert [plan.first for plan in plans] == ["west|2024-01-01", "west|2024-04-10", "west|2024-07-19"]
    assert plans[0].last == "south|2024-04-09"


def test_months_without_groups_are_ranges_of_months() -> None:
    spec = spec_of((), "month")
    boxes = cover(spec, ["2024-02", "2024-03", "2024-12", "2025-01"], most=400)
    assert [(box.first, box.last) for box in boxes] == [("2024-02", "2024-03"), ("2024-12", "2025-01")]


def test_a_box_that_is_wider_than_allowed_is_cut_through_its_groups() -> None:
    boxes = cover(SPEC, [join_partition(g, "2024-01-01") for g in GROUPS], most=3)
    assert [box.groups for box in boxes] == [("west", "east", "north"), ("south",)]


@given(st.lists(st.tuples(st.sampled_from(ANY), st.integers(0, 3)), min_size=1, max_size=60), st.integers(1, 40))
def test_every_event_is_in_one_batch_with_all_others_of_its_partition(drawn: list[tuple[str, int]], most: int) -> None:
    events = [waiting(n, partition, attempts) for n, (partition, attempts) in enumerate(drawn, start=1)]

    plans = plan_batches(events, SPEC, most)

    assert sorted(n for plan in plans for n in plan.numbers) == [event.number for event in events]
    assert len({plan.name for plan in plans}) == len(plans)
    by_number = {event.number: event for event in events}
    for plan in plans:
        assert {by_number[n].event.partition for n in plan.numbers} == set(plan.partitions)
        worst = {
            partition: max(e.attempts for e in events if e.event.partition == partition)
            for partition in plan.partitions
        }
        assert len({min(2, failures) for failures in worst.values()}) == 1, "what failed is apart from what did not"
        assert max(worst.values()) < 2 or len(plan.partitions) == 1
        carried = [by_number[n] for n in plan.numbers]
        assert plan_of(carried, SPEC, plan.name) == plan, "the plan can be found again from the batch"


def test_what_failed_once_shares_a_run_with_a_twentieth_and_then_with_nothing() -> None:
    once = [waiting(n, p, 1) for n, p in enumerate(ANY[:40])]
    twice = [waiting(n, p, 2) for n, p in enumerate(ANY[:40])]

    assert [len(p.partitions) for p in plan_batches(once, SPEC, 400)] == [20, 20]
    assert [len(p.partitions) for p in plan_batches(twice, SPEC, 400)] == [1] * 40


def test_partitions_are_those_of_the_pipeline() -> None:
    assert is_partition(SPEC, "north|2024-02-29")
    for strange in ("north|2023-12-31", "Atlantis|2024-02-29", "2024-02-29", "north|2024-02-30", "", "north|2024-2-9"):
        assert not is_partition(SPEC, strange), strange


@given(st.datetimes(datetime(2023, 12, 1), datetime(2026, 3, 1)), st.sampled_from(["day", "month"]))  # noqa: DTZ001
def test_dagster_knows_exactly_the_partitions_that_are_over(instant: datetime, every: str) -> None:
    now, spec = instant.replace(tzinfo=UTC), spec_of((), every)
    known = set(data_partitions(spec).get_partition_keys(current_time=now))

    for key in [f"2024-{month:02}{'' if every == 'month' else '-15'}" for month in range(1, 13)]:
        assert (is_partition(spec, key) and is_over(spec, key, now)) == (key in known), key


def test_an_event_of_a_period_that_is_not_over_waits_and_keeps_none_waiting() -> None:
    inbox = inbox_with("west|2024-01-01", "west|2024-01-02")
    inbox.receive(
        [Event(source="arrivals", key="later", pipeline=PATH, partition="west|2024-01-02")],
        dedup=timedelta(hours=1),
        now=NOW,
    )
    evening = datetime(2024, 1, 2, 23, 59, tzinfo=UTC)
    for number, kept in list(inbox.kept.items()):
        inbox.kept[number] = replace(kept, received_at=evening, not_before=evening)

    assert [p.partitions for p in claim_batches(inbox, SPEC, SETTINGS, now=evening)] == [("west|2024-01-01",)]
    assert claim_batches(inbox, SPEC, SETTINGS, now=evening) == []
    (plan,) = claim_batches(inbox, SPEC, SETTINGS, now=evening + timedelta(minutes=1))
    assert plan.numbers == (2, 3)


def inbox_with(*partitions: str) -> FakeInbox:
    inbox = FakeInbox()
    events = [Event(source="arrivals", key=p, pipeline=PATH, partition=p) for p in partitions]
    assert len(inbox.receive(events, dedup=timedelta(hours=1), now=NOW).new) == len(partitions)
    return inbox


def test_claimed_batches_carry_what_is_ready() -> None:
    inbox = inbox_with("west|2024-01-01", "east|2024-01-01", "west|2024-01-02", "east|2024-01-02")

    (plan,) = claim_batches(inbox, SPEC, SETTINGS, now=NOW)

    assert (plan.first, plan.last) == ("west|2024-01-01", "east|2024-01-02")
    (batch,) = inbox.batches()
    assert (batch.name, batch.leased_until) == (plan.name, NOW + timedelta(seconds=60))
    assert claim_batches(inbox, SPEC, SETTINGS, now=NOW) == []


def test_an_event_of_a_partition_that_is_gone_is_a_dead_letter_and_its_neighbours_go_on() -> None:
    inbox = inbox_with("west|2024-01-01", "Atlantis|2024-01-01")

    (plan,) = claim_batches(inbox, SPEC, SETTINGS, now=NOW)

    assert plan.partitions == ("west|2024-01-01",)
    (dead,) = inbox.events(states=["dead"])
    assert dead.reason == (
        "shop/returns has no partition 'Atlantis|2024-01-01'. Correct `partitions` in its YAML and replay this event, "
        "or discard it."
    )


class Raced(FakeInbox):
    """An inbox in which another process claims an event between the look and the claim."""

    def claim(self, numbers, batch, *, lease, now):
        if batch != "another":
            assert super().claim([2], "another", lease=lease, now=now)
        return super().claim(numbers, batch, lease=lease, now=now)


def test_a_batch_that_lost_its_middle_to_another_process_is_given_back() -> None:
    inbox = Raced(kept=dict(inbox_with("west|2024-01-01", "west|2024-01-02", "west|2024-01-03").kept))

    assert claim_batches(inbox, SPEC, SETTINGS, now=NOW) == []

    assert [batch.name for batch in inbox.batches()] == ["another"]
    assert [e.event.partition for e in inbox.ready([PATH], debounce=timedelta(0), now=NOW)] == [
        "west|2024-01-01",
        "west|2024-01-03",
    ]


@pytest.mark.parametrize("most", [1, 2])
def test_no_more_batches_are_claimed_than_asked_for(most: int) -> None:
    inbox = inbox_with("west|2024-01-01", "west|2024-01-03", "west|2024-01-05")
    assert len(claim_batches(inbox, SPEC, SETTINGS, now=NOW, most=most)) == most
    assert len(inbox.batches()) == most


def test_retries_are_planned_from_what_the_inbox_says_of_attempts() -> None:
    inbox = inbox_with(*ANY[:8])
    (plan,) = claim_batches(inbox, SPEC, replace(SETTINGS, max_partitions=40), now=NOW)
    lost = EventFailure(reason="killed", transient=True)
    inbox.finish(plan.name, dict.fromkeys(plan.numbers, lost), retry=SETTINGS.retry, now=NOW)

    later = claim_batches(inbox, SPEC, replace(SETTINGS, max_partitions=40), now=NOW + timedelta(seconds=31))

    assert [len(plan.partitions) for plan in later] == [2, 2, 2, 2]
    assert {split_partition(p)[1] for p in later[0].partitions} == {"2024-02-20"}
    assert isinstance(SPEC.partitions.group, GroupSpec)


@given(
    st.lists(st.sampled_from(DAYS), min_size=2, max_size=2), st.lists(st.sampled_from(range(4)), min_size=2, max_size=2)
)
def test_a_range_means_the_box_that_it_was_made_of(days: list[str], places: list[int]) -> None:
    first, last = (join_partition(GROUPS[place], day) for day, place in zip(sorted(days), sorted(places), strict=True))

    box = span(SPEC, first, last)

    assert (box.first, box.last) == (first, last)
    assert set(box.partitions) == {
        join_partition(group, day)
        for day in DAYS
        if min(days) <= day <= max(days)
        for group in GROUPS[min(places) : max(places) + 1]
    }
    assert cover(SPEC, box.partitions, most=len(box.partitions)) == [box]


@pytest.mark.parametrize(("hours", "claimed"), [(9, 0), (8, 1)])
def test_a_wait_is_believed_up_to_the_longest_that_the_policy_makes(hours: int, claimed: int) -> None:
    inbox = inbox_with("west|2024-01-01")
    inbox.claim([1], "b1", lease=timedelta(minutes=1), now=NOW)
    slow = RetryPolicy(attempts=4, backoff=timedelta(hours=9), longest=timedelta(hours=9))
    inbox.finish("b1", {1: EventFailure(reason="killed", transient=True)}, retry=slow, now=NOW)
    settings = replace(SETTINGS, retry=replace(slow, longest=timedelta(hours=hours)))

    assert len(claim_batches(inbox, SPEC, settings, now=NOW)) == claimed


def test_a_partition_waits_until_it_was_quiet_and_a_file_was_quiet_before_it_came() -> None:
    settings = replace(SETTINGS, debounce=timedelta(seconds=3), settle=timedelta(seconds=1))
    inbox = FakeInbox()
    of_file = Event(source="arrivals", key="1", pipeline=PATH, partition="west|2024-01-01")
    posted = Event(source="http", key="2", pipeline=PATH, partition="west|2024-01-03")
    inbox.receive([of_file, posted], dedup=timedelta(hours=1), now=NOW)

    def claimed(seconds: float) -> list[str]:
        found = claim_batches(inbox, SPEC, settings, now=NOW + timedelta(seconds=seconds))
        return [plan.first for plan in found]

    assert claimed(1.9) == []
    assert claimed(2) == ["west|2024-01-01"]
    assert claimed(2.9) == []
    assert claimed(3) == ["west|2024-01-03"]


@given(
    st.lists(
        st.tuples(st.sampled_from([9, 10, 11]), st.integers(-3600, 3600), st.integers(-3 * 86_400, 3 * 86_400)),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from([0, 3, 120]),
)
def test_before_the_instant_that_is_told_nothing_is_ready(waits: list[tuple[int, int, int]], debounce: int) -> None:
    now = datetime(2024, 3, 10, 18, tzinfo=UTC)  # the 9th is over, the 10th and the 11th are not
    settings = replace(SETTINGS, debounce=timedelta(seconds=debounce))
    inbox = FakeInbox()
    for number, (day, came, due) in enumerate(waits, 1):
        kept = waiting(number, f"west|2024-03-{day:02d}")
        times = {"received_at": now + timedelta(seconds=came), "not_before": now + timedelta(seconds=due)}
        inbox.kept[number] = replace(kept, **times)

    told = nothing_before(inbox, SPEC, settings, now=now)

    for later in [] if told is None else [now + share * (told - now) for share in (0.0, 0.5, 0.99)]:
        ready = inbox.ready([PATH], debounce=timedelta(0), longest=settings.retry.longest, now=later)
        assert not [event for event in ready if is_over(SPEC, event.event.partition, later)]


def test_what_can_be_ready_only_later_is_told_with_the_instant() -> None:
    morning = datetime(2024, 3, 10, 6, tzinfo=UTC)
    inbox = FakeInbox()
    assert nothing_before(inbox, SPEC, SETTINGS, now=morning) is None
    inbox.kept[1] = replace(waiting(1, "west|2024-03-10"), received_at=morning, not_before=morning)
    assert nothing_before(inbox, SPEC, SETTINGS, now=morning) == datetime(2024, 3, 11, tzinfo=UTC)
    soon = morning + timedelta(seconds=30)
    inbox.kept[2] = replace(waiting(2, "west|2024-03-09"), received_at=morning, not_before=soon)
    assert nothing_before(inbox, SPEC, SETTINGS, now=morning) == soon
    assert nothing_before(inbox, SPEC, SETTINGS, now=soon) is None
    inbox.kept[2] = replace(inbox.kept[2], event=replace(inbox.kept[2].event, partition="Atlantis|2024-03-09"))
    assert nothing_before(inbox, SPEC, SETTINGS, now=morning) is None
