"""SqlStudies: studies in Optuna's tables on the ledger's database, each led by one process at a time."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from ml_assets.errors import LedgerError, StudyLostError
from ml_assets.interfaces import PrunedTrial, Study, StudyPlan, Trial, TrialDesk
from ml_assets.search.patience import Patience, pause_seconds
from resources.studies import sampling
from resources.studies.leases import Holder, is_free
from resources.studies.sql_desk import LEADER, SqlDesk, now_of
from resources.studies.sql_study import SqlStudy, create_study
from resources.studies.tables import StudyTables

_TURN = "turn"
"""User attribute of a study: the lease of the process in `one_at_a_time`."""
_LOOK_SECONDS = 5.0
"""Longest time between two looks of a process that does not lead."""
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
    def lead(self, plan: StudyPlan, meanwhile: Callable[[TrialDesk], bool] | None = None) -> Iterator[Study]:
        """Lead a study for the block, created when there is none; waits while another living process leads it.

        Args:
            plan: The study.
            meanwhile: Called again and again while another process leads; see `Studies`.

        Raises:
            StudyError: If Optuna's tables cannot be made, or are of another release.
        """
        holder = Holder.of_this_process()
        leader = self._take(plan, holder)
        if leader is not None:
            what = "waiting for" if meanwhile is None else "helping"
            _log.warning("%s: %s %s, which leads the same search.", plan.title, what, leader)
            self._wait(plan, holder, meanwhile)
        study = SqlStudy(self._tables, plan, holder)
        try:
            yield study
        finally:
            with suppress(StudyLostError, LedgerError):
                study.leave()

    @contextmanager
    def one_at_a_time(self, plan: StudyPlan) -> Iterator[None]:
        """Keep other processes with this study out of the block, whoever leads it; waits for one that is inside."""
        holder, patience, began, is_inside = Holder.of_this_process(), Patience(), time.monotonic(), False
        while not is_inside:
            with patience.asking():
                is_inside = self._take(plan, holder, _TURN) is None
            if not is_inside:
                time.sleep(pause_seconds(time.monotonic() - began, longest=_LOOK_SECONDS))
        try:
            yield
        finally:
            with suppress(LedgerError):  # a lease that cannot be given back ends by itself
                self._give_back(plan, holder, _TURN)

    def suggest(self, plan: StudyPlan, number: int, history: Sequence[Trial]) -> dict[str, Any]:
        """Return the parameters of a trial: a pure function of its arguments."""
        return sampling.suggest(plan, number, history)

    def pruning(self, plan: StudyPlan, trial: Trial, history: Sequence[Trial]) -> PrunedTrial:
        """Return what decides whether a trial ends early."""
        return sampling.OptunaPruning(plan, trial, history)

    def importance(self, plan: StudyPlan, trials: Sequence[Trial]) -> dict[str, float]:
        """Return each parameter's share in what decides the metric, largest first."""
        return sampling.importance(plan, trials)

    def _wait(self, plan: StudyPlan, holder: Holder, meanwhile: Callable[[TrialDesk], bool] | None) -> None:
        """Return when this process has the lead that another one had."""
        desk, patience, idle_since = SqlDesk(self._tables, plan, holder), Patience(), time.monotonic()
        leads = False
        try:
            while not leads:
                if meanwhile is not None:
                    try:
                        had_any = meanwhile(desk)
                    except StudyLostError:  # begun anew, or this process was silent
                        had_any, desk = True, SqlDesk(self._tables, plan, holder)
                    idle_since = time.monotonic() if had_any else idle_since
                time.sleep(pause_seconds(time.monotonic() - idle_since, longest=_LOOK_SECONDS))
                with patience.asking():
                    leads = self._take(plan, holder) is None
        finally:
            if meanwhile is not None:
                with suppress(StudyLostError, LedgerError):  # a lease that cannot be given back ends by itself
                    desk.leave()

    def _take(self, plan: StudyPlan, holder: Holder, attribute: str = LEADER) -> Holder | None:
        """Take the lead, or what else a lease stands for, or return who has it."""
        with self._tables.writing("Taking the lead of a search", plan.name) as (storage, connection):
            try:
                study_id = storage.get_study_id_from_name(plan.name)
            except KeyError:
                study_id = create_study(storage, plan)
            now = now_of(connection)
            lease = storage.get_study_user_attrs(study_id).get(attribute)
            # It may be this one's: a lead that was given, and of which the answer was lost.
            if lease is not None and lease["lead_id"] != holder.lead_id and not is_free(lease, now):
                return Holder.of(lease)
            storage.set_study_user_attr(study_id, attribute, holder.lease(now))
            return None

    def _give_back(self, plan: StudyPlan, holder: Holder, attribute: str) -> None:
        """Give back what a lease stands for, if this process still has it."""
        # Without the study there is nothing to give back.
        with self._tables.writing("Leaving a search", plan.name) as (storage, _), suppress(KeyError):
            study_id = storage.get_study_id_from_name(plan.name)
            lease = storage.get_study_user_attrs(study_id).get(attribute)
            if lease is not None and lease["lead_id"] == holder.lead_id:
                storage.set_study_user_attr(study_id, attribute, None)
