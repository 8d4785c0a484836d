"""What speaks for a retraining: new labels, harmful drift, decayed performance, age, or a person."""

from datetime import datetime, timedelta

from ml_assets.digest import document_digest
from ml_assets.interfaces import EffectivePolicy
from ml_assets.retraining.decision import Cause, place
from ml_assets.retraining.situation import Situation, Watched

REQUEST_VALID = timedelta(days=7)


def find_causes(situation: Situation, policy: EffectivePolicy, now: datetime) -> tuple[Cause, ...]:
    """Return every cause there is, those that count first."""
    found = [
        _person(situation, now),
        _decay(situation, policy),
        _drift(situation, policy),
        _new_data(situation, policy),
        _schedule(situation, policy, now),
    ]
    return tuple(sorted((cause for cause in found if cause is not None), key=lambda cause: not cause.counts))


def schedule_due(situation: Situation, policy: EffectivePolicy) -> datetime | None:
    """Return when the newest training is old enough to be done again; None when there is none."""
    newest = last_training(situation)
    return None if newest is None else newest + timedelta(days=policy.number("retraining.every_days"))


def last_training(situation: Situation) -> datetime | None:
    """Return when the newest training was decided on or started, whichever is later."""
    instants = [attempt.starts[-1] for attempt in situation.history.attempts]
    if situation.training is not None:
        instants.append(situation.training.at)
    return max(instants, default=None)


def _person(situation: Situation, now: datetime) -> Cause | None:
    request = situation.history.request
    if request is None or now >= request.at + REQUEST_VALID:
        return None
    # By its record and not by its time alone: whoever asked may have a clock that is ahead.
    if any(a.starts[0] >= request.at or a.causes.get("person") == request.evidence for a in situation.history.attempts):
        return None
    return Cause(
        name="person",
        sentence=f"{request.by} asked for it on {request.at:%Y-%m-%d %H:%M} UTC: {request.reason}.",
        evidence=request.evidence,
    )


def _decay(situation: Situation, policy: EffectivePolicy) -> Cause | None:
    decayed = _with_verdict(situation.performance, "decayed")
    if not decayed:
        return None
    allowed = policy.flag("retraining.on_decay")
    return Cause(
        name="decay",
        sentence=f"The champion's performance decayed: {_told(decayed)} {place(policy, 'retraining.on_decay')}.",
        evidence=_digest("decay", decayed),
        counts=allowed,
    )


def _drift(situation: Situation, policy: EffectivePolicy) -> Cause | None:
    drifted = _with_verdict(situation.drift, "drift")
    if not drifted:
        return None
    decayed = _with_verdict(situation.performance, "decayed")
    if decayed:
        effect = f"and quality suffers ({', '.join(w.partition for w in decayed)} decayed)"
    elif _with_verdict(situation.performance, "fine"):
        effect = "and quality does not suffer, so that it alone is no cause"
    else:
        effect = "and what it does to quality is not known yet, so that it alone is no cause"
    return Cause(
        name="drift",
        sentence=f"Inputs drifted: {_told(drifted)}; {effect} {place(policy, 'retraining.on_drift')}.",
        evidence=_digest("drift", [*drifted, *decayed]),
        counts=bool(decayed) and policy.flag("retraining.on_drift"),
    )


def _new_data(situation: Situation, policy: EffectivePolicy) -> Cause | None:
    period = situation.period
    if period is None or period.new_labels == 0:
        return None
    enough = period.new_labels >= policy.number("retraining.min_new_labels")
    newest = situation.training
    since = "and there is no training yet" if newest is None else f"since the training for {newest.period}"
    return Cause(
        name="new_data",
        sentence=f"{period.new_labels:,} labelled rows are new {since} "
        f"{place(policy, 'retraining.min_new_labels', 'retraining.on_new_data')}.",
        evidence=document_digest({"new_data": period.inputs}),
        counts=enough and policy.flag("retraining.on_new_data"),
    )


def _schedule(situation: Situation, policy: EffectivePolicy, now: datetime) -> Cause | None:
    newest, due = last_training(situation), schedule_due(situation, policy)
    if newest is None or due is None or now < due:
        return None
    return Cause(
        name="schedule",
        sentence=f"The newest training is {(now - newest) / timedelta(days=1):.1f} days old "
        f"{place(policy, 'retraining.every_days')}.",
        evidence=document_digest({"schedule": newest.isoformat()}),
    )


def _with_verdict(watched: tuple[Watched, ...], verdict: str) -> list[Watched]:
    return [w for w in watched if w.verdict == verdict]


def _told(watched: list[Watched]) -> str:
    return "; ".join(f"{w.partition}: {w.words}" if w.words else w.partition for w in watched)


def _digest(name: str, watched: list[Watched]) -> str:
    return document_digest({name: sorted([w.partition, w.evidence] for w in watched)})
