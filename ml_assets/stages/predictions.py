"""The `predictions` stage: the scores that the champion in force when the period began gives its rows."""

from typing import TYPE_CHECKING

import numpy as np

from ml_assets.interfaces import Decision
from ml_assets.stages.champions import champion_before
from ml_assets.stages.features import EVENT_TIME, ROW_ID
from ml_assets.stages.step import StageResult, Step
from ml_assets.training import predict, trusted_types

if TYPE_CHECKING:
    import pyarrow as pa


class NoChampionYet(Exception):  # noqa: N818 - a state a step reports, not a failure
    """No model was promoted before this period; there is nothing to score with, and nothing is wrong."""


def run(step: Step) -> StageResult:
    """Score one partition.

    Raises:
        NoChampionYet: If no version was promoted before this period.
    """
    champion = champion_before(step.services.ledger.decisions((step.spec.team, step.spec.name)), step.time)
    if champion is None or champion.model_version is None:
        raise NoChampionYet(
            f"No version of {step.spec.team}/{step.spec.name} was promoted before {step.time}; [{step.partition}] "
            "is left without predictions. Materialize `promotion` of an earlier period first."
        )
    table = score(step, champion)
    stored = step.services.data_store.write(step.asset("predictions"), step.partition, table)
    if step.spec.scoring.url is not None:
        export(step.spec.scoring.url, step.partition, table)
    facts = {
        "model_name": champion.model_name,
        "model_version": champion.model_version,
        "promoted_by": champion.partition,
    }
    return StageResult(stored=stored, facts=facts)


def score(step: Step, champion: Decision) -> "pa.Table":
    """Return row id, event time, kept columns, scores and model version for every row of the partition."""
    import pyarrow as pa

    registry = step.services.model_registry
    version = registry.version(champion.model_name, champion.model_version or "")
    trusted = trusted_types(step.spec.variants.values())
    model = registry.load(version.model_uri, trusted_types=trusted)
    keep = list(step.spec.scoring.columns)
    columns = list(dict.fromkeys([ROW_ID, EVENT_TIME, *keep, *model.feature_names_in_]))
    table = step.read(("features",), step.partition, columns=columns)
    scores = predict(model, table.to_pandas(), task=step.spec.label.task)
    named = {"score": scores}
    if scores.ndim == 2:
        named = {f"score_{c}": np.ascontiguousarray(scores[:, i]) for i, c in enumerate(model.classes_)}
    out = table.select([ROW_ID, EVENT_TIME, *keep])
    for name, values in named.items():
        out = out.append_column(name, pa.array(values))
    return out.append_column("model_version", pa.array([version.version] * table.num_rows))


def export(url: str, partition: str, table: "pa.Table") -> None:
    """Write a partition's scores below an fsspec URL, under a temporary name first."""
    import fsspec
    import pyarrow.parquet as pq

    filesystem, folder = fsspec.core.url_to_fs(url)
    filesystem.makedirs(folder, exist_ok=True)
    target = f"{folder.rstrip('/')}/{partition.replace('|', '_')}.parquet"
    with filesystem.open(f"{target}.part", "wb") as file:
        pq.write_table(table, file)
    filesystem.mv(f"{target}.part", target)
