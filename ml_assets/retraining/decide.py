"""The decision about a retraining: a pure function of the situation, the policy and the instant."""

from datetime import datetime, timedelta

from ml_assets.digest import document_digest
from ml_assets.interfaces import EffectivePolicy
from ml_assets.retraining import guards as against
from ml_assets.retraining.causes import find_causes, schedule_due
from ml_assets.retraining.decision import Cause, Guard, RetrainingDecision
from ml_assets.retraining.situation import Period, Situation

PASSED_BY_A_PERSON = frozenset({"breaker", "cooldown", "new_labels", "tried"})
"""Guards that do not hold a person's request back. Pause, budget and data that are not ready hold everybody back."""
STOPS = frozenset({"off", "paused", "breaker"})


def decide(situation: Situation, policy: EffectivePolicy, now: datetime) -> RetrainingDecision:
    """Return whether to retrain now, with everything that speaks for it and against it.

    Args:
        situation: What there is.
        policy: What holds for the pipeline.
        now: The instant, UTC.
    """
    causes = find_causes(situation, policy, now)
    counting = tuple(cause for cause in causes if cause.counts)
    stops = [
        against.switched_off(situation),
        against.on_pause(situation),
        against.breaker(situation, policy, now),
    ]
    limits = [against.running(situation, now), *against.budget(situation, policy, now)]
    retry = _retry(situation, now)
    if retry is not None:
        return _again(situation, retry, [*stops, *limits], now)
    asked = [*stops, *limits, against.cooldown(situation, policy, now), *against.readiness(situation, now)]
    period = situation.period
    if period is not None:
        asked += [against.min_labels(period, policy), against.tried(situation, period, counting)]
    if any(cause.name == "person" for cause in counting):
        asked = [_passed(guard) for guard in asked]
    return _concluded(situation, causes, asked, _look_again(situation, policy, now), period)


def _concluded(
    situation: Situation,
    causes: tuple[Cause, ...],
    asked: list[Guard],
    due: datetime | None,
    period: Period | None,
) -> RetrainingDecision:
    guards = tuple(sorted(asked, key=lambda guard: not guard.holds))
    holding = [guard for guard in guards if guard.holds]
    counting = any(cause.counts for cause in causes)
    name = None if period is None else period.key
    stopped = any(guard.name in STOPS for guard in holding)
    if stopped or holding or not counting or period is None:
        times = [guard.until for guard in holding if guard.until is not None] + ([due] if due is not None else [])
        return RetrainingDecision(
            outcome="stop" if stopped else "wait",
            period=name,
            causes=causes,
            guards=guards,
            next_look=min(times, default=None),
        )
    key = document_digest(
        {
            "pipeline": list(situation.pipeline),
            "period": period.key,
            "evidence": sorted(cause.evidence for cause in causes if cause.counts),
            "attempt": len(situation.history.attempts) + 1,
        }
    )[:24]
    return RetrainingDecision(
        outcome="retrain",
        period=period.key,
        causes=causes,
        guards=guards,
        key=key,
        number=1,
        inputs=period.inputs,
    )


def _retry(situation: Situation, now: datetime) -> Guard | None:
    """Return whether the newest attempt lost its run and waits for its next; None when it does not."""
    newest = situation.history.newest
    if newest is None or newest.is_open or newest.retry_at is None:
        return None
    until = newest.retry_at
    return Guard(
        name="backoff",
        holds=now < until,
        until=until if now < until else None,
        sentence=f"Run {len(newest.starts)} of the retraining for {newest.period} was lost "
        f"({newest.ends[-1].reason}); the next may start at {until:%Y-%m-%d %H:%M} UTC.",
    )


def _again(situation: Situation, retry: Guard, asked: list[Guard], now: datetime) -> RetrainingDecision:
    """Return whether to start the next run of an attempt whose last one was lost."""
    attempt = situation.history.attempts[-1]
    guards = tuple(sorted([*asked, retry], key=lambda guard: not guard.holds))
    holding = [guard for guard in guards if guard.holds]
    last = situation.history.last
    causes = () if last is None else tuple(_cause(body) for body in last["causes"])
    if holding:
        times = [guard.until for guard in holding if guard.until is not None]
        return RetrainingDecision(
            outcome="stop" if any(guard.name in STOPS for guard in holding) else "wait",
            period=attempt.period,
            causes=causes,
            guards=guards,
            next_look=min(times, default=now + timedelta(hours=1)),
        )
    return RetrainingDecision(
        outcome="retrain",
        period=attempt.period,
        causes=causes,
        guards=guards,
        key=attempt.key,
        number=len(attempt.starts) + 1,
        inputs=attempt.inputs,
    )


def _cause(body: dict[str, object]) -> Cause:
    return Cause(**body)  # pyright: ignore[reportArgumentType] - what `to_body` wrote


def _passed(guard: Guard) -> Guard:
    """Return a guard as it stands before a person's request."""
    if not guard.holds or guard.name not in PASSED_BY_A_PERSON:
        return guard
    return Guard(name=guard.name, holds=False, sentence=f"Passed for a person's request: {guard.sentence}")


def _look_again(situation: Situation, policy: EffectivePolicy, now: datetime) -> datetime | None:
    """Return when time alone may bring a cause."""
    due = schedule_due(situation, policy)
    return due if due is not None and due > now else None
