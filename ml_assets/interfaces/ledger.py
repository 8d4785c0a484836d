"""What is asked of the ledger: append-only, hash-chained verdicts, decisions and signed records."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol

from ml_assets.interfaces.names import AssetPath, GateOutcome, PipelinePath, Severity

DecisionOutcome = Literal["promoted", "kept", "undecided", "refused", "awaiting_approval", "rejected", "rolled_back"]
RecordKind = Literal["approval", "rejection", "waiver", "alias", "incident", "automation", "pause"]

NO_HASH = "0" * 64
"""The hash before the first row of a stream."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What one gate said of one data version under one policy version.

    Attributes:
        asset: The asset's path.
        partition: Dagster's partition key.
        data_version: The version that was judged.
        policy_version: Digest of the thresholds and expectations that were applied.
        check: Name of the gate, such as "expectations" or "roc_auc.floor".
        outcome: "passed" or "failed".
        severity: Only a failed "error" closes the gate.
        reason: One sentence with the measured value and the threshold.
        run_id: Dagster run that judged.
        evidence: JSON-ready numbers behind the sentence.
        policy_digest: Digest of the whole effective policy at that time.
        recorded_at: Time zone aware, UTC; set by the ledger when None.
    """

    asset: AssetPath
    partition: str
    data_version: str
    policy_version: str
    check: str
    outcome: GateOutcome
    severity: Severity
    reason: str
    run_id: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    policy_digest: str = ""
    recorded_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided of one candidate; a later decision on the same partition supersedes an earlier one.

    Outcomes: "promoted"; "kept" (the champion stays), "undecided" (more rows are needed), "refused" (by a gate or
    the serving check), "awaiting_approval" (passed, but materially different), "rejected" (by a person),
    "rolled_back" (was champion, and is no longer).

    Attributes:
        pipeline: (team, pipeline).
        partition: Time partition of the candidate.
        outcome: See above.
        reason: One sentence for a reader.
        model_name: Registered model's name.
        model_version: Registered version of the candidate, or None when it was not registered.
        champion_version: Version that was champion before, or None.
        data_version: Data version of the evaluation that was judged.
        policy_version: Digest of the policy that was applied.
        run_id: Dagster run that decided.
        evidence: JSON-ready numbers behind the sentence.
        model_digest: SHA-256 of the stored model's bytes, or empty when none was registered.
        evaluation_digest: SHA-256 of the evaluation's document.
        policy_digest: Digest of the whole effective policy.
        decided_by: "pipeline"; or who did: people by name, "predictions" (an automatic rollback), "expiry" or
            "supersession" (a request that was closed).
        launched_by: Everybody who launched a run that led here; empty names are unknown launchers.
        recorded_at: Time zone aware, UTC; set by the ledger when None.
    """

    pipeline: PipelinePath
    partition: str
    outcome: DecisionOutcome
    reason: str
    model_name: str
    model_version: str | None
    champion_version: str | None
    data_version: str
    policy_version: str
    run_id: str
    evidence: Mapping[str, Any] = field(default_factory=dict)
    model_digest: str = ""
    evaluation_digest: str = ""
    policy_digest: str = ""
    decided_by: str = "pipeline"
    launched_by: tuple[str, ...] = ()
    recorded_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """Anything else that the story of a pipeline needs: approvals, waivers, alias moves, pauses.

    Attributes:
        pipeline: (team, pipeline); "*" for the pipeline, or for both, where a pause holds for all of them.
        kind: See `RecordKind`.
        subject: What it is about: a digest, or an alias' name.
        body: JSON-ready content.
        stream: Stream that it stands in; set by the ledger.
        previous_hash: Hash of the record before in its stream; set by the ledger.
        row_hash: Hash of this record and the one before; set by the ledger.
        recorded_at: Time zone aware, UTC; set by the ledger when None.
    """

    pipeline: PipelinePath
    kind: RecordKind
    subject: str
    body: Mapping[str, Any]
    stream: str = ""
    previous_hash: str = ""
    row_hash: str = ""
    recorded_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ChainHead:
    """The last row of one stream: its position counted from 1, and its hash."""

    position: int
    row_hash: str


@dataclass(frozen=True, kw_only=True)
class ChainProblem:
    """One row that is not what was recorded.

    Attributes:
        stream: Such as "decisions/flights/arrival_delay".
        position: Position of the row in the stream, from 1.
        problem: One sentence: changed, removed, reordered, inserted, or cut off.
    """

    stream: str
    position: int
    problem: str


class LedgerView(Protocol):
    """What can be read and appended; the ledger itself, or one exclusive transaction of it.

    Every row belongs to a stream: "verdicts/<team>/<pipeline>", "decisions/<team>/<pipeline>",
    "automation/<team>/<pipeline>" (records of kind "automation" and "pause") or "records/<team>/<pipeline>" (all other
    records). A verdict's pipeline is the first two segments of its asset. Each row carries the hash of the row before
    it in its stream, so what people sign for the end of "records" stays valid while automation records something.
    """

    def record_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Append all of them in one transaction."""
        ...

    def verdicts(
        self,
        asset: AssetPath,
        partition: str | None = None,
        *,
        data_version: str | None = None,
        policy_version: str | None = None,
    ) -> list[Verdict]:
        """Return the matching verdicts, oldest first; None matches all."""
        ...

    def record_decision(self, decision: Decision) -> None:
        """Append one decision."""
        ...

    def decisions(self, pipeline: PipelinePath) -> list[Decision]:
        """Return the pipeline's decisions, oldest first."""
        ...

    def append(self, record: Record, *, after: str | None = None) -> Record:
        """Append one record and return it with its hashes.

        Args:
            record: What to record; its stream and hashes are ignored.
            after: Hash that the last record of the same stream must still have (`NO_HASH` when there is none).

        Raises:
            LedgerConflictError: If another record of the stream came in between.
        """
        ...

    def records(
        self, pipeline: PipelinePath, *, kind: RecordKind | None = None, subject: str | None = None
    ) -> list[Record]:
        """Return the pipeline's matching records of both streams in the order of recording; None matches all."""
        ...

    def heads(self, pipeline: PipelinePath | None = None) -> dict[str, ChainHead]:
        """Return the last row of every stream (of one pipeline) that has any, by the stream's name."""
        ...

    def mark(self) -> str:
        """Return a text that changes whenever anything is appended; cheap however long the ledger is."""
        ...


class Ledger(LedgerView, Protocol):
    """The append-only record of verdicts, decisions and everything signed."""

    def exclusive(self, pipeline: PipelinePath) -> AbstractContextManager[LedgerView]:
        """Enter one transaction that no other process' exclusive or write of this pipeline overlaps.

        What is read in it stays true until it ends; what is appended in it is committed when the block ends, and
        not at all when the block raises or the process dies.
        """
        ...

    def hash_at(self, stream: str, position: int) -> str | None:
        """Return the hash of the row at a position of a stream, or None when there is none."""
        ...

    def verify(self, pipeline: PipelinePath | None = None) -> list[ChainProblem]:
        """Walk the chains (of one pipeline) and return every row that was changed, removed, reordered or inserted."""
        ...
