"""The warm executor on real Dagster homes: what it has of the multiprocess executor, and what it adds."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType as Type

from ml_assets.compute import CORES_TAG, TIME_LIMIT_TAG
from ml_assets.executors import forked_steps
from ml_assets.executors.warm_executor import warm_executor
from resources.dagster_home import initialise_home
from tests.integration.executed_runs import execute, note, noted
from tests.integration.launched_runs import is_alive, wait_until

pytestmark = [
    pytest.mark.filterwarnings("ignore:Parameter `backfill_policy`"),  # beta in Dagster 1.13
    pytest.mark.filterwarnings("ignore:The `__fields__` attribute"),  # inside Dagster's ConfigurableResource
]


# --- the jobs; a run process builds them by name, with the test's directory as argument


def _job(assets: list[Any], **options: Any) -> dg.JobDefinition:
    config = options.pop("config", {})
    definitions = dg.Definitions(
        assets=assets,
        jobs=[dg.define_asset_job("job", "*", **options.pop("job", {}))],
        executor=warm_executor.configured({"max_concurrent": 2, **config}),
        **options,
    )
    return definitions.resolve_job_def("job")


def chain(directory: str) -> dg.JobDefinition:
    note(directory, "built", os.getpid())

    @dg.asset
    def first() -> int:
        sys.stdout.write("words on stdout\n")
        sys.stderr.write("words on stderr\n")
        return os.getpid()

    @dg.asset
    def second(first: int) -> list[int]:
        return [first, os.getpid()]

    @dg.asset
    def third(second: list[int]) -> list[int]:
        note(directory, "pids", [*second, os.getpid()])
        return second

    return _job([first, second, third])


def meeting(directory: str) -> dg.JobDefinition:
    def partner(name: str, other: str) -> dg.AssetsDefinition:
        def body() -> None:
            Path(directory, name).touch()
            wait_until(Path(directory, other).exists, "the other step")

        return dg.asset(name=name)(body)

    return _job([partner("left", "right"), partner("right", "left")])


def raising(directory: str) -> dg.JobDefinition:
    @dg.asset
    def before() -> None:
        note(directory, "ran", "before")

    @dg.asset(deps=[before])
    def broken() -> None:
        note(directory, "ran", "broken")
        if not Path(directory, "mended").exists():
            raise ValueError("the reason of this failure")

    @dg.asset(deps=[broken])
    def after() -> None:
        note(directory, "ran", "after")

    return _job([before, broken, after])


def killed(directory: str, retries: int) -> dg.JobDefinition:
    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=retries) if retries else None)
    def victim() -> None:
        note(directory, "attempts", os.getpid())
        if len(noted(directory, "attempts")) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    @dg.asset(deps=[victim])
    def after() -> None:
        note(directory, "attempts", "after")

    return _job([victim, after])


def limited(directory: str, retries: int) -> dg.JobDefinition:
    """A step of a second, whose first attempt takes longer and is deaf to signals, and one behind it."""

    @dg.asset(
        op_tags={TIME_LIMIT_TAG: "1"}, retry_policy=dg.RetryPolicy(max_retries=retries) if retries else None, pool="one"
    )
    def late() -> None:
        note(directory, "attempts", os.getpid())
        if len(noted(directory, "attempts")) == 1:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            time.sleep(120)

    @dg.asset(deps=[late])
    def after() -> None:
        note(directory, "attempts", "after")

    return _job([late, after])


def lingering(directory: str) -> dg.JobDefinition:
    """A step that leaves a thread behind which never ends."""

    @dg.asset
    def leaver() -> None:
        note(directory, "pid", os.getpid())
        threading.Thread(target=time.sleep, args=(3600,)).start()

    @dg.asset(deps=[leaver])
    def after() -> None:
        note(directory, "after", 1)

    return _job([leaver, after])


def sleeping(directory: str) -> dg.JobDefinition:
    @dg.asset
    def sleeper() -> None:
        note(directory, "pid", os.getpid())
        time.sleep(120)

    return _job([sleeper])


def crowd(directory: str, cores: list[str], kind: str) -> dg.JobDefinition:
    def member(i: int, n_cores: str) -> dg.AssetsDefinition:
        def body() -> None:
            started = time.monotonic()
            if kind == "plain" and i in (0, 1):  # both fit at once, and neither ends before the other has begun
                Path(directory, f"begun-{i}").touch()
                wait_until(Path(directory, f"begun-{1 - i}").exists, "the other step")
            time.sleep(0.3)
            note(directory, "spans", [started, time.monotonic(), int(n_cores)])

        tags = {CORES_TAG: n_cores, **({"kind": "heavy"} if kind == "tag" else {})}
        return dg.asset(name=f"member_{i}", op_tags=tags, pool="gpu" if kind == "pool" else None)(body)

    limits = [{"key": "kind", "value": "heavy", "limit": 1}] if kind == "tag" else []
    assets = [member(i, n_cores) for i, n_cores in enumerate(cores)]
    return _job(assets, config={"max_concurrent": 3, "tag_concurrency_limits": limits})


def threads(directory: str) -> dg.JobDefinition:
    def counter(name: str, tags: dict[str, str]) -> dg.AssetsDefinition:
        def body() -> None:
            import numpy as np
            import pyarrow as pa
            from threadpoolctl import threadpool_info

            pools = [pool["num_threads"] for pool in threadpool_info()]
            in_programs = subprocess.run(
                ["/usr/bin/env", "printenv", "OMP_NUM_THREADS"], capture_output=True, check=True
            )
            note(
                directory,
                name,
                {
                    "pools": pools,
                    "arrow": pa.cpu_count(),
                    "variable": in_programs.stdout.decode().strip(),
                    "draw": float(np.random.rand()),  # noqa: NPY002 the global generator is what is tested
                },
            )

        return dg.asset(name=name, op_tags=tags)(body)

    assets = [counter("one", {}), counter("two", {CORES_TAG: "2"}), counter("all", {CORES_TAG: "64"})]
    return _job(assets, config={"preload": ["sklearn.ensemble", "pyarrow", "numpy.random"]})


def partitioned(directory: str) -> dg.JobDefinition:
    months = dg.StaticPartitionsDefinition(["2013-01", "2013-02", "2013-03"])

    @dg.asset(partitions_def=months, backfill_policy=dg.BackfillPolicy.single_run())
    def data(context: dg.AssetExecutionContext) -> None:
        note(directory, "keys", list(context.partition_keys))

    return _job([data])


def with_resource(directory: str) -> dg.JobDefinition:
    class Flaky(dg.ConfigurableResource):
        def setup_for_execution(self, context: dg.InitResourceContext) -> None:
            note(directory, "setups", os.getpid())
            if len(noted(directory, "setups")) == 1:
                raise ConnectionError("not up yet")

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
    def user(flaky: Flaky) -> None: ...

    return _job([user], resources={"flaky": Flaky()})


def misconfigured(directory: str, what: str) -> dg.JobDefinition:
    @dg.asset(op_tags={CORES_TAG: "many"} if what == "cores" else {})
    def anything() -> None: ...

    return _job([anything], config={"preload": ["no_such_module"] if what == "preload" else []})


def dynamic(directory: str) -> dg.JobDefinition:
    @dg.op(out=dg.DynamicOut(int))
    def numbers() -> Iterator[dg.DynamicOutput[int]]:
        for i in range(3):
            yield dg.DynamicOutput(i, mapping_key=str(i))

    @dg.op
    def doubled(number: int) -> int:
        return 2 * number

    @dg.op
    def total(values: list[int]) -> None:
        note(directory, "total", sum(values))

    @dg.job(executor_def=warm_executor.configured({"max_concurrent": 2}))
    def fan_out() -> None:
        total(numbers().map(doubled).collect())

    return fan_out


# --- running


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    initialise_home(home)
    return home


@pytest.fixture
def notes(tmp_path: Path) -> str:
    directory = tmp_path / "notes"
    directory.mkdir()
    return str(directory)


_execute = partial(execute, __name__)


def _events(instance: dg.DagsterInstance, run: dg.DagsterRun, *types: Type) -> list[dg.DagsterEvent]:
    records = instance.get_records_for_run(run.run_id, of_type=set(types)).records
    return [record.event_log_entry.get_dagster_event() for record in records]


def _status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    return instance.get_run_by_id(run.run_id).status


class TestSteps:
    def test_each_step_has_a_process_and_none_loads_the_code_again(self, instance, notes):
        run = _execute(instance, "chain", notes)
        assert _status(instance, run) == dg.DagsterRunStatus.SUCCESS
        pids = noted(notes, "pids")[0]
        assert len({os.getpid(), *pids}) == 4
        assert {os.getpid()} == set(noted(notes, "built"))

    def test_the_events_are_those_of_the_multiprocess_executor(self, instance, notes):
        run = _execute(instance, "chain", notes)
        records = instance.get_records_for_run(run.run_id).records
        entries = [record.event_log_entry for record in records]
        of_second = [e.get_dagster_event().event_type for e in entries if e.is_dagster_event and e.step_key == "second"]
        assert of_second == [
            Type.ASSET_MATERIALIZATION_PLANNED,
            Type.STEP_WORKER_STARTING,
            Type.STEP_WORKER_STARTED,
            Type.RESOURCE_INIT_STARTED,
            Type.RESOURCE_INIT_SUCCESS,
            Type.STEP_START,
            Type.LOADED_INPUT,
            Type.STEP_INPUT,
            Type.STEP_OUTPUT,
            Type.ASSET_MATERIALIZATION,
            Type.HANDLED_OUTPUT,
            Type.STEP_SUCCESS,
        ]

    def test_independent_steps_run_at_once(self, instance, notes):
        assert _status(instance, _execute(instance, "meeting", notes)) == dg.DagsterRunStatus.SUCCESS

    def test_output_of_a_step_is_in_its_compute_log_and_on_the_console(self, instance, notes, capfd):
        run = _execute(instance, "chain", notes)
        captured = _events(instance, run, Type.LOGS_CAPTURED)
        data = next(e.logs_captured_data for e in captured if e.logs_captured_data.step_keys == ["first"])
        key = instance.compute_log_manager.build_log_key_for_run(run.run_id, data.file_key)
        log = instance.compute_log_manager.get_log_data(key)
        assert log.stdout == b"words on stdout\n"
        assert b"words on stderr\n" in log.stderr
        assert instance.compute_log_manager.is_capture_complete(key)
        console = capfd.readouterr()
        assert console.out.count("words on stdout\n") == 1
        assert console.err.count("words on stderr\n") == 1

    def test_dynamic_outputs(self, instance, notes):
        run = _execute(instance, "dynamic", notes)
        assert _status(instance, run) == dg.DagsterRunStatus.SUCCESS
        assert noted(notes, "total") == [6]

    def test_one_run_of_several_partitions(self, instance, notes):
        tags = {
            "dagster/asset_partition_range_start": "2013-01",
            "dagster/asset_partition_range_end": "2013-03",
        }
        run = _execute(instance, "partitioned", notes, tags=tags)
        assert _status(instance, run) == dg.DagsterRunStatus.SUCCESS
        assert noted(notes, "keys") == [["2013-01", "2013-02", "2013-03"]]
        assert instance.get_materialized_partitions(dg.AssetKey("data")) == {"2013-01", "2013-02", "2013-03"}


class TestFailures:
    def test_a_step_that_raises_fails_the_run_and_holds_back_what_depends_on_it(self, instance, notes):
        run = _execute(instance, "raising", notes)
        assert _status(instance, run) == dg.DagsterRunStatus.FAILURE
        assert noted(notes, "ran") == ["before", "broken"]
        (failure,) = _events(instance, run, Type.STEP_FAILURE)
        assert "the reason of this failure" in failure.step_failure_data.error.to_string()

    def test_reexecution_from_failure_repeats_no_finished_step(self, instance, notes):
        failed = _execute(instance, "raising", notes)
        Path(notes, "mended").touch()
        options = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
        run = _execute(instance, "raising", notes, reexecution_options=options)
        assert _status(instance, run) == dg.DagsterRunStatus.SUCCESS
        assert noted(notes, "ran") == ["before", "broken", "broken", "after"]

    def test_a_killed_step_is_retried_under_its_policy(self, instance, notes):
        run = _execute(instance, "killed", notes, 1)
        assert _status(instance, run) == dg.DagsterRunStatus.SUCCESS
        assert len(noted(notes, "attempts")) == 3
        (retry,) = _events(instance, run, Type.STEP_UP_FOR_RETRY)
        assert "terminated by signal 9 (SIGKILL)" in retry.step_retry_data.error.message

    def test_a_killed_step_without_policy_fails_the_run_with_its_exit_code(self, instance, notes):
        run = _execute(instance, "killed", notes, 0)
        assert _status(instance, run) == dg.DagsterRunStatus.FAILURE
        (failure,) = _events(instance, run, Type.STEP_FAILURE)
        assert failure.step_failure_data.error.message.startswith(
            "The process of step victim was terminated by signal 9 (SIGKILL)"
        )
        assert len(noted(notes, "attempts")) == 1

    def test_a_step_over_its_time_limit_is_ended_and_says_so(self, instance, notes):
        instance.event_log_storage.set_concurrency_slots("one", 1)
        run = _execute(instance, "limited", notes, 0)
        assert not run.is_success
        (failure,) = _events(instance, run, Type.STEP_FAILURE)
        (pid,) = noted(notes, "attempts")
        assert f"Step late: its process (pid {pid}) ran longer than 1 s and was ended. Raise `time_limit`" in str(
            failure.step_failure_data.error.message
        )
        assert not is_alive(pid)
        assert instance.event_log_storage.get_concurrency_info("one").active_slot_count == 0

    def test_a_time_limit_uses_a_retry_and_holds_for_each_attempt(self, instance, notes):
        run = _execute(instance, "limited", notes, 5)
        assert run.is_success
        # One, and more where much else goes on: an attempt that does nothing may take longer than a second there.
        assert 1 <= len(_events(instance, run, Type.STEP_UP_FOR_RETRY)) <= 5
        assert noted(notes, "attempts")[-1] == "after"

    def test_a_thread_that_a_step_leaves_behind_does_not_keep_its_run_going(self, instance, notes, monkeypatch):
        monkeypatch.setattr(forked_steps, "_LINGER_SECONDS", 1.0)
        run = _execute(instance, "lingering", notes)
        assert run.is_success
        (told,) = [
            event.message
            for event in _events(instance, run, Type.ENGINE_EVENT)
            if "after its step has ended" in event.message
        ]
        assert "The process of step leaver goes on 1 s after its step has ended and is ended now" in told
        assert noted(notes, "after") == [1]
        assert not is_alive(noted(notes, "pid")[0])

    def test_a_resource_that_fails_to_start_is_retried(self, instance, notes):
        run = _execute(instance, "with_resource", notes)
        assert _status(instance, run) == dg.DagsterRunStatus.SUCCESS
        in_steps = [pid for pid in noted(notes, "setups") if pid != os.getpid()]  # a result sets up one too
        assert len(set(in_steps)) == 2

    @pytest.mark.parametrize(
        ("what", "message"),
        [
            (
                "cores",
                "step anything: op tag 'ml_assets/cores' is 'many'; expected a whole number of at least 1",
            ),
            ("preload", "executor config `preload`: module 'no_such_module' cannot be imported"),
        ],
    )
    def test_wrong_settings_fail_the_run_with_one_sentence(self, instance, notes, what, message):
        run = _execute(instance, "misconfigured", notes, what)
        assert _status(instance, run) == dg.DagsterRunStatus.FAILURE
        (failure,) = _events(instance, run, Type.RUN_FAILURE)
        assert message in failure.job_failure_data.error.message


class TestEnds:
    def test_cancelling_the_run_ends_the_step(self, instance, notes, run_worker):
        worker = run_worker("sleeping", notes)
        (pid,) = wait_until(lambda: noted(notes, "pid"), "the start of the step")
        (run,) = instance.get_runs()
        instance.report_run_canceling(run)
        worker.send_signal(signal.SIGTERM)
        worker.wait(300)
        assert not is_alive(pid)
        assert _status(instance, run) == dg.DagsterRunStatus.CANCELED
        (failure,) = _events(instance, run, Type.STEP_FAILURE)
        assert failure.step_failure_data.error_source.value == "INTERRUPT"

    def test_no_step_outlives_a_killed_run_process(self, notes, run_worker):
        worker = run_worker("sleeping", notes)
        (pid,) = wait_until(lambda: noted(notes, "pid"), "the start of the step")
        assert is_alive(pid)
        worker.kill()
        worker.wait(120)
        wait_until(lambda: not is_alive(pid), "the end of the step", seconds=10)


def _most_cores(spans: list[list[float]], limit: int) -> int:
    return max(sum(min(int(n), limit) for s, e, n in spans if s <= at < e) for at, _, _ in spans)


class TestLimits:
    @pytest.mark.parametrize("kind", ["tag", "pool"])
    def test_limits_by_tag_and_by_pool_keep_steps_apart(self, instance, notes, kind):
        instance.event_log_storage.set_concurrency_slots("gpu", 1)
        run = _execute(instance, "crowd", notes, ["1", "1", "1"], kind)
        assert _status(instance, run) == dg.DagsterRunStatus.SUCCESS
        spans = noted(notes, "spans")
        assert (len(spans), _most_cores(spans, 3)) == (3, 1)
        assert instance.event_log_storage.get_concurrency_info("gpu").active_slot_count == 0

    def test_running_steps_share_the_cores_and_a_wide_one_runs_alone(self, instance, notes):
        run = _execute(instance, "crowd", notes, ["1", "2", "1", "9", "1", "1", "1"], "plain")
        assert _status(instance, run) == dg.DagsterRunStatus.SUCCESS
        spans = noted(notes, "spans")
        assert (len(spans), _most_cores(spans, 3)) == (7, 3)
        (wide,) = [span for span in spans if span[2] == 9]
        others = [span for span in spans if span is not wide]
        assert all(end <= wide[0] or start >= wide[1] for start, end, _ in others)
        # in order: the wide step waits for those before it and is overtaken by none behind it
        assert sum(start >= wide[1] for start, _, _ in others) == 3

    def test_numeric_threads_follow_the_cores_of_the_step(self, instance, notes):
        run = _execute(instance, "threads", notes)
        assert _status(instance, run) == dg.DagsterRunStatus.SUCCESS
        seen = {name: noted(notes, name)[0] for name in ("one", "two", "all")}
        for name, n_threads in (("one", 1), ("two", 2), ("all", 2)):
            assert set(seen[name]["pools"]) == {n_threads}
            assert (seen[name]["arrow"], seen[name]["variable"]) == (n_threads, str(n_threads))
        assert len({step["draw"] for step in seen.values()}) == 3

    def test_the_run_process_keeps_its_own_threads(self, instance, notes):
        import sklearn.ensemble  # noqa: F401
        from threadpoolctl import threadpool_info

        before = threadpool_info()
        _execute(instance, "threads", notes)
        assert [pool["num_threads"] for pool in threadpool_info()][: len(before)] == [
            pool["num_threads"] for pool in before
        ]


class TestForkSafety:
    def test_threads_that_a_fork_loses_are_told(self, instance, notes):
        stop = threading.Event()
        thread = threading.Thread(target=stop.wait, name="1-uploader")  # first of the five that are told
        thread.start()
        try:
            run = _execute(instance, "chain", notes)
        finally:
            stop.set()
            thread.join()
        messages = [event.message for event in _events(instance, run, Type.ENGINE_EVENT)]
        # Other tests may have left threads of libraries in this process; they are told beside it.
        assert sum(bool(re.search(r"of Python \(.*\b1-uploader\b", message)) for message in messages) == 1

    def test_threads_of_a_run_worker_are_no_reason_to_warn(self, instance, notes):
        from dagster._utils import start_termination_thread

        spawn = multiprocessing.get_context("spawn")
        queue, done, stop = spawn.Queue(), threading.Event(), spawn.Event()
        queue.put("started")  # what a run process that a code server launched has done
        start_termination_thread(stop, done)
        run = _execute(instance, "chain", notes)
        done.set()
        stop.set()
        queue.close()
        messages = [event.message for event in _events(instance, run, Type.ENGINE_EVENT)]
        told = " ".join(message for message in messages if "do not inherit" in message)
        assert "termination" not in told
        assert "QueueFeeder" not in told

    def test_a_quiet_run_process_gives_no_warning(self, instance, notes, run_worker):
        assert run_worker("chain", notes).wait(300) == 0
        (run,) = instance.get_runs()
        messages = [event.message for event in _events(instance, run, Type.ENGINE_EVENT)]
        assert not [message for message in messages if "do not inherit" in message]
