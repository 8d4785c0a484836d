"""Profiles of stored feature and prediction partitions: written with the rows, made again from them when missing."""

from typing import TYPE_CHECKING, Literal

from ml_assets.errors import StoreError
from ml_assets.interfaces import AssetPath, DataStore, PipelinePath, StoredPartition
from ml_assets.profiles.document import from_document, to_document
from ml_assets.profiles.profile import Profile
from ml_assets.profiles.table import can_profile, profile_table
from ml_assets.stages.columns import EVENT_TIME, RESERVED, local_days
from ml_assets.stages.step import Step

if TYPE_CHECKING:
    import pyarrow as pa

ProfiledStage = Literal["features", "predictions"]


def write_profile(step: Step, stage: ProfiledStage, stored: StoredPartition, table: "pa.Table") -> Profile:
    """Store the profile of rows that were just stored, under the same data version, and return it.

    Doing it again changes nothing. A process killed before it leaves rows without a profile: `read_profile` then
    makes it.

    Args:
        step: The running step.
        stage: Which stage's rows they are.
        stored: What the data store said of them.
        table: The rows, with their event time.
    """
    timezone = step.periods.timezone
    profile = profile_rows(table, stage, timezone=timezone)
    _store(step.services.data_store, profile_asset(step.path, stage), stored, profile, timezone)
    return profile


def read_profile(
    data_store: DataStore,
    path: PipelinePath,
    stage: ProfiledStage,
    partition: str,
    data_version: str,
    *,
    timezone: str,
) -> Profile:
    """Return the profile of one version of a partition; a missing or damaged one is made from the rows and stored.

    No gate is asked: who compares partitions that may not be used looks at the gate first.

    Args:
        data_store: Where rows and profiles are.
        path: (team, pipeline).
        stage: Whose rows are meant.
        partition: Dagster's partition key.
        data_version: Of the rows; the profile has the same.
        timezone: The pipeline's, which tells the local day of a row.

    Raises:
        StoreError: If there are no such rows either.
    """
    asset = profile_asset(path, stage)
    profile = _stored_profile(data_store, asset, partition, data_version, timezone)
    if profile is not None:
        return profile
    # The rows are the truth and the profile follows from them. When the store does not answer, they say so.
    stored = data_store.describe((*path, stage), partition, data_version=data_version)
    if stored is None:
        raise StoreError(
            f"{'/'.join((*path, stage))} [{partition}] has no version {data_version}, and so it has no profile; "
            "expected the data version of a stored partition. Materialize the partition first"
        )
    names = [name for name, _ in stored.columns]
    wanted = [EVENT_TIME, *(name for name in names if _is_profiled(stage, name))]
    table = data_store.read(stored.asset, partition, columns=wanted, data_version=data_version)
    profile = profile_rows(table, stage, timezone=timezone)
    _store(data_store, asset, stored, profile, timezone)
    return profile


def profile_asset(path: PipelinePath, stage: ProfiledStage) -> AssetPath:
    """Return where the data store keeps the profiles of a stage."""
    return (*path, "profiles", stage)


def profile_rows(table: "pa.Table", stage: ProfiledStage, *, timezone: str) -> Profile:
    """Return the profile of rows of a stage: of features all columns and the label, of predictions the scores.

    Columns of lists, structs and the like have none.
    """
    columns = [c.name for c in table.schema if _is_profiled(stage, c.name) and can_profile(c.type)]
    return profile_table(table, columns, local_days(table, timezone))


def _is_profiled(stage: ProfiledStage, column: str) -> bool:
    if stage == "features":
        return column not in RESERVED
    return column == "score" or column.startswith("score_")


def _stored_profile(
    data_store: DataStore, asset: AssetPath, partition: str, data_version: str, timezone: str
) -> Profile | None:
    """Return a stored profile; None when it is missing, damaged, of another format, or by days of another timezone."""
    try:
        document = data_store.read_document(asset, partition, data_version=data_version)
        return from_document(document) if document.get("timezone") == timezone else None
    except StoreError:
        return None


def _store(data_store: DataStore, asset: AssetPath, rows: StoredPartition, profile: Profile, timezone: str) -> None:
    document = to_document(profile) | {"timezone": timezone}
    data_store.write_document(asset, rows.partition, document, data_version=rows.data_version)
