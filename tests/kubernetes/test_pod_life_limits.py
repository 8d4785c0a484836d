"""How often and how long the executor tries, on a cluster that is only a script: every pod ends as the script says."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, repeat
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType as Type

from ml_assets.compute import GPUS_TAG, K8S_TAG, MEMORY_TAG, OOM_MEMORY_TAG, TIME_LIMIT_TAG
from ml_assets.errors import MlAssetsError
from ml_assets.executors.pods import (
    ClusterAwayError,
    PodEnd,
    PodLaunch,
    PodLook,
    PodPhase,
    PodRefusedError,
    StepDemand,
)
from ml_assets.executors.warm_executor import build_executor
from resources.dagster_home import initialise_home
from resources.kubernetes.pod_looks import explained, look_at

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore:Parameter `include_sources`"),
]

ROOT = str(Path(__file__).parents[2])
ENDED = PodLook(phase=PodPhase.ENDED, pod="pod-1", node="gpu-1")


@dataclass
class Script:
    """A cluster whose pods end as `ends` says, one look each; the last one repeats."""

    ends: Sequence[PodLook] = ()
    on_start: Callable[[PodLaunch], bool] = lambda _: False
    launches: list[PodLaunch] = field(default_factory=list)
    jobs: set[str] = field(default_factory=set)
    removed: list[tuple[str, bool]] = field(default_factory=list)
    is_away: bool = False

    def job_name(self, step_key: str, number: int) -> str:
        return f"{step_key}-{number}"

    def start(self, context: Any, launch: PodLaunch, demand: StepDemand) -> bool:
        self.launches.append(launch)
        there = launch.job in self.jobs
        self.jobs.add(launch.job)
        return self.on_start(launch) or there

    def look(self, jobs: Sequence[str]) -> Mapping[str, PodLook]:
        if self.is_away:
            raise ClusterAwayError("connection refused")
        return {job: self._look(job) for job in jobs}

    def _look(self, job: str) -> PodLook:
        if job in {removed for removed, _ in self.removed}:
            return PodLook(phase=PodPhase.ABSENT)
        return self.ends[min(int(job.rpartition("-")[2]), len(self.ends) - 1)]

    def explain(self, job: str, look: PodLook) -> PodLook:
        return look

    def last_words(self, look: PodLook) -> str:
        return "RuntimeError: the last line" if look.end == PodEnd.CRASHED else ""

    def remove(self, job: str, *, at_once: bool = False) -> None:
        if self.is_away:
            raise ClusterAwayError("connection refused")
        self.removed.append((job, at_once))


@dataclass
class InTurn(Script):
    """A cluster that shows another state at each look: a pod or none, and the events that are there a moment later."""

    states: Iterable[tuple[Mapping[str, Any] | None, Sequence[Mapping[str, Any]]]] = ()
    seen: int = 0

    def __post_init__(self) -> None:
        self._states = iter(self.states)
        self._state: Any = None

    def _look(self, job: str) -> PodLook:
        if job in {removed for removed, _ in self.removed}:
            return PodLook(phase=PodPhase.ABSENT)
        self._state = next(self._states, self._state)
        self.seen += 1
        pod, _ = self._state
        return look_at({"status": {}}, [] if pod is None else [pod])

    def explain(self, job: str, look: PodLook) -> PodLook:
        return explained(look, self._state[1])


def pending(node: str | None = None, said: str = "") -> Mapping[str, Any]:
    """Return a pod that waits, as the API gives it."""
    blocked = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    status = {"phase": "Pending", "conditions": [blocked] if said else []}
    return {"metadata": {"name": "pod-1"}, "spec": {"nodeName": node}, "status": status}


def warning(reason: str, message: str) -> Mapping[str, Any]:
    return {"type": "Warning", "reason": reason, "message": message, "lastTimestamp": "2026-01-01T00:00:00Z"}


NO_GPU = "0/2 nodes are available: 1 Insufficient nvidia.com/gpu."
FAILED_POD: Mapping[str, Any] = {"metadata": {"name": "pod-1"}, "spec": {}, "status": {"phase": "Failed"}}

SCRIPT = Script()


def one_step(retries: int, tags: dict[str, str], rules: dict[str, float]) -> dg.JobDefinition:
    """A GPU step, and a light one behind it."""
    config = {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}
    policy = dg.RetryPolicy(max_retries=retries) if retries else None

    @dg.asset(op_tags={GPUS_TAG: "1", MEMORY_TAG: "1024", K8S_TAG: config, **tags}, retry_policy=policy)
    def heavy() -> None: ...

    @dg.asset(deps=[heavy])
    def after() -> None: ...

    quick = {"look_seconds": 0.05, "event_seconds": 0.05, "notice_seconds": 0.0, "lost_seconds": 0.1, **rules}
    executor = build_executor(lambda instance, run: SCRIPT).configured({"max_concurrent": 1, "pods": quick})
    definitions = dg.Definitions(assets=[heavy, after], jobs=[dg.define_asset_job("job", "*")], executor=executor)
    return definitions.resolve_job_def("job")


@dataclass
class Outcome:
    run: dg.DagsterRun
    instance: dg.DagsterInstance

    def of(self, *types: Type) -> list[dg.DagsterEvent]:
        records = self.instance.get_records_for_run(self.run.run_id, of_type=set(types)).records
        return [record.event_log_entry.get_dagster_event() for record in records]

    @property
    def failure(self) -> str:
        assert self.run.status == dg.DagsterRunStatus.FAILURE
        (event,) = self.of(Type.STEP_FAILURE)
        return event.step_failure_data.error.message

    @property
    def told(self) -> list[str]:
        return [event.message or "" for event in self.of(Type.ENGINE_EVENT)]


Execute = Callable[..., Outcome]


@pytest.fixture
def execute(tmp_path: Path) -> Iterator[Execute]:
    initialise_home(tmp_path / "home")
    with dg.DagsterInstance.from_config(str(tmp_path / "home")) as instance:

        def execute(script: Script, *, retries: int = 0, tags: dict[str, str] | None = None, **rules: float) -> Outcome:
            global SCRIPT  # noqa: PLW0603 - the job is built by name, in this process
            SCRIPT = script
            job = dg.build_reconstructable_job(__name__, "one_step", (retries, tags or {}, rules), {}, ROOT)
            with dg.execute_job(job, instance) as result:
                return Outcome(instance.get_run_by_id(result.run_id), instance)

        yield execute


def test_a_step_that_loses_its_pod_again_and_again_is_given_up(execute: Execute) -> None:
    lost = replace(ENDED, end=PodEnd.DISRUPTED, reason="Preempted", message="by a pod of higher priority")
    script = Script([lost])
    outcome = execute(script, retries=1)
    # five starts that cost nothing, then the retry, which has none left
    assert [launch.job for launch in script.launches] == [f"heavy-{number}" for number in range(7)]
    assert len(outcome.of(Type.STEP_UP_FOR_RETRY)) == 1
    assert outcome.failure.startswith(
        "Step heavy lost its pod 6 times, at last pod pod-1 on node gpu-1: Preempted: by a pod of higher priority."
    )
    assert sum("it starts again" in message for message in outcome.told) == 5


def test_memory_rises_as_far_as_the_profile_allows(execute: Execute) -> None:
    script = Script([replace(ENDED, end=PodEnd.OUT_OF_MEMORY, exit_code=137)])
    outcome = execute(script, tags={OOM_MEMORY_TAG: "2048,1536"})
    assert [launch.memory_mib for launch in script.launches] == [None, 1536, 2048]
    assert "used more than its 2048 MiB of memory" in outcome.failure
    assert "no larger size left" in outcome.failure


def test_a_crash_is_told_with_the_last_words_of_the_pod(execute: Execute) -> None:
    crashed = replace(ENDED, end=PodEnd.CRASHED, exit_code=139, reason="Error")
    outcome = execute(Script([crashed]))
    assert "pod pod-1 on node gpu-1 ended with exit code 139 (SIGSEGV)" in outcome.failure
    assert outcome.failure.endswith("Its last lines:\nRuntimeError: the last line")


def test_a_job_that_the_cluster_refuses_fails_its_step_in_the_clusters_words(execute: Execute) -> None:
    def refuse(launch: PodLaunch) -> bool:
        raise PodRefusedError("The cluster refuses Kubernetes Job heavy-0: 422 Invalid value: spec")

    script = Script(on_start=refuse)
    outcome = execute(script, retries=2)
    assert "422 Invalid value: spec" in outcome.failure
    assert not outcome.of(Type.STEP_UP_FOR_RETRY)  # the same would be refused again
    assert [launch.job for launch in script.launches] == ["heavy-0"]


QUOTA = PodRefusedError("The cluster refuses Kubernetes Job heavy-0: 403 exceeded quota", for_now=True)


def answers(*errors: Exception) -> Callable[[PodLaunch], bool]:
    """Return what answers to a start with these errors, one each time, and takes the Job then."""
    left = iter(errors)

    def answer(_: PodLaunch) -> bool:
        if error := next(left, None):
            raise error
        return False

    return answer


def test_a_job_that_a_quota_refuses_for_now_waits_as_one_in_a_queue(execute: Execute) -> None:
    script = Script([replace(ENDED, end=PodEnd.COMPLETED)], answers(QUOTA, QUOTA, QUOTA))
    outcome = execute(script, retries=1, pending_seconds=0.0)
    assert [launch.job for launch in script.launches] == [*["heavy-0"] * 4, "heavy-1"]
    (retry,) = outcome.of(Type.STEP_UP_FOR_RETRY)  # of the pod, which ended without a word
    assert "without telling how the step ended" in retry.step_retry_data.error.message
    (told,) = [message for message in outcome.told if "waits for" in message]
    assert "Job heavy-0 (no pod) waits for a place that others use now" in told
    assert "403 exceeded quota" in told


def test_a_quota_that_stays_used_up_is_given_up_and_uses_no_retry(execute: Execute) -> None:
    outcome = execute(Script(on_start=answers(*[QUOTA] * 1000)), retries=2, queue_seconds=0.3, away_seconds=0.0)
    assert "waited longer than 0 s and is given up. The cluster says: The cluster refuses" in outcome.failure
    assert "`queue_seconds`" in outcome.failure
    assert not outcome.of(Type.STEP_UP_FOR_RETRY)


def test_a_refusal_is_an_answer_of_a_cluster_that_was_away(execute: Execute) -> None:
    script = Script(
        [replace(ENDED, end=PodEnd.CRASHED, exit_code=3)], answers(ClusterAwayError("timed out"), *[QUOTA] * 12)
    )
    outcome = execute(script, away_seconds=0.3)
    assert "ended with exit code 3" in outcome.failure  # and not: the API has not answered
    assert sum("answers again" in message for message in outcome.told) == 1


def test_a_job_that_cannot_be_made_fails_its_step_and_not_the_run(execute: Execute) -> None:
    outcome = execute(Script(on_start=answers(MlAssetsError("step heavy: nothing says which image"))), retries=1)
    assert outcome.failure.startswith("step heavy: nothing says which image")
    assert not outcome.of(Type.STEP_UP_FOR_RETRY)


@dataclass
class Forbidding(Script):
    """A cluster that lets nobody look for so many times, or remove at all."""

    looks: int = 0
    removals: bool = True
    asked: int = 0

    def look(self, jobs: Sequence[str]) -> Mapping[str, PodLook]:
        self.asked += 1
        if self.asked <= self.looks:
            raise PodRefusedError("The cluster refuses list_namespaced_job: 403 forbidden.")
        return super().look(jobs)

    def remove(self, job: str, *, at_once: bool = False) -> None:
        super().remove(job, at_once=at_once)
        if not self.removals:
            raise PodRefusedError(f"The cluster refuses Kubernetes Job {job}: 403 forbidden.")


def test_a_right_to_look_that_is_missing_for_a_moment_ends_nothing(execute: Execute) -> None:
    outcome = execute(Forbidding([replace(ENDED, end=PodEnd.CRASHED, exit_code=3)], looks=3))
    assert "ended with exit code 3" in outcome.failure
    told = [message for message in outcome.told if "The cluster's API" in message]
    assert len(told) == 2
    assert "does not let the run look after its pods (The cluster refuses list_namespaced_job: 403" in told[0]
    assert "answers again" in told[1]


def test_a_right_to_look_that_stays_missing_fails_the_step_and_says_so(execute: Execute) -> None:
    outcome = execute(Forbidding(looks=10**6), retries=1, away_seconds=0.3)
    assert "has not let the run look after its pods for 0 s" in outcome.failure
    assert "Give the service account of the run's worker its rights" in outcome.failure
    assert not outcome.of(Type.STEP_UP_FOR_RETRY)


def test_a_job_that_may_not_be_removed_does_not_end_the_run(execute: Execute) -> None:
    waiting = PodLook(phase=PodPhase.WAITING, pod="pod-1", reason="Unschedulable", message="no such node")
    outcome = execute(Forbidding([waiting], removals=False), pending_seconds=0.2)
    assert "`pending_seconds`" in outcome.failure
    assert sum("Kubernetes Job heavy-0 could not be removed" in message for message in outcome.told) == 1


def test_a_job_is_to_stay_for_longer_than_the_cluster_may_be_out_of_sight(execute: Execute) -> None:
    script = Script([replace(ENDED, end=PodEnd.CRASHED, exit_code=1)])
    execute(script, away_seconds=7200.0)
    (launch,) = script.launches
    assert launch.keep_seconds > 7200.0


def test_an_answer_that_was_lost_makes_no_second_job(execute: Execute) -> None:
    answers = iter([ClusterAwayError("timed out"), None])

    def lose_the_first_answer(launch: PodLaunch) -> bool:
        if error := next(answers, None):
            raise error
        return False

    script = Script([replace(ENDED, end=PodEnd.COMPLETED)], lose_the_first_answer)
    outcome = execute(script)
    assert [launch.job for launch in script.launches] == ["heavy-0", "heavy-0"]
    assert "without telling how the step ended" in outcome.failure
    assert len(outcome.of(Type.STEP_WORKER_STARTING)) == 1


def test_a_cluster_that_stays_away_is_given_up_and_its_steps_are_not_repeated(execute: Execute) -> None:
    outcome = execute(Script(is_away=True), retries=3, away_seconds=0.5)
    assert "the cluster's API has not answered for 0 s (connection refused)" in outcome.failure
    assert "ml-assets cluster reap" in outcome.failure
    assert not outcome.of(Type.STEP_UP_FOR_RETRY)
    assert sum("does not answer" in message for message in outcome.told) == 1


def test_a_pod_that_does_not_end_is_removed_with_force(execute: Execute) -> None:
    leaving = PodLook(phase=PodPhase.LEAVING, pod="pod-1", node="gpu-1", grace_seconds=0.0)
    script = Script([leaving, replace(ENDED, end=PodEnd.CRASHED, exit_code=1)])
    outcome = execute(script)
    assert script.removed[0] == ("heavy-0", True)
    assert "its node does not say that it ended" in next(message for message in outcome.told if "lost" in message)
    assert len(script.launches) == 2


def test_a_pod_that_its_node_does_not_end_in_time_is_removed(execute: Execute) -> None:
    running = PodLook(phase=PodPhase.RUNNING, pod="pod-1", node="gpu-1")
    script = Script([running])
    outcome = execute(script, tags={TIME_LIMIT_TAG: "1"})
    assert "ran longer than 1 s and was ended" in outcome.failure
    assert script.removed == [("heavy-0", False)]


def test_each_kind_of_waiting_has_its_own_limit_and_is_told_once(execute: Execute) -> None:
    waiting = PodLook(phase=PodPhase.WAITING, pod="pod-1", reason="Unschedulable", message="no such node")
    script = Script([waiting])
    # Longer than a slow machine takes to look for the first time, or nothing would have been told before.
    outcome = execute(script, retries=2, pending_seconds=3.0, queue_seconds=600.0)
    assert "waited longer than 3 s and is given up. The cluster says: Unschedulable: no such node" in outcome.failure
    assert sum("waits for its start" in message for message in outcome.told) == 1
    queue = execute(Script([replace(waiting, queued=True)]), pending_seconds=0.0, queue_seconds=0.5)
    assert "`queue_seconds`" in queue.failure


def test_one_wait_is_told_once_though_the_cluster_tells_it_in_pieces(execute: Execute) -> None:
    told = [warning("FailedScheduling", NO_GPU)]
    states = [
        (None, []),  # the Job's controller has not made the pod yet
        (pending(), told),  # the scheduler's event is there before its condition
        (pending(said=NO_GPU), told),
        (None, []),  # a list that lags shows no pod, and no event
        (pending(), []),
        (pending(said=NO_GPU), told),
        (pending("gpu-1"), told),  # it has a node now, and the event of its wait is there still
        (pending("gpu-1"), told),
        (FAILED_POD, told),
    ]
    script = InTurn(states=states)
    outcome = execute(script)
    assert script.seen >= len(states)
    (message,) = [message for message in outcome.told if "waits for" in message]
    assert "waits for a place that others use now" in message
    assert f"The cluster says: Unschedulable: {NO_GPU}" in message


def test_a_second_reason_is_told_when_it_lasts(execute: Execute) -> None:
    quota = "exceeded quota: team, requested: requests.nvidia.com/gpu=1, used: x=1, limited: requests.nvidia.com/gpu=1"
    no_pod, queued = (None, [warning("FailedCreate", quota)]), (pending(said=NO_GPU), [warning("FailedCreate", quota)])
    elsewhere = (pending(said="0/2 nodes are available: 2 Insufficient cpu."), [])
    states = [*repeat(no_pod, 6), *repeat(queued, 6), elsewhere, *repeat(queued, 4), (FAILED_POD, [])]
    outcome = execute(InTurn(states=states), notice_seconds=0.1)
    first, second = [message for message in outcome.told if "waits for" in message]
    assert "exceeded quota: team" in first
    assert "Insufficient nvidia.com/gpu" in second


@pytest.mark.parametrize(("pending_seconds", "queue_seconds", "setting"), [(2, 600, "pending"), (600, 2, "queue")])
def test_going_back_and_forth_between_two_waits_is_given_up(
    execute: Execute, pending_seconds: float, queue_seconds: float, setting: str
) -> None:
    queue, other = pending(said=NO_GPU), pending(said="0/2 nodes are available: 2 Insufficient cpu.")
    script = InTurn(states=cycle([(queue, ()), (other, ())]))  # both are told of long before a limit
    started = time.monotonic()
    outcome = execute(script, retries=2, pending_seconds=pending_seconds, queue_seconds=queue_seconds)
    assert time.monotonic() - started < 300
    assert f"the limit is `{setting}_seconds` of ML_ASSETS_PODS" in outcome.failure
    assert script.removed == [("heavy-0", False)]
    assert not outcome.of(Type.STEP_UP_FOR_RETRY)
    assert sum("waits for" in message for message in outcome.told) == 2
