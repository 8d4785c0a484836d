"""Trials as processes take them and hand them in: each call is one transaction, and asks first whose a trial is."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from ml_assets.errors import StudyLostError
from ml_assets.interfaces import StudyPlan, Trial, TrialResult
from resources.studies.leases import Holder, is_free, utc_now
from resources.studies.sampling import STATES, from_optuna
from resources.studies.tables import StudyTables

if TYPE_CHECKING:
    import sqlalchemy as sa
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

LEADER = "lease"
"""User attribute of a study: the lease of its leader."""
BORN = "born"
"""User attribute of a study: drawn when it begins, also anew; databases give the ids of removed rows again."""
HELPERS = "helpers"
"""User attribute of a study: lead id → lease of each process that evaluates trials without leading it."""
RECORD = "record"
"""User attribute of a trial: who claims it, deaths, resumes, finished folds and, once there is one, the result."""


@dataclass(frozen=True, kw_only=True)
class Open:
    """A transaction on a study.

    Attributes:
        storage: Optuna's, within the transaction.
        study_id: The study's.
        attributes: Of the study.
        now: By the clock that all its processes have in common.
    """

    storage: "RDBStorage"
    study_id: int
    attributes: dict[str, Any]
    now: datetime

    def record(self, trial_id: int) -> dict[str, Any]:
        """Return what is kept of a trial beside what Optuna keeps."""
        return self.storage.get_trial_user_attrs(trial_id).get(RECORD, {})

    def put(self, trial_id: int, record: dict[str, Any]) -> None:
        """Keep it."""
        self.storage.set_trial_user_attr(trial_id, RECORD, record)

    def running(self) -> "list[FrozenTrial]":
        """Return the trials that were not told yet, in order of number."""
        from optuna.trial import TrialState as OptunaState

        found = self.storage.get_all_trials(self.study_id, deepcopy=False, states=(OptunaState.RUNNING,))
        return sorted(found, key=lambda trial: trial.number)

    def is_claimed(self, record: Mapping[str, Any]) -> bool:
        """Return whether the process that took a trial is still there."""
        claim, leader = record.get("claim"), self.attributes.get(LEADER)
        if claim is None:
            return False
        if leader is not None and leader["lead_id"] == claim:
            return not is_free(leader, self.now)
        helper = (self.attributes.get(HELPERS) or {}).get(claim)
        return helper is not None and not is_free(helper, self.now)


class SqlDesk:
    """Implements `ml_assets.interfaces.TrialDesk` for a process that does not lead the study.

    Args:
        tables: Where the study is.
        plan: The study.
        holder: The process.
    """

    def __init__(self, tables: StudyTables, plan: StudyPlan, holder: Holder) -> None:
        self._tables, self._plan, self._holder = tables, plan, holder
        self._ids: dict[int, int] = {}
        self._mine: set[int] = set()
        self._told: list[Trial] = []
        self._born: str | None = None

    def trials(self) -> list[Trial]:
        """Return all trials, in order of number."""
        with self._entering("Reading a search") as tx:
            if self._born != tx.attributes.get(BORN):
                self._born, self._told, self._ids = tx.attributes.get(BORN), [], {}
            last = self._ids[self._told[-1].number] if self._told else -1
            # The public method reads all; told trials come first and do not change any more.
            found = tx.storage._get_trials(tx.study_id, None, set(), last)  # noqa: SLF001
        self._ids |= {trial.number: trial._trial_id for trial in found}  # noqa: SLF001 - Optuna's storage wants it back
        newer = [trial_of(self._plan, trial) for trial in sorted(found, key=lambda trial: trial.number)]
        known = [*self._told, *newer]
        self._told = list(takewhile(lambda trial: trial.state != "running", known))
        return known

    def claim(self, *, below: int | None = None) -> Trial | None:
        """Take the first running trial that nobody evaluates, and has no result."""
        with self._entering("Taking a trial") as tx:
            free = (trial for trial in tx.running() if self._is_free(trial, tx))
            trial = next((trial for trial in free if below is None or trial.number < below), None)
            if trial is None:
                return None
            record = trial.user_attrs.get(RECORD, {})
            if record.get("claim") not in (None, self._holder.lead_id):  # whoever had it has gone
                record = record | {name: record.get(name, 0) + 1 for name in ("resumes", "fruitless")}
            record = record | {"claim": self._holder.lead_id}
            self._ids[trial.number] = trial._trial_id  # noqa: SLF001 - Optuna's storage wants it back
            tx.put(self._ids[trial.number], record)
            trial.user_attrs = trial.user_attrs | {RECORD: record}
        self._mine.add(trial.number)
        return trial_of(self._plan, trial)

    def _is_free(self, trial: "FrozenTrial", tx: Open) -> bool:
        record = trial.user_attrs.get(RECORD, {})
        if "result" in record:
            return False
        if record.get("claim") == self._holder.lead_id:
            # Claimed by a desk that lost another trial, or in a transaction of which no answer came: nobody has it.
            return trial.number not in self._mine
        return not tx.is_claimed(record)

    def fold(self, number: int, index: int, value: float) -> None:
        """Keep the metric of a claimed trial's finished fold."""
        with self._writing("Recording a fold", number) as (tx, record):
            changed = {"folds": [*record.get("folds", [])[:index], value], "fruitless": 0}
            tx.put(self._ids[number], record | changed)

    def advanced(self, number: int, fold: int, step: int) -> bool:
        """Keep that a claimed trial goes on from a step of a fold, and return whether that is further than ever."""
        with self._writing("Resuming a trial", number) as (tx, record):
            is_further = [fold, step] > record.get("at", [])
            if is_further:
                tx.put(self._ids[number], record | {"at": [fold, step], "fruitless": 0})
        return is_further

    def died(self, number: int) -> int:
        """Count one more death of a claimed trial's process, and return how many there were."""
        with self._writing("Recording the death of a trial's process", number) as (tx, record):
            deaths = record.get("deaths", 0) + 1
            tx.put(self._ids[number], record | {"deaths": deaths})
        return deaths

    def record(self, number: int, result: TrialResult) -> None:
        """Keep how a claimed trial ended."""
        with self._writing("Recording a trial", number) as (tx, record):
            tx.put(self._ids[number], record | {"result": document_of(result)})

    def keep(self) -> None:
        """Say that this process is still there."""
        with self._entering("Keeping the trials of a search"):
            pass

    def leave(self) -> None:
        """Say that this process has gone: what it claimed is free."""
        with self._entering("Leaving a search") as tx:
            helpers = {k: v for k, v in tx.attributes[HELPERS].items() if k != self._holder.lead_id}
            tx.storage.set_study_user_attr(tx.study_id, HELPERS, helpers)

    @contextmanager
    def _writing(self, action: str, number: int) -> Iterator[tuple[Open, dict[str, Any]]]:
        """Enter a transaction after making sure that a trial is still this process's."""
        from optuna.exceptions import UpdateFinishedTrialError

        lost = StudyLostError(
            f"{self._plan.title}: this process ({self._holder}) was silent for too long, and trial {number} is "
            "not its own any more. Nothing is lost: another process goes on with it."
        )
        with self._entering(action) as tx:
            try:
                record = tx.record(self._ids[number])
            except KeyError:  # the study began anew
                record = {}
            if record.get("claim") != self._holder.lead_id:
                raise lost
            try:
                yield tx, record
            except UpdateFinishedTrialError:  # a leader that was silent itself came back and had the result already
                raise lost from None

    @contextmanager
    def _entering(self, action: str) -> Iterator[Open]:
        """Enter a transaction, and say that this process is there; it forgets those of which nothing was heard."""
        with self._tables.writing(action, self._plan.name) as (storage, connection):
            try:
                study_id = storage.get_study_id_from_name(self._plan.name)
            except KeyError:
                raise StudyLostError(f"{self._plan.title}: its study is not there any more.") from None
            attributes, now = storage.get_study_user_attrs(study_id), now_of(connection)
            known = attributes.get(HELPERS) or {}
            helpers = {k: v for k, v in known.items() if k != self._holder.lead_id and not is_free(v, now)}
            helpers[self._holder.lead_id] = self._holder.lease(now)
            storage.set_study_user_attr(study_id, HELPERS, helpers)
            attributes = attributes | {HELPERS: helpers}
            yield Open(storage=storage, study_id=study_id, attributes=attributes, now=now)


def now_of(connection: "sa.Connection") -> datetime:
    """Return the time by one clock for all processes: the server's, or that of the machine that has the file."""
    if connection.dialect.name == "sqlite":
        return utc_now()
    return connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()


def trial_of(plan: StudyPlan, found: "FrozenTrial") -> Trial:
    """Return a trial as it is stored."""
    space = {parameter.name: parameter for parameter in plan.space}
    record = found.user_attrs.get(RECORD, {})
    return Trial(
        number=found.number,
        # In declared order: the database keeps none.
        params={name: from_optuna(space[name], found.params[name]) for name in space if name in found.params},
        state=next(ours for ours, theirs in STATES.items() if theirs == found.state.name),
        result=_result(record["result"]) if "result" in record else None,
        folds=tuple(record.get("folds", ())),
        deaths=record.get("deaths", 0),
        resumes=record.get("resumes", 0),
        fruitless=record.get("fruitless", 0),
    )


def document_of(result: TrialResult) -> dict[str, Any]:
    """Return a result as it is stored."""
    return {**vars(result), "reports": list(map(list, result.reports.items())), "marks": dict(result.marks)}


def _result(document: dict[str, Any]) -> TrialResult:
    return TrialResult(**{**document, "reports": {int(step): value for step, value in document["reports"]}})
