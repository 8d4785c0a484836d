"""Forked steps share their worker's memory: who waits, who runs beside whom, and what a kill for lack of it does."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType as Type

from ml_assets.compute import K8S_TAG, MEMORY_TAG, OOM_MEMORY_TAG
from ml_assets.executors.machine_memory import MachineMemory
from ml_assets.executors.memory_kills import MemoryKills
from ml_assets.executors.pods import PodEnd, PodLaunch, PodLook, PodPhase, StepDemand
from ml_assets.executors.warm_executor import build_executor
from resources.dagster_home import initialise_home

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).parents[2]
MODULE = "tests.integration.test_step_memory"
SUCCESS, FAILURE = dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE
TOTAL_MIB = 1000
Pairs = Sequence[Sequence[int]]


# --- the jobs; a run process or a pod builds them by name


def _job(assets: list[dg.AssetsDefinition], cluster: "Processes | None" = None) -> dg.JobDefinition:
    quick = {"look_seconds": 0.1, "event_seconds": 0.1, "notice_seconds": 60.0}
    executor = build_executor(None if cluster is None else lambda instance, run: cluster).configured(
        {"max_concurrent": 4, "memory_mib": TOTAL_MIB, "pods": quick}
    )
    definitions = dg.Definitions(assets=assets, jobs=[dg.define_asset_job("job", "*")], executor=executor)
    return definitions.resolve_job_def("job")


def _member(
    directory: str, i: int, size: int, seconds: float = 0.4, pool: str | None = None, beside: Sequence[int] = ()
) -> dg.AssetsDefinition:
    """Return a step that notes when it ran; it does not end before those have begun that it is to run beside."""

    def body() -> None:
        started = time.monotonic()
        Path(directory, f"begun-{i}").touch()
        for other in beside:
            _wait_for(Path(directory, f"begun-{other}").exists, f"member_{other} beside member_{i}")
        time.sleep(seconds)
        _note(directory, "spans", {"i": i, "start": started, "end": time.monotonic(), "mib": min(size, TOTAL_MIB)})

    return dg.asset(name=f"member_{i}", op_tags=_asks(size), pool=pool)(body)


def _partners(i: int, pairs: Pairs) -> list[int]:
    return [b if a == i else a for a, b in pairs if i in (a, b)]


def _asks(size: int, *more: int) -> dict[str, Any]:
    sizes = {OOM_MEMORY_TAG: ",".join(map(str, more))} if more else {}
    return {MEMORY_TAG: str(size), **sizes} if size else {}


def crowd(directory: str, sizes: list[int], pairs: Pairs = ()) -> dg.JobDefinition:
    """Steps of these sizes; those of a pair run at the same time."""
    return _job([_member(directory, i, size, beside=_partners(i, pairs)) for i, size in enumerate(sizes)])


def pooled(directory: str, sizes: list[int]) -> dg.JobDefinition:
    return _job([_member(directory, i, size, 0.2, "one") for i, size in enumerate(sizes)])


def stream(directory: str, count: int) -> dg.JobDefinition:
    """So many steps of 300 MiB, of which three fit at a time; they wait for a word to go on."""

    def member(i: int) -> dg.AssetsDefinition:
        def body() -> None:
            started = time.monotonic()
            _note(directory, "begun", i)
            _wait_for(Path(directory, "go").exists, "the word to go on")
            _note(directory, "spans", {"i": i, "start": started, "end": time.monotonic(), "mib": 300})

        return dg.asset(name=f"member_{i}", op_tags=_asks(300))(body)

    return _job([member(i) for i in range(count)])


def mixed(directory: str, sizes: list[int], pairs: Pairs) -> dg.JobDefinition:
    """Steps of these sizes, forked or in pods, and one behind them all."""
    members = [_member(directory, i, size, beside=_partners(i, pairs)) for i, size in enumerate(sizes)]

    @dg.asset(deps=members, op_tags=_asks(900))
    def after() -> None:
        _note(directory, "after", os.getpid())

    return _job([*members, after], CLUSTER)


def returning(directory: str, end: str) -> dg.JobDefinition:
    """A large step that ends badly the first time, a large one beside it, and a large one behind it."""

    @dg.asset(op_tags=_asks(700), retry_policy=dg.RetryPolicy(max_retries=1) if end in ("kill", "retry") else None)
    def first() -> None:
        _note(directory, "first", os.getpid())
        if len(_notes(directory, "first")) == 1:
            if end == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if end == "wait":
                time.sleep(120)
            raise ValueError("the reason of this failure")

    @dg.asset(deps=[first], op_tags=_asks(700))
    def second() -> None:
        _note(directory, "second", os.getpid())

    return _job([first, _member(directory, 0, 700, 0.1), second])


def hungry(directory: str, sizes: list[int], retries: int = 0) -> dg.JobDefinition:
    """A step that is killed for lack of memory, and others beside it, of which one waits for its slot of a pool."""
    policy = dg.RetryPolicy(max_retries=retries) if retries else None

    @dg.asset(op_tags={**_asks(*sizes), K8S_TAG: {}}, retry_policy=policy, pool="models")
    def hog(context: dg.AssetExecutionContext) -> None:
        started = time.monotonic()
        _note(directory, "attempts", context.retry_number)
        if len(_notes(directory, "attempts")) < 2 + retries:
            time.sleep(0.2)
            lack_of_memory(directory)
        time.sleep(0.3)
        _note(directory, "spans", {"i": 9, "start": started, "end": time.monotonic(), "mib": 900})

    @dg.asset(deps=[hog])
    def after() -> None:
        _note(directory, "after", os.getpid())

    beside = [
        _member(directory, 0, 300, 0.8),
        _member(directory, 1, 100, 0.8),
        _member(directory, 2, 50, 0.1, "models"),
    ]
    return _job([hog, *beside, after], CLUSTER)


def lack_of_memory(directory: str) -> None:
    """End this process as the kernel does when memory runs out: it counts, and sends SIGKILL."""
    file = Path(directory, "vmstat")
    file.write_text(f"oom_kill {int(file.read_text().split()[1]) + 1}\n")
    os.kill(os.getpid(), signal.SIGKILL)


# --- a cluster whose pods are processes of this machine


@dataclass
class Processes:
    """Pods as processes that run what pods run."""

    pods: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    launches: list[PodLaunch] = field(default_factory=list)

    def job_name(self, step_key: str, number: int) -> str:
        return f"{step_key}-{number}"

    def start(self, context: Any, launch: PodLaunch, demand: StepDemand) -> bool:
        self.launches.append(launch)
        environment = {**os.environ, **{e["name"]: e["value"] for e in context.execute_step_args.get_command_env()}}
        command = [sys.executable, "-m", "ml_assets.executors.pod_worker"]
        self.pods[launch.job] = subprocess.Popen(command, cwd=ROOT, env=environment)
        return False

    def look(self, jobs: Sequence[str]) -> Mapping[str, PodLook]:
        return {job: self._look(job) for job in jobs}

    def _look(self, job: str) -> PodLook:
        code = self.pods[job].poll()
        if code is None:
            return PodLook(phase=PodPhase.RUNNING, pod=job)
        return PodLook(phase=PodPhase.ENDED, pod=job, end=PodEnd.CRASHED if code else PodEnd.COMPLETED, exit_code=code)

    def explain(self, job: str, look: PodLook) -> PodLook:
        return look

    def last_words(self, look: PodLook) -> str:
        return ""

    def remove(self, job: str, *, at_once: bool = False) -> None:
        self.pods[job].kill()
        self.pods[job].wait()


CLUSTER: Processes | None = None


@pytest.fixture
def cluster() -> Iterator[Processes]:
    global CLUSTER  # noqa: PLW0603 - jobs are built by name, in this process
    CLUSTER = Processes()
    yield CLUSTER
    for pod in CLUSTER.pods.values():
        pod.kill()
        pod.wait()
    CLUSTER = None


# --- reading and writing from several processes


def _note(directory: str, name: str, value: Any) -> None:
    with Path(directory, f"{name}.jsonl").open("a") as file:  # one short line: appends of several do not mix
        file.write(json.dumps(value) + "\n")


def _notes(directory: str, name: str) -> list[Any]:
    path = Path(directory, f"{name}.jsonl")
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@dataclass
class World:
    """A Dagster home, and a folder for what steps note."""

    home: Path
    folder: str
    instance: dg.DagsterInstance

    def job(self, name: str, *args: Any) -> Any:
        return dg.build_reconstructable_job(MODULE, name, (self.folder, *args), {}, str(ROOT))

    def run(self, name: str, *args: Any, **options: Any) -> dg.DagsterRun:
        with dg.execute_job(self.job(name, *args), self.instance, **options) as result:
            run = self.instance.get_run_by_id(result.run_id)
            assert run is not None
            return run

    def start(self, name: str, *args: Any) -> subprocess.Popen[bytes]:
        """Start a run in a process of its own, which ends with 0 when it succeeds."""
        code = (
            f"import dagster as dg\n"
            f"args = {(self.folder, *args)!r}\n"
            f"job = dg.build_reconstructable_job({MODULE!r}, {name!r}, args, {{}}, {str(ROOT)!r})\n"
            f"with dg.DagsterInstance.from_config({str(self.home)!r}) as instance:\n"
            f"    raise SystemExit(not dg.execute_job(job, instance).success)\n"
        )
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)

    def events(self, run: dg.DagsterRun, *types: Type) -> list[dg.DagsterEvent]:
        records = self.instance.get_records_for_run(run.run_id, of_type=set(types)).records
        return [record.event_log_entry.get_dagster_event() for record in records]

    def told(self, run: dg.DagsterRun, words: str) -> list[str]:
        messages = [event.message or "" for event in self.events(run, Type.ENGINE_EVENT)]
        return [message for message in messages if words in message]

    def told_by_any(self, words: str) -> list[str]:
        return [message for run in self.instance.get_runs() for message in self.told(run, words)]

    @property
    def spans(self) -> dict[int, dict[str, Any]]:
        return {span["i"]: span for span in _notes(self.folder, "spans")}

    def most_memory(self) -> int:
        """Return the most memory in MiB that steps had asked for which ran at the same time."""
        spans = self.spans.values()
        return max(sum(s["mib"] for s in spans if s["start"] <= at["start"] < s["end"]) for at in spans)

    def overlap(self, i: int, j: int) -> bool:
        return self.spans[i]["start"] < self.spans[j]["end"] and self.spans[j]["start"] < self.spans[i]["end"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    home, folder = tmp_path / "home", tmp_path / "notes"
    folder.mkdir()
    initialise_home(home)
    (folder / "vmstat").write_text("oom_kill 4\n")
    counting = MemoryKills.__init__
    monkeypatch.setattr(MemoryKills, "__init__", lambda self: counting(self, folder / "no-cgroup", folder / "vmstat"))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield World(home, str(folder), instance)


class TestBudget:
    def test_two_large_steps_never_overlap_and_small_ones_run_beside(self, world: World) -> None:
        run = world.run("crowd", [600, 100, 600, 100], [[0, 1], [2, 3]])
        assert run.status == SUCCESS
        assert len(world.spans) == 4
        assert not world.overlap(0, 2)
        assert world.overlap(0, 1)
        assert world.overlap(2, 3)
        assert world.most_memory() <= TOTAL_MIB
        told = world.told(run, "waits for memory")
        assert len(told) == 1
        assert "member_2 waits for memory: it asks for 600 MiB, and running steps leave 300 of" in told[0]

    def test_a_large_step_is_not_overtaken_for_ever(self, world: World) -> None:
        run = world.run("crowd", [300, 300, 900, 50, 50, 50], [[2, 3]])
        assert run.status == SUCCESS
        spans = world.spans
        assert len(spans) == 6
        assert all(spans[i]["end"] <= spans[2]["start"] for i in (0, 1))
        # those behind it start after it, and then beside it where they fit
        started = [event.step_key for event in world.events(run, Type.STEP_WORKER_STARTING)]
        assert all(started.index(f"member_{i}") > started.index("member_2") for i in (3, 4, 5))
        assert world.overlap(2, 3)

    def test_a_step_that_asks_for_more_than_there_is_runs_alone(self, world: World) -> None:
        assert world.run("crowd", [200, 5000, 200]).status == SUCCESS
        assert len(world.spans) == 3
        assert not any(world.overlap(1, i) for i in (0, 2))

    def test_steps_that_ask_for_no_memory_share_cores_alone(self, world: World) -> None:
        run = world.run("crowd", [1000, 0, 0, 0], [[0, 1], [0, 2], [0, 3]])
        assert run.status == SUCCESS
        assert all(world.overlap(0, i) for i in (1, 2, 3))
        assert world.told(run, "waits for memory") == []

    @pytest.mark.parametrize("end", ["retry", "kill"])
    def test_a_step_that_fails_or_is_killed_gives_its_memory_back(self, world: World, end: str) -> None:
        assert world.run("returning", end).status == SUCCESS
        assert [len(_notes(world.folder, name)) for name in ("first", "spans", "second")] == [2, 1, 1]

    @pytest.mark.slow
    def test_runs_share_the_memory_and_a_large_step_of_one_is_not_overtaken_by_the_other(self, world: World) -> None:
        workers = [world.start("stream", 6)]
        try:
            _wait_for(lambda: len(_notes(world.folder, "begun")) == 3, "the first steps")
            workers.append(world.start("crowd", [1000]))
            _wait_for(lambda: world.told_by_any("asks for 1000 MiB, and running steps leave 0 of"), "the large step")
            Path(world.folder, "go").touch()
            assert [worker.wait(120) for worker in workers] == [0, 0]
        finally:
            for worker in workers:
                worker.kill()
                worker.wait()
        spans = sorted(_notes(world.folder, "spans"), key=lambda span: span["start"])
        # the fourth small step had waited for longer, and all that was left then is 100 MiB
        assert [span["mib"] for span in spans] == [300, 300, 300, 300, 1000, 300, 300]
        assert spans[4]["start"] >= max(span["end"] for span in spans[:4])
        assert spans[4]["end"] <= spans[5]["start"]

    def test_a_step_whose_memory_another_run_was_faster_to_take_starts_later(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        take, missed = MachineMemory.take, iter([True, True])
        monkeypatch.setattr(MachineMemory, "take", lambda self, mib: None if next(missed, False) else take(self, mib))
        world.instance.event_log_storage.set_concurrency_slots("one", 1)
        run = world.run("pooled", [300, 300])
        assert run.status == SUCCESS
        assert next(missed, None) is None
        assert len(world.events(run, Type.STEP_WORKER_STARTING)) == 2
        assert not world.overlap(0, 1)
        assert world.instance.event_log_storage.get_concurrency_info("one").active_slot_count == 0

    @pytest.mark.slow
    def test_what_a_killed_run_held_is_free_for_others_at_once(self, world: World) -> None:
        worker = world.start("returning", "wait")
        try:
            _wait_for(lambda: _notes(world.folder, "first"), "the step to start")
            beside = world.start("crowd", [800])
            _wait_for(lambda: world.told_by_any("asks for 800 MiB, and running steps leave 0 of"), "the wait")
            worker.kill()
            assert beside.wait(60) == 0
        finally:
            worker.kill()
            worker.wait()
            beside.kill()
            beside.wait()

    def test_execution_from_failure_has_all_the_memory(self, world: World) -> None:
        failed = world.run("returning", "raise")
        assert failed.status == FAILURE
        again = dg.ReexecutionOptions.from_failure(failed.run_id, world.instance)
        assert world.run("returning", "raise", reexecution_options=again).status == SUCCESS
        assert [len(_notes(world.folder, name)) for name in ("first", "spans", "second")] == [2, 1, 1]

    def test_a_cancelled_run_leaves_nothing_that_holds_memory(self, world: World) -> None:
        worker = world.start("returning", "wait")
        try:
            _wait_for(lambda: _notes(world.folder, "first"), "the step to start")
            (run,) = world.instance.get_runs()
            world.instance.report_run_canceling(run)
            worker.send_signal(signal.SIGTERM)
            worker.wait(60)
        finally:
            worker.kill()
            worker.wait()
        canceled = world.instance.get_run_by_id(run.run_id)
        assert canceled is not None
        assert canceled.status == dg.DagsterRunStatus.CANCELED
        assert not Path(f"/proc/{_notes(world.folder, 'first')[0]}").exists()
        again = dg.ReexecutionOptions.from_failure(run.run_id, world.instance)
        assert world.run("returning", "wait", reexecution_options=again).status == SUCCESS
        assert len(_notes(world.folder, "second")) == 1

    @pytest.mark.slow
    def test_pods_take_nothing_of_the_workers_memory(self, world: World, cluster: Processes) -> None:
        run = world.run("mixed", [700, 3000, 700, 2000, 100], [[2, 4]])
        assert run.status == SUCCESS
        assert {launch.job for launch in cluster.launches} == {"member_1-0", "member_3-0"}
        assert len(world.spans) == 5
        assert not world.overlap(0, 2)
        assert world.overlap(2, 4)
        assert len(_notes(world.folder, "after")) == 1


class TestKilledForLackOfMemory:
    def test_the_step_starts_again_with_the_next_size_and_uses_no_retry(self, world: World) -> None:
        world.instance.event_log_storage.set_concurrency_slots("models", 1)
        run = world.run("hungry", [400, 900])
        assert run.status == SUCCESS
        assert _notes(world.folder, "attempts") == [0, 0]
        assert world.events(run, Type.STEP_UP_FOR_RETRY) == []
        (told,) = world.told(run, "for lack of memory")
        assert "it asks for 400 MiB. It starts again with 900 MiB" in told
        # with 900 of 1000 MiB it waits for the one of 300, and not for the one of 100
        assert not world.overlap(9, 0)
        assert world.most_memory() <= TOTAL_MIB
        assert world.spans[2]["end"] <= world.spans[9]["start"]  # it gave its slot up
        starts = [e for e in world.events(run, Type.STEP_WORKER_STARTED) if e.step_key == "hog"]
        assert [e.engine_event_data.metadata["memory_mib"].value for e in starts] == [400, 900]
        assert world.instance.event_log_storage.get_concurrency_info("models").active_slot_count == 0

    def test_without_a_larger_size_it_is_retried_by_its_policy(self, world: World) -> None:
        run = world.run("hungry", [400], 1)
        assert run.status == FAILURE
        assert _notes(world.folder, "attempts") == [0, 1]
        (retry,) = world.events(run, Type.STEP_UP_FOR_RETRY)
        (failure,) = world.events(run, Type.STEP_FAILURE)
        for error in (retry.step_retry_data.error, failure.step_failure_data.error):
            assert error is not None
            assert "terminated by signal 9 (SIGKILL). The kernel ended it for lack of memory" in error.message
            assert "it asks for 400 MiB. The forked steps of this run share 1000 MiB." in error.message

    def test_a_step_that_had_all_the_memory_is_not_started_again(self, world: World) -> None:
        run = world.run("hungry", [1000, 2000])
        assert run.status == FAILURE
        assert _notes(world.folder, "attempts") == [0]

    @pytest.mark.slow
    def test_with_a_cluster_it_gets_a_pod_when_the_worker_has_too_little(
        self, world: World, cluster: Processes
    ) -> None:
        run = world.run("hungry", [400, 3000])
        assert run.status == SUCCESS
        assert _notes(world.folder, "attempts") == [0, 0]
        assert [(launch.job, launch.memory_mib) for launch in cluster.launches] == [("hog-0", 3000)]
        starting = [e.message or "" for e in world.events(run, Type.STEP_WORKER_STARTING) if e.step_key == "hog"]
        assert starting[-1].endswith("it asks for 3000 MiB of memory (the run's worker has 1000).")
        assert len(_notes(world.folder, "after")) == 1


def _wait_for(condition: Callable[[], Any], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
