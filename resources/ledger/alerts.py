"""SqlAlerts: alerts in the ledger's database, raised once and kept until they were sent."""

from collections.abc import Collection
from datetime import datetime

from ml_assets.alert_rows import checked_alert, unknown_alert
from ml_assets.interfaces.alerts import Alert, RaisedAlert
from ml_assets.interfaces.names import PipelinePath
from ml_assets.texts import storable_text
from resources.ledger.database import SqlStore

_LOCK = "alerts"


class SqlAlerts(SqlStore):
    """An `AlertStore` beside the ledger; made and shared as every `SqlStore`."""

    def raise_once(self, alert: Alert, *, now: datetime) -> bool:
        """Keep an alert to be sent; whether it is new.

        Raises:
            AlertError: If a text cannot be stored, or the key is empty.
        """
        checked_alert(alert)
        with self._database.writing("Raising an alert", [_LOCK]) as connection:
            from resources.ledger.alert_statements import insert_alert

            return insert_alert(connection, alert, now)

    def pending(
        self,
        *,
        now: datetime,
        pipelines: Collection[PipelinePath] | None = None,
        channels: Collection[str] | None = None,
        limit: int = 100,
    ) -> list[RaisedAlert]:
        """Return the alerts that are to be sent now, oldest first; see `AlertStore.pending`."""
        with self._database.reading("Reading alerts") as connection:
            from resources.ledger.alert_statements import read_pending

            return read_pending(connection, now, pipelines, channels, limit)

    def sent(self, key: str, *, now: datetime) -> None:
        """Say that an alert arrived; saying it again changes nothing.

        Raises:
            AlertError: If no alert of this key was raised.
        """
        with self._database.writing("Recording that an alert arrived", [_LOCK]) as connection:
            from resources.ledger.alert_statements import mark_sent

            if not mark_sent(connection, key, now):
                raise unknown_alert(key)

    def failed(self, key: str, error: str, *, not_before: datetime) -> None:
        """Say that sending an alert failed, and put it off; one that arrived already stays so.

        Raises:
            AlertError: If no alert of this key was raised.
        """
        with self._database.writing("Recording that an alert failed", [_LOCK]) as connection:
            from resources.ledger.alert_statements import mark_failed

            if not mark_failed(connection, key, storable_text(error), not_before):
                raise unknown_alert(key)

    def recent(self, limit: int = 100) -> list[RaisedAlert]:
        """Return the newest alerts, newest first, sent or not."""
        with self._database.reading("Reading alerts") as connection:
            from resources.ledger.alert_statements import read_recent

            return read_recent(connection, limit)
