"""Which model version was champion when: read from the ledger's decisions, never from "the newest"."""

from collections.abc import Sequence

from ml_assets.interfaces import Decision


def latest_by_partition(decisions: Sequence[Decision]) -> dict[str, Decision]:
    """Return each time partition's last decision; an earlier one of the same partition is superseded."""
    return {d.partition: d for d in decisions}


def champion_before(decisions: Sequence[Decision], time: str | None) -> Decision | None:
    """Return the promotion in force when the period `time` began (now, when None), or None.

    It is the promotion of the latest partition before `time`. A partition's own promotion never counts for
    itself, so that evaluating or scoring it again gives the same result as the first time.
    """
    promoted = [
        d
        for d in latest_by_partition(decisions).values()
        if d.outcome == "promoted" and (time is None or d.partition < time)
    ]
    return max(promoted, key=lambda d: d.partition, default=None)
