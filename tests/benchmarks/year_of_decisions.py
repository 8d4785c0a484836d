"""A year of flights with all gates, as a table for the docs: `python -m tests.benchmarks.year_of_decisions [STATE]`.

Without STATE it runs `ml-assets demo --periods 12` in a temporary folder first (minutes). With `--write` the table
replaces the one in `docs/year-of-decisions.md`.
"""
# ruff: noqa: T201 - a benchmark prints its table

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_assets.cli.tables import short_reason
from ml_assets.interfaces import Decision
from resources.data_store import ParquetDataStore
from resources.ledger import SqlLedger

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "year-of-decisions.md"
PATH = ("flights", "arrival_delay")
BEGIN, END = "<!-- the table: begin -->\n", "<!-- the table: end -->\n"


def table(state: Path) -> str:
    """Return the decisions of a state's year as a Markdown table, in the order in which they were made."""
    ledger = SqlLedger(f"sqlite:///{state}/ledger.db")
    store = ParquetDataStore(str(state / "data"))
    lines = [
        "| month | candidate | ROC AUC of the month | log loss better than the prior rate by | compared with | "
        "ROC AUC better by | decision | why |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(cells)} |" for cells in _rows(ledger.decisions(PATH), store)]
    return "\n".join(lines) + "\n"


def _rows(decisions: list[Decision], store: ParquetDataStore) -> Iterator[list[str]]:
    for d in decisions:
        document = store.read_document((*PATH, "evaluation"), d.partition, data_version=d.data_version)
        estimates = {(e["model"], e["metric"]): e["interval"] for e in document["report"]["estimates"]}
        better = {(x["reference"], x["metric"]): x["improvement"] for x in document["report"]["differences"]}
        champion = document["champion"]
        versus = "the prior rate" if champion is None else f"version {champion['version']} of {champion['partition']}"
        improvement = better["baseline" if champion is None else "champion", "roc_auc"]
        version = f", version {d.model_version}" if d.model_version else ""
        yield [
            d.partition,
            document["candidate"]["variant"] + version,
            _interval(estimates["candidate", "roc_auc"]),
            _interval(better["baseline", "log_loss"], "+"),
            versus,
            _interval(improvement, "+"),
            d.outcome.replace("_", " "),
            short_reason(d),
        ]


def _interval(interval: dict[str, Any], sign: str = "") -> str:
    return " ".join(
        [f"{interval['estimate']:{sign}.3f}", f"[{interval['lower']:{sign}.3f}, {interval['upper']:{sign}.3f}]"]
    )


def run_the_year(state: Path) -> None:
    """Take the demo through twelve months."""
    command = [str(Path(sys.executable).with_name("ml-assets")), "demo", "--periods", "12"]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, "ML_ASSETS_STATE": str(state)})


def main() -> None:
    """Print the table, and write it when asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("state", type=Path, nargs="?", help="a state folder of `ml-assets demo --periods 12`")
    parser.add_argument("--write", action="store_true", help="replace the table in the docs")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        state = options.state or Path(folder) / "state"
        if options.state is None:
            run_the_year(state)
        text = table(state)
    print(text)
    if options.write:
        page = PAGE.read_text(encoding="utf-8")
        head, tail = page.partition(BEGIN)[0], page.partition(END)[2]
        PAGE.write_text(f"{head}{BEGIN}{text}{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
