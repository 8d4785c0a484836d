"""The rows of an evaluation with every model's score, so that a decision can be made again by another policy.

Beside them a probe: the features of up to 1,000 rows with the candidate's scores, for serving it in a clean process;
and the evaluation's pictures, for the dossier.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import StoreError
from ml_assets.stages.rows import Rows
from ml_assets.stages.step import Services, Step
from ml_assets.training import prepare

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

ROWS, PROBE, PICTURES = "evaluation_rows", "evaluation_probe", "evaluation_pictures"
PROBE_ROWS = 1_000
_Y, _DAY, _SCORE, _SLICE, _EXPECTED = "y", "day", "score", "slice", "expected"


@dataclass(frozen=True, kw_only=True)
class ScoredRows:
    """What a comparison is made of.

    Attributes:
        y_true: Labels, shape (n,).
        days: Local day of each row, datetime64[D], shape (n,).
        scores: "candidate", "baseline" and, when it could be measured, "champion" → shape (n,) or (n, n_classes).
        columns: n rows of the columns to slice by.
        classes: For multiclass the label of each score column, else None.
    """

    y_true: NDArray[Any]
    days: NDArray[np.datetime64]
    scores: Mapping[str, NDArray[np.float64]]
    columns: "pd.DataFrame"
    classes: list[Any] | None


def store_rows(step: Step, scored: ScoredRows) -> str:
    """Write the scored rows of this step's partition and return their data version."""
    import pyarrow as pa

    columns: dict[str, Any] = {
        _DAY: pa.array(scored.days.astype("datetime64[D]")),
        _Y: pa.array(scored.y_true.tolist()) if scored.y_true.dtype == object else pa.array(scored.y_true),
    }
    for model, values in scored.scores.items():
        columns |= {f"{_SCORE}.{model}.{i}": pa.array(column) for i, column in enumerate(_columns(values))}
    for name in scored.columns:
        columns[f"{_SLICE}.{name}"] = pa.Array.from_pandas(scored.columns[name])
    return step.services.data_store.write(step.asset(ROWS), step.partition, pa.table(columns)).data_version


def read_rows(services: Services, asset: tuple[str, str], partition: str, document: Mapping[str, Any]) -> ScoredRows:
    """Return the scored rows that an evaluation's document refers to; raises StoreError when they are gone."""
    table = services.data_store.read(
        (*asset, ROWS), partition, data_version=_version(document, "rows", asset, partition)
    )
    by_model: dict[str, list[NDArray[np.float64]]] = {}
    slices: dict[str, Any] = {}
    frame = table.to_pandas()
    for name in table.column_names:
        kind, _, rest = name.partition(".")
        if kind == _SCORE:
            by_model.setdefault(rest.rpartition(".")[0], []).append(frame[name].to_numpy(dtype=np.float64))
        elif kind == _SLICE:
            slices[rest] = frame[name]
    import pandas as pd

    classes = document.get("classes")
    return ScoredRows(
        y_true=frame[_Y].to_numpy(),
        days=np.asarray(table[_DAY].to_numpy()).astype("datetime64[D]"),
        scores={m: np.column_stack(parts) if classes is not None else parts[0] for m, parts in by_model.items()},
        columns=pd.DataFrame(slices, index=frame.index),
        classes=classes,
    )


def store_probe(step: Step, rows: Rows, scores: NDArray[np.float64]) -> str:
    """Write features and candidate's scores of rows spread evenly over the period; return their data version."""
    import pyarrow as pa

    chosen = np.unique(np.linspace(0, len(rows.y) - 1, min(PROBE_ROWS, len(rows.y))).astype(int))
    features = prepare(rows.frame[list(step.spec.features.columns)].iloc[chosen])
    table = pa.Table.from_pandas(features, preserve_index=False)
    for i, column in enumerate(_columns(scores[chosen])):
        table = table.append_column(f"{_EXPECTED}.{i}", pa.array(column))
    return step.services.data_store.write(step.asset(PROBE), step.partition, table).data_version


def read_probe(
    services: Services, asset: tuple[str, str], partition: str, document: Mapping[str, Any]
) -> "tuple[pd.DataFrame, NDArray[np.float64]]":
    """Return features, shape (n, n_features), and evaluated scores, shape (n,) or (n, n_classes), of the probe."""
    version = _version(document, "probe", asset, partition)
    table: pa.Table = services.data_store.read((*asset, PROBE), partition, data_version=version)
    expected = [name for name in table.column_names if name.startswith(f"{_EXPECTED}.")]
    scores = np.column_stack([table[name].to_numpy() for name in expected])
    features = prepare(table.drop_columns(expected).to_pandas())
    return features, scores if document.get("classes") is not None else scores[:, 0]


def _version(document: Mapping[str, Any], what: str, asset: tuple[str, str], partition: str) -> str:
    """Return the data version that an evaluation refers to; raises StoreError when an older release wrote it."""
    if what not in document:
        raise StoreError(
            f"{'/'.join(asset)}/evaluation [{partition}] refers to no {what}: an older release wrote it. Materialize "
            "`candidate` and `evaluation` of the partition again."
        )
    return document[what]


def store_pictures(step: Step, evaluation: str, pictures: Mapping[str, bytes]) -> None:
    """Write an evaluation's pictures, name → PNG, under its data version: a dossier need not draw them again."""
    document = {name: base64.b64encode(png).decode() for name, png in sorted(pictures.items())}
    step.services.data_store.write_document(step.asset(PICTURES), step.partition, document, data_version=evaluation)


def read_pictures(step: Step, evaluation: str) -> dict[str, bytes]:
    """Return an evaluation's pictures, name → PNG; none when they are gone: a page without them is still a page."""
    try:
        document = step.services.data_store.read_document(step.asset(PICTURES), step.partition, data_version=evaluation)
    except StoreError:
        return {}
    return {name: base64.b64decode(text) for name, text in document.items()}


def _columns(values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the score columns of a model, each contiguous."""
    return [np.ascontiguousarray(column) for column in np.atleast_2d(values.T)]
