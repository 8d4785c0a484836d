"""The steps of one run that have pods of their own: starts them, follows them, and says what became of them."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from dagster import DagsterEvent, DagsterEventType, Executor
from dagster._core.execution.context.system import (  # noqa: TID251 the executor interface's own type
    PlanOrchestrationContext,
)
from dagster._core.execution.plan.objects import ErrorSource  # noqa: TID251 whose fault a failure is
from dagster._core.executor.step_delegating import StepHandlerContext  # noqa: TID251 what step handlers are given
from dagster._grpc.types import ExecuteStepArgs

from ml_assets.errors import MlAssetsError
from ml_assets.executors import pod_words as words
from ml_assets.executors.cluster_line import ClusterLine
from ml_assets.executors.event_tail import EventTail
from ml_assets.executors.pod_record import Pod, StepLog, Wait, launch_of, metadata_of
from ml_assets.executors.pods import (
    PodEnd,
    PodLaunch,
    PodLook,
    PodPhase,
    PodRefusedError,
    PodRules,
    PodRunner,
    StepDemand,
    WorkerSize,
    demand_of,
)
from ml_assets.executors.worker_budget import WorkerBudget

_LINGER_SECONDS = 60.0
"""How long a pod may go on after its step has ended, as to store its output."""
_STOP_SECONDS = 20.0
"""How long a cancelled run waits for its pods to go; Kubernetes gives the run's own pod 30 seconds."""
_LAST_SECONDS = 5.0
"""How long a run that is over waits for its last pods."""

_OVER = (PodPhase.ENDED, PodPhase.ABSENT)


@dataclass(kw_only=True)
class PodSteps:
    """The pods of one run.

    Attributes:
        executor: Decides on retries.
        context: The run.
        active: The run's state machine.
        worker: What the run's worker has; steps that fit do not come here.
        open_cluster: Opens the cluster when the first step needs it.
        rules: Times and limits.
        tail: Reads the run's log.
    """

    executor: Executor
    context: PlanOrchestrationContext
    active: WorkerBudget
    worker: WorkerSize
    open_cluster: Callable[[], PodRunner]
    rules: PodRules
    tail: EventTail
    pods: dict[str, Pod] = field(default_factory=dict)
    launches: dict[str, PodLaunch] = field(default_factory=dict)
    next_look: float = 0.0
    next_events: float = 0.0

    @cached_property
    def line(self) -> ClusterLine:
        """Return the line to the cluster; what happened before it was needed is passed over."""
        if not self.launches:
            for _ in self.tail.new():  # what happened before the first pod has been dealt with
                pass
        return ClusterLine(self.open_cluster, self.context, self.rules)

    @cached_property
    def log(self) -> StepLog:
        """Return what writes of these steps to the run's log."""
        return StepLog(executor=self.executor, context=self.context, active=self.active)

    @property
    def is_idle(self) -> bool:
        """Return whether no step is in a pod."""
        return all(pod.done_since is not None for pod in self.pods.values())

    def start(self, step: Any, *, memory_mib: int | None = None) -> None:
        """Start a step (an ExecutionStep) in a pod, with other memory in MiB than its tags ask for if that is given.

        Raises:
            PodRefusedError: If the cluster cannot be opened.
        """
        line = self.line
        former = self.launches.get(step.key, PodLaunch(job="", number=-1, memory_mib=memory_mib))
        number = former.number + 1
        launch = replace(former, job=line.cluster.job_name(step.key, number), number=number)
        self._begin(step, demand_of(step.key, step.tags), launch)

    def adopt(self, events: Sequence[DagsterEvent]) -> None:
        """Take over the pods that an earlier worker of this run has started and that have not told their end."""
        running: set[str] = set()
        for event in events:
            if event.event_type == DagsterEventType.STEP_WORKER_STARTING and event.step_key:
                launch = launch_of(event)
                if launch:
                    self.launches[event.step_key] = launch
                    running.add(event.step_key)
            elif event.is_step_success or event.is_step_failure or event.is_step_up_for_retry:
                running.discard(event.step_key or "")
        for key in sorted(running):
            step = self.active.get_step_by_key(key)
            self.active.take(key)
            self.active.claim_again(key)
            pod = Pod(step=step, demand=demand_of(key, step.tags), launch=self.launches[key], adopted=True)
            self.pods[key] = pod
            self._create(pod)

    def advance(self) -> Iterator[DagsterEvent]:
        """Yield what happened to the pods, and see to those that need something."""
        now = time.monotonic()
        if not self.pods:
            return
        if now >= self.next_events:
            self.next_events = now + self.rules.event_seconds
            yield from self._read()
        if now >= self.next_look:
            self.next_look = now + self.rules.look_seconds
            yield from self._look()

    def stop(self) -> Iterator[DagsterEvent]:
        """Remove the pods of a run that is cancelled, and report their steps as interrupted."""
        running = [pod for pod in self.pods.values() if pod.done_since is None]
        deadline = time.monotonic() + _STOP_SECONDS
        asked: set[str] = set()
        left = {pod.launch.job for pod in running}
        while left and time.monotonic() < deadline:
            asked |= {job for job in left - asked if self.line.remove(job, insist=True)}
            left -= self._gone(left)
            if left:
                time.sleep(min(0.5, self.rules.look_seconds))
        yield from self._read()
        for pod in running:
            if pod.done_since is None:
                where = f"Kubernetes Job {pod.launch.job}"
                state = "still there: the reaper removes it" if pod.launch.job in left else "removed"
                message = f"The run was cancelled; {where} is {state}."
                self.log.fail_for_good(pod, message, "DagsterExecutionInterruptedError", ErrorSource.INTERRUPT)
        yield from self._read()

    def close(self) -> None:
        """Remove what is left of pods when the run is over; one that only ends late gets a few seconds."""
        deadline = time.monotonic() + _LAST_SECONDS
        left = {pod.launch.job for pod in self.pods.values()}
        while left and self.is_idle and time.monotonic() < deadline:
            left -= self._gone(left)
            if left:
                time.sleep(min(0.5, self.rules.look_seconds))
        for job in left:
            self.line.remove(job)

    def _gone(self, jobs: set[str]) -> set[str]:
        looks = self.line.look(sorted(jobs), insist=True) or {}
        return {job for job, look in looks.items() if look.phase in _OVER}

    # --- starting

    def _begin(self, step: Any, demand: StepDemand, launch: PodLaunch) -> None:
        self.launches[step.key] = launch
        pod = Pod(step=step, demand=demand, launch=launch)
        asked = replace(demand, memory_mib=launch.memory_mib or demand.memory_mib)
        self.pods[step.key] = pod
        DagsterEvent.step_worker_starting(
            self.context.for_step(step),
            f'Starting "{step.key}" in a pod of its own, Kubernetes Job {launch.job}: it asks for '
            f"{self.worker.lacks(asked)}.",
            metadata=metadata_of(launch),
        )
        self._create(pod)

    def _create(self, pod: Pod) -> bool:
        """Create the Job of a start; return whether another one may be tried now."""
        launch = replace(pod.launch, keep_seconds=self.rules.keep_seconds)
        try:
            there = self.line.ask(lambda cluster: cluster.start(self._handler_context(pod), launch, pod.demand))
        except MlAssetsError as error:
            if isinstance(error, PodRefusedError) and error.for_now:
                self._watch_waiting(pod, PodLook(phase=PodPhase.WAITING, message=str(error), queued=True))
                return False
            # the next try would be refused for the same reason
            self.log.fail_for_good(pod, str(error), "PodRefused")
            return True
        if there is None:
            return False
        pod.created, pod.wait = True, pod.wait.next_turn()
        if pod.adopted:
            what = "goes on in its pod" if there else "had no pod yet: one is started now"
            self.log.tell(
                pod, f"The run has a new worker. Step {pod.step.key} {what}, Kubernetes Job {pod.launch.job}."
            )
        return True

    def _create_those_that_wait(self) -> None:
        """Try again to create Jobs, until one is refused: when a quota is used up, hundreds may wait."""
        for key, pod in list(self.pods.items()):
            if pod.created or pod.decided:
                continue
            if not self._create(pod):
                self.pods[key] = self.pods.pop(key)  # another one may fit: it is the first one next time
                return

    def _handler_context(self, pod: Pod) -> StepHandlerContext:
        context = self.context
        return StepHandlerContext(
            instance=context.instance,
            plan_context=context,
            steps=[pod.step],
            execute_step_args=ExecuteStepArgs(
                job_origin=context.reconstructable_job.get_python_origin(),
                run_id=context.run_id,
                step_keys_to_execute=[pod.step.key],
                instance_ref=context.instance.get_ref(),
                retry_mode=self.executor.retries.for_inner_plan(),
                known_state=self.active.get_known_state(),
                should_verify_step=False,  # a Job has one pod at most, and a start of a step one Job
            ),
            dagster_run=context.dagster_run,
        )

    # --- following

    def _read(self) -> Iterator[DagsterEvent]:
        for event in self.tail.new():
            yield from self._take(event)

    def _take(self, event: DagsterEvent) -> Iterator[DagsterEvent]:
        pod = self.pods.get(event.step_key or "")
        if pod is None or event.is_step_skipped:
            return
        yield event
        if pod.done_since is not None:
            return
        if event.is_resource_init_failure:
            error = event.engine_event_data.error
            self.log.fail(pod, error.to_string() if error else event.message or "a resource did not start")
            return
        self.active.handle_event(event)
        if event.is_step_success or event.is_step_failure or event.is_step_up_for_retry:
            pod.decided, pod.done_since = True, time.monotonic()
            self.next_look = min(self.next_look, pod.done_since + min(1.0, self.rules.look_seconds))

    def _look(self) -> Iterator[DagsterEvent]:
        self._create_those_that_wait()
        made = [pod for pod in self.pods.values() if pod.created]
        looks = self.line.look([pod.launch.job for pod in made]) if made else {}
        yield from self.line.news()
        if looks is None or self.line.is_given_up:
            yield from self._give_up_without_cluster()
            return
        if any(look.phase in _OVER for look in looks.values()):
            yield from self._read()  # all that an ended pod has written is in the log now
            for event in self.tail.missed_ends():
                yield from self._take(event)
        for pod in made:
            self._see_to(pod, looks[pod.launch.job])
        for key in [key for key, pod in self.pods.items() if pod.decided and not pod.created and pod.done_since]:
            del self.pods[key]
        yield from self._read()

    def _see_to(self, pod: Pod, look: PodLook) -> None:
        now = time.monotonic()
        over = look.phase in _OVER
        if pod.done_since is not None:
            late = now - pod.done_since - _LINGER_SECONDS
            if over:
                del self.pods[pod.step.key]
            elif late > 0:  # a node that is lost never says that it ended
                self.line.remove(pod.launch.job, at_once=late > look.grace_seconds + self.rules.lost_seconds)
        elif pod.decided:
            return
        elif over:
            self._judge(pod, replace(look, end=PodEnd.TIME_LIMIT) if pod.overdue else look)
        elif look.phase == PodPhase.LEAVING:
            pod.leaving_since = pod.leaving_since or now
            if now - pod.leaving_since > look.grace_seconds + self.rules.lost_seconds and self.line.remove(
                pod.launch.job, at_once=True
            ):
                reason = (
                    f"its node does not say that it ended, {words.span(now - pod.leaving_since)} after it was told to"
                )
                self._judge(pod, replace(look, end=look.end or PodEnd.DISRUPTED, message=look.message or reason))
        elif look.phase == PodPhase.WAITING:
            self._watch_waiting(pod, look)
        else:
            pod.wait = Wait()  # a Job whose pod has just gone looks like one that waits, for a moment
            self._watch_running(pod, look)

    def _watch_waiting(self, pod: Pod, look: PodLook) -> None:
        now, key, wait = time.monotonic(), pod.step.key, pod.wait
        if now - wait.since < self.rules.notice_seconds:
            return
        look = wait.count(self.line.explain(pod.launch.job, look), now)
        waited = wait.seconds[look.queued]
        limit = self.rules.queue_seconds if look.queued else self.rules.pending_seconds
        if waited > limit:
            if self.line.remove(pod.launch.job):
                message = words.never_started(key, pod.launch.job, look, limit)
                self.log.fail_for_good(pod, message, "PodNeverStarted")
        elif wait.is_news(look, self.rules.notice_seconds):
            self.log.tell(pod, words.waiting(key, pod.launch.job, look, waited, limit))

    def _watch_running(self, pod: Pod, look: PodLook) -> None:
        now, limit = time.monotonic(), pod.demand.time_limit_seconds
        pod.running_since = pod.running_since or now
        if limit is not None and now - pod.running_since > limit + self.rules.lost_seconds:
            pod.overdue = self.line.remove(pod.launch.job)  # its node should have ended it

    # --- deciding

    def _judge(self, pod: Pod, look: PodLook) -> None:
        """Say what becomes of a step whose pod ended without the step's own word."""
        look = self.line.explain(pod.launch.job, look)
        key, launch = pod.step.key, pod.launch
        end = look.end or PodEnd.DISRUPTED
        had = launch.memory_mib or pod.demand.memory_mib
        memory = pod.demand.next_memory(had)
        if end == PodEnd.DISRUPTED and launch.free_starts < self.rules.free_starts:
            self.log.tell(pod, words.lost(key, look, launch, self.rules))
            self._again(pod, free_starts=launch.free_starts + 1)
        elif end == PodEnd.DISRUPTED:
            self.log.fail(pod, words.lost_too_often(key, look, launch))
        elif end == PodEnd.OUT_OF_MEMORY and memory is not None:
            self.log.tell(pod, words.more_memory(key, look, launch, had, memory))
            self._again(pod, memory_mib=memory)
        else:
            self.log.fail(pod, words.crashed(key, look, launch, pod.demand, self.line.last_words(look)))

    def _again(self, pod: Pod, **changes: int) -> None:
        number = pod.launch.number + 1
        job = self.line.cluster.job_name(pod.step.key, number)
        self._begin(pod.step, pod.demand, replace(pod.launch, job=job, number=number, **changes))

    def _give_up_without_cluster(self) -> Iterator[DagsterEvent]:
        if not self.line.is_given_up:
            return
        for pod in self.pods.values():
            if not pod.decided:  # without a retry: its pod may well be running
                self.log.fail_for_good(pod, f"Step {pod.step.key}: {self.line.farewell}", "ClusterAway")
        yield from self._read()
        for key in [key for key, pod in self.pods.items() if pod.done_since is not None]:
            del self.pods[key]
