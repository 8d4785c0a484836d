"""What the `drift` stage compares: profiles of the current periods, and of what the champion learned from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ml_assets.drift.settings import DriftSettings
from ml_assets.errors import GateClosedError, StoreError
from ml_assets.periods import join_partition, split_partition
from ml_assets.profiles.profile import Profile, merge
from ml_assets.profiles.table import profile_table
from ml_assets.stages.profiled import ProfiledStage, read_profile
from ml_assets.stages.reference import Reference
from ml_assets.stages.scored_rows import read_rows
from ml_assets.stages.step import Step

DAYS_OF_A_PERIOD = {"day": 1, "week": 7, "month": 28, "year": 365}
PERIODS_OF_A_YEAR = {"day": 364, "week": 52, "month": 12, "year": 1}
"""A year of days is 52 weeks, so that weekdays meet weekdays."""

LOOK_BACK = 3
"""Times the days that a test needs, within which they are looked for: some days have no partition, such as Sundays."""

ReferenceKind = Literal["champion", "season"]


@dataclass(frozen=True, kw_only=True)
class ReferenceSide:
    """What is compared with.

    Attributes:
        kind: champion: the rows it was trained on; season: the same periods one year earlier.
        partitions: (partition, data version) of its feature partitions.
        profile: Their features and label.
    """

    kind: ReferenceKind
    partitions: tuple[tuple[str, str], ...]
    profile: Profile


def stride(step: Step, settings: DriftSettings) -> int:
    """Return how many periods are compared together: one, or as many short ones as have the days that a test needs."""
    return max(1, math.ceil(settings.min_days / DAYS_OF_A_PERIOD[step.periods.every]))


def current_profiles(step: Step, settings: DriftSettings, stage: ProfiledStage) -> tuple[Profile, tuple[str, ...]]:
    """Return the profile of the step's partition, with those before it when periods are short, and which those are.

    Raises:
        StoreError: If the step's own partition was not materialized.
        GateClosedError: If one of its gates is closed.
    """
    found = [(step.partition, step.describe((stage,), step.partition).data_version)]
    profile = _merged(step, stage, found)
    periods = stride(step, settings)
    earlier = step.periods.window(step.time, periods * LOOK_BACK - 1) if periods > 1 else []
    for time in reversed(earlier):
        if len(profile.days) >= settings.min_days:
            break
        partition = join_partition(step.group, time)
        version = _usable(step, stage, partition)
        if version is not None:
            found.append((partition, version))
            profile = merge([profile, _merged(step, stage, found[-1:])])
    return profile, tuple(sorted(partition for partition, _ in found))


def _usable(step: Step, stage: ProfiledStage, partition: str) -> str | None:
    """Return the data version of a partition that helps but need not be there; None when it may not be used."""
    if step.services.data_store.describe(step.asset(stage), partition) is None:
        return None
    try:
        return step.describe((stage,), partition).data_version
    except GateClosedError as closed:
        step.notes.append(f"{stage} [{partition}] was left out: {closed}")
        return None


def _merged(step: Step, stage: ProfiledStage, partitions: Sequence[tuple[str, str]]) -> Profile:
    store, zone = step.services.data_store, step.periods.timezone
    found = [read_profile(store, step.path, stage, key, version, timezone=zone) for key, version in partitions]
    try:
        return merge(found)
    except ValueError as error:  # a column changed its type in between
        keys = ", ".join(key for key, _ in partitions)
        raise StoreError(f"the profiles of {'/'.join(step.path)}/{stage} [{keys}] do not add up: {error}") from error


def reference_side(step: Step, reference: Reference, current: Sequence[str]) -> ReferenceSide:
    """Return what the current partitions are compared with, as the pipeline's `monitoring.reference` says.

    The champion's own training partitions are read by the versions it was trained on, through no gate: they were
    open then. Of a pipeline with groups, each group is compared with its own partitions.

    Args:
        step: The running step.
        reference: Of the champion.
        current: Partitions that are compared.

    Raises:
        StoreError: If a version that the champion was trained on is gone.
    """
    if step.spec.monitoring.reference == "season":
        season = _season(step, current)
        if season:
            return ReferenceSide(kind="season", partitions=season, profile=_merged(step, "features", season))
        step.notes.append("nothing is stored of a year earlier, so the champion's training rows are the reference")
    own = [pair for pair in reference.partitions if split_partition(pair[0])[0] == step.group]
    if not own:
        step.notes.append(f"the champion saw no row of {step.group}; the reference is all it was trained on")
    chosen = tuple(own or reference.partitions)
    step.upstream.update({f"{'/'.join(step.asset('features'))} [{key}]": version for key, version in chosen})
    try:
        return ReferenceSide(kind="champion", partitions=chosen, profile=_merged(step, "features", chosen))
    except StoreError as error:
        raise StoreError(
            f"What champion version {reference.version} was trained on is gone, so nothing can be compared with it: "
            f"{error}. Restore the data version, or promote a newer champion."
        ) from error


def _season(step: Step, current: Sequence[str]) -> tuple[tuple[str, str], ...]:
    back = -PERIODS_OF_A_YEAR[step.periods.every]
    found = []
    for partition in current:
        group, time = split_partition(partition)
        earlier = join_partition(group, step.periods.shift(time, back))
        version = _usable(step, "features", earlier)
        if version is not None:
            found.append((earlier, version))
    return tuple(sorted(found))


def scores_of_reference(step: Step, reference: Reference) -> Profile | None:
    """Return the champion's scores on its evaluation; of a pipeline with groups, on the rows of the step's group.

    None when its evaluation has no row of the group, or its rows are gone.
    """
    group = step.spec.partitions.group
    if group is None:
        return reference.scores
    try:
        document = step.services.data_store.read_document(
            step.asset("evaluation"), reference.partition, data_version=reference.evaluation
        )
        rows = read_rows(step.services, step.path, reference.partition, document)
    except StoreError as error:
        step.notes.append(f"prediction drift is not known: the rows of the champion's evaluation are gone ({error})")
        return None
    if group.column not in rows.columns:
        return reference.scores
    mask = (rows.columns[group.column].astype(str) == step.group).to_numpy()
    if not mask.any():
        step.notes.append(f"prediction drift is not known: the champion was evaluated on no row of {step.group}")
        return None
    names = [f"score_{label}" for label in reference.classes] or ["score"]
    return _score_profile(rows.scores["candidate"][mask], rows.days[mask], names)


def _score_profile(score: np.ndarray, days: np.ndarray, names: Sequence[str]) -> Profile:
    import pyarrow as pa

    columns = [np.ascontiguousarray(column) for column in np.atleast_2d(score.T)]
    table = pa.table({name: pa.array(column) for name, column in zip(names, columns, strict=True)})
    return profile_table(table, names, days)
