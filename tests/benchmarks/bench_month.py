"""CPU and wall of one governed month of flights against a plain script: `python -m tests.benchmarks.bench_month`.

Governed is `ml-assets backfill flights/arrival_delay` for one month whose earlier months are materialized: two command
line processes, a process for each of twelve steps, every gate, verdict, decision, metadata entry and event. Plain is
`plain_month.py`: the same computation in one script. Both start from the same kind of prepared folder, restored before
each repetition, and take turns. CPU is user and system time of everything that was started.

The plain script is measured twice: as it comes, where the numeric libraries start a thread for each core, and with
one thread. Ratios are to the cheaper one by CPU, and to the faster one by wall. The default month is 2013-05, the first
with an earlier champion whose own candidate passes every gate: April's is refused by one, so that its run stops there.
May's candidate is served in a clean process and compared by 2,000 replicates, and waits for approval; the champion
scores the month. The plain script does neither the serving check nor the second comparison.
"""
# ruff: noqa: T201 - a benchmark prints its table

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from deployments.flights.land import MONTHS, land
from tests.benchmarks.measure import Cost, adopt_orphans, in_turns, medians, run_measured

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = "flights/arrival_delay"
GOAL = 2.0
GOVERNED, PLAIN, PLAIN_ONE = "governed", "plain, library threads", "plain, one thread"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """The folders of one benchmark; records in them hold absolute paths, so that each is restored in its own place.

    Attributes:
        folder: Holds everything.
        month: The month that is measured.
    """

    folder: Path
    month: str

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def plain(self) -> Path:
        return self.folder / "plain"

    @property
    def landing(self) -> Path:
        return self.folder / "landing"

    @property
    def log(self) -> Path:
        return self.folder / "output.log"

    @property
    def environment(self) -> dict[str, str]:
        return {"ML_ASSETS_STATE": str(self.state), "ML_ASSETS_LANDING": str(self.landing)}

    def backfill(self, first: str, last: str) -> list[str]:
        command = str(Path(sys.executable).with_name("ml-assets"))
        return [command, "backfill", PIPELINE, "--from", first, "--to", last]

    def demo(self, months: int) -> list[str]:
        """Return the demo of the first months: a backfill whose first model is approved and becomes champion."""
        return [str(Path(sys.executable).with_name("ml-assets")), "demo", "--periods", str(months)]

    def script(self, month: str, *options: str) -> list[str]:
        folders = ["--folder", str(self.plain), "--landing", str(self.landing)]
        return [sys.executable, "-m", "tests.benchmarks.plain_month", month, *folders, *options]

    def prepare(self) -> None:
        """Do the months before the measured one, both ways, and keep a copy of each folder."""
        earlier = MONTHS[: MONTHS.index(self.month)]
        land(self.landing, [*earlier, self.month])
        # An earlier month may be refused by its gate, which the command tells by its exit code.
        self._run(self.demo(len(earlier)), check=False)
        # A month without a whole one before it has nothing to learn from; the next one has too little.
        for month in earlier[:2]:
            self._run(self.script(month, "--data-only"), check=True)
        for month in earlier[2:]:
            self._run(self.script(month), check=True)
        for folder in (self.state, self.plain):
            shutil.copytree(folder, folder.with_suffix(".prepared"), symlinks=True)

    def restore(self, folder: Path) -> None:
        """Put a folder back into the state it was prepared in."""
        shutil.rmtree(folder)
        shutil.copytree(folder.with_suffix(".prepared"), folder, symlinks=True)

    def run_governed(self) -> Cost:
        self.restore(self.state)
        command = self.backfill(self.month, self.month)
        return run_measured(command, log=self.log, cwd=ROOT, environment=self.environment)

    def run_plain(self, environment: dict[str, str]) -> Cost:
        self.restore(self.plain)
        return run_measured(self.script(self.month), log=self.log, cwd=ROOT, environment=environment)

    def profile(self) -> dict[str, dict[str, float]]:
        """Return CPU, wall and page faults of each step, and of the engine's own parts."""
        self.restore(self.state)
        report = self.folder / "profile.json"
        command = [sys.executable, "-m", "tests.benchmarks.profiled_month", self.month, str(report)]
        run_measured(command, log=self.log, cwd=ROOT, environment=self.environment)
        return json.loads(report.read_text(encoding="utf-8"))

    def _run(self, command: Sequence[str], *, check: bool) -> None:
        environment = {**os.environ, **self.environment}
        with self.log.open("ab") as output:
            subprocess.run(command, check=check, cwd=ROOT, env=environment, stdout=output, stderr=output)


def show(costs: dict[str, list[Cost]]) -> bool:
    """Print the table of medians and ratios; return whether the goal is met."""
    middle = {name: medians(runs) for name, runs in costs.items()}
    print(f"\n{'':26}{'CPU s':>9}{'wall s':>9}   all CPU s")
    for name, cost in middle.items():
        runs = " ".join(f"{run.cpu:.1f}" for run in costs[name])
        print(f"{name:26}{cost.cpu:9.1f}{cost.wall:9.1f}   {runs}")
    plain = [cost for name, cost in middle.items() if name != GOVERNED]
    cpu = middle[GOVERNED].cpu / min(cost.cpu for cost in plain)
    wall = middle[GOVERNED].wall / min(cost.wall for cost in plain)
    met = max(cpu, wall) <= GOAL
    print(f"governed ÷ best plain: CPU {cpu:.2f}, wall {wall:.2f}; goal at most {GOAL}: {'met' if met else 'missed'}")
    return met


def show_profile(parts: dict[str, dict[str, float]]) -> None:
    print(f"\n{'where a governed month goes':44}{'CPU s':>9}{'wall s':>9}{'pages':>9}")
    for name, part in parts.items():
        print(f"{name:44}{part['cpu']:9.2f}{part['wall']:9.2f}{part.get('pages', 0):9.0f}")


def main() -> int:
    """Prepare, measure in turns, print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--month", choices=MONTHS[3:], default="2013-05")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    parser.add_argument("--profile", action="store_true", help="also print the CPU of each step")
    options = parser.parse_args()
    adopt_orphans()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        bench = Bench(folder=Path(folder), month=options.month)
        bench.prepare()
        contenders = {
            GOVERNED: bench.run_governed,
            PLAIN: partial(bench.run_plain, {}),
            PLAIN_ONE: partial(bench.run_plain, ONE_THREAD),
        }
        met = show(in_turns(contenders, options.rounds))
        if options.profile:
            show_profile(bench.profile())
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
