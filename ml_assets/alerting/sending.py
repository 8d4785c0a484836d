"""Keeps alerts once a channel, and sends what is due: with a limit, waits that double, and bursts folded into one."""

import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from ml_assets.alerting.raising import folded
from ml_assets.errors import AlertError
from ml_assets.interfaces import Alert, AlertStore, PipelinePath, RaisedAlert
from ml_assets.interfaces.alerts import Notifier

MOST_SENT, MOST_READ, FOLD_FROM = 20, 1000, 11
"""Messages sent and alerts read at a turn; from how many of one kind, pipeline and channel they are one message."""
BUDGET_SECONDS = 25.0
"""No sending begins after this time: an engine stops a turn that takes too long."""
FIRST_WAIT, LONGEST_WAIT = timedelta(seconds=30), timedelta(hours=1)


@dataclass(frozen=True, kw_only=True)
class Sent:
    """What became of a turn.

    Attributes:
        messages: How many were sent.
        failures: For each that failed, its channel and why.
        left: How many alerts are due and were left for the next turn.
    """

    messages: int = 0
    failures: tuple[str, ...] = ()
    left: int = 0


def keep(alerts: AlertStore, channels: Iterable[str], found: Iterable[Alert], now: datetime) -> int:
    """Keep alerts to be sent, a row for each channel; return how many alerts were new on any."""
    wanted = list(channels)
    new = 0
    for alert in found:
        rows = [replace(alert, key=f"{channel}|{alert.key}") for channel in wanted]
        new += sum(alerts.raise_once(row, now=now) for row in rows) > 0
    return new


def send_pending(
    alerts: AlertStore,
    notifier: Notifier,
    pipelines: Collection[PipelinePath],
    now: datetime,
    clock: Callable[[], float] = time.monotonic,
) -> Sent:
    """Send what is due of some pipelines, oldest first.

    A channel that fails is left alone until the next turn, so that a broken one costs one time limit a turn.

    Args:
        alerts: Where they are kept.
        notifier: Sends them; alerts of channels that it does not have stay where they are.
        pipelines: Whose alerts; another sender has the others.
        now: The instant (UTC).
        clock: Seconds, for the time that a turn may take.
    """
    begun, sent = clock(), 0
    failures: dict[str, str] = {}
    due = alerts.pending(now=now, pipelines=pipelines, channels=notifier.channels, limit=MOST_READ)
    groups = _messages(due)
    left = 0
    for channel, rows in groups:
        if channel in failures or sent + len(failures) >= MOST_SENT or clock() - begun >= BUDGET_SECONDS:
            left += len(rows)
            continue
        told = [replace(row.alert, key=row.alert.key.partition("|")[2]) for row in rows]
        try:
            notifier.send(channel, told[0] if len(told) == 1 else folded(told))
        except AlertError as error:
            failures[channel] = str(error)
            for row in rows:
                alerts.failed(row.alert.key, str(error), not_before=now + wait_after(row.attempts))
        else:
            sent += 1
            for row in rows:
                alerts.sent(row.alert.key, now=now)
    return Sent(messages=sent, failures=tuple(f"{c}: {why}" for c, why in failures.items()), left=left)


def wait_after(attempts: int) -> timedelta:
    """Return how long to wait when sending failed again after so many failed attempts.

    >>> [str(wait_after(attempts)) for attempts in (0, 1, 2, 50)]
    ['0:00:30', '0:01:00', '0:02:00', '1:00:00']
    """
    return min(FIRST_WAIT * 2 ** min(attempts, 20), LONGEST_WAIT)


def _messages(due: Iterable[RaisedAlert]) -> list[tuple[str, list[RaisedAlert]]]:
    """Return (channel, alerts) of each message, in the order of the first alert of each."""
    bursts: dict[tuple[str, str, PipelinePath], list[RaisedAlert]] = {}
    for row in due:
        bursts.setdefault((row.alert.key.partition("|")[0], row.alert.kind, row.alert.pipeline), []).append(row)
    messages: list[tuple[str, list[RaisedAlert]]] = []
    for (channel, _, _), rows in bursts.items():
        messages += [(channel, rows)] if len(rows) >= FOLD_FROM else [(channel, [row]) for row in rows]
    return messages
