"""The project's programs as a person starts them, each on a state folder of its own, and what is left of them."""

import json
import os
import re
import select
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
ML_ASSETS = Path(sys.executable).parent / "ml-assets"
WIDE = "200"
"""Columns of the terminal that programs believe to write to."""
NO_SETTINGS: Mapping[str, str] = {}


def environment(state: Path, settings: Mapping[str, str] = NO_SETTINGS) -> dict[str, str]:
    """Return this process's environment with another state folder, and of the project's settings only those given."""
    ours = ("ML_ASSETS_", "DAGSTER_", "MLFLOW_")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    inherited.pop("PYTHONDONTWRITEBYTECODE", None)
    ours_now = {"ML_ASSETS_STATE": str(state), "COLUMNS": WIDE, "PYTHONUNBUFFERED": "1"}
    return {**inherited, **ours_now, **settings}


def ml_assets(
    state: Path,
    *arguments: str,
    project: Path = ROOT,
    settings: Mapping[str, str] = NO_SETTINGS,
    timeout_seconds: float = 900,
) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end and return what it printed."""
    return subprocess.run(
        [ML_ASSETS, *arguments],
        cwd=project,
        env=environment(state, settings),
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
        check=False,
    )


@contextmanager
def instance(state: Path) -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance of a state folder, to look at what happened in it."""
    with dg.DagsterInstance.from_config(str(state / "dagster")) as opened:
        yield opened


@dataclass(frozen=True, kw_only=True)
class Materialized:
    """One materialization as the event log has it."""

    asset: str
    partition: str
    run_id: str


def materializations(opened: dg.DagsterInstance, *assets: str) -> list[Materialized]:
    """Return all materializations of assets, one by one, repeated ones too."""
    found = []
    for asset in assets:
        records = opened.fetch_materializations(dg.AssetKey.from_user_string(asset), limit=1000).records
        found += [Materialized(asset=asset, partition=r.partition_key or "", run_id=r.run_id) for r in records]
    return found


def processes_of(state: Path) -> dict[int, str]:
    """Return the command of every process that was started for a state folder, by its pid."""
    wanted = f"ML_ASSETS_STATE={state}".encode()
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, PermissionError, ProcessLookupError):  # it ended, or is not ours
            continue
    return {pid: command for pid, command in found.items() if command}


def wait_for(what: str, ask: Callable[[], T | None], *, timeout_seconds: float, every_seconds: float = 0.2) -> T:
    """Ask again and again until there is an answer (anything that counts as true), and return it.

    Raises:
        AssertionError: If there was none in time.
    """
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if answer := ask():
            return answer
        time.sleep(every_seconds)
    raise AssertionError(f"{what}: nothing within {timeout_seconds} s")


def stopped(process: subprocess.Popen[bytes], *, timeout_seconds: float = 60) -> None:
    """Wait for a program of Dagster's that was asked to stop.

    Its handler of signals raises wherever the program is just then, also where that is swallowed: who stays is asked
    once more.

    Raises:
        subprocess.TimeoutExpired: If it stays all the same; it is killed then.
    """
    for _ in range(3):
        try:
            process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            process.terminate()
        else:
            return
    process.kill()
    process.wait()
    raise subprocess.TimeoutExpired(process.args, 3 * timeout_seconds)


def fetch_json(url: str) -> Any:
    """Return what a server on this machine answers to a GET."""
    assert url.startswith("http://127.0.0.1:"), url
    with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - asserted above
        return json.load(answer)


@dataclass(frozen=True, kw_only=True)
class Development:
    """A running `ml-assets dev`: its two addresses, and its process id."""

    dagster_url: str
    mlflow_url: str
    pid: int


@contextmanager
def development(state: Path, settings: Mapping[str, str] = NO_SETTINGS) -> Iterator[Development]:
    """Run `ml-assets dev` on free ports; at the end stop it by its pid and see that nothing stays behind."""
    process = subprocess.Popen(
        [ML_ASSETS, "dev", "--port", "0", "--mlflow-port", "0"],
        cwd=ROOT,
        env=environment(state, settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        with process.stdout:
            printed = _until(process.stdout.fileno(), "Stop with Ctrl-C.", timeout_seconds=300)
            addresses = dict(re.findall(r"^(Dagster|MLflow) UI +(http://\S+)$", printed, flags=re.MULTILINE))
            yield Development(dagster_url=addresses["Dagster"], mlflow_url=addresses["MLflow"], pid=process.pid)
            process.terminate()
            assert process.wait(timeout=60) == 0, process.stdout.read().decode()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=60)
    wait_for("an end of all processes", lambda: not processes_of(state), timeout_seconds=60)


def _until(output: int, text: str, *, timeout_seconds: float) -> str:
    """Return what a program wrote to a pipe up to and with a text."""
    printed, deadline = "", time.monotonic() + timeout_seconds
    while text not in printed:
        assert time.monotonic() < deadline, f"no {text!r} within {timeout_seconds} s in:\n{printed}"
        if select.select([output], [], [], 1)[0]:
            some = os.read(output, 65536).decode()
            assert some, f"the program ended; it printed:\n{printed}"
            printed += some
    return printed
