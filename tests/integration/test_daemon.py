"""Dagster's daemon on one machine: when it loads code locations anew."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dagster._core.remote_representation.grpc_server_registry import ServerRegistryEntry
from dagster._daemon.controller import RELOAD_WORKSPACE_INTERVAL, DagsterDaemonController

from resources.daemon import LONGEST_SECONDS, CodeFolders, check_when_needed, folders_of
from resources.dagster_home import initialise_home
from tests.e2e.programs import ROOT, stopped, wait_for


def test_code_that_came_changed_or_went_is_seen_once_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "team" / "__pycache__").mkdir(parents=True)
    (tmp_path / "state").mkdir()
    code = CodeFolders([tmp_path, tmp_path / "team"])
    assert not code.changed()

    for ignored in ("state/a.py", "team/__pycache__/a.py", "team/notes.md"):
        (tmp_path / ignored).write_text("", encoding="utf-8")
    assert not code.changed()

    file = tmp_path / "team" / "defs.yaml"
    for change in (lambda: file.write_text("a", encoding="utf-8"), lambda: os.utime(file, (1, 1)), file.unlink):
        change()
        assert code.changed()
        assert not code.changed()


def test_a_team_that_is_added_to_a_mounted_workspace_is_seen(tmp_path: Path) -> None:
    """Kubernetes puts a ConfigMap's new content into a hidden folder and turns a link to it."""
    workspace = tmp_path / "workspace.yaml"
    for version in ("..1", "..2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "workspace.yaml").write_text(f"load_from: [] # {version}", encoding="utf-8")
    os.utime(tmp_path / "..1" / "workspace.yaml", (1, 1))
    (tmp_path / "..data").symlink_to("..1")
    workspace.symlink_to("..data/workspace.yaml")
    code = CodeFolders([], [workspace])
    assert not code.changed()

    (tmp_path / "..new").symlink_to("..2")
    (tmp_path / "..new").replace(tmp_path / "..data")

    assert code.changed()
    assert not code.changed()


def test_the_folders_are_the_project_and_the_modules_of_the_workspace() -> None:
    assert folders_of(ROOT / "workspace.yaml")[0] == ROOT


@dataclass
class Checks:
    """Stands for Dagster's own method: notes what it was called with."""

    called: list[float] = field(default_factory=list)

    def __call__(self, controller: Any, last: float) -> float:
        self.called.append(last)
        return time.time()


def controller(*, exited: bool = False, error: str | None = None) -> Any:
    server = SimpleNamespace(server_process=SimpleNamespace(poll=lambda: 9 if exited else None))
    entry = ServerRegistryEntry(loadable_target_origin=None, creation_timestamp=0, process=server)  # pyright: ignore[reportArgumentType]
    locations = {"flights": SimpleNamespace(load_error=error)}
    request = SimpleNamespace(get_code_location_entries=lambda: locations)
    return SimpleNamespace(
        _grpc_server_registry=SimpleNamespace(_active_entries={"flights": entry}),
        _instance=SimpleNamespace(run_launcher=None),
        _workspace_process_context=SimpleNamespace(create_request_context=lambda: request),
    )


@pytest.mark.parametrize(
    ("daemon", "age", "edited", "loads"),
    [
        (controller(), 1000, False, False),
        (controller(), 1, True, True),
        (controller(exited=True), 1, False, True),
        (controller(error="SyntaxError"), 1, False, False),
        (controller(error="SyntaxError"), RELOAD_WORKSPACE_INTERVAL + 1, False, True),
        (controller(), LONGEST_SECONDS + 1, False, True),
    ],
)
def test_locations_are_loaded_anew_for_a_reason(
    tmp_path: Path, daemon: Any, age: float, edited: bool, loads: bool
) -> None:
    code, check = CodeFolders([tmp_path]), Checks()
    if edited:
        (tmp_path / "a.py").write_text("", encoding="utf-8")
    last = time.time() - age

    found = check_when_needed(daemon, last, code=code, state={}, check=check)

    assert bool(check.called) == loads
    assert (found > last) == loads
    if loads:
        assert time.time() - check.called[0] > RELOAD_WORKSPACE_INTERVAL


def test_it_looks_at_most_every_few_seconds(tmp_path: Path) -> None:
    code, check, state = CodeFolders([tmp_path]), Checks(), {}
    check_when_needed(controller(), 0.0, code=code, state=state, check=check)
    check_when_needed(controller(), 0.0, code=code, state=state, check=check)
    assert len(check.called) == 1


def test_what_is_replaced_is_there() -> None:
    assert callable(DagsterDaemonController.check_workspace_freshness)


@pytest.mark.slow
def test_a_code_server_that_died_is_replaced_within_seconds(tmp_path: Path) -> None:
    module = tmp_path / "one_asset.py"
    module.write_text("import dagster as dg\n\n@dg.asset\ndef one() -> None: ...\n", encoding="utf-8")
    workspace = tmp_path / "workspace.yaml"
    workspace.write_text(
        "load_from:\n  - python_module: {module_name: one_asset, location_name: one}\n", encoding="utf-8"
    )
    home = tmp_path / "home"
    initialise_home(home)
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    command = [sys.executable, "-m", "resources.daemon", "run", "-w", str(workspace)]
    with (tmp_path / "log").open("wb") as log:
        daemon = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": paths, "DAGSTER_HOME": str(home)},
            stdout=log,
            stderr=log,
        )
    try:
        first = wait_for("a code server", lambda: server_of(daemon.pid), timeout_seconds=200)
        wait_for("a running daemon", lambda: b"SensorDaemon" in (tmp_path / "log").read_bytes(), timeout_seconds=200)
        os.kill(first, 9)
        second = wait_for("another", lambda: server_of(daemon.pid, but=first), timeout_seconds=200)
        assert second != first
        assert daemon.poll() is None
    finally:
        daemon.terminate()
        stopped(daemon)


def server_of(pid: int, *, but: int = 0) -> int | None:
    """Return a living code server below a daemon."""
    for folder in Path("/proc").iterdir():
        try:
            if not folder.name.isdigit() or int(folder.name) == but:
                continue
            fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(fields[1]) == pid and fields[0] != "Z" and b"grpc" in (folder / "cmdline").read_bytes():
                return int(folder.name)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return None
