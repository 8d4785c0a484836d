"""Recording decisions: one transaction that looks again at what was decided on, and adds nothing twice."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from ml_assets.approvals.standing import standing
from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import Decision, LedgerView
from ml_assets.stages.champions import latest_by_partition
from ml_assets.stages.step import Step
from ml_assets.stages.trust import believed, problem_of

SETTLED = ("promoted", "rolled_back", "rejected")
"""Outcomes that stay as they are while model and evaluation are the same."""


class SupersededError(MlAssetsError):
    """What a decision was made on is no longer so: another champion, or another decision on the partition."""


def model_name(step: Step) -> str:
    """Return the registered model's name; registries do not take a slash in it."""
    return f"{step.spec.team}.{step.spec.name}"


def same_subject(first: Decision, second: Decision) -> bool:
    """Return whether two decisions are about the same model, by the same evaluation."""
    return (first.model_digest, first.evaluation_digest) == (second.model_digest, second.evaluation_digest) and (
        first.model_digest != ""
    )


def disbelieved(step: Step, decision: Decision, view: LedgerView | None = None) -> bool:
    """Whether a promotion or rejection does not count, such as one that nobody signed; it is decided on again."""
    view = view or step.services.ledger
    if decision.outcome == "rejected":
        people = step.services.policy.people()
        records, now = view.records(decision.pipeline), datetime.now(UTC)
        return standing(decision, records, step.policy, people, at=now).rejected_by is None
    if decision.outcome != "promoted":
        return False
    return bool(problem_of(step.services, view, decision))


def record_once(step: Step, decision: Decision) -> Decision:
    """Record a decision unless the partition's last one says exactly the same; a retried step adds nothing."""
    with step.services.ledger.exclusive(decision.pipeline) as view:
        return append_once(view, decision)


def append_once(view: LedgerView, decision: Decision) -> Decision:
    """Append a decision in a transaction unless the partition's last one says the same; return the one that stands."""
    last = latest_by_partition(view.decisions(decision.pipeline)).get(decision.partition)
    if last is not None and _says_the_same(last, decision):
        return last
    view.record_decision(decision)
    return view.decisions(decision.pipeline)[-1]


def conclude(step: Step, proposed: Decision, final: Callable[[LedgerView, Decision | None], Decision]) -> Decision:
    """Record what becomes of a candidate, in one transaction, and return the decision that stands.

    Args:
        step: The running step.
        proposed: What was decided, on the champion that it names.
        final: Given the transaction and the partition's last decision returns what to record, such as the promotion
            of a decision whose approvals are complete.

    Raises:
        SupersededError: If another champion was made since; nothing is recorded.
    """
    with step.services.ledger.exclusive(proposed.pipeline) as view:
        decisions = view.decisions(proposed.pipeline)
        last = latest_by_partition(decisions).get(proposed.partition)
        settled = last is not None and last.outcome in SETTLED and same_subject(last, proposed)
        if last is not None and settled and not disbelieved(step, last, view):
            return last
        decision = final(view, last)
        if decision.outcome in ("promoted", "awaiting_approval"):
            _require_same_champion(step, view, decision)
        stands = append_once(view, decision)
        if stands.outcome == "promoted":
            _close_overtaken(view, stands)
        return stands


def overtaken_by(step: Step, view: LedgerView, decision: Decision) -> Decision | None:
    """Return the promotion of a later period that made a waiting candidate pointless, or None."""
    champion = believed(step.services, view, decision.pipeline, None).champion
    return champion if champion is not None and champion.partition > decision.partition else None


def superseded(waiting: Decision, promoted: Decision) -> Decision:
    """Return what becomes of a waiting decision when a later candidate was promoted: it would never score anything."""
    return replace(
        waiting,
        outcome="refused",
        reason=f"superseded: version {promoted.model_version} of {promoted.partition} was promoted while it waited",
        decided_by="supersession",
        run_id=promoted.run_id,
        recorded_at=None,
    )


def _close_overtaken(view: LedgerView, promoted: Decision) -> None:
    """Close what still waits on earlier periods: nobody should be asked about a model that would never score."""
    for waiting in latest_by_partition(view.decisions(promoted.pipeline)).values():
        if waiting.outcome == "awaiting_approval" and waiting.partition < promoted.partition:
            view.record_decision(superseded(waiting, promoted))


def _require_same_champion(step: Step, view: LedgerView, decision: Decision) -> None:
    champion = believed(step.services, view, decision.pipeline, decision.partition).champion
    version = None if champion is None else champion.model_version
    if version != decision.champion_version:
        raise SupersededError(
            f"{'/'.join(decision.pipeline)} [{decision.partition}] was compared with "
            f"{_named(decision.champion_version)}, but {_named(version)} is champion of that time now. "
            "Materialize `evaluation` and `promotion` of the partition again."
        )


def _named(version: str | None) -> str:
    return "no champion" if version is None else f"version {version}"


def _says_the_same(last: Decision, decision: Decision) -> bool:
    """Whether two decisions differ only in when, where and by whom they were made."""
    return replace(last, recorded_at=None, run_id="", launched_by=(), evidence={}) == replace(
        decision, recorded_at=None, run_id="", launched_by=(), evidence={}
    )
