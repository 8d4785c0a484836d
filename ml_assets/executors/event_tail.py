"""Reads what other processes write to a run's event log."""

from collections.abc import Iterator

from dagster import DagsterEvent, DagsterEventType, DagsterInstance

_AT_ONCE = 1000
_ENDS = {DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE, DagsterEventType.STEP_UP_FOR_RETRY}
_OUTPUTS = {DagsterEventType.STEP_OUTPUT}


class EventTail:
    """The Dagster events of one run in the order in which they were stored, each of them once.

    A database with several writers may show an event after one with a higher number, when the cursor has passed it.
    What a step puts out is always told before its success: without it the steps behind would be skipped.

    Args:
        instance: The instance whose log is read.
        run_id: The run.
    """

    def __init__(self, instance: DagsterInstance, run_id: str) -> None:
        self._instance = instance
        self._run_id = run_id
        self._cursor: str | None = None
        self._seen: set[int] = set()

    def new(self) -> Iterator[DagsterEvent]:
        """Yield what was stored since the last call."""
        more = True
        while more:
            page = self._instance.get_records_for_run(
                self._run_id, self._cursor, of_type=set(DagsterEventType), limit=_AT_ONCE
            )
            self._cursor = page.cursor
            more = page.has_more and bool(page.records)
            yield from self._outputs_first(list(self._unseen(page.records)))

    def missed_ends(self) -> Iterator[DagsterEvent]:
        """Yield how steps ended, where `new` was told of it too late."""
        records = self._instance.get_records_for_run(self._run_id, of_type=_ENDS).records
        yield from self._outputs_first(list(self._unseen(records)))

    def _outputs_first(self, events: list[DagsterEvent]) -> Iterator[DagsterEvent]:
        if any(event.is_step_success for event in events):
            # A step stores its outputs before its success, so they are all there now.
            yield from self._unseen(self._instance.get_records_for_run(self._run_id, of_type=_OUTPUTS).records)
        yield from events

    def _unseen(self, records: object) -> Iterator[DagsterEvent]:
        for record in records:  # type: ignore[attr-defined]
            event = record.event_log_entry.dagster_event
            if event is not None and record.storage_id not in self._seen:
                self._seen.add(record.storage_id)
                yield event
