"""What is asked of the alerts' store: what people must be told, raised once and sent until it arrives."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from ml_assets.interfaces.names import PipelinePath


@dataclass(frozen=True, kw_only=True)
class Alert:
    """Something that people must be told once.

    Attributes:
        key: What it is about, such as "dead-letter/17" or "gate/flights/arrival_delay/2013-02/expectations/3f2a";
            an alert of this key is raised once for ever, so whatever makes it new belongs in the key.
        kind: Word for filters: "gate_failed", "awaiting_approval", "dead_letter", "breaker_open", …
        pipeline: (team, pipeline).
        title: One line without a full stop.
        body: Some sentences, with the next step; neither rows nor secrets.
    """

    key: str
    kind: str
    pipeline: PipelinePath
    title: str
    body: str


@dataclass(frozen=True, kw_only=True)
class RaisedAlert:
    """An alert as it is kept.

    Attributes:
        alert: What was raised.
        created_at: When it was raised (UTC).
        sent_at: When it arrived, or None while it has not (UTC).
        attempts: How often sending it failed.
        not_before: Before this instant it is not sent (again) (UTC).
        last_error: Why sending it failed last; empty when it never did.
    """

    alert: Alert
    created_at: datetime
    sent_at: datetime | None = None
    attempts: int = 0
    not_before: datetime
    last_error: str = ""


class AlertStore(Protocol):
    """Alerts that survive a crash. Every method is one transaction.

    Delivery is at least once: who sends says `sent` afterwards, and a process that dies in between sends it again.
    """

    def raise_once(self, alert: Alert, *, now: datetime) -> bool:
        """Keep an alert to be sent; whether it is new: False when one of its key was raised before, sent or not.

        Raises:
            AlertError: If a text cannot be stored, or the key is empty.
        """
        ...

    def pending(
        self,
        *,
        now: datetime,
        pipelines: Collection[PipelinePath] | None = None,
        channels: Collection[str] | None = None,
        limit: int = 100,
    ) -> list[RaisedAlert]:
        """Return the alerts that are to be sent now: not sent, and not put off beyond `now`; oldest first.

        Args:
            now: The instant (UTC).
            pipelines: Whose alerts; None for all.
            channels: Only of keys that begin with one of these and a "|"; None for all.
            limit: How many at most, of those that match: whatever nobody sends must not hide the others.
        """
        ...

    def sent(self, key: str, *, now: datetime) -> None:
        """Say that an alert arrived; saying it again changes nothing.

        Raises:
            AlertError: If no alert of this key was raised.
        """
        ...

    def failed(self, key: str, error: str, *, not_before: datetime) -> None:
        """Say that sending an alert failed, and put it off; one that arrived already stays so.

        Raises:
            AlertError: If no alert of this key was raised.
        """
        ...

    def recent(self, limit: int = 100) -> list[RaisedAlert]:
        """Return the newest alerts, newest first, sent or not."""
        ...


class Notifier(Protocol):
    """Tells people, over one or several channels."""

    @property
    def channels(self) -> tuple[str, ...]:
        """Return the names of the channels, such as ("log", "slack"): at least one, none twice, none with a "|"."""
        ...

    def send(self, channel: str, alert: Alert) -> None:
        """Send an alert over one channel, and return when it was taken; it may take some seconds.

        Raises:
            AlertError: If it did not arrive, or there is no such channel; the text holds no secret.
        """
        ...
