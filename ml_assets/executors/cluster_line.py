"""The line to a cluster whose API may be away for a while: asks, waits longer after each failure, and tells of it."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from dagster import DagsterEvent
from dagster._core.events import EngineEventData  # noqa: TID251 payload of engine events
from dagster._core.execution.context.system import (  # noqa: TID251 the executor interface's own type
    PlanOrchestrationContext,
)

from ml_assets.errors import MlAssetsError
from ml_assets.executors.pod_words import span
from ml_assets.executors.pods import ClusterAwayError, PodLook, PodRefusedError, PodRules, PodRunner

_T = TypeVar("_T")
_LONGEST_PAUSE_SECONDS = 30.0


class ClusterLine:
    """Asks a cluster; an answer of None means that it is away and that asking again is due later.

    Args:
        open_cluster: Opens whom to ask; called with the first question.
        context: The run whose log is told.
        rules: Times and limits.
    """

    def __init__(
        self, open_cluster: Callable[[], PodRunner], context: PlanOrchestrationContext, rules: PodRules
    ) -> None:
        self._open_cluster = open_cluster
        self._cluster: PodRunner | None = None
        self._context = context
        self._rules = rules
        self._away_since: float | None = None
        self._pause = 0.0
        self._ask_again = 0.0
        self._reason = ""
        self._may_look = True
        self._kept: set[str] = set()
        self._news: list[DagsterEvent] = []

    @property
    def cluster(self) -> PodRunner:
        """Return the cluster, opened now if it was not.

        Raises:
            PodRefusedError: If it cannot be opened, as without a configuration that can be read.
        """
        if self._cluster is None:
            try:
                self._cluster = self._open_cluster()
            except MlAssetsError as error:
                raise PodRefusedError(str(error)) from error
        return self._cluster

    def ask(self, question: Callable[[PodRunner], _T], *, insist: bool = False) -> _T | None:
        """Return the cluster's answer, or None while it is away.

        Args:
            question: What to ask; no harm is done when it is asked twice.
            insist: Ask even while a pause is on.

        Raises:
            PodRefusedError: If the cluster answers that it will not, or cannot be opened.
        """
        if self._may_look and time.monotonic() < self._ask_again and not insist:
            return None
        cluster = self.cluster
        try:
            answer = question(cluster)
        except ClusterAwayError as error:
            self._went_away("does not answer", str(error))
            return None
        except PodRefusedError:
            self._answered()
            raise
        self._answered()
        return answer

    def look(self, jobs: Sequence[str], *, insist: bool = False) -> Mapping[str, PodLook] | None:
        """Return what becomes of Jobs, or None while the cluster is away or does not let us look.

        The right to look may be missing for a moment only, and steps in pods go on meanwhile. So it counts as away;
        other questions are asked all the same.
        """
        paused = time.monotonic() < self._ask_again and not self.is_given_up
        if paused and not self._may_look and not insist:
            return None
        try:
            looks = self.ask(lambda cluster: cluster.look(jobs), insist=insist)
        except PodRefusedError as error:
            self._may_look = False
            self._went_away("does not let the run look after its pods", str(error))
            return None
        if looks is not None and not self._may_look:
            self._may_look = True
            self._answered()
        return looks

    def explain(self, job: str, look: PodLook) -> PodLook:
        """Return a look with what the cluster's events say of it, or as it is where that cannot be known."""
        try:
            return self.ask(lambda cluster: cluster.explain(job, look)) or look
        except PodRefusedError as error:
            return replace(look, message=look.message or f"nobody may read its events: {error}")

    def last_words(self, look: PodLook) -> str:
        """Return the last lines that a pod printed, or nothing where that cannot be known."""
        try:
            return self.ask(lambda cluster: cluster.last_words(look)) or ""
        except PodRefusedError:
            return ""

    def remove(self, job: str, *, at_once: bool = False, insist: bool = False) -> bool:
        """Delete a Job; return whether the cluster took that, or refuses it: then the Job stays, and the log tells."""

        def removed(cluster: PodRunner) -> bool:
            cluster.remove(job, at_once=at_once)
            return True

        try:
            return self.ask(removed, insist=insist) is True
        except PodRefusedError as error:
            if job not in self._kept:
                self._kept.add(job)
                self._tell(
                    f"Kubernetes Job {job} could not be removed: {error} Nobody needs it any more; "
                    "`ml-assets cluster reap` removes it once it may."
                )
            return True

    @property
    def is_given_up(self) -> bool:
        """Return whether the cluster has been away for longer than is waited."""
        return self._away_since is not None and time.monotonic() - self._away_since > self._rules.away_seconds

    @property
    def farewell(self) -> str:
        """Return what is said to a step when the cluster is given up."""
        what, remedy = "has not answered", "Look after the API"
        if not self._may_look:
            what = "has not let the run look after its pods"
            remedy = "Give the service account of the run's worker its rights"
        return (
            f"the cluster's API {what} for {span(self._rules.away_seconds)} ({self._reason}); expected an answer. "
            f"Nobody knows what became of the step's pod. {remedy} and execute the run again from the failed step; "
            "`ml-assets cluster reap` removes pods that are left."
        )

    def news(self) -> Iterator[DagsterEvent]:
        """Yield what was written to the run's log since the last call."""
        yield from self._news
        self._news = []

    def _went_away(self, what: str, reason: str) -> None:
        now = time.monotonic()
        self._reason = reason
        if self._away_since is None:
            self._away_since = now
            self._tell(
                f"The cluster's API {what} ({reason}). Steps in pods go on; the cluster is asked again with "
                f"growing pauses, for {span(self._rules.away_seconds)}."
            )
        self._pause = min(_LONGEST_PAUSE_SECONDS, max(2 * self._pause, self._rules.look_seconds))
        self._ask_again = now + self._pause

    def _answered(self) -> None:
        if not self._may_look:  # other answers do not say what becomes of pods
            return
        if self._away_since is not None:
            self._tell(f"The cluster's API answers again, after {span(time.monotonic() - self._away_since)}.")
        self._away_since, self._pause, self._ask_again = None, 0.0, 0.0

    def _tell(self, message: str) -> None:
        self._news.append(DagsterEvent.engine_event(self._context, message, EngineEventData()))
