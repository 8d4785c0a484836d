"""What the arrivals sensor remembers between its ticks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

import dagster as dg
from pydantic import TypeAdapter

from ml_assets.delivery.tags import SENSOR


@dataclass(frozen=True, kw_only=True)
class Cursor:
    """What the sensor remembers between ticks.

    Without it all files are looked at once more, and none is lost or doubled. What was materialized upstream since
    the last tick is then not taken up: a first look takes up nothing of the past.

    Attributes:
        landing: Pipeline → cursor of its landing folder, as text.
        upstream: Pipeline and asset → storage id of the last materialization that was looked at.
        monitored: Batches whose scoring was asked for; they end at the next tick.
        mark: Mark of the inbox at which no event of this location ran, or could have; empty otherwise.
        wake: Seconds since the epoch from which one that waits may be ready, or is looked at again; 0 when none waits.
        turn: Which pipeline is looked at first.
        ledger: Mark of the ledger at which nothing was left to score; empty otherwise.
        decided: Pipeline → last decision at which nothing of it was left to score.
    """

    landing: Mapping[str, str] = field(default_factory=dict)
    upstream: Mapping[str, int] = field(default_factory=dict)
    monitored: tuple[str, ...] = ()
    mark: str = ""
    wake: float = 0.0
    turn: int = 0
    ledger: str = ""
    decided: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, text: str | None) -> Self:
        """Return the cursor that `text` wrote; an empty one for None.

        Raises:
            ValueError: If it is no cursor.
        """
        return TypeAdapter(cls).validate_json(text or "{}", strict=True)

    @property
    def text(self) -> str:
        """Return it as JSON."""
        return json.dumps(vars(self), separators=(",", ":"), sort_keys=True, default=dict)


def read_cursor(context: dg.SensorEvaluationContext) -> Cursor:
    """Return what the last tick left; an empty cursor, with a line in the log, when it cannot be read."""
    try:
        return Cursor.of(context.cursor)
    except ValueError:
        context.log.warning(
            f"The cursor of the sensor {SENSOR} cannot be read, and was replaced: all files are looked at once more. "
            "What was materialized upstream since the last tick is not taken up; materialize it again, or the "
            f"partitions that wait for it. It began with {(context.cursor or '')[:80]!r}."
        )
        return Cursor()
