"""The local Dagster home: made once however many services start; its SQLite storage over forks and wipes."""

import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import yaml

import resources.dagster_storage as storage
from resources.dagster_home import LOCAL_INSTANCE, initialise_home

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    initialise_home(tmp_path / "home")
    return tmp_path / "home"


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def _observe(instance: dg.DagsterInstance, n: int) -> None:
    instance.report_runless_asset_event(dg.AssetObservation("thing", metadata={"n": n}))


def _observed(instance: dg.DagsterInstance) -> list[int]:
    records = instance.fetch_observations(dg.AssetKey("thing"), limit=1000, ascending=True).records
    return [record.asset_observation.metadata["n"].value for record in records]


class TestHome:
    def test_it_has_the_settings_of_the_local_deployment(self, instance):
        concurrency = instance.get_concurrency_config()
        assert concurrency.run_queue_config.max_concurrent_runs == 2
        assert instance.run_coordinator.dequeue_interval_seconds == 0.5
        assert instance.run_monitoring_enabled
        assert instance.run_monitoring_settings["free_slots_after_run_end_seconds"] > 0
        assert (instance.telemetry_enabled, instance.nux_enabled) == (False, False)
        assert isinstance(instance.event_log_storage, storage.FastSqliteEventLogStorage)
        assert isinstance(instance.run_storage, storage.FastSqliteRunStorage)
        assert isinstance(instance.schedule_storage, storage.FastSqliteScheduleStorage)

    def test_doing_it_again_changes_nothing(self, home, instance):
        _observe(instance, 1)
        before = (home / "dagster.yaml").stat()
        initialise_home(home)
        assert (home / "dagster.yaml").stat() == before
        assert _observed(instance) == [1]

    def test_a_changed_configuration_replaces_the_old_one(self, home, tmp_path):
        config = tmp_path / "other.yaml"
        config.write_text(LOCAL_INSTANCE.read_text().replace("max_concurrent_runs: 2", "max_concurrent_runs: 3"))
        initialise_home(home, config)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            assert instance.get_concurrency_config().run_queue_config.max_concurrent_runs == 3

    def test_its_path_may_need_quoting(self, tmp_path):
        home = tmp_path / 'a: "strange" {home}'
        initialise_home(home)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            assert Path(instance.storage_directory()) == home / "storage"
            assert (home / "history" / "runs.db").exists()

    def test_several_processes_may_make_it_at_once(self, tmp_path):
        home = tmp_path / "home"
        code = (
            "import pathlib, dagster as dg; from resources.dagster_home import initialise_home\n"
            f"initialise_home(pathlib.Path({str(home)!r}))\n"
            f"with dg.DagsterInstance.from_config({str(home)!r}) as instance: instance.get_runs()\n"
        )
        services = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) for _ in range(4)]
        assert [service.wait(300) for service in services] == [0] * 4
        with dg.DagsterInstance.from_config(str(home)) as instance:
            with instance.event_log_storage.index_connection() as connection:
                revisions = connection.exec_driver_sql("SELECT version_num FROM alembic_version").fetchall()
            assert len(revisions) == 1
        assert [path.name for path in home.iterdir() if path.name.startswith(".dagster")] == []

    def test_the_file_is_valid_without_being_copied(self, tmp_path, monkeypatch):
        (tmp_path / "dagster.yaml").write_text(LOCAL_INSTANCE.read_text())
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
        with dg.DagsterInstance.get() as instance:
            assert instance.get_runs() == []
        assert (tmp_path / "history" / "runs.db").exists()

    def test_every_class_it_names_can_be_imported_from_the_repository(self):
        config = yaml.safe_load(LOCAL_INSTANCE.read_text())
        named = [config["storage"]["custom"], config["compute_logs"]]
        code = "; ".join(f"from {each['module']} import {each['class']}" for each in named)
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def _open_databases(home: Path) -> set[Path]:
    targets = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    return {target for target in targets if target.is_relative_to(home) and target.suffix == ".db"}


def _observe_in_child(home: str, numbers: list[int]) -> None:
    with dg.DagsterInstance.from_config(home) as instance:
        for n in numbers:
            _observe(instance, n)


class TestStorage:
    def test_databases_are_in_wal_mode_and_sync_at_checkpoints_only(self, instance):
        for connect in (
            instance.event_log_storage.index_connection,
            lambda: instance.event_log_storage.run_connection("some-run"),
            instance.run_storage.connect,
            instance.schedule_storage.connect,
        ):
            with connect() as connection:
                assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
                assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 1

    def test_a_connection_stays_open_between_events_and_none_is_open_in_a_fork(self, home, instance):
        _observe(instance, 1)
        assert _open_databases(home)
        pid = os.fork()
        if pid == 0:
            os._exit(len(_open_databases(home)))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        _observe(instance, 2)
        assert _observed(instance) == [1, 2]

    def test_forked_processes_and_threads_write_beside_each_other(self, home, instance):
        _observe(instance, 0)
        fork = multiprocessing.get_context("fork")
        children = [
            fork.Process(target=_observe_in_child, args=(str(home), list(range(100 * i, 100 * i + 20)))) for i in (1, 2)
        ]
        thread = threading.Thread(target=lambda: [_observe(instance, n) for n in range(300, 320)])
        thread.start()
        for child in children:
            child.start()
        for n in range(400, 420):
            _observe(instance, n)
        thread.join()
        for child in children:
            child.join()
        assert [child.exitcode for child in children] == [0, 0]
        assert sorted(_observed(instance)) == [0, *(100 * i + n for i in (1, 2, 3, 4) for n in range(20))]
        with instance.event_log_storage.index_connection() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"

    def test_a_database_that_another_process_removed_is_made_again(self, home, instance):
        with instance.event_log_storage.run_connection("some-run"):
            pass
        for path in (home / "history" / "runs").glob("some-run.db*"):
            path.unlink()
        with instance.event_log_storage.run_connection("some-run") as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM event_logs").scalar() == 0
        instance.event_log_storage.wipe()
        _observe(instance, 7)
        assert _observed(instance) == [7]

    def test_only_a_few_of_many_runs_stay_open(self, home, instance):
        for i in range(30):
            with instance.event_log_storage.run_connection(f"run-{i}"):
                pass
        assert len(_open_databases(home)) <= 16

    def test_a_home_of_the_default_storage_is_taken_over(self, tmp_path):
        home = tmp_path / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        with dg.DagsterInstance.from_config(str(home)) as default:
            _observe(default, 5)
        initialise_home(home)
        with dg.DagsterInstance.from_config(str(home)) as instance:
            assert _observed(instance) == [5]


class TestLogs:
    def test_output_of_programs_is_captured_and_mirrored(self, home, instance):
        code = (
            "import subprocess, dagster as dg\n"
            f"with dg.DagsterInstance.from_config({str(home)!r}) as instance:\n"
            "    with instance.compute_log_manager.capture_logs(['some-run', 'compute_logs', 'some-step']):\n"
            "        subprocess.run(['/bin/echo', 'from a program'], check=True)\n"
        )
        process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
        log = instance.compute_log_manager.get_log_data(["some-run", "compute_logs", "some-step"])
        assert log.stdout == process.stdout == b"from a program\n"

    def test_no_program_is_started_for_it(self, instance):
        key = instance.compute_log_manager.build_log_key_for_run("some-run", "some-step")
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        before = children.read_text()
        with instance.compute_log_manager.capture_logs(key):
            during = children.read_text()
        assert during == before
