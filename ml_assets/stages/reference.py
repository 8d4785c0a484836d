"""What a champion's partitions are compared with: built once from its evaluation, and frozen with its version."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.digest import document_digest
from ml_assets.errors import EvaluationError, StoreError
from ml_assets.evaluation_report import EvaluationReport
from ml_assets.interfaces import Decision
from ml_assets.metrics import Floats, validated
from ml_assets.profiles.profile import Profile
from ml_assets.profiles.table import profile_table
from ml_assets.quality.importance import permutation_importance
from ml_assets.quality.reference import ALL_ROWS, DOCUMENT_FORMAT, Reference, ReferencePart, reference_part
from ml_assets.stages.scored_rows import PROBE_ROWS, ScoredRows, read_probe, read_rows
from ml_assets.stages.serving import serve
from ml_assets.stages.step import Step
from ml_assets.training import predict

__all__ = ["STAGE", "Reference", "ReferencePart", "reference_of"]

STAGE = "champion_reference"
CANDIDATE = "candidate"


def reference_of(step: Step, champion: Decision) -> Reference:
    """Return the reference of a champion; it is built and stored when nobody has asked for it yet.

    Everything is read by the data versions that the promotion was decided on, through no gate: it was open then, and
    what is expected of data today changes nothing about what the champion learnt from. So whoever builds it gets
    the same document.

    Args:
        step: The running step.
        champion: The believed promotion (`trust.trusted_champion`), with its model version.

    Raises:
        EvaluationError: If the rows of its evaluation are gone, or its candidate was replaced.
        UnservableError: If its model is gone, was changed, or scores otherwise than when it was promoted.
    """
    version = champion.model_version
    if version is None:
        raise EvaluationError(f"the decision on {champion.partition} has no model version; expected a promotion.")
    store, asset = step.services.data_store, step.asset(STAGE)
    if store.describe(asset, version) is not None:
        document = store.read_document(asset, version)
        # A registry that was made anew counts its versions from 1 again, and another release may have written it.
        own = {"format": DOCUMENT_FORMAT, "model_digest": champion.model_digest, "evaluation": champion.data_version}
        if all(document.get(key) == value for key, value in own.items()):
            return Reference.from_document(document)
    reference = build(step, champion, version)
    document = reference.document()
    store.write_document(asset, version, document, data_version=document_digest(document))
    return reference


def build(step: Step, champion: Decision, version: str) -> Reference:
    """Return a champion's reference from what is stored of its evaluation; see `reference_of`."""
    evaluation, rows = _evaluated(step, champion)
    task = step.spec.label.task
    report = EvaluationReport.from_document(evaluation["report"])
    y, score = validated(task, rows.y_true, rows.scores[CANDIDATE], rows.classes)
    classes = tuple(str(name) for name in rows.classes or ())

    def part(mask: NDArray[np.bool_]) -> ReferencePart:
        return reference_part(
            task=task, y=y[mask], score=score[mask], days=rows.days[mask], metrics=report.metrics, classes=classes
        )

    everything = np.ones(y.size, dtype=np.bool_)
    importance, metric = _importance(step, champion, evaluation, rows)
    return Reference(
        version=version,
        partition=champion.partition,
        model_digest=champion.model_digest,
        evaluation=champion.data_version,
        partitions=_trained_on(step, champion, evaluation),
        importance=importance,
        importance_metric=metric,
        scores=_profile(score, rows.days, classes),
        classes=classes,
        parts={ALL_ROWS: part(everything)} | {name: part(mask) for name, mask in _groups(step, rows).items()},
    )


def _evaluated(step: Step, champion: Decision) -> tuple[dict[str, Any], ScoredRows]:
    store = step.services.data_store
    try:
        evaluation = store.read_document(
            step.asset("evaluation"), champion.partition, data_version=champion.data_version
        )
        return evaluation, read_rows(step.services, step.path, champion.partition, evaluation)
    except StoreError as error:
        raise EvaluationError(
            f"What champion version {champion.model_version} was evaluated on is gone ({error}), so there is nothing "
            f"to compare later partitions with. Restore the data store's folders evaluation and evaluation_rows of "
            f"{champion.partition}, or materialize `evaluation` and `promotion` of a later period."
        ) from error


def _trained_on(step: Step, champion: Decision, evaluation: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    """Return the feature partitions and versions that the champion's candidate was made of.

    The evaluation's data version is bound to its candidate's predictions: that shows whether the candidate's
    document is still the one that was promoted.
    """
    candidate = step.services.data_store.read_document(step.asset(CANDIDATE), champion.partition)
    content = {key: value for key, value in evaluation.items() if key != CANDIDATE}
    if document_digest(content | {"prediction": candidate["prediction_digest"]}) != champion.data_version:
        raise EvaluationError(
            f"The candidate of {champion.partition} was materialized again after version {champion.model_version} was "
            "promoted, with another result: what the champion was trained on is not known any more. Materialize "
            f"`evaluation` and `promotion` of {champion.partition}, so that they follow the candidate."
        )
    prefix = f"{'/'.join(step.asset('features'))} ["
    return tuple(
        sorted((name.removeprefix(prefix).removesuffix("]"), digest) for name, digest in candidate["inputs"].items())
    )


def _importance(
    step: Step, champion: Decision, evaluation: Mapping[str, Any], rows: ScoredRows
) -> tuple[dict[str, float], str]:
    """Return the importance of the champion's features on its probe: the evaluated rows whose features were kept."""
    model, task = serve(step, champion).model, step.spec.label.task
    features, _ = read_probe(step.services, step.path, champion.partition, evaluation)
    n_rows = len(rows.y_true)
    chosen = np.unique(np.linspace(0, n_rows - 1, min(PROBE_ROWS, n_rows)).astype(int))
    return permutation_importance(
        features[list(model.feature_names_in_)],
        rows.y_true[chosen],
        score=lambda frame: predict(model, frame, task=task),
        task=task,
        metric=step.spec.selection.metric,
        classes=rows.classes,
    )


def _profile(score: Floats, days: NDArray[np.datetime64], classes: tuple[str, ...]) -> Profile:
    import pyarrow as pa

    names = [f"score_{name}" for name in classes] or ["score"]
    columns = [np.ascontiguousarray(column) for column in np.atleast_2d(score.T)]
    table = pa.table({name: pa.array(column) for name, column in zip(names, columns, strict=True)})
    return profile_table(table, names, days)


def _groups(step: Step, rows: ScoredRows) -> dict[str, NDArray[np.bool_]]:
    """Return group → mask of its rows, for the declared groups that the evaluation had rows of."""
    group = step.spec.partitions.group
    if group is None or group.column not in rows.columns:
        return {}
    values = rows.columns[group.column].astype(str).to_numpy()
    masks = {value: values == value for value in group.values}
    return {value: mask for value, mask in masks.items() if mask.any()}
