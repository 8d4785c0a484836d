"""Claims batches of ready events; what cannot be a run is given back or becomes a dead letter."""

from datetime import datetime
from uuid import uuid4

from ml_assets.delivery.boxes import is_over
from ml_assets.delivery.plan import BatchPlan, plan_batches, plan_of, strangers
from ml_assets.delivery.settings import FILES, LEASE, DeliverySettings
from ml_assets.interfaces import EventFailure, Inbox, InboxEvent
from ml_assets.spec import PipelineSpec


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
