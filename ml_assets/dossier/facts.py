"""What a dossier is made from: a decision, and the documents, verdicts and policy that stood behind it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_assets.evaluation_report import DOCUMENT_FORMAT, EvaluationReport
from ml_assets.interfaces import Decision, EffectivePolicy, Verdict
from ml_assets.spec import PipelineSpec


@dataclass(frozen=True, kw_only=True)
class SpecFacts:
    """What the pipeline's description says, for a reader who does not know the pipeline.

    Attributes:
        description: What it predicts and what for; may be empty.
        owners: "team:name" or e-mail addresses.
        business_unit: Unit that answers for the model.
        product: Product or process that uses the predictions.
        classification: Sensitivity of the data, such as "internal".
        regulations: Such as "GDPR"; empty when none applies.
        label: Column that is predicted.
        task: "binary", "multiclass" or "regression".
        unit: Of the label, such as "minutes"; empty when it has none.
        seed: Of everything random.
        training_window: Past periods learnt from: a number in words, or "expanding".
    """

    description: str
    owners: tuple[str, ...]
    business_unit: str
    product: str
    classification: str
    regulations: tuple[str, ...]
    label: str
    task: str
    unit: str
    seed: int
    training_window: str

    @classmethod
    def of(cls, spec: PipelineSpec) -> "SpecFacts":
        """Return the facts of a pipeline's description."""
        return cls(
            description=spec.description,
            owners=tuple(spec.owners),
            business_unit=spec.business.unit,
            product=spec.business.product,
            classification=spec.business.data_classification,
            regulations=tuple(spec.business.regulations),
            label=spec.label.column,
            task=spec.label.task,
            unit=spec.label.unit,
            seed=spec.training.seed,
            training_window=str(spec.training.window),
        )


@dataclass(frozen=True, kw_only=True)
class ChampionFacts:
    """The champion that a candidate was compared with, as of the decision that made it champion.

    Attributes:
        decision: The decision that promoted it.
        candidate: Its `candidate` document; empty when it is no longer there.
        evaluation: Its `evaluation` document, on the rows of its own period; empty when it is no longer there.
        upstream: What it was made from: asset [partition] → data version; empty when unknown.
        policy: What held when it was promoted; None when unknown.
    """

    decision: Decision
    candidate: Mapping[str, Any] = field(default_factory=dict)
    evaluation: Mapping[str, Any] = field(default_factory=dict)
    upstream: Mapping[str, str] = field(default_factory=dict)
    policy: EffectivePolicy | None = None


@dataclass(frozen=True, kw_only=True)
class DossierFacts:
    """Everything one dossier tells; equal facts give equal pages.

    Attributes:
        decision: The decision it is about. Of its evidence any part may be missing; the page then says so.
        spec: What the pipeline's description says.
        candidate: The `candidate` document; empty when there is none.
        evaluation: The `evaluation` document; empty when there is none.
        verdicts: Of the gates of raw data, features and evaluation of this partition, oldest first.
        policy: What holds for the pipeline.
        approvals: What people said: {"person", "action", "at", "reason", "counts": bool, "why"}.
        upstream: Asset [partition] → data version.
        champion: The champion it was compared with; None when there was none.
        pictures: Name, such as "roc" → PNG.
    """

    decision: Decision
    spec: SpecFacts
    candidate: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    verdicts: tuple[Verdict, ...]
    policy: EffectivePolicy
    approvals: tuple[Mapping[str, Any], ...] = ()
    upstream: Mapping[str, str] = field(default_factory=dict)
    champion: ChampionFacts | None = None
    pictures: Mapping[str, bytes] = field(default_factory=dict)


def report_of(evaluation: Mapping[str, Any]) -> EvaluationReport | None:
    """Return the report in an `evaluation` document, or None when it has none or one of another release's format."""
    report = evaluation.get("report")
    if not isinstance(report, Mapping) or report.get("format") != DOCUMENT_FORMAT:
        return None
    return EvaluationReport.from_document(report)


def evidence_of(decision: Decision, part: str) -> Mapping[str, Any]:
    """Return one part of a decision's evidence, such as "challenge"; empty when it was not recorded."""
    return decision.evidence.get(part) or {}
