"""What holds a retraining back: the policy's limits, data that are not ready, and what was tried already."""

from datetime import datetime, timedelta

from ml_assets.interfaces import EffectivePolicy
from ml_assets.retraining.causes import last_training
from ml_assets.retraining.decision import Cause, Guard, place
from ml_assets.retraining.situation import Period, Situation

WEEK = timedelta(days=7)
SOON = timedelta(seconds=30)
"""How long until a look pays again at something that leaves no trace in the ledger, such as a run at work."""


def switched_off(situation: Situation) -> Guard:
    """Whether the pipeline's YAML lets it retrain by itself."""
    return Guard(
        name="off",
        holds=not situation.enabled,
        sentence=f"automation.retraining is {str(situation.enabled).lower()} in the YAML of {situation.name}.",
    )


def on_pause(situation: Situation) -> Guard:
    """Whether somebody paused it."""
    pause = situation.pause
    return Guard(name="paused", holds=pause is not None, sentence="Nobody paused it." if pause is None else f"{pause}.")


def breaker(situation: Situation, policy: EffectivePolicy, now: datetime) -> Guard:
    """Whether too many attempts failed in a row; half-open, for one attempt, once its hours are over."""
    history, places = situation.history, place(policy, "retraining.breaker_failures", "retraining.breaker_hours")
    count, limit = history.failures, policy.number("retraining.breaker_failures")
    ended = [attempt.ends[-1].at for attempt in history.attempts if attempt.ending is not None]
    if count < limit or not ended:
        return Guard(
            name="breaker", holds=False, sentence=f"Closed: {count} attempts in a row failed or were refused {places}."
        )
    until = ended[-1] + timedelta(hours=policy.number("retraining.breaker_hours"))
    failed = [attempt for attempt in history.attempts if attempt.ending is not None][-1]
    why = f"the last, for {failed.period}, {_how(failed.ending)}: {failed.ends[-1].reason}"
    if now >= until:
        return Guard(
            name="breaker",
            holds=False,
            sentence=f"Half-open since {_at(until)}: {count} attempts in a row failed or were refused, and one is "
            f"tried; {why} {places}.",
        )
    return Guard(
        name="breaker",
        holds=True,
        until=until,
        sentence=f"Open until {_at(until)}: {count} attempts in a row failed or were refused; {why} {places}.",
    )


def budget(situation: Situation, policy: EffectivePolicy, now: datetime) -> list[Guard]:
    """Whether this week's runs, or their core hours, are used up; no one passes these."""
    history, since = situation.history, now - WEEK
    starts, runs = history.starts_since(since), policy.number("retraining.runs_per_week")
    cost, most = history.core_hours_since(since), policy.number("retraining.cost_per_week")
    spent = sorted(end.at for a in history.attempts for end in a.ends if end.at > since and end.core_hours > 0)
    full = len(starts) >= runs
    oldest = starts[len(starts) - int(runs)] + WEEK if full and runs >= 1 else None
    dear = cost >= most
    return [
        Guard(
            name="budget_runs",
            holds=full,
            until=oldest,
            sentence=f"{_counted(len(starts), 'run was', 'runs were')} started within seven days, of {runs:g} "
            f"{place(policy, 'retraining.runs_per_week')}.",
        ),
        Guard(
            name="budget_cost",
            holds=dear,
            until=spent[0] + WEEK if dear and spent else None,
            sentence=f"Runs of seven days took {cost:.2f} core hours, of {most:g} "
            f"{place(policy, 'retraining.cost_per_week')}.",
        ),
    ]


def running(situation: Situation, now: datetime) -> Guard:
    """Whether a run is under way."""
    newest = situation.history.newest
    if newest is None or not newest.is_open:
        return Guard(name="running", holds=False, sentence="No retraining is under way.")
    return Guard(
        name="running",
        holds=True,
        until=now + SOON,
        sentence=f"The retraining for {newest.period} started at {_at(newest.starts[-1])} is under way.",
    )


def cooldown(situation: Situation, policy: EffectivePolicy, now: datetime) -> Guard:
    """Whether the newest training was too short a time ago."""
    newest = last_training(situation)
    hours = policy.number("retraining.cooldown_hours")
    where = place(policy, "retraining.cooldown_hours")
    if newest is None:
        return Guard(name="cooldown", holds=False, sentence=f"There is no training yet {where}.")
    until = newest + timedelta(hours=hours)
    ago = (now - newest) / timedelta(hours=1)
    return Guard(
        name="cooldown",
        holds=now < until,
        until=until if now < until else None,
        sentence=f"The newest training was {ago:.1f} hours ago {where}.",
    )


def min_labels(period: Period, policy: EffectivePolicy) -> Guard:
    """Whether a new model would learn from too little that is new."""
    least = policy.number("retraining.min_new_labels")
    return Guard(
        name="new_labels",
        holds=period.new_labels < least,
        sentence=f"A model for {period.key} would learn from {period.new_labels:,} new labelled rows, of at least "
        f"{least:,.0f} {place(policy, 'retraining.min_new_labels')}.",
    )


def readiness(situation: Situation, now: datetime) -> list[Guard]:
    """Whether the data are such that a model can be trained and evaluated; no one passes these."""
    period = situation.period
    if period is None:
        why = " ".join(situation.incomplete) or "No features have been made."
        return [Guard(name="incomplete", holds=True, sentence=f"No period is complete. {why}")]
    late = period.labels_known_at is None or now < period.labels_known_at
    newer = " ".join(situation.incomplete)
    return [
        Guard(
            name="incomplete",
            holds=False,
            sentence=f"{period.key} is the newest complete period.{f' Newer ones are not: {newer}' if newer else ''}",
        ),
        Guard(
            name="first_period",
            holds=not period.window,
            sentence=f"{period.key} has {len(period.window)} periods before it to learn from.",
        ),
        Guard(
            name="row_index",
            holds=bool(period.unindexed),
            until=now + SOON,
            sentence="Every period to learn from has its row index."
            if not period.unindexed
            else f"{len(period.unindexed)} periods to learn from have no row index: {_listed(period.unindexed)}. "
            "The sensor `conditions` makes them when their data are complete.",
        ),
        Guard(
            name="labels",
            holds=late,
            until=period.labels_known_at if late else None,
            sentence=f"{period.key} has no labelled row to evaluate on."
            if period.labels_known_at is None
            else f"{period.labels:,} labels of {period.key} are known; the last is known at "
            f"{_at(period.labels_known_at)}.",
        ),
        Guard(
            name="bad_data",
            holds=bool(period.dead),
            sentence=f"{_counted(period.dead, 'dead letter concerns', 'dead letters concern')} {period.key}; "
            f"see `ml-assets dead-letters list {situation.name}`.",
        ),
        Guard(
            name="events",
            holds=bool(period.waiting),
            until=now + SOON,
            sentence=f"{_counted(period.waiting, 'event', 'events')} of {period.key} waiting for a run, or in one.",
        ),
    ]


def tried(situation: Situation, period: Period, causes: tuple[Cause, ...]) -> Guard:
    """Whether the same evidence started an attempt before, or the same data were decided on."""
    used = {digest for attempt in situation.history.attempts for digest in attempt.causes.values()}
    if causes and all(cause.evidence in used for cause in causes):
        names = ", ".join(cause.name for cause in causes)
        return Guard(
            name="tried",
            holds=True,
            sentence=f"An attempt was made on the same evidence ({names}); the same never starts a second one.",
        )
    same = [a for a in situation.history.attempts if (a.period, a.inputs) == (period.key, period.inputs)]
    if any(a.ending in ("succeeded", "refused") for a in same):
        return Guard(
            name="tried",
            holds=True,
            sentence=f"A model for {period.key} was made of exactly these data: {_how(same[-1].ending)}.",
        )
    training = situation.training
    own = [a for a in situation.history.attempts if a.period == period.key]
    if training is not None and (training.period > period.key or (training.period == period.key and not own)):
        return Guard(
            name="tried",
            holds=True,
            sentence=f"A model for {training.period} was decided on at {_at(training.at)} ({training.outcome}).",
        )
    return Guard(name="tried", holds=False, sentence=f"Nothing was tried on these data of {period.key}.")


def _how(ending: str | None) -> str:
    return "was refused" if ending == "refused" else ending or "is under way"


def _listed(keys: tuple[str, ...]) -> str:
    return ", ".join(keys[:5]) + (f" … +{len(keys) - 5} more" if len(keys) > 5 else "")


def _counted(n: int, one: str, more: str) -> str:
    return f"{n} {one if n == 1 else more}"


def _at(instant: datetime) -> str:
    return f"{instant:%Y-%m-%d %H:%M} UTC"
