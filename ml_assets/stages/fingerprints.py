"""What a model is made of, as a document that decisions record and compare."""

from typing import Any

from ml_assets.spec import VariantSpec
from ml_assets.stages.step import Step


def fingerprint(step: Step, variant: VariantSpec) -> dict[str, Any]:
    """Return what a model of this pipeline, fitted now with this variant, is made of; see `material.Fingerprint`."""
    spec, used = step.spec, step.pipeline.used_columns
    sources = {"partitions": spec.source.url} | {name: side.url for name, side in spec.source.side_tables.items()}
    columns = {name: column.type for name, column in spec.source.columns.items() if name in used}
    for table, side in spec.source.side_tables.items():
        columns |= {f"{table}_{n}": c.type for n, c in side.columns.items() if f"{table}_{n}" in used}
    function = next((f for f in step.pipeline.train_functions.values() if f.path == variant.train), None)
    trained = {} if function is None else {"train": f"{function.path} ({function.digest[:12]})"}
    return trained | {
        "sources": sources,
        "columns": dict(sorted(columns.items())),
        "features": list(spec.features.columns),
        "estimator": variant.estimator,
        "preprocessing": variant.preprocessing.model_dump(mode="json"),
        "params": {name: str(value) for name, value in sorted(variant.params.items())},
        "feature_code": step.pipeline.features.digest,
        "classification": spec.business.data_classification,
        "label": spec.label.column,
    }
