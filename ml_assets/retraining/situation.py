"""What a decision about retraining rests on, as one frozen value."""

from dataclasses import dataclass, field
from datetime import datetime

from ml_assets.interfaces import PipelinePath
from ml_assets.retraining.attempts import History
from ml_assets.retraining.pauses import Pause


@dataclass(frozen=True, kw_only=True)
class Period:
    """The newest period whose data are complete: every group has features, and no gate of theirs is closed.

    Attributes:
        key: Its time partition; a model for it learns from the periods before it and is evaluated on its rows.
        inputs: Digest of the data versions that such a model would read.
        window: Periods that it learns from, oldest first; empty for the very first period.
        unindexed: Those of them that have no row index yet.
        labels: Labelled rows of the period that are known now.
        labels_known_at: When the last of its labels is known (UTC); None when it has no labelled row.
        new_labels: Labelled rows that the model would learn from and the newest one could not.
        waiting: Events of the period that no run has finished.
        dead: Dead letters of the period.
    """

    key: str
    inputs: str
    window: tuple[str, ...]
    unindexed: tuple[str, ...] = ()
    labels: int
    labels_known_at: datetime | None
    new_labels: int
    waiting: int = 0
    dead: int = 0


@dataclass(frozen=True, kw_only=True)
class Training:
    """The newest training that was decided on, whoever started it.

    Attributes:
        period: Its time partition.
        outcome: What became of its candidate.
        at: When that was first decided (UTC).
    """

    period: str
    outcome: str
    at: datetime


@dataclass(frozen=True, kw_only=True)
class Watched:
    """What a monitoring stage says of one partition.

    Attributes:
        partition: Such as "EWR|2013-09".
        verdict: "stable", "suspected" or "drift"; or "fine", "suspected", "decayed" or "unknown".
        words: What it found, in half a sentence.
        evidence: The document's data version.
    """

    partition: str
    verdict: str
    words: str
    evidence: str


@dataclass(frozen=True, kw_only=True)
class Situation:
    """One pipeline at one moment.

    Attributes:
        pipeline: (team, pipeline).
        enabled: Whether its YAML says automation.retraining.
        pause: What keeps it from starting anything; None when nothing does.
        period: The newest complete period, or None.
        incomplete: Why each newer period (or every one) is not complete, a sentence each.
        training: The newest decided training, or None.
        drift: What the drift stage says of the newest watched period, a partition each.
        performance: The same of the performance stage.
        history: What automation recorded.
    """

    pipeline: PipelinePath
    enabled: bool
    pause: Pause | None = None
    period: Period | None = None
    incomplete: tuple[str, ...] = ()
    training: Training | None = None
    drift: tuple[Watched, ...] = ()
    performance: tuple[Watched, ...] = ()
    history: History = field(default_factory=History)

    @property
    def name(self) -> str:
        """Return the pipeline's name for readers."""
        return "/".join(self.pipeline)
