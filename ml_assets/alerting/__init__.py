"""Alerts: what people must be told, found in the rows of ledger and inbox, and sent once over each channel."""

from ml_assets.alerting.looking import Cursor, Place, Sources, look
from ml_assets.alerting.quarantines import look_at_quarantines
from ml_assets.alerting.raising import freshness_missed
from ml_assets.alerting.sending import MOST_SENT, keep, send_pending

__all__ = [
    "MOST_SENT",
    "Cursor",
    "Place",
    "Sources",
    "freshness_missed",
    "keep",
    "look",
    "look_at_quarantines",
    "send_pending",
]
