"""SqlStudies: studies in Optuna's tables on the ledger's database, each led by one process at a time."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ml_assets.errors import LedgerError, StudyLostError
from ml_assets.interfaces import PrunedTrial, Study, StudyPlan, Trial
from resources.studies import sampling
from resources.studies.leases import Holder, is_free
from resources.studies.sql_study import LEASE, SqlStudy, create_study, now_of
from resources.studies.tables import StudyTables

_PAUSE_SECONDS = 0.5
_log = logging.getLogger(__name__)


class SqlStudies:
    """Implements `ml_assets.interfaces.Studies`. Made without I/O; may be used in forked processes.

    Args:
        url: The ledger's.

    Raises:
        LedgerError: If the URL has another form; by `lead` and the study it gives, if the database refuses.
    """

    def __init__(self, url: str) -> None:
        self._tables = StudyTables(url)

    def __repr__(self) -> str:
        return f"SqlStudies({self._tables.shown!r})"

    @contextmanager
    def lead(self, plan: StudyPlan) -> Iterator[Study]:
        """Lead a study for the block, created when there is none; waits while another living process leads it.

        Raises:
            StudyError: If Optuna's tables cannot be made, or are of another release.
        """
        holder = Holder.of_this_process()
        told = False
        while (leader := self._take(plan, holder)) is not None:
            if not told:
                _log.warning("%s: waiting for %s, which leads the same search.", plan.title, leader)
                told = True
            time.sleep(_PAUSE_SECONDS)
        study = SqlStudy(self._tables, plan, holder)
        try:
            yield study
        finally:
            with suppress(StudyLostError, LedgerError):  # a lease that cannot be given back ends by itself
                study.leave()

    def suggest(self, plan: StudyPlan, number: int, history: Sequence[Trial]) -> dict[str, Any]:
        """Return the parameters of a trial: a pure function of its arguments."""
        return sampling.suggest(plan, number, history)

    def pruning(self, plan: StudyPlan, trial: Trial, history: Sequence[Trial]) -> PrunedTrial:
        """Return what decides whether a trial ends early."""
        return sampling.OptunaPruning(plan, trial, history)

    def importance(self, plan: StudyPlan, trials: Sequence[Trial]) -> dict[str, float]:
        """Return each parameter's share in what decides the metric, largest first."""
        return sampling.importance(plan, trials)

    def _take(self, plan: StudyPlan, holder: Holder) -> Holder | None:
        """Take the lead, or return who has it."""
        with self._tables.writing("Taking the lead of a search", plan.name) as (storage, connection):
            try:
                study_id = storage.get_study_id_from_name(plan.name)
            except KeyError:
                study_id = create_study(storage, plan)
            now = now_of(connection)
            lease = storage.get_study_user_attrs(study_id).get(LEASE)
            if lease is not None and not is_free(lease, now):
                return Holder.of(lease)
            storage.set_study_user_attr(study_id, LEASE, holder.lease(now))
            return None
