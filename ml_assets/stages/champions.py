"""Which model version was champion when: read from the ledger's decisions, never from "the newest"."""

from collections.abc import Sequence

from ml_assets.interfaces import Decision

SHADOWED = ("awaiting_approval", "undecided")
"""Outcomes after which a candidate is worth watching beside the champion."""


def latest_by_partition(decisions: Sequence[Decision]) -> dict[str, Decision]:
    """Return each time partition's last decision; an earlier one of the same partition is superseded."""
    return {d.partition: d for d in decisions}


def promotions_before(decisions: Sequence[Decision], time: str | None) -> list[Decision]:
    """Return the promotions in force before the period `time` (now, when None), newest partition first.

    A partition's own promotion never counts for itself, so that evaluating or scoring it again gives the same
    result as the first time. One that was rolled back is none.
    """
    promoted = [
        d
        for d in latest_by_partition(decisions).values()
        if d.outcome == "promoted" and (time is None or d.partition < time)
    ]
    return sorted(promoted, key=lambda d: d.partition, reverse=True)


def champion_before(decisions: Sequence[Decision], time: str | None) -> Decision | None:
    """Return the promotion of the latest partition before `time` (of all, when None), or None.

    This is what the ledger says; whether it may score is `trust.trusted_champion`'s question.
    """
    return next(iter(promotions_before(decisions, time)), None)


def shadow_before(decisions: Sequence[Decision], champion: Decision | None, time: str | None) -> Decision | None:
    """Return the newest candidate before `time` that is worth watching: newer than the champion, and not settled."""
    newer = [
        d
        for d in latest_by_partition(decisions).values()
        if d.outcome in SHADOWED
        and d.model_version is not None
        and (time is None or d.partition < time)
        and (champion is None or d.partition > champion.partition)
    ]
    return max(newer, key=lambda d: d.partition, default=None)


def arm_before(decisions: Sequence[Decision], champion: Decision | None, time: str | None) -> Decision | None:
    """Return the candidate that may take an A/B arm: the shadow, when more rows may decide it and nothing is material.

    What awaits an approval scores nothing that anybody uses.
    """
    shadow = shadow_before(decisions, champion, time)
    if shadow is None or shadow.outcome != "undecided" or shadow.evidence.get("approval_reasons"):
        return None
    serving = shadow.evidence.get("serving")
    return shadow if serving is not None and not serving["problems"] else None


def newest_registered(decisions: Sequence[Decision]) -> Decision | None:
    """Return the decision on the newest partition whose candidate was registered, or None."""
    registered = [d for d in latest_by_partition(decisions).values() if d.model_version is not None]
    return max(registered, key=lambda d: d.partition, default=None)
