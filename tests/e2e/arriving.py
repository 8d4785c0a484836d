"""A project of one small pipeline that files start: daily partitions in four regions, and the programs around it."""

import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import dagster as dg

from tests.e2e.programs import NO_SETTINGS, ROOT, environment, wait_for

TEAM, NAME = "shop", "orders"
REGIONS = ("west", "east", "north", "south")
KEY = dg.AssetKey([TEAM, NAME, "features"])
PIPELINE = """type: ml_assets.components.TrainingPipeline
attributes:
  name: orders
  team: shop
  owners: ["team:shop"]
  description: Will an order be sent back?
  business: {unit: Sales, product: Checkout, data_classification: internal}
  source:
    url: shop/{time}_{group}.csv
    event_time: {column: ordered_at, timezone: UTC}
    row_id: [order_id]
    columns:
      order_id: {type: string, nullable: false}
      ordered_at: {type: timestamp, nullable: false}
      amount: {type: float64, nullable: false}
      region: {type: string, nullable: false}
      returned: {type: float64, known: after_event}
  partitions:
    every: day
    start: 2024-01-01
    end: 2025-12-31
    group: {column: region, values: [west, east, north, south]}
  features:
    columns: [amount, region]
  label: {column: was_returned, task: binary, known_after: 1d}
  training: {window: 5, min_rows: 50, seed: 1}
  variants:
    logistic:
      estimator: sklearn.linear_model.LogisticRegression
      preprocessing: {numeric: standardize, categorical: one_hot}
  selection: {metric: roc_auc}
  evaluation: {metrics: [roc_auc]}
  gates: [roc_auc.floor]
  automation: {arrivals: true}
"""
FEATURES = '''"""Features of an order."""

import pandas as pd


def was_returned(returned: pd.Series) -> pd.Series:
    """The label."""
    return returned.astype("float64")
'''
DEFINITIONS = '''"""The code location of team shop."""

import deployments.shop.defs
from ml_assets.components.team import load_team
from resources.profiles import current_profile
from sensors import team_sensors

profile = current_profile()
defs = load_team(
    deployments.shop.defs,
    services=profile.services(),
    executor=profile.executor(),
    project_root=profile.project_root,
    sensors=team_sensors,
)
'''
WORKSPACE = """load_from:
  - python_module:
      module_name: deployments.shop.definitions
      location_name: shop
      working_directory: .
"""


def partitions(days: int, first: date = date(2024, 1, 1)) -> list[str]:
    """Return the keys of so many days in all regions."""
    return [f"{region}|{first + timedelta(days=day)}" for day in range(days) for region in REGIONS]


@dataclass(frozen=True, kw_only=True)
class ArrivingProject:
    """The project and its state, below one folder."""

    root: Path

    @property
    def state(self) -> Path:
        """Return the folder of everything that is made."""
        return self.root / "state"

    @property
    def landing(self) -> Path:
        """Return the folder that orders arrive in."""
        return self.state / "landing" / TEAM

    @property
    def workspace(self) -> Path:
        """Return the daemon's workspace file."""
        return self.root / "workspace.yaml"

    def found(self) -> None:
        """Write the project, and create its databases."""
        for part in ("resources", "sensors", "policies", "deployments/local"):
            shutil.copytree(ROOT / part, self.root / part, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in ("domains", "teams", "pipelines"):
            shutil.rmtree(self.root / "policies" / folder)
            (self.root / "policies" / folder).mkdir()
        shutil.copy(ROOT / "pyproject.toml", self.root / "pyproject.toml")
        team = self.root / "deployments" / TEAM
        (team / "defs" / NAME).mkdir(parents=True)
        for folder in (team.parent, team, team / "defs"):
            (folder / "__init__.py").write_text("", encoding="utf-8")
        self.workspace.write_text(WORKSPACE, encoding="utf-8")
        (team / "definitions.py").write_text(DEFINITIONS, encoding="utf-8")
        (team / "defs" / NAME / "defs.yaml").write_text(PIPELINE, encoding="utf-8")
        (team / "defs" / NAME / "features.py").write_text(FEATURES, encoding="utf-8")
        self.landing.mkdir(parents=True)
        self.python("from resources.profiles import current_profile; current_profile().initialise()")

    def environment(self, settings: Mapping[str, str] = NO_SETTINGS) -> dict[str, str]:
        """Return the environment of the project's programs."""
        ours = {"DAGSTER_HOME": str(self.state / "dagster"), "PYTHONPATH": str(self.root)}
        return environment(self.state, {**ours, "DAGSTER_DISABLE_TELEMETRY": "1", **settings})

    def python(self, code: str) -> str:
        """Run some code in the project to its end."""
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=self.root,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def land(self, wanted: Sequence[str], *, rows: int = 5) -> None:
        """Let the files of partitions arrive, each by one rename; all are written before the first one arrives."""
        drafts: list[Path] = []
        for partition in wanted:
            region, _, day = partition.partition("|")
            lines = ["order_id,ordered_at,amount,region,returned"]
            lines += [f"{partition}-{n},{day} 0{n % 10}:00:00,{n + 1}.5,{region},{n % 2}" for n in range(rows)]
            drafts.append(self.landing / f"{day}_{region}.csv.part")
            drafts[-1].write_text("\n".join(lines) + "\n", encoding="utf-8")
        for draft in drafts:
            draft.rename(draft.with_suffix(""))

    @contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Open the Dagster instance, to look at what happened in it."""
        with dg.DagsterInstance.from_config(str(self.state / "dagster")) as opened:
            yield opened

    @contextmanager
    def running(
        self, command: Sequence[str], log: str, settings: Mapping[str, str] = NO_SETTINGS, *, piped: bool = True
    ) -> Iterator[subprocess.Popen[str]]:
        """Run a program for the block, its output in a pipe or the log; at the end it is stopped by its own id."""
        with (self.root / log).open("w") as file:
            process = subprocess.Popen(
                [sys.executable, *command],
                cwd=self.root,
                env=self.environment(settings),
                stdout=subprocess.PIPE if piped else file,
                stderr=file,
                text=True,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=30)
            if process.stdout is not None:
                process.stdout.close()

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """Run Dagster's daemon, from when its first sensor tick was made."""
        command = ["-m", "dagster._daemon", "run", "-w", str(self.workspace)]
        with self.running(command, "daemon.log", piped=False), self.instance() as instance:
            wait_for("a tick of the sensor", lambda: _ticked(instance), timeout_seconds=300)
            yield


def _ticked(instance: dg.DagsterInstance) -> bool:
    states = [s for s in instance.all_instigator_state() if s.instigator_name == "arrivals"]
    return any(instance.get_ticks(s.instigator_origin_id, s.selector_id, limit=1) for s in states)


def read_until(process: subprocess.Popen[str], text: str, *, timeout_seconds: float) -> str:
    """Return what a program printed up to and with a text.

    Raises:
        AssertionError: If it ended, or did not print it in time.
    """
    assert process.stdout is not None
    printed, deadline = "", time.monotonic() + timeout_seconds
    while text not in printed:
        assert time.monotonic() < deadline, f"no {text!r} within {timeout_seconds} s in:\n{printed}"
        if select.select([process.stdout], [], [], 1)[0]:
            some = os.read(process.stdout.fileno(), 65536).decode()
            assert some, f"the program ended; it printed:\n{printed}"
            printed += some
    return printed


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Seconds from a file's landing to what happened to its run, sorted.

    Attributes:
        queued: Until its run was in the queue.
        launched: Until the daemon took it out of the queue.
        started: Until its process said that it works.
    """

    queued: tuple[float, ...]
    launched: tuple[float, ...]
    started: tuple[float, ...]

    def __str__(self) -> str:
        """Return medians and 95th percentiles."""
        return ", ".join(
            f"{name} p50 {percentile(values, 50):.2f} s p95 {percentile(values, 95):.2f} s"
            for name, values in vars(self).items()
        )


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest value that so many percent of the values do not exceed."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


def latency_of(project: ArrivingProject, wanted: Sequence[str]) -> Latency:
    """Let files arrive one after the other, each once the last one's run is over, and return how long runs took."""
    found: list[tuple[float, float, float]] = []
    with project.instance() as instance:
        for partition in wanted:
            landed = time.time()
            project.land([partition])
            run_id = wait_for(
                f"a run of {partition}",
                lambda p=partition: _over(instance, p),
                timeout_seconds=300,
                every_seconds=0.2,
            )
            found.append(_instants(instance, run_id, landed))
    columns = [tuple(sorted(column)) for column in zip(*found, strict=True)]
    return Latency(queued=columns[0], launched=columns[1], started=columns[2])


def _over(instance: dg.DagsterInstance, partition: str) -> str | None:
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": partition}), limit=1)
    return runs[0].run_id if runs and runs[0].is_finished else None


def _instants(instance: dg.DagsterInstance, run_id: str, landed: float) -> tuple[float, float, float]:
    types = [dg.DagsterEventType.RUN_ENQUEUED, dg.DagsterEventType.RUN_STARTING, dg.DagsterEventType.RUN_START]
    records = instance.get_records_for_run(run_id, of_type=set(types)).records
    when = {r.event_log_entry.dagster_event_type: r.event_log_entry.timestamp - landed for r in records}
    return when[types[0]], when[types[1]], when[types[2]]
