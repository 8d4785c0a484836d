"""The one metadata schema that every asset records, as Dagster metadata; version it when a key changes its meaning.

Every materialization carries the `ml_assets/…` keys below; tables also Dagster's own `dagster/row_count`,
`dagster/column_schema` and `dagster/column_lineage`. Facts of a stage (a window, a model's version) are plain keys.
"""

import base64
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

from ml_assets.gates import Judgement
from ml_assets.stages.step import StageResult, Step

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
LONGEST_TABLE = 50


def asset_metadata(
    step: Step, result: StageResult, *, code_version: str, duration_seconds: float
) -> dict[str, dg.MetadataValue]:
    """Return a materialization's metadata: what a reader looks for first, then what a program looks up.

    Args:
        step: The finished step, with the upstream versions it read.
        result: What it made.
        code_version: The asset's code version.
        duration_seconds: Wall time of the stage.
    """
    stored, spec = result.stored, step.spec
    common: dict[str, dg.MetadataValue] = {
        "ml_assets/metadata_version": dg.MetadataValue.int(SCHEMA_VERSION),
        "ml_assets/data_version": dg.MetadataValue.text(stored.data_version),
        "ml_assets/upstream_data_versions": dg.MetadataValue.json(dict(sorted(step.upstream.items()))),
        "ml_assets/code_version": dg.MetadataValue.text(code_version),
        "ml_assets/policy_version": dg.MetadataValue.text(result.policy_version or "none"),
        "ml_assets/seed": dg.MetadataValue.int(spec.training.seed),
        "ml_assets/duration_seconds": dg.MetadataValue.float(round(duration_seconds, 3)),
        "ml_assets/size_bytes": dg.MetadataValue.int(stored.n_bytes),
        "ml_assets/location": dg.MetadataValue.path(stored.url),
        "ml_assets/owners": dg.MetadataValue.json(list(spec.owners)),
        "ml_assets/business": dg.MetadataValue.json(spec.business.model_dump(mode="json")),
    }
    return (
        {key: _link(value) if key == "dossier" else _value(value) for key, value in result.facts.items()}
        | {f"picture/{key}": picture(data, key) for key, data in result.pictures.items()}
        | {f"table/{key}": dg.MetadataValue.md(markdown_table(frame)) for key, frame in result.tables.items()}
        | _table_metadata(step, result)
        | common
    )


def check_metadata(judgement: Judgement) -> dict[str, dg.MetadataValue]:
    """Return what a check result shows: what failed, and its evidence as numbers so that the UI can plot them."""
    tables = {name: dg.MetadataValue.md(markdown_table(frame)) for name, frame in judgement.tables.items()}
    return tables | {key: _value(value) for key, value in judgement.evidence.items()}


def picture(png: bytes, name: str) -> dg.MetadataValue:
    """Return a PNG as Markdown, the form in which the Dagster UI shows pictures."""
    return dg.MetadataValue.md(f"![{name}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})")


def markdown_table(frame: "pd.DataFrame") -> str:
    """Return a small frame as a Markdown table; numbers with four significant digits, long frames cut and counted.

    What is missing is a dash: a cell that is None or no number.
    """
    head = [str(c) for c in frame.columns]
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(' --- ' for _ in head)}|"]
    lines += [
        f"| {' | '.join(_cell(v) for v in row)} |"
        for row in frame.head(LONGEST_TABLE).itertuples(index=False, name=None)
    ]
    if len(frame) > LONGEST_TABLE:
        lines.append(f"\n{len(frame) - LONGEST_TABLE} more rows")
    return "\n".join(lines)


def _table_metadata(step: Step, result: StageResult) -> dict[str, Any]:
    stored = result.stored
    if not stored.columns:
        return {}
    found: dict[str, Any] = {
        "dagster/row_count": dg.MetadataValue.int(stored.n_rows),
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(name=name, type=kind, description=_description(step, name))
                for name, kind in stored.columns
            ]
        ),
    }
    if result.column_lineage:
        found["dagster/column_lineage"] = dg.TableColumnLineage(
            deps_by_column={
                column: [
                    dg.TableColumnDep(asset_key=dg.AssetKey(list(asset)), column_name=name) for asset, name in deps
                ]
                for column, deps in result.column_lineage.items()
            }
        )
    return found


def _description(step: Step, column: str) -> str | None:
    """Return what a column means, as its function's docstring or its declaration in the YAML says."""
    function = step.pipeline.features.functions.get(column)
    if function is not None:
        return function.description or None
    declared = step.spec.source.columns.get(column)
    if declared is None:
        return None
    unit = f"[{declared.unit}]" if declared.unit else ""
    return " ".join(filter(None, [declared.description, unit])) or None


def _link(address: str) -> dg.MetadataValue:
    """Return an address as a link that the UI can open, or as a path to copy."""
    return dg.MetadataValue.url(address) if "://" in address else dg.MetadataValue.path(address)


def _value(value: Any) -> dg.MetadataValue:
    if isinstance(value, bool):
        return dg.MetadataValue.bool(value)
    if isinstance(value, int):
        return dg.MetadataValue.int(value)
    if isinstance(value, float):
        return dg.MetadataValue.float(float(f"{value:.6g}"))  # read and plotted; the stored document has all digits
    if isinstance(value, Mapping | list):
        return dg.MetadataValue.json(value)  # pyright: ignore[reportArgumentType]
    return dg.MetadataValue.text(str(value))


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
