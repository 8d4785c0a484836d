"""One study as its leader reads and writes it: each call is one transaction, and asks first who leads."""

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ml_assets.errors import StudyError, StudyLostError
from ml_assets.interfaces import StudyPlan, Trial, TrialResult
from resources.studies.leases import Holder
from resources.studies.sampling import STATES, frozen_trial
from resources.studies.sql_desk import BORN, LEADER, Open, SqlDesk, document_of, now_of, trial_of

if TYPE_CHECKING:
    from optuna.storages import RDBStorage

_NOTE = "note:"


def create_study(storage: "RDBStorage", plan: StudyPlan) -> int:
    """Store an empty study, with what a reader of Optuna's tables wants to know of it, and return its id."""
    from optuna.study import StudyDirection

    study_id = storage.create_new_study([StudyDirection[plan.direction.upper()]], plan.name)
    storage.set_study_user_attr(study_id, BORN, uuid.uuid4().hex)
    storage.set_study_user_attr(study_id, "title", plan.title)
    storage.set_study_user_attr(study_id, "sampler", plan.sampler)
    storage.set_study_user_attr(study_id, "pruner", plan.pruner)
    return study_id


class SqlStudy(SqlDesk):
    """Implements `ml_assets.interfaces.Study`.

    Args:
        tables: Where the study is.
        plan: The study.
        holder: Who leads it.
    """

    def facts(self) -> dict[str, Any]:
        """Return the notes of the study by name."""
        with self._entering("Reading a search") as tx:
            return {k.removeprefix(_NOTE): v for k, v in tx.attributes.items() if k.startswith(_NOTE)}

    def note(self, name: str, value: Any) -> None:
        """Keep a note of the study."""
        with self._entering("Noting of a search") as tx:
            tx.storage.set_study_user_attr(tx.study_id, f"{_NOTE}{name}", value)

    def add(self, trials: Sequence[Trial], *, claimed: int = 0) -> None:
        """Store new trials, all or none, the first ones claimed."""
        ids: dict[int, int] = {}
        with self._entering("Storing new trials") as tx:
            for place, trial in enumerate(trials):
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
                if place < claimed:
                    tx.put(trial_id, {"claim": self._holder.lead_id})
        self._ids |= ids
        self._mine |= {trial.number for trial in trials[:claimed]}

    def running(self) -> list[Trial]:
        """Return the trials that were not told yet, in order of number."""
        with self._entering("Reading a search") as tx:
            return [trial_of(self._plan, trial) for trial in tx.running()]

    def tell(self, results: Mapping[int, TrialResult]) -> None:
        """Finish a round, all of it or nothing."""
        from optuna.trial import TrialState as OptunaState

        with self._entering("Finishing trials") as tx:
            for number, result in results.items():
                trial_id = self._ids[number]
                tx.put(trial_id, tx.record(trial_id) | {"result": document_of(result)})
                for name, value in result.marks.items():
                    tx.storage.set_trial_system_attr(trial_id, name, value)
                for step, value in result.reports.items():
                    tx.storage.set_trial_intermediate_value(trial_id, step, value)
                values = None if result.value is None else [result.value]
                tx.storage.set_trial_state_values(trial_id, OptunaState[STATES[result.state]], values)

    def restart(self) -> None:
        """Forget all trials and notes."""
        with self._entering("Beginning a search anew") as tx:
            tx.storage.delete_study(tx.study_id)
            study_id = create_study(tx.storage, self._plan)
            tx.storage.set_study_user_attr(study_id, LEADER, tx.attributes[LEADER])
        self._ids, self._mine = {}, set()

    def leave(self) -> None:
        """Give the lead back."""
        with self._entering("Giving back the lead of a search") as tx:
            tx.storage.set_study_user_attr(tx.study_id, LEADER, None)

    @contextmanager
    def _entering(self, action: str) -> Iterator[Open]:
        """Enter a transaction after making sure that this process still leads, and say that it does."""
        with self._tables.writing(action, self._plan.name) as (storage, connection):
            try:
                study_id = storage.get_study_id_from_name(self._plan.name)
                attributes = storage.get_study_user_attrs(study_id)
            except KeyError:
                attributes, study_id = {}, 0
            lease, now = attributes.get(LEADER), now_of(connection)
            if lease is None or lease["lead_id"] != self._holder.lead_id:
                leader = "nobody" if lease is None else str(Holder.of(lease))
                raise StudyLostError(
                    f"{self._plan.title}: this process ({self._holder}) was silent for too long and does not lead its "
                    f"search any more; {leader} does. Nothing is lost: run the step again when that one has ended."
                )
            renewed = self._holder.lease(now)
            storage.set_study_user_attr(study_id, LEADER, renewed)
            yield Open(storage=storage, study_id=study_id, attributes=attributes | {LEADER: renewed}, now=now)
