"""A year of flights that runs itself: `python -m tests.benchmarks.year_by_itself`.

Files arrive and the daemon does the rest; nobody starts a run. Each month's three files are landed when everything
that the month before set off has come to rest. A reviewer of the test tree approves what waits. The policy's clocks are
shortened, since a year passes in minutes, and new labels alone start a retraining only when there are two months of
them, so that other causes show. With `--write` table and picture go into the docs. It takes about a quarter of an hour
on two idle cores.
"""
# ruff: noqa: T201 - a benchmark prints its table

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.flights.land import MONTHS, land
from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import Decision, Record
from ml_assets.periods import join_partition
from ml_assets.stages.champions import champion_before, latest_by_partition
from resources.data_store import ParquetDataStore
from resources.ledger.inbox import SqlInbox
from tests.e2e.governed import NAME, PATH, REVIEWERS, Governed
from tests.e2e.programs import ROOT, environment, processes_of, wait_for

PAGE = ROOT / "docs" / "a-year-by-itself.md"
PICTURE = ROOT / "docs" / "images" / "year-by-itself.png"
BEGIN, END = "<!-- the table: begin -->\n", "<!-- the table: end -->\n"
AIRPORTS = ("EWR", "JFK", "LGA")
SETTINGS = {
    "retraining.cooldown_hours": "0",
    "retraining.runs_per_week": "50",
    "retraining.min_new_labels": "45000",
}
REASONS = {
    "retraining.cooldown_hours": "A year passes in minutes here.",
    "retraining.runs_per_week": "A year passes in minutes here.",
    "retraining.min_new_labels": "About two months; less is retrained for another reason or not at all.",
}
PASSING = {"row_index", "events", "incomplete", "running", "labels"}
"""Guards that end by themselves within seconds."""
MONTH_SECONDS = 300
"""How long a month's runs may take on a busy machine."""


@dataclass(frozen=True, kw_only=True)
class Month:
    """What one month's files set off, without anybody.

    Attributes:
        key: The month.
        drift: Airport → the drift stage's document; empty without a champion.
        performance: Airport → the performance stage's document.
        automation: The recorded decisions about retraining for the month, oldest first.
        decisions: What became of the month's candidate, oldest first.
        seconds: From landing to rest.
    """

    key: str
    drift: dict[str, dict[str, Any]]
    performance: dict[str, dict[str, Any]]
    automation: list[Record]
    decisions: list[Decision]
    seconds: float


@contextmanager
def daemon(governed: Governed) -> Iterator[None]:
    """Run the real daemon on a governed state until the block ends."""
    ready = "from resources.profiles import current_profile; p = current_profile(); p.activate(); p.initialise()"
    home = {"DAGSTER_HOME": str(governed.state / "dagster"), "PYTHONPATH": str(ROOT)}
    variables = environment(governed.state, {**governed.settings, **home})
    subprocess.run([sys.executable, "-c", ready], check=True, cwd=ROOT, env=variables)
    log = governed.folder / "daemon.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "resources.daemon", "run", "-w", str(ROOT / "workspace.yaml")],
            cwd=ROOT,
            env=variables,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=60)
    wait_for("an end of all processes", lambda: not processes_of(governed.state), timeout_seconds=60)


def govern(folder: Path, settings: dict[str, str]) -> Governed:
    """Return a state with the project's policies, some of them changed for flights, and reviewers."""
    governed = Governed(folder=folder)
    governed.found()
    file = next((governed.policies / "teams").glob("flights.yaml"))
    lines = [
        f"  {name}:\n    value: {value}\n    reason: {REASONS.get(name, 'Set for this run.')}"
        for name, value in settings.items()
    ]
    file.write_text(file.read_text(encoding="utf-8").rstrip("\n") + "\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return governed


def replay(governed: Governed, months: Sequence[str]) -> Iterator[Month]:
    """Land one month after the other and yield what it set off, once it has come to rest."""
    for month in months:
        started = time.monotonic()
        land(governed.state / "landing", [month])
        wait_for(f"{month} to come to rest", lambda month=month: _rests(governed, month), timeout_seconds=MONTH_SECONDS)
        yield _month(governed, month, time.monotonic() - started)


def _rests(governed: Governed, month: str) -> bool:
    """Whether the month's data are made and watched, its retraining is settled, and nobody is waited for."""
    try:
        return _data_rest(governed, month) and _models_rest(governed, month)
    except MlAssetsError:  # what is being written right now
        return False


def _data_rest(governed: Governed, month: str) -> bool:
    counts = SqlInbox(f"sqlite:///{governed.state}/ledger.db").counts().get(PATH, {})
    if any(counts.get(state, 0) for state in ("waiting", "claimed", "running")):
        return False
    store = ParquetDataStore(str(governed.state / "data"))
    partitions = [join_partition(airport, month) for airport in AIRPORTS]
    made = all(store.describe((*PATH, "features"), partition) for partition in partitions)
    if not made or champion_before(governed.ledger().decisions(PATH), month) is None:
        return made
    watched = (store.describe((*PATH, stage), p) for stage in ("drift", "performance") for p in partitions)
    return all(watched)


def _models_rest(governed: Governed, month: str) -> bool:
    ledger = governed.ledger()
    latest = latest_by_partition(ledger.decisions(PATH)).get(month)
    if latest is not None and latest.outcome == "awaiting_approval":
        governed.run("approvals", "approve", NAME, month, "--as", REVIEWERS[0], "--reason", "I read the dossier.")
        return False
    said = [r.body for r in ledger.records(PATH, kind="automation") if r.subject == month]
    starts = {r["run_key"] for r in said if r.get("outcome") == "retrain"}
    ends = [r for r in said if r.get("event") == "ended"]
    if starts:
        return len(ends) >= len(starts) and (latest is None or latest.outcome != "awaiting_approval")
    decided = [r for r in said if r.get("event") == "decision"]
    if not decided or decided[-1]["outcome"] == "retrain":
        return False
    return not PASSING & {guard["name"] for guard in decided[-1]["guards"]}


def _month(governed: Governed, month: str, seconds: float) -> Month:
    store, ledger = ParquetDataStore(str(governed.state / "data")), governed.ledger()

    def documents(stage: str) -> dict[str, dict[str, Any]]:
        keys = {airport: join_partition(airport, month) for airport in AIRPORTS}
        there = {a: k for a, k in keys.items() if store.describe((*PATH, stage), k) is not None}
        return {airport: store.read_document((*PATH, stage), key) for airport, key in there.items()}

    return Month(
        key=month,
        drift=documents("drift"),
        performance=documents("performance"),
        automation=[r for r in ledger.records(PATH, kind="automation") if r.subject == month],
        decisions=[d for d in ledger.decisions(PATH) if d.partition == month],
        seconds=seconds,
    )


def table(months: Sequence[Month]) -> str:
    """Return what happened, a month a row, as a Markdown table."""
    lines = [
        "| month | drift | calibration gap | performance | retraining, and why | candidate | seconds to rest |",
        "|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_cells(month))} |" for month in months]
    return "\n".join(lines) + "\n"


def _cells(month: Month) -> list[str]:
    drifted = {
        airport: f"{d['verdict']}: {_names(d['moved'])} ({d['importance_moved']:.0%})"
        for airport, d in month.drift.items()
        if d["verdict"] != "stable"
    }
    gaps = {
        airport: f"{d['calibration']['gap']:+.3f}{' **alarm**' if d['calibration']['miscalibrated'] else ''}"
        for airport, d in month.performance.items()
        if d.get("calibration")
    }
    verdicts = {airport: d["verdict"] for airport, d in month.performance.items()}
    none = "no champion yet" if not month.performance else "stable"
    return [
        month.key,
        "; ".join(f"{a} {text}" for a, text in drifted.items()) or none,
        "; ".join(f"{a} {text}" for a, text in gaps.items()) or "–",
        "; ".join(f"{a} {text}" for a, text in verdicts.items()) or "–",
        _retraining(month),
        "; then ".join(
            f"{d.outcome.replace('_', ' ')}" + (f", version {d.model_version}" if d.model_version else "")
            for d in month.decisions
        )
        or "–",
        f"{month.seconds:.0f}",
    ]


def _retraining(month: Month) -> str:
    bodies = [r.body for r in month.automation if r.body.get("event") == "decision"]
    started = [body for body in bodies if body["outcome"] == "retrain"]
    if started:
        causes = [cause["sentence"] for cause in started[0]["causes"] if cause["counts"]]
        return "**retrain**: " + _plain(" ".join(causes))
    if not bodies:
        return "–"
    reasons = [guard["sentence"] for guard in bodies[-1]["guards"]] or [c["sentence"] for c in bodies[-1]["causes"]]
    return f"{bodies[-1]['outcome']}: {_plain(' '.join(reasons))}"


def _plain(text: str) -> str:
    """Return a sentence without the places of settings, which name the folder of this run."""
    import re

    return re.sub(r" ?\([a-z_]+\.[a-z_]+: [^)]*\)", "", text).replace("|", "\\|")


def _names(names: Sequence[str], shown: int = 3) -> str:
    more = f", … ({len(names) - shown} more)" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


def picture(months: Sequence[Month], file: Path) -> None:
    """Draw the year: share of importance that moved, calibration gap, and what was decided."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.6), layout="constrained")
    moved, gap, decided = figure.subplots(3, 1, sharex=True, height_ratios=(2, 2, 1.1))
    places = range(len(months))
    colours = dict(zip(AIRPORTS, ("#4269d0", "#efb118", "#3ca951"), strict=True))
    for i, airport in enumerate(AIRPORTS):
        shares = [m.drift.get(airport, {}).get("importance_moved", 0.0) for m in months]
        moved.bar([p + (i - 1) * 0.27 for p in places], shares, 0.25, color=colours[airport], label=airport)
        alarms = [(p, m.performance[airport]["calibration"]) for p, m in zip(places, months, strict=True)
                  if m.performance.get(airport, {}).get("calibration")]  # fmt: skip
        for p, c in alarms:
            at = p + (i - 1) * 0.27
            gap.plot([at, at], [c["lower"], c["upper"]], color=colours[airport], linewidth=1.5)
            gap.plot(at, c["gap"], "o" if c["miscalibrated"] else ".", color=colours[airport], markersize=8)
    moved.set_ylabel("importance moved")
    moved.legend(ncols=3, frameon=False, loc="upper left")
    gap.axhline(0, color="#888888", linewidth=0.8)
    gap.set_ylabel("label − prediction")
    decided.set_ylim(-0.6, 1.6)
    decided.set_yticks([1, 0], ["retrained", "promoted"])
    for p, m in zip(places, months, strict=True):
        if any(r.body.get("outcome") == "retrain" for r in m.automation):
            decided.plot(p, 1, "s", color="#444444", markersize=8)
        if any(d.outcome == "promoted" for d in m.decisions):
            decided.plot(p, 0, "^", color="#3ca951", markersize=9)
        elif any(d.outcome == "refused" for d in m.decisions):
            decided.plot(p, 0, "x", color="#d33", markersize=8)
    decided.set_xticks(list(places), [m.key[-2:] for m in months])
    decided.set_xlabel("month of 2013; large dots: calibration alarm; cross: refused by a gate")
    for axes in (moved, gap, decided):
        axes.spines[["top", "right"]].set_visible(False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110, format="png")


def main() -> None:
    """Print the table, and write it into the docs when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--months", type=int, default=len(MONTHS), help="months from January")
    parser.add_argument("--keep", type=Path, help="folder for the state, which is kept")
    parser.add_argument("--write", action="store_true", help="replace table and picture in the docs")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="year-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        governed = govern(folder, SETTINGS)
        months: list[Month] = []
        with daemon(governed):
            for month in replay(governed, MONTHS[: options.months]):
                months.append(month)
                print(f"| {' | '.join(_cells(month))} |", flush=True)
        picture(months, PICTURE if options.write else folder / "year.png")
        if options.write:
            page = PAGE.read_text(encoding="utf-8")
            head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
            PAGE.write_text(f"{head}{BEGIN}{table(months)}{END}{tail}", encoding="utf-8")
    finally:
        if options.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
