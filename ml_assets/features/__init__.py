"""Feature functions: their module, their graph, and the windows and joins they are written with."""

from ml_assets.features.marks import reads_past
from ml_assets.features.windows import group_aggregate, lag, last_known, rolling

__all__ = ["group_aggregate", "lag", "last_known", "reads_past", "rolling"]
