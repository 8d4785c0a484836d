"""The words that all interfaces share."""

from typing import Literal

AssetPath = tuple[str, ...]
"""Segments of an asset key, such as ("flights", "arrival_delay", "raw_data")."""

PipelinePath = tuple[str, str]
"""(team, pipeline)."""

Severity = Literal["error", "warning"]
GateOutcome = Literal["passed", "failed"]
