"""`ml-assets history`: the story of a pipeline's decisions in plain words, oldest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from ml_assets.cli.backfill import find_pipeline
from ml_assets.cli.project import load_project
from ml_assets.cli.tables import COLOURS, make_console
from ml_assets.interfaces import Decision, LedgerView, PipelinePath, Record

WORDS = {
    "promoted": "became champion",
    "kept": "did not take over from the champion, which stays",
    "undecided": "could not be told from the champion, which stays",
    "refused": "was refused",
    "awaiting_approval": "passed, and waits for approval",
    "rejected": "was rejected",
    "rolled_back": "was taken back",
}


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened.

    Attributes:
        at: When it was recorded.
        partition: What period it is about; empty when none.
        what: One of the decisions' outcomes, or the kind of a record.
        sentence: What happened.
    """

    at: datetime
    partition: str
    what: str
    sentence: str


@click.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.option("--last", type=click.IntRange(1), help="Only the last so many events.")
def history(pipeline: str, last: int | None) -> None:
    """Tell what was decided of TEAM/PIPELINE, by whom and why: decisions, approvals, waivers, alias moves."""
    project, console = load_project(), make_console()
    spec = find_pipeline(project, pipeline).spec
    events = events_of(project.profile.services().ledger, (spec.team, spec.name))
    if not events:
        console.print(f"Nothing was decided of {pipeline} yet.")
        return
    for event in events[-last:] if last else events:
        colour = COLOURS.get(event.what, "dim")
        console.print(
            f"{event.at:%Y-%m-%d %H:%M:%S}  {event.partition:<10} [{colour}]{event.what:<18}[/{colour}] ",
            end="",
            highlight=False,
        )
        console.print(event.sentence, highlight=False, markup=False, soft_wrap=True)


def events_of(ledger: LedgerView, path: PipelinePath) -> list[Event]:
    """Return everything that was recorded of a pipeline, oldest first."""
    # What people said comes before what followed from it at the same instant.
    found = [*_recorded(ledger.records(path)), *(_decided(d) for d in ledger.decisions(path))]
    return sorted(found, key=lambda event: event.at)


def _decided(decision: Decision) -> Event:
    version = f"Version {decision.model_version}" if decision.model_version else "The candidate"
    champion = f" (champion was version {decision.champion_version})" if decision.champion_version else ""
    # Who rejected it stands in the reason.
    who = {"promoted": ", approved by", "rolled_back": " by"}.get(decision.outcome)
    by = f"{who} {decision.decided_by}" if who and decision.decided_by != "pipeline" else ""
    sentence = f"{version} {WORDS[decision.outcome]}{by}{champion}: {decision.reason}"
    return Event(at=_at(decision), partition=decision.partition, what=decision.outcome, sentence=sentence)


def _recorded(records: list[Record]) -> Iterator[Event]:
    for record in records:
        body: Any = record.body
        if record.kind in ("alias", "incident"):
            yield Event(at=_at(record), partition="", what=record.kind, sentence=_capital(body.get("sentence", "")))
            continue
        said = {"approval": "approved", "rejection": "rejected", "waiver": "waived"}[record.kind]
        what = body.get("subject", {}).get("check", "") if record.kind == "waiver" else ""
        version = body.get("subject", {}).get("model_version", "")
        target = f"the gate {what}" if what else f"version {version}"
        sentence = (
            f"{body.get('person')} {said} {target} until {str(body.get('expires_at'))[:16]}: {body.get('reason')}"
        )
        yield Event(at=_at(record), partition=str(body.get("partition", "")), what=record.kind, sentence=sentence)


def _at(row: Decision | Record) -> datetime:
    assert row.recorded_at is not None  # noqa: S101 - the ledger sets it
    return row.recorded_at


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
