"""The search of a variant's parameters, within its stage: its study, its rows, its runs in the tracker, its report."""

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ml_assets.checkpoints import checkpoint_key
from ml_assets.digest import document_digest
from ml_assets.errors import StudyError, StudyLostError
from ml_assets.fork_safety import fork_is_safe
from ml_assets.interfaces import StudyPlan
from ml_assets.periods import split_partition
from ml_assets.search import pictures
from ml_assets.search.document import search_document, search_record, shown_params, state_counts, trials_table
from ml_assets.search.evaluating import Search
from ml_assets.search.folds import Fold, inner_folds
from ml_assets.search.helping import Helper
from ml_assets.search.leading import Found, forget_failure, run_search
from ml_assets.search.objective import Objective, direction_of, with_params
from ml_assets.search_space import grid_size, parameters_of
from ml_assets.spec import SearchSpec, VariantSpec
from ml_assets.stages.columns import LABEL_TIME
from ml_assets.stages.fitting import libraries, train_code
from ml_assets.stages.rows import Rows, load_rows
from ml_assets.stages.step import Step
from ml_assets.stages.trial_runs import TrialRuns

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SEARCH_GENERATION = 1
"""Raised when a release evaluates trials in another way, so that it does not go on with an older one's studies."""

MAX_LOST = 5
"""How often a process that was silent for too long goes on with its search."""

_SEARCHED_IN = "searched_in"
"""Note of a study: the run whose steps evaluated its last trials."""

RECORD = "search_record"
"""Key of a variant's document under which stands what differs between runs that find the same."""


@dataclass(frozen=True, kw_only=True)
class Searched:
    """What a variant's stage has of its search; empty without one.

    Attributes:
        variant: The variant with the parameters to fit.
        plan: Its study.
        run_id: Tracker's run that has the trials and is to have the model; empty for a new one.
        document: What joins the variant's document.
        facts: What joins the asset's metadata; pictures and tables too.
    """

    variant: VariantSpec
    plan: StudyPlan | None = None
    run_id: str = ""
    document: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, bytes] = field(default_factory=dict)
    tables: "Mapping[str, pd.DataFrame]" = field(default_factory=dict)


def search_variant(step: Step, name: str, references: "pa.Table", train: Rows, tags: Mapping[str, str]) -> Searched:
    """Search a variant's parameters on inner folds of the training split, or return it as it is declared.

    The validation split is not looked at: it compares variants, and a variant that had looked at it as often as it
    has trials would win by that alone.

    Args:
        step: The step.
        name: The variant.
        references: The training split of the training set.
        train: Its rows, in the same order.
        tags: Of the run in the tracker.

    Raises:
        StudyError: If too many trials failed.
        SplitError: If the training split is too small for the folds.
    """
    variant = step.spec.variants[name]
    if variant.search is None:
        return Searched(variant=variant)
    searching = _Searching.begin(step, name, variant, variant.search, references, train)
    found, run_id, here = searching.together(tags)
    plan, metric = searching.plan, searching.metric
    importance = step.services.studies.importance(plan, found.trials)
    document = search_document(plan, found, metric=metric, folds=searching.folds, importance=importance)
    step.notes.extend(_shared(found, variant.search.workers) if here else _notes(found))
    return _searched(variant, plan, found, run_id, document)


def help_search(step: Step, name: str, references: "pa.Table", train: Rows, tags: Mapping[str, str]) -> str:
    """Take part in a variant's search until it has ended, and return what came of it, in a sentence.

    Args:
        step: The step.
        name: The variant; it has a search.
        references: The training split of the training set.
        train: Its rows, in the same order.
        tags: Of the run in the tracker.

    Raises:
        StudyError: If too many trials failed.
        SplitError: If the training split is too small for the folds.
    """
    variant = step.spec.variants[name]
    assert variant.search is not None  # noqa: S101 - a search without helpers has no such step
    searching = _Searching.begin(step, name, variant, variant.search, references, train)
    found, *_ = searching.together(tags)
    return f"The search has ended, with {len(found.trials)} trials."


def tuned(variant: VariantSpec, document: Mapping[str, Any]) -> VariantSpec:
    """Return a variant as its stage fitted it: with the parameters that the search in its document found."""
    return with_params(variant, document["search"]["best"]["params"]) if "search" in document else variant


def _plan(step: Step, name: str, variant: VariantSpec, search: SearchSpec, metric: str) -> StudyPlan:
    training_set = f"{'/'.join(step.asset('training_set'))} [{step.partition}]"
    content = {
        "generation": SEARCH_GENERATION,
        "pipeline": list(step.path),
        "variant": name,
        "partition": step.partition,
        "training_set": step.upstream[training_set],
        "feature_code": step.pipeline.features.digest,
        "train_code": train_code(step, name),
        "features": list(step.spec.features.columns),
        "label": [step.spec.label.column, step.spec.label.task],
        "learner": variant.model_dump(mode="json", exclude={"compute", "search", "trusted_types"}),
        # More trials extend a search, more time too; neither changes a trial.
        "search": search.model_dump(mode="json", exclude={"trials", "time_limit", "metric", "space", "workers"}),
        "space": [[key, spec.model_dump(mode="json")] for key, spec in search.space.items()],
        "metric": metric,
        "seed": step.spec.training.seed,
        "min_rows": step.spec.training.min_rows,
        "in_rounds": variant.compute.checkpoint,
        "device": step.device,
    }
    return StudyPlan(
        name=document_digest(content),
        title=f"{'/'.join(step.path)} {name} [{step.partition}]",
        space=parameters_of(search),
        direction=direction_of(metric),
        sampler=search.sampler,
        pruner=search.pruner,
        seed=step.spec.training.seed,
        parallel=search.parallel,
    )


def _folds(step: Step, search: SearchSpec, references: "pa.Table", train: Rows) -> list[Fold]:
    times = [split_partition(str(key))[1] for key in references["partition"].to_pylist()]
    _, period = np.unique(np.array(times), return_inverse=True)
    label_time = load_rows(step, references, columns=(LABEL_TIME,), context="training").frame[LABEL_TIME]
    return inner_folds(
        period=period,
        day=train.day,
        event_time=train.event_time,
        label_time=_utc(label_time),
        folds=search.folds,
        min_rows=step.spec.training.min_rows,
    )


def _utc(times: "pd.Series") -> NDArray[np.datetime64]:
    import pandas as pd

    return pd.to_datetime(times, utc=True).dt.tz_localize(None).to_numpy().astype("datetime64[us]")


@dataclass(frozen=True, kw_only=True)
class _Searching:
    """A search as every process that takes part in it has it."""

    step: Step
    name: str
    plan: StudyPlan
    metric: str
    folds: list[Fold]
    search: Search

    @classmethod
    def begin(
        cls,
        step: Step,
        name: str,
        variant: VariantSpec,
        search: SearchSpec,
        references: "pa.Table",
        train: Rows,
    ) -> "_Searching":
        metric = search.metric or step.spec.selection.metric
        folds = _folds(step, search, references, train)
        plan = _plan(step, name, variant, search, metric)
        content = {"study": plan.name, "libraries": libraries(step, name, variant)}
        objective = Objective(
            variant=variant,
            frame=train.frame,
            y=train.y,
            folds=folds,
            metric=metric,
            task=step.spec.label.task,
            seed=step.spec.training.seed,
            device=step.device,
            plan=plan,
            studies=step.services.studies,
            checkpoints=step.services.checkpoints,
            key=checkpoint_key(step.asset("models", name), step.partition, content),
        )
        objective.warm_up()
        points = grid_size(plan.space) if search.sampler == "grid" else 0
        at_once = -(-search.parallel // search.workers)
        return cls(
            step=step,
            name=name,
            plan=plan,
            metric=metric,
            folds=folds,
            search=Search(
                plan=plan,
                trials=search.trials or points,
                slots=max(1, min(at_once, step.resources.cores, _processors())),
                threads=_threads(step, max(1, step.resources.cores // at_once)),
                time_limit=None if search.time_limit is None else search.time_limit.total_seconds(),
                evaluate=objective,
            ),
        )

    def together(self, tags: Mapping[str, str]) -> tuple[Found, str, bool]:
        """Search with whoever searches the same, leading or helping, until it has ended.

        Args:
            tags: Of the run in the tracker.

        Returns:
            What was found, the id of the tracker's run, and whether other workers of this run had done it all.
        """
        for _ in range(MAX_LOST):
            with suppress(StudyLostError):  # it was silent for too long: whoever leads now goes on, and is helped
                return self._once(tags)
        return self._once(tags)

    def _once(self, tags: Mapping[str, str]) -> tuple[Found, str, bool]:
        step, plan, studies = self.step, self.plan, self.step.services.studies
        helper = Helper(self.search)
        with studies.lead(plan, helper) as study:
            forget_failure(study, step.run_id, helped=helper.evaluated > 0)
            runs = TrialRuns.begin(step, study, plan, self.name, self.metric, tags)
            search = replace(self.search, on_told=runs.told)
            try:
                found = run_search(studies, study, search, attempt=step.run_id)
            except StudyLostError:
                raise  # whoever leads now goes on with the tracker's run
            except StudyError:
                runs.fail()
                raise
            runs.finish(len(found.trials))
            done = found.kept == len(found.trials)
            if not done:
                study.note(_SEARCHED_IN, step.run_id)
            here = done and study.facts().get(_SEARCHED_IN) == step.run_id
        return found, runs.run_id, here


def _threads(step: Step, wanted: int) -> int:
    """Return how many threads a trial may use: one where more would wait for ever, as after a fit in this process."""
    if wanted == 1 or fork_is_safe():
        return wanted
    step.notes.append("each trial had one thread: this process had computed on several before it searched")
    return 1


def _processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _notes(found: Found) -> list[str]:
    notes = []
    if found.kept == len(found.trials):
        notes.append(f"the search was not run again: its {found.kept} trials are those of an earlier run")
    elif found.kept:
        notes.append(f"{found.kept} of {len(found.trials)} trials of the search were kept from an earlier run")
    if found.resumed:
        notes.append(f"{found.resumed} trials of the search were resumed after a crash, with the same parameters")
    deaths = sum(trial.deaths for trial in found.trials)
    if deaths:
        notes.append(f"processes of the search's trials died {deaths} times and were started again")
    if found.out_of_time:
        notes.append(f"the search's time limit ended it after {len(found.trials)} trials")
    return notes


def _shared(found: Found, workers: int) -> list[str]:
    """Return the notes of a search whose workers had ended before this process fits the model."""
    resumed = sum(trial.resumes > 0 for trial in found.trials)
    more = f"; {resumed} of them were resumed after a crash, with the same parameters" if resumed else ""
    return [f"{len(found.trials)} trials were evaluated by {workers} workers{more}"]


def _searched(
    variant: VariantSpec, plan: StudyPlan, found: Found, run_id: str, document: Mapping[str, Any]
) -> Searched:
    record, title = search_record(found), plan.title
    importance = pictures.importance(document, title=title)
    return Searched(
        variant=with_params(variant, found.best.params),
        plan=plan,
        run_id=run_id,
        document={"search": document, RECORD: record},
        facts={
            "search_trials": state_counts(document),
            "search_best": shown_params(found.best.params),
            f"search_{document['metric']}": document["best"]["value"],
            "search_seconds": record["seconds"],
            "search_study": document["study"],
        },
        pictures={"search_history": pictures.history(document, title=title)}
        | ({} if importance is None else {"search_importance": importance}),
        tables={"search_trials": trials_table(document, record)},
    )
