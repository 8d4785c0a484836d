"""Claims batches of ready events; what cannot be a run is given back or becomes a dead letter."""

from datetime import datetime
from uuid import uuid4

from ml_assets.delivery.boxes import end_of, is_over
from ml_assets.delivery.plan import BatchPlan, plan_batches, plan_of, strangers
from ml_assets.delivery.settings import FILES, LEASE, DeliverySettings
from ml_assets.inbox_rules import CLOCK_SKEW
from ml_assets.interfaces import EventFailure, Inbox, InboxEvent
from ml_assets.spec import PipelineSpec

_MOST_RESTING = 1000


def claim_batches(
    inbox: Inbox,
    spec: PipelineSpec,
    settings: DeliverySettings,
    *,
    now: datetime,
    most: int | None = None,
) -> list[BatchPlan]:
    """Claim the ready events of one pipeline and return the batches whose runs the caller must submit now.

    Args:
        inbox: The inbox.
        spec: The pipeline.
        settings: What its policy says of events.
        now: The instant, UTC.
        most: Batches to claim at most; None for all.
    """
    path = (spec.team, spec.name)
    ready = inbox.ready([path], debounce=settings.wait_after(FILES), longest=settings.retry.longest, now=now)
    restless = {event.event.partition for event in ready if not settings.is_quiet(event, now)}
    ready = [event for event in ready if event.event.partition not in restless]
    lost = strangers(ready, spec)
    if lost:
        _give_up(inbox, lost, spec, settings, now)
        ready = [event for event in ready if event not in lost]
    # A month's file may come before the month is over; its events wait, and the last of them brings them all.
    ready = [event for event in ready if is_over(spec, event.event.partition, now)]
    claimed: list[BatchPlan] = []
    for plan in plan_batches(ready, spec, settings.max_partitions)[:most]:
        batch = inbox.claim(plan.numbers, plan.name, lease=LEASE, now=now)
        if batch is None:
            continue
        whole = plan_of(batch.events, spec, plan.name)
        if whole is None:  # somebody else took a part, and the rest is no range
            inbox.release(plan.name, now=now)
        else:
            claimed.append(whole)
    return claimed


def nothing_before(inbox: Inbox, spec: PipelineSpec, settings: DeliverySettings, *, now: datetime) -> datetime | None:
    """Return an instant before which no waiting event of a pipeline can be ready, unless the inbox changes.

    None when one may be ready now, or when so many wait that it is not worth finding out. The file of a period that is
    not over may wait for weeks; nobody needs to look for it every five seconds.

    Args:
        inbox: The inbox.
        spec: The pipeline.
        settings: What its policy says of events.
        now: The instant, UTC.
    """
    waiting = inbox.events(pipelines=[(spec.team, spec.name)], states=["waiting"], limit=_MOST_RESTING)
    if len(waiting) == _MOST_RESTING or strangers(waiting, spec):
        return None
    late = now + CLOCK_SKEW  # what was stamped by a clock that was ahead is due, as for `Inbox.ready`
    if any(e.received_at > late or e.not_before > late + settings.retry.longest for e in waiting):
        return None
    first = min((max(e.not_before, end_of(spec, e.event.partition)) for e in waiting), default=now)
    return first if first > now else None


def _give_up(
    inbox: Inbox, events: list[InboxEvent], spec: PipelineSpec, settings: DeliverySettings, now: datetime
) -> None:
    """Make dead letters of events whose partition the pipeline does not have."""
    name = f"{spec.team}/{spec.name}/{uuid4().hex}"
    batch = inbox.claim([event.number for event in events], name, lease=LEASE, now=now)
    if batch is None:
        return
    failures = {
        event.number: EventFailure(
            reason=f"{spec.team}/{spec.name} has no partition {event.event.partition!r}. Correct `partitions` in its "
            "YAML and replay this event, or discard it.",
            transient=False,
        )
        for event in batch.events
    }
    inbox.finish(name, failures, retry=settings.retry, now=now)
