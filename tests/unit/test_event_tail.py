"""What other processes write to a run's log is read in the order that a state machine needs."""

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from dagster import DagsterEventType as Type

from ml_assets.executors.event_tail import EventTail


class Log:
    """A log with several writers: an event may become visible after one with a higher number."""

    def __init__(self) -> None:
        self.visible: dict[int, Any] = {}

    def show(self, number: int, kind: Type) -> None:
        event = SimpleNamespace(event_type=kind, is_step_success=kind == Type.STEP_SUCCESS, number=number)
        entry = SimpleNamespace(dagster_event=event)
        self.visible[number] = SimpleNamespace(storage_id=number, event_log_entry=entry)

    def get_records_for_run(
        self, _: str, cursor: str | None = None, of_type: Iterable[Type] = (), limit: int | None = None
    ) -> Any:
        kinds, after = set(of_type), int(cursor or 0)
        numbers = [n for n in sorted(self.visible) if n > after and _kind(self.visible[n]) in kinds][:limit]
        records = [self.visible[n] for n in numbers]
        return SimpleNamespace(records=records, cursor=str(numbers[-1] if numbers else after), has_more=False)


def _kind(record: Any) -> Type:
    return record.event_log_entry.dagster_event.event_type


def _numbers(events: Iterable[Any]) -> list[int]:
    return [event.number for event in events]


def test_an_output_that_is_seen_late_is_told_before_the_success_of_its_step() -> None:
    log = Log()
    tail = EventTail(log, "run")  # type: ignore[arg-type]
    log.show(12, Type.ENGINE_EVENT)
    assert _numbers(tail.new()) == [12]
    log.show(11, Type.STEP_OUTPUT)  # the cursor has passed it
    assert _numbers(tail.new()) == []
    log.show(13, Type.STEP_SUCCESS)
    assert _numbers(tail.new()) == [11, 13]
    assert _numbers(tail.new()) == []


def test_a_success_that_was_missed_brings_its_outputs_along() -> None:
    log = Log()
    tail = EventTail(log, "run")  # type: ignore[arg-type]
    log.show(12, Type.ENGINE_EVENT)
    assert _numbers(tail.new()) == [12]
    log.show(10, Type.STEP_OUTPUT)
    log.show(11, Type.STEP_SUCCESS)
    assert _numbers(tail.new()) == []
    assert _numbers(tail.missed_ends()) == [10, 11]
