"""Reads what other processes write to a run's event log."""

from collections.abc import Iterator

from dagster import DagsterEvent, DagsterEventType, DagsterInstance

_AT_ONCE = 1000
_ENDS = {DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE, DagsterEventType.STEP_UP_FOR_RETRY}


class EventTail:
    """The Dagster events of one run in the order in which they were stored, each of them once.

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
            yield from self._unseen(page.records)

    def missed_ends(self) -> Iterator[DagsterEvent]:
        """Yield how steps ended, where `new` was told of it too late.

        A database with several writers may show an event after one with a higher number: the cursor has passed it.
        """
        yield from self._unseen(self._instance.get_records_for_run(self._run_id, of_type=_ENDS).records)

    def _unseen(self, records: object) -> Iterator[DagsterEvent]:
        for record in records:  # type: ignore[attr-defined]
            event = record.event_log_entry.dagster_event
            if event is not None and record.storage_id not in self._seen:
                self._seen.add(record.storage_id)
                yield event
