"""FakeAlerts, with the suite that every store of alerts passes."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime

from ml_assets.alert_rows import checked_alert, unknown_alert
from ml_assets.interfaces import Alert, PipelinePath, RaisedAlert
from ml_assets.testing.alerts_suite import AlertsSuite, alert
from ml_assets.texts import storable_text

__all__ = ["AlertsSuite", "FakeAlerts", "alert"]


class FakeAlerts:
    """Alerts in memory, oldest first in `raised`."""

    def __init__(self) -> None:
        self.raised: dict[str, RaisedAlert] = {}

    def raise_once(self, alert: Alert, *, now: datetime) -> bool:
        """Keep an alert to be sent; whether it is new.

        Raises:
            AlertError: If a text cannot be stored, or the key is empty.
        """
        checked_alert(alert)
        new = RaisedAlert(alert=alert, created_at=now, not_before=now)
        return self.raised.setdefault(alert.key, new) is new

    def pending(
        self,
        *,
        now: datetime,
        pipelines: Collection[PipelinePath] | None = None,
        channels: Collection[str] | None = None,
        limit: int = 100,
    ) -> list[RaisedAlert]:
        """Return the alerts that are to be sent now, oldest first; see `AlertStore.pending`."""
        due = [one for one in self.raised.values() if one.sent_at is None and one.not_before <= now]
        if pipelines is not None:
            due = [one for one in due if one.alert.pipeline in pipelines]
        if channels is not None:
            due = [one for one in due if one.alert.key.startswith(tuple(f"{name}|" for name in channels))]
        return due[:limit]

    def sent(self, key: str, *, now: datetime) -> None:
        """Say that an alert arrived; saying it again changes nothing.

        Raises:
            AlertError: If no alert of this key was raised.
        """
        if self._known(key).sent_at is None:
            self.raised[key] = replace(self.raised[key], sent_at=now)

    def failed(self, key: str, error: str, *, not_before: datetime) -> None:
        """Say that sending an alert failed, and put it off; one that arrived already stays so.

        Raises:
            AlertError: If no alert of this key was raised.
        """
        kept = self._known(key)
        if kept.sent_at is None:
            attempts, error = kept.attempts + 1, storable_text(error)
            self.raised[key] = replace(kept, attempts=attempts, last_error=error, not_before=not_before)

    def recent(self, limit: int = 100) -> list[RaisedAlert]:
        """Return the newest alerts, newest first, sent or not."""
        return list(reversed(self.raised.values()))[:limit]

    def _known(self, key: str) -> RaisedAlert:
        if key not in self.raised:
            raise unknown_alert(key)
        return self.raised[key]
