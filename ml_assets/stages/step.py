"""One execution of one stage for one partition: what it may use, what it read, and what it gives back."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ml_assets.approvals.waivers import live_waiver
from ml_assets.compute import Device, device_of
from ml_assets.errors import StoreError
from ml_assets.gates import (
    EXPECTATIONS,
    Judgement,
    expectations_version,
    require_open,
    select_thresholds,
    thresholds_version,
)
from ml_assets.interfaces import (
    AlertStore,
    AssetPath,
    CheckpointStore,
    DataStore,
    DossierStore,
    EffectivePolicy,
    Inbox,
    Ledger,
    Machine,
    ModelRegistry,
    Notifier,
    PipelinePath,
    PolicySource,
    ServingCheck,
    StepResources,
    StoredPartition,
    Studies,
    Validator,
    Verdict,
)
from ml_assets.periods import Periods, join_partition, split_partition
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.sources import LandingZone
from ml_assets.spec import PipelineSpec

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa


LAUNCHED_BY_TAG = "ml_assets/launched_by"
"""Run tag: who launched the run. A claim, like every tag: it can only keep people from approving, never let them."""


@dataclass(frozen=True, kw_only=True)
class Services:
    """The world as stages see it; field names are the Dagster resource keys."""

    data_store: DataStore
    ledger: Ledger
    model_registry: ModelRegistry
    validator: Validator
    policy: PolicySource
    landing: LandingZone
    serving_check: ServingCheck
    dossiers: DossierStore
    inbox: Inbox
    alerts: AlertStore
    notifier: Notifier
    checkpoints: CheckpointStore
    studies: Studies
    machine: Machine = field(default_factory=Machine)


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage made of one partition.

    Attributes:
        stored: The version it wrote.
        judgements: What its gates say of that version.
        policy_version: What they were judged by; empty when the stage has no gates.
        facts: Further facts for the asset's metadata: numbers, text, or JSON-ready values.
        pictures: Name → PNG.
        tables: Name → small frame to show.
        column_lineage: Column → (asset, column) pairs it was made of.
    """

    stored: StoredPartition
    judgements: tuple[Judgement, ...] = ()
    policy_version: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    tables: "Mapping[str, pd.DataFrame]" = field(default_factory=dict)
    column_lineage: Mapping[str, Sequence[tuple[AssetPath, str]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage at one partition.

    Attributes:
        pipeline: The pipeline's description, read and checked.
        services: The world.
        partition: Dagster's partition key.
        run_id: Dagster run, for the record.
        launched_by: Who launched the run; empty when nobody said.
        resources: What the step gets.
        started: Clock of `time.perf_counter` when it began.
        upstream: Filled as upstream partitions are read: "asset [partition]" → data version.
        waivers: Filled as closed gates are passed: "asset [partition] gate" → who let it pass, until when and why.
        notes: Filled with what a reader of the result should know, a sentence each.
    """

    pipeline: LoadedPipeline
    services: Services
    partition: str
    run_id: str
    launched_by: str = ""
    resources: StepResources = field(default_factory=StepResources)
    started: float = field(default_factory=time.perf_counter)
    upstream: dict[str, str] = field(default_factory=dict)
    waivers: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def spec(self) -> PipelineSpec:
        """Return the pipeline's description."""
        return self.pipeline.spec

    @property
    def path(self) -> PipelinePath:
        """Return (team, pipeline)."""
        return self.spec.team, self.spec.name

    @cached_property
    def policy(self) -> EffectivePolicy:
        """Return the policy as it is when this step first asks; one step decides by one policy."""
        return self.services.policy.effective(self.path)

    @property
    def device(self) -> Device:
        """Return what to compute on: "cuda" when the step asks for GPUs and its machine has as many, else "cpu"."""
        return device_of(self.resources, self.services.machine.gpus)

    @property
    def group(self) -> str | None:
        """Return the group of this partition, or None."""
        return split_partition(self.partition)[0]

    @property
    def time(self) -> str:
        """Return the time key of this partition."""
        return split_partition(self.partition)[1]

    @cached_property
    def periods(self) -> Periods:
        """Return the pipeline's time partitions."""
        return Periods.of(self.spec.partitions, self.spec.source.event_time.timezone)

    def asset(self, *stage: str) -> AssetPath:
        """Return the path of one of the pipeline's assets."""
        return (self.spec.team, self.spec.name, *stage)

    def group_partitions(self, time: str) -> list[str]:
        """Return the time × group partition keys of a period, in the order of the declared groups."""
        group = self.spec.partitions.group
        return [time] if group is None else [join_partition(value, time) for value in group.values]

    def describe(self, stage: Sequence[str], partition: str, data_version: str | None = None) -> StoredPartition:
        """Return an upstream partition's version after asking the ledger whether it may be used.

        Raises:
            StoreError: If it was never materialized.
            GateClosedError: If one of its gates is closed.
        """
        asset = self.asset(*stage)
        stored = self.services.data_store.describe(asset, partition, data_version=data_version)
        if stored is None:
            raise StoreError(
                f"{'/'.join(asset)} [{partition}] has not been materialized. Materialize it first, for example with "
                f"`ml-assets backfill {self.spec.team}/{self.spec.name} --from {split_partition(partition)[1]} "
                f"--to {split_partition(partition)[1]}`."
            )
        checks, policy_version = gates_of(self, stage[0])
        require_open(
            self.services.ledger,
            asset=asset,
            partition=partition,
            data_version=stored.data_version,
            policy_version=policy_version,
            checks=checks,
            waived=self.waived,
        )
        self.upstream[f"{'/'.join(asset)} [{partition}]"] = stored.data_version
        return stored

    def waived(self, verdict: Verdict) -> bool:
        """Whether a person lets a failed gate of this data version pass now, and may; noted for the decision."""
        waiver = live_waiver(
            verdict,
            self.services.ledger.records(self.path, kind="waiver"),
            self.policy,
            self.services.policy.people(),
            at=datetime.now(UTC),
            launched_by=launchers_of(self.services.ledger, verdict),
        )
        if waiver is None:
            return False
        self.waivers[f"{'/'.join(verdict.asset)} [{verdict.partition}] {verdict.check}"] = (
            f"{waiver.person} until {waiver.expires_at:%Y-%m-%d %H:%M} UTC: {waiver.reason}"
        )
        return True

    def read(
        self,
        stage: Sequence[str],
        partition: str,
        *,
        columns: Sequence[str] | None = None,
        data_version: str | None = None,
    ) -> "pa.Table":
        """Read an upstream table through its gate; see `describe` for what is raised."""
        stored = self.describe(stage, partition, data_version)
        return self.services.data_store.read(stored.asset, partition, columns=columns, data_version=stored.data_version)

    def read_document(self, stage: Sequence[str], partition: str) -> dict[str, Any]:
        """Read an upstream document through its gate; see `describe` for what is raised."""
        stored = self.describe(stage, partition)
        return self.services.data_store.read_document(stored.asset, partition, data_version=stored.data_version)


def launchers_of(ledger: Ledger, verdict: Verdict) -> list[str]:
    """Return who is known to have launched runs that led to a verdict: by decisions of its run or of its period."""
    path, time = (verdict.asset[0], verdict.asset[1]), split_partition(verdict.partition)[1]
    found = [
        name
        for decision in ledger.decisions(path)
        if decision.run_id == verdict.run_id or decision.partition == time
        for name in decision.launched_by
        if name
    ]
    return list(dict.fromkeys(found))


def gates_of(step: Step, stage: str) -> tuple[list[str], str]:
    """Return the checks that a stage's data version must pass, and the policy version they are judged by now."""
    if stage == "raw_data":
        return [EXPECTATIONS], expectations_version(step.pipeline.raw_data_expectations)
    if stage == "features":
        return [EXPECTATIONS], expectations_version(step.pipeline.features_expectations)
    if stage == "evaluation" and step.spec.gates:
        thresholds = select_thresholds(step.spec.gates, step.policy)
        return [t.name for t in thresholds], thresholds_version(thresholds)
    return [], ""
