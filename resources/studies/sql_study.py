"""One study as its leader reads and writes it: each call is one transaction, and asks first who leads."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ml_assets.errors import StudyError, StudyLostError
from ml_assets.interfaces import StudyPlan, Trial, TrialResult
from resources.studies.leases import Holder, utc_now
from resources.studies.sampling import STATES, from_optuna, frozen_trial
from resources.studies.tables import StudyTables

if TYPE_CHECKING:
    import sqlalchemy as sa
    from optuna.storages import RDBStorage
    from optuna.trial import FrozenTrial

LEASE = "lease"
_NOTE = "note:"
_RECORD = "record"
"""User attribute of a trial: deaths, resumes, finished folds and, once there is one, the result."""


def create_study(storage: "RDBStorage", plan: StudyPlan) -> int:
    """Store an empty study, with what a reader of Optuna's tables wants to know of it, and return its id."""
    from optuna.study import StudyDirection

    study_id = storage.create_new_study([StudyDirection[plan.direction.upper()]], plan.name)
    storage.set_study_user_attr(study_id, "title", plan.title)
    storage.set_study_user_attr(study_id, "sampler", plan.sampler)
    storage.set_study_user_attr(study_id, "pruner", plan.pruner)
    return study_id


@dataclass(frozen=True, kw_only=True)
class _Open:
    """A transaction in which this process leads the study."""

    storage: "RDBStorage"
    study_id: int
    attributes: dict[str, Any]

    def record(self, trial_id: int) -> dict[str, Any]:
        return self.storage.get_trial_user_attrs(trial_id).get(_RECORD, {})

    def put(self, trial_id: int, record: dict[str, Any]) -> None:
        self.storage.set_trial_user_attr(trial_id, _RECORD, record)


class SqlStudy:
    """Implements `ml_assets.interfaces.Study`.

    Args:
        tables: Where the study is.
        plan: The study.
        holder: Who leads it.
    """

    def __init__(self, tables: StudyTables, plan: StudyPlan, holder: Holder) -> None:
        self._tables, self._plan, self._holder = tables, plan, holder
        self._ids: dict[int, int] = {}

    def trials(self) -> list[Trial]:
        """Return all trials, in order of number."""
        with self._leading("Reading a search") as tx:
            found = tx.storage.get_all_trials(tx.study_id, deepcopy=False)
        self._ids = {trial.number: trial._trial_id for trial in found}  # noqa: SLF001 - Optuna's storage wants it back
        return [_trial(self._plan, trial) for trial in sorted(found, key=lambda trial: trial.number)]

    def facts(self) -> dict[str, Any]:
        """Return the notes of the study by name."""
        with self._leading("Reading a search") as tx:
            return {k.removeprefix(_NOTE): v for k, v in tx.attributes.items() if k.startswith(_NOTE)}

    def note(self, name: str, value: Any) -> None:
        """Keep a note of the study."""
        with self._leading("Noting of a search") as tx:
            tx.storage.set_study_user_attr(tx.study_id, f"{_NOTE}{name}", value)

    def add(self, trials: Sequence[Trial]) -> None:
        """Store new trials, all or none."""
        ids: dict[int, int] = {}
        with self._leading("Storing new trials") as tx:
            for trial in trials:
                template = frozen_trial(self._plan, Trial(number=trial.number, params=trial.params))
                template.datetime_start = datetime.now()  # noqa: DTZ005 - Optuna's times are local, without a zone
                trial_id = tx.storage.create_new_trial(tx.study_id, template)
                number = tx.storage.get_trial_number_from_id(trial_id)
                if number != trial.number:
                    raise StudyError(
                        f"{self._plan.title}: trial {trial.number} would become number {number} of study "
                        f"{self._plan.name}; expected that nobody else adds trials. Delete the study with "
                        "Optuna's own tool, and run the step again."
                    )
                ids[number] = trial_id
        self._ids |= ids

    def resumed(self, number: int) -> None:
        """Count that a trial is evaluated again because its study's leader died."""
        with self._leading("Resuming a trial") as tx:
            record = tx.record(self._ids[number])
            tx.put(self._ids[number], record | {"resumes": record.get("resumes", 0) + 1})

    def died(self, number: int) -> int:
        """Count one more death of a trial's process, and return how many there were."""
        with self._leading("Recording the death of a trial's process") as tx:
            record = tx.record(self._ids[number])
            deaths = record.get("deaths", 0) + 1
            tx.put(self._ids[number], record | {"deaths": deaths})
        return deaths

    def fold(self, number: int, index: int, value: float) -> None:
        """Keep the metric of a trial's finished fold."""
        with self._leading("Recording a fold") as tx:
            record = tx.record(self._ids[number])
            tx.put(self._ids[number], record | {"folds": [*record.get("folds", [])[:index], value]})

    def record(self, number: int, result: TrialResult) -> None:
        """Keep how a trial ended, while others of its round still run."""
        with self._leading("Recording a trial") as tx:
            tx.put(self._ids[number], tx.record(self._ids[number]) | {"result": _document(result)})

    def tell(self, results: Mapping[int, TrialResult]) -> None:
        """Finish a round, all of it or nothing."""
        from optuna.trial import TrialState as OptunaState

        with self._leading("Finishing trials") as tx:
            for number, result in results.items():
                trial_id = self._ids[number]
                tx.put(trial_id, tx.record(trial_id) | {"result": _document(result)})
                for name, value in result.marks.items():
                    tx.storage.set_trial_system_attr(trial_id, name, value)
                for step, value in result.reports.items():
                    tx.storage.set_trial_intermediate_value(trial_id, step, value)
                values = None if result.value is None else [result.value]
                tx.storage.set_trial_state_values(trial_id, OptunaState[STATES[result.state]], values)

    def keep(self) -> None:
        """Say that this process still leads."""
        with self._leading("Keeping the lead of a search"):
            pass

    def restart(self) -> None:
        """Forget all trials and notes."""
        with self._leading("Beginning a search anew") as tx:
            tx.storage.delete_study(tx.study_id)
            study_id = create_study(tx.storage, self._plan)
            tx.storage.set_study_user_attr(study_id, LEASE, tx.attributes[LEASE])
        self._ids = {}

    def leave(self) -> None:
        """Give the lead back."""
        with self._leading("Giving back the lead of a search") as tx:
            tx.storage.set_study_user_attr(tx.study_id, LEASE, None)

    @contextmanager
    def _leading(self, action: str) -> Iterator[_Open]:
        """Enter a transaction after making sure that this process still leads, and say that it does."""
        with self._tables.writing(action, self._plan.name) as (storage, connection):
            try:
                study_id = storage.get_study_id_from_name(self._plan.name)
                attributes = storage.get_study_user_attrs(study_id)
            except KeyError:
                attributes, study_id = {}, 0
            lease = attributes.get(LEASE)
            if lease is None or lease["lead_id"] != self._holder.lead_id:
                now = "nobody" if lease is None else str(Holder.of(lease))
                raise StudyLostError(
                    f"{self._plan.title}: this process ({self._holder}) was silent for too long and does not lead its "
                    f"search any more; {now} does. Nothing is lost: run the step again when that one has ended."
                )
            renewed = self._holder.lease(now_of(connection))
            storage.set_study_user_attr(study_id, LEASE, renewed)
            yield _Open(storage=storage, study_id=study_id, attributes=attributes | {LEASE: renewed})


def now_of(connection: "sa.Connection") -> datetime:
    """Return the time by one clock for all leaders: the server's, or that of the machine that has the file."""
    if connection.dialect.name == "sqlite":
        return utc_now()
    return connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()


def _trial(plan: StudyPlan, found: "FrozenTrial") -> Trial:
    space = {parameter.name: parameter for parameter in plan.space}
    record = found.user_attrs.get(_RECORD, {})
    return Trial(
        number=found.number,
        # In declared order: the database keeps none.
        params={name: from_optuna(space[name], found.params[name]) for name in space if name in found.params},
        state=next(ours for ours, theirs in STATES.items() if theirs == found.state.name),
        result=_result(record["result"]) if "result" in record else None,
        folds=tuple(record.get("folds", ())),
        deaths=record.get("deaths", 0),
        resumes=record.get("resumes", 0),
    )


def _document(result: TrialResult) -> dict[str, Any]:
    return {**vars(result), "reports": list(map(list, result.reports.items())), "marks": dict(result.marks)}


def _result(document: dict[str, Any]) -> TrialResult:
    return TrialResult(**{**document, "reports": {int(step): value for step, value in document["reports"]}})
