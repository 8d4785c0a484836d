"""The `predictions` stage: the champion of the period scores its rows, with shadow and A/B arm beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.errors import MlAssetsError, RegistryError
from ml_assets.experiments.assignment import arms
from ml_assets.experiments.disagreement import compare
from ml_assets.interfaces import Decision
from ml_assets.stages.aliases import sync_aliases
from ml_assets.stages.champions import arm_before, shadow_before
from ml_assets.stages.columns import EVENT_TIME, ROW_ID
from ml_assets.stages.dossiers import dossier_of
from ml_assets.stages.profiled import write_profile
from ml_assets.stages.rollback import RollbackError, roll_back
from ml_assets.stages.serving import Served, UnservableError, serve
from ml_assets.stages.step import StageResult, Step
from ml_assets.stages.trust import approval_reasons, trusted_champion
from ml_assets.training import predict

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

CHAMPION_ARM, CHALLENGER_ARM = "champion", "challenger"


class NoChampionYet(Exception):  # noqa: N818 - a state a step reports, not a failure
    """No model was promoted before this period; there is nothing to score with, and nothing is wrong."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A partition's scores and what is to be said of them.

    Attributes:
        table: Row id, event time, kept columns, score, model version; arm and shadow where there are any.
        champion: Who scored.
        facts: For the metadata.
        tables: Small frames to show.
    """

    table: "pa.Table"
    champion: Served
    facts: dict[str, Any] = field(default_factory=dict)
    tables: "dict[str, pd.DataFrame]" = field(default_factory=dict)


def run(step: Step) -> StageResult:
    """Score one partition.

    Raises:
        NoChampionYet: If no version was promoted before this period.
        UnservableError: If the champion does not serve as it did when it was promoted, and no earlier one can stand in.
    """
    name = f"{step.spec.team}.{step.spec.name}"
    incidents = _follow(step, name)
    champion = in_force(step)
    scored = score(step, champion)
    stored = step.services.data_store.write(step.asset("predictions"), step.partition, scored.table)
    write_profile(step, "predictions", stored, scored.table)
    if step.spec.scoring.url is not None:
        export(step.spec.scoring.url, step.partition, scored.table)
    facts: dict[str, Any] = {
        "model_name": scored.champion.decision.model_name,
        "model_version": scored.champion.version,
        "promoted_by": scored.champion.decision.partition,
    }
    if incidents:
        facts["incidents"] = incidents
    if step.notes:
        facts["notes"] = list(step.notes)
    return StageResult(stored=stored, facts=facts | scored.facts, tables=scored.tables)


def _follow(step: Step, name: str) -> list[str]:
    """Let the aliases follow the ledger and return what somebody else had moved; scoring goes on without them."""
    try:
        return [move.sentence for move in sync_aliases(step.services, step.path, name) if move.foreign]
    except RegistryError as error:
        step.notes.append(f"the registry's aliases could not follow: {error}")
        return []


def in_force(step: Step) -> Served:
    """Return the champion of the period, ready to score; one that fails is rolled back when the policy says so.

    Raises:
        NoChampionYet: If no version was promoted before this period.
        UnservableError: If it fails and no earlier champion can stand in.
    """
    champion = _champion(step)
    try:
        return serve(step, champion)
    except UnservableError as error:
        if not step.policy.flag("rollback.automatic"):
            raise
        return _stand_in(step, champion, error)


def _champion(step: Step) -> Decision:
    trusted = trusted_champion(step.services, step.path, step.time)
    step.notes.extend(note for note in trusted.refused if note not in step.notes)
    if trusted.champion is None:
        refused = f" ({'; '.join(trusted.refused)})" if trusted.refused else ""
        raise NoChampionYet(
            f"No version of {'/'.join(step.path)} was promoted before {step.time}{refused}; [{step.partition}] "
            "is left without predictions. Materialize `promotion` of an earlier period first."
        )
    return trusted.champion


def _stand_in(step: Step, failed: Decision, error: UnservableError) -> Served:
    """Roll a failing champion back and return the one before it, ready to score.

    Only the champion of now is rolled back; for a period whose champion was replaced since, the failure is an error.
    """
    try:
        done = roll_back(
            step.services,
            step.path,
            reason=f"automatic: its serving check failed in scoring [{step.partition}]: {error}",
            by="predictions",
            expected=failed.model_version,
        )
    except RollbackError as refused:
        champion = _champion(step)
        if champion.model_version != failed.model_version:  # another run saw the same and was first
            return serve(step, champion)
        raise UnservableError(failed, f"{error} It was not rolled back: {refused}") from error
    try:
        dossier_of(step.services, step.pipeline, done.decision)
    except MlAssetsError as problem:
        step.notes.append(f"the rollback is recorded; its dossier could not be written: {problem}")
    return serve(step, _champion(step))


def score(step: Step, champion: Served) -> Scored:
    """Score every row of the partition with the champion, and beside it with shadow and A/B arm where there are any."""
    import pyarrow as pa

    decisions = step.services.ledger.decisions(step.path)
    arm = _beside(step, champion, _arm(step, decisions, champion.decision), "ab.challenger_share")
    shadow = _beside(step, champion, shadow_before(decisions, champion.decision, step.time), "shadow.enabled")
    keep = list(step.spec.scoring.columns)
    wanted = [served.model.feature_names_in_ for served in (champion, arm, shadow) if served is not None]
    columns = list(dict.fromkeys([ROW_ID, EVENT_TIME, *keep, *(name for names in wanted for name in names)]))
    table = step.read(("features",), step.partition, columns=columns)
    frame = table.to_pandas()
    task = step.spec.label.task
    scores = predict(champion.model, frame, task=task)
    version = np.full(len(frame), champion.version, dtype=object)
    out = table.select([ROW_ID, EVENT_TIME, *keep])
    facts: dict[str, Any] = {}
    if arm is not None:
        share = step.policy.number("ab.challenger_share")
        chosen = arms(frame[ROW_ID].to_numpy(), salt=experiment(step, champion, arm), challenger_share=share)
        other = predict(arm.model, frame, task=task)
        scores = np.where(chosen if scores.ndim == 1 else chosen[:, None], other, scores)
        version[chosen] = arm.version
        out = out.append_column("arm", pa.array(np.where(chosen, CHALLENGER_ARM, CHAMPION_ARM)))
        out = out.append_column("challenger_share", pa.array(np.full(len(frame), share)))
        for role, served in (("champion", champion), ("challenger", arm)):
            out = out.append_column(f"{role}_version", pa.array([served.version] * len(frame), type=pa.string()))
        facts |= {"challenger_version": arm.version, "challenger_share": share, "challenger_rows": int(chosen.sum())}
    out = _with_scores(out, "score", scores, champion.model)
    out = out.append_column("model_version", pa.array(version.tolist(), type=pa.string()))
    if shadow is None:
        return Scored(table=out, champion=champion, facts=facts)
    return _with_shadow(step, out, frame, champion, shadow, facts)


def _arm(step: Step, decisions: Sequence[Decision], champion: Decision) -> Decision | None:
    """Return the candidate that may take an A/B arm: compared with this champion, served, and not material.

    What the row says of itself is not enough: whether anything is material is found again, as for a promotion.
    """
    arm = arm_before(decisions, champion, step.time)
    if arm is None or arm.champion_version != champion.model_version:
        return None
    serving = arm.evidence.get("serving") or {}
    served = serving.get("model_digest") == arm.model_digest and serving.get("example_scores")
    return arm if served and not approval_reasons(arm, champion, step.policy) else None


def experiment(step: Step, champion: Served, arm: Served) -> str:
    """Return the name of an A/B experiment, which decides each row's arm."""
    return f"{'/'.join(step.path)}:{arm.version}-vs-{champion.version}"


def _beside(step: Step, champion: Served, decision: Decision | None, setting: str) -> Served | None:
    """Return a second model when the policy wants one; one that cannot serve these rows leaves the champion alone."""
    wanted = step.policy.settings[setting].value
    if decision is None or not wanted:
        return None
    try:
        other = serve(step, decision)
    except UnservableError as error:
        step.notes.append(f"version {decision.model_version} scores nothing beside the champion: {error}")
        return None
    known = [list(getattr(served.model, "classes_", ())) for served in (champion, other)]
    if step.spec.label.task == "multiclass" and known[0] != known[1]:
        step.notes.append(f"version {other.version} scores nothing beside the champion: it knows other classes")
        return None
    return other


def _with_shadow(
    step: Step, out: "pa.Table", frame: "pd.DataFrame", champion: Served, shadow: Served, facts: dict[str, Any]
) -> Scored:
    """Add the shadow's scores, and say how far they differ from the champion's on the same rows."""
    import pyarrow as pa

    task = step.spec.label.task
    own, scores = (predict(served.model, frame, task=task) for served in (champion, shadow))
    pair = out.select([ROW_ID, EVENT_TIME, *step.spec.scoring.columns])
    pair = _with_scores(_with_scores(pair, "score", own, champion.model), "shadow_score", scores, shadow.model)
    report = compare(
        pair,
        task=task,
        classes=[str(c) for c in champion.model.classes_] if task == "multiclass" else (),
        slices=step.spec.scoring.columns,
        timezone=step.periods.timezone,
    )
    out = _with_scores(out, "shadow_score", scores, shadow.model)
    out = out.append_column("shadow_version", pa.array([shadow.version] * len(frame), type=pa.string()))
    shift = report.shifts[0]
    facts = facts | {
        "shadow_version": shadow.version,
        "shadow_disagreement": report.overall.rate,
        "shadow_mean_shift": shift.mean,
        "shadow_report": report.to_document(),
    }
    shown = {title: table for title, table in report.frames().items() if title != "largest shifts"}
    return Scored(table=out, champion=champion, facts=facts, tables=shown)


def _with_scores(table: "pa.Table", name: str, scores: NDArray[np.float64], model: Any) -> "pa.Table":
    import pyarrow as pa

    named = {name: scores}
    if scores.ndim == 2:
        named = {f"{name}_{c}": np.ascontiguousarray(scores[:, i]) for i, c in enumerate(model.classes_)}
    for column, values in named.items():
        table = table.append_column(column, pa.array(values))
    return table


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
