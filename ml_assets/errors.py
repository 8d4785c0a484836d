"""The errors of ml_assets: one tree, each with the facts as attributes and the next step in its message.

MlAssetsError
├── SpecError                  a pipeline's YAML (or Python) description is wrong; holds every problem found
├── FeatureError               a feature function broke its contract (rows, dtype, or it raised)
├── SourceError                an arrived file is missing or does not match the declared source
├── StoreError                 the data store has no such partition, or a stored file is damaged
├── GateClosedError            an upstream data version has no passing verdict
├── SplitError                 a training window cannot be built from the periods there are
├── EvaluationError            a metric or comparison is not defined on these rows
├── PolicyError                a policy file is wrong, or lacks a threshold that a pipeline names
├── RegistryError              the model registry has no such model, or refuses to load it
│   └── RegistryUnavailableError  the registry or its file store did not answer; nothing is known of the model
├── ApprovalError              a signed statement is forged, expired, void, or not this person's to give
├── TrainingError              an estimator cannot be made or fitted
├── TrainingPruned             whoever watched a training stopped it; no failure
├── StudyError                 a hyperparameter search cannot be kept, or found nothing
│   └── StudyLostError         another process leads the search now
├── InboxError                 an event cannot be taken up, or is not in the state that was asked for
├── AlertError                 an alert cannot be kept, or was never raised
├── QueueRefusedError          a run is not queued: its team's budget is spent, or it could never start
└── LedgerError                the ledger cannot be opened, or holds another schema
    └── LedgerConflictError    another record came in between; read again and decide again
"""

from collections.abc import Sequence
from dataclasses import dataclass


class MlAssetsError(Exception):
    """Any failure that ml_assets explains; catch this to catch them all."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One thing that is wrong in a file a person wrote.

    Attributes:
        file: Path as the reader would open it.
        line: 1-based line, 0 when the file as a whole is meant.
        field: Dotted path of the field, such as `training.window`; empty for the whole file.
        found: What stands there, already in words.
        expected: What would be right, already in words.
        hint: The next step or a "did you mean", or empty.
    """

    file: str
    line: int
    field: str
    found: str
    expected: str
    hint: str = ""

    def __str__(self) -> str:
        """Render as `file:line: field: found; expected …`, with the hint on a line of its own."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        subject = f"{self.field}: " if self.field else ""
        text = f"{place}: {subject}{self.found}; expected {self.expected}"
        return f"{text}\n    hint: {self.hint}" if self.hint else text


class SpecError(MlAssetsError):
    """A pipeline's description has problems; all of them are told at once, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda p: (p.file, p.line, p.field)))
        count = len(self.problems)
        head = f"{count} problem{'s' if count != 1 else ''} in the pipeline's description:"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]))


class FeatureError(MlAssetsError):
    """A feature function broke its contract; `feature` names it."""

    def __init__(self, feature: str, message: str) -> None:
        self.feature = feature
        super().__init__(message)


class SourceError(MlAssetsError):
    """An arrived file is missing, unreadable or does not match the declared source."""


class StoreError(MlAssetsError):
    """The data store lacks a partition or version, or a stored file is damaged."""


class GateClosedError(MlAssetsError):
    """An upstream data version may not be used: a gate failed on it, or none was evaluated."""

    def __init__(self, asset: tuple[str, ...], partition: str, data_version: str, message: str) -> None:
        self.asset, self.partition, self.data_version = asset, partition, data_version
        super().__init__(message)


class SplitError(MlAssetsError):
    """A training window has too few periods or rows, or mixes time."""


class EvaluationError(MlAssetsError):
    """A metric or a comparison is not defined on the given rows."""


class PolicyError(MlAssetsError):
    """A policy file is wrong, or a threshold that a pipeline names does not exist."""


class RegistryError(MlAssetsError):
    """The model registry lacks a model or version, or refuses to load it."""


class RegistryUnavailableError(RegistryError):
    """The registry or its file store did not answer: nothing is known of the model, and trying again may help."""


class LedgerError(MlAssetsError):
    """The ledger cannot be opened or holds a schema of another release."""


class LedgerConflictError(LedgerError):
    """Another record was appended since the caller looked; nothing was recorded."""


class TrainingError(MlAssetsError):
    """An estimator cannot be made or fitted."""


class TrainingPruned(MlAssetsError):  # noqa: N818 - whoever stops a training means it
    """Whoever watched a training stopped it after `step` rounds or epochs."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(f"the training was stopped after {step} rounds, as whoever watched it asked")


class StudyError(MlAssetsError):
    """A hyperparameter search cannot be kept, or too many of its trials failed."""


class StudyLostError(StudyError):
    """Another process leads the search now: this one was silent for too long."""


class InboxError(MlAssetsError):
    """An event cannot be taken up, or is not in the state that was asked for."""


class AlertError(MlAssetsError):
    """An alert cannot be kept, or was never raised."""


class QueueRefusedError(MlAssetsError):
    """A run is not queued: its team's budget is spent, or it asks for more than it can ever get."""


class LeftoverError(MlAssetsError):
    """Something that nobody needs could not be removed now; a later try may do it."""


class ApprovalError(MlAssetsError):
    """A signed statement cannot count: `reason` is one word for programs, such as "forged" or "expired"."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)
