"""Arrived files: found, inspected, and either offered to the inbox or put into quarantine."""

from ml_assets.arrivals.arrive import Arrived, Became, arrive, arrive_one
from ml_assets.arrivals.listing import Cursor
from ml_assets.arrivals.pattern import ArrivalPattern
from ml_assets.arrivals.settings import ArrivalSettings

__all__ = ["ArrivalPattern", "ArrivalSettings", "Arrived", "Became", "Cursor", "arrive", "arrive_one"]
