"""`ml-assets history`: the story of a pipeline's decisions in plain words, oldest first."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import click

from ml_assets.approvals.standing import standing, with_launchers
from ml_assets.cli.backfill import find_pipeline
from ml_assets.cli.project import load_project
from ml_assets.cli.tables import COLOURS, make_console
from ml_assets.interfaces import Decision, PipelinePath, Record
from ml_assets.stages.step import Services

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
    events = events_of(project.profile.services(), (spec.team, spec.name))
    if not events:
        console.print(f"Nothing was decided of {pipeline} yet.")
        return
    for event in events[-last:] if last else events:
        colour, what = COLOURS.get(event.what, "dim"), event.what.replace("_", " ")
        console.print(
            f"{event.at:%Y-%m-%d %H:%M:%S}  {event.partition:<10} [{colour}]{what:<18}[/{colour}] ",
            end="",
            highlight=False,
        )
        console.print(event.sentence, highlight=False, markup=False, soft_wrap=True)


def events_of(services: Services, path: PipelinePath) -> list[Event]:
    """Return everything that was recorded of a pipeline, oldest first."""
    decisions, records = services.ledger.decisions(path), services.ledger.records(path)
    # What people said comes before what followed from it at the same instant.
    found = [*_recorded(records), *(_decided(services, d, decisions, records) for d in decisions)]
    return sorted(found, key=lambda event: event.at)


def _decided(services: Services, decision: Decision, decisions: list[Decision], records: list[Record]) -> Event:
    version = f"Version {decision.model_version}" if decision.model_version else "The candidate"
    champion = f" (champion was version {decision.champion_version})" if decision.champion_version else ""
    by = ""
    if decision.decided_by != "pipeline" and decision.outcome == "promoted":
        by = _approved_by(services, decision, decisions, records)
    elif decision.outcome == "rolled_back":
        by = f" by {decision.decided_by}"
    words = WORDS.get(decision.outcome, decision.outcome)
    sentence = f"{version} {words}{by}{champion}: {decision.reason}"
    return Event(at=_at(decision), partition=decision.partition, what=decision.outcome, sentence=sentence)


def _approved_by(services: Services, decision: Decision, decisions: list[Decision], records: list[Record]) -> str:
    """Return who approved a promotion by valid signatures; what the row says of itself proves nothing."""
    given = standing(
        with_launchers(decision, decisions),
        records,
        services.policy.effective(decision.pipeline, decision.recorded_at),
        services.policy.people(),
        at=_at(decision),
        after_promotion=True,
    )
    if given.complete:
        return f", approved by {', '.join(approval.person for approval in given.approvals)}"
    return f", as it says approved by {decision.decided_by}, though no valid approval is recorded"


def _recorded(records: list[Record]) -> Iterator[Event]:
    for record in records:
        body: Any = record.body
        if record.kind in ("alias", "incident"):
            yield Event(at=_at(record), partition="", what=record.kind, sentence=_capital(body.get("sentence", "")))
            continue
        if record.kind in ("automation", "pause"):
            if sentence := _automatic(record):
                period = str(body.get("period", ""))
                yield Event(at=_at(record), partition=period, what=record.kind, sentence=sentence)
            continue
        said = {"approval": "approved", "rejection": "rejected", "waiver": "waived"}.get(record.kind, record.kind)
        what = body.get("subject", {}).get("check", "") if record.kind == "waiver" else ""
        version = body.get("subject", {}).get("model_version", "")
        target = f"the gate {what}" if what else f"version {version}"
        sentence = (
            f"{body.get('person')} {said} {target} until {str(body.get('expires_at'))[:16]}: {body.get('reason')}"
        )
        yield Event(at=_at(record), partition=str(body.get("partition", "")), what=record.kind, sentence=sentence)


def _automatic(record: Record) -> str:
    """Return what automation did in a sentence; empty for a decision to wait, which `automation explain` has."""
    body: Any = record.body
    if record.kind == "pause":
        verb = "paused it" if record.subject == "pause" else "let it go on"
        return f"{_capital(str(body.get('by', 'somebody')))} {verb}: {body.get('reason') or 'no reason was given'}"
    match body.get("event"):
        case "request":
            return f"{_capital(str(body.get('by', 'somebody')))} asked for a retraining: {body.get('reason')}"
        case "ended":
            return f"The retraining {body.get('ending')}: {body.get('reason')}"
        case "decision" if body.get("outcome") != "wait":
            said = body.get("guards") or [cause for cause in body.get("causes", []) if cause.get("counts")]
            why = " ".join(str(one.get("sentence", "")) for one in said)
            return f"{_capital(str(body.get('outcome')))}: {why}"
    return ""


def _at(row: Decision | Record) -> datetime:
    assert row.recorded_at is not None  # noqa: S101 - the ledger sets it
    return row.recorded_at


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
