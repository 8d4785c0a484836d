"""`ml-assets dead-letters`: events that were given up, why, and what people do with them."""

import json
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ml_assets.cli.arguments import Sentence, current_project, pipeline_path
from ml_assets.cli.tables import add_row, make_console
from ml_assets.errors import InboxError
from ml_assets.inbox_rules import place_of, unknown_event
from ml_assets.interfaces import Inbox, InboxEvent, PipelinePath
from ml_assets.texts import visible_text

_MOST_SHOWN = 200


@click.group("dead-letters")
def dead_letters() -> None:
    """Show events that were given up, and replay or discard them."""


@dead_letters.command("list")
@click.argument("pipeline", metavar="[TEAM/PIPELINE]", required=False)
def list_dead(pipeline: str | None) -> None:
    """Show every dead letter, newest first."""
    project, console = current_project(), make_console()
    path = None if pipeline is None else pipeline_path(project, pipeline)
    inbox = project.profile.services().inbox
    dead = inbox.events(pipelines=None if path is None else [path], states=["dead"], limit=_MOST_SHOWN)
    if not dead:
        console.print("There is no dead letter.")
        return
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("number", "pipeline", "partition", "place or key", "since", "runs", "why"):
        table.add_column(column, overflow="fold", no_wrap=column not in {"place or key", "why"})
    for kept in dead:
        add_row(table, *_row(kept))
    console.print(table)
    if (n_dead := _count(inbox, path)) > len(dead):
        console.print(f"These are the newest {len(dead)} of {n_dead}.")
    console.print("`ml-assets dead-letters show NUMBER` shows one with its traceback.")


@dead_letters.command()
@click.argument("number", type=click.IntRange(min=1))
def show(number: int) -> None:
    """Show all that is known of an event, with its payload and the traceback of its last failure."""
    kept = current_project().profile.services().inbox.event(number)
    if kept is None:
        raise unknown_event(number)
    for line in _lines(kept):
        click.echo(visible_text(line, keep="\n"))


@dead_letters.command()
@click.argument("numbers", metavar="[NUMBER]...", type=click.IntRange(min=1), nargs=-1)
@click.option("--all", "pipeline", metavar="TEAM/PIPELINE", help="Every dead letter of a pipeline.")
def replay(numbers: Sequence[int], pipeline: str | None) -> None:
    """Let dead letters wait for a run again, as if they had never failed; discarded ones by their number.

    Code 1 when one of them is in another state; the others are replayed.
    """
    if bool(numbers) == (pipeline is not None):
        raise click.UsageError("Name the numbers of dead letters, or a pipeline with --all TEAM/PIPELINE.")
    project = current_project()
    inbox, by = project.profile.services().inbox, project.profile.user
    chosen = numbers if pipeline is None else _dead_numbers(inbox, pipeline_path(project, pipeline))
    if not chosen:
        click.echo(f"{pipeline} has no dead letter.")
        return
    failed = False
    for number in dict.fromkeys(chosen):
        try:
            kept = inbox.replay(number, by=by, now=datetime.now(UTC))
        except InboxError as error:
            click.echo(visible_text(f"Error: {error}"), err=True)
            failed = True
        else:
            click.echo(f"{_name(kept)} waits for a run again.")
    if failed:
        sys.exit(1)


@dead_letters.command()
@click.argument("number", type=click.IntRange(min=1))
@click.option("--reason", type=Sentence(), required=True, help="Why it does not matter, in a sentence.")
def discard(number: int, reason: str) -> None:
    """Say that a dead letter does not matter; it stays in the inbox, and can be replayed."""
    project = current_project()
    inbox = project.profile.services().inbox
    kept = inbox.discard(number, by=project.profile.user, reason=reason, now=datetime.now(UTC))
    click.echo(f"{_name(kept)} is discarded.")


def _row(kept: InboxEvent) -> list[str]:
    event = kept.event
    return [
        str(kept.number),
        "/".join(event.pipeline),
        event.partition,
        place_of(event) or event.key,
        f"{kept.received_at:%Y-%m-%d %H:%M}",
        str(kept.attempts),
        kept.reason,
    ]


def _lines(kept: InboxEvent) -> Iterator[str]:
    event = kept.event
    yield f"{_name(kept)}: {kept.state}"
    if kept.reason:
        yield kept.reason
    yield ""
    facts = {
        "source": event.source,
        "key": event.key,
        "place": place_of(event) or "–",
        "received": f"{kept.received_at:%Y-%m-%d %H:%M:%S} UTC",
        "repeats": f"{kept.repeats}, the last at {kept.seen_at:%Y-%m-%d %H:%M:%S} UTC" if kept.repeats else "none",
        "failed runs": str(kept.attempts),
        "last run": kept.run_id or "–",
        "payload": json.dumps(event.payload, ensure_ascii=True, sort_keys=True),
    }
    width = max(map(len, facts))
    yield from (f"{name:<{width}}  {visible_text(value)}" for name, value in facts.items())
    if kept.traceback:
        yield ""
        yield kept.traceback.expandtabs().rstrip("\n")
    if kept.state == "dead":
        yield ""
        yield f"Once the cause is mended: ml-assets dead-letters replay {kept.number}"
        yield (
            "If something else made up for it than a newer event of its partition: "
            f'ml-assets dead-letters discard {kept.number} --reason "…"'
        )


def _name(kept: InboxEvent) -> str:
    return visible_text(f"Event {kept.number}, {'/'.join(kept.event.pipeline)} [{kept.event.partition}]")


def _count(inbox: Inbox, path: PipelinePath | None) -> int:
    return sum(counts.get("dead", 0) for owner, counts in inbox.counts().items() if path in (None, owner))


def _dead_numbers(inbox: Inbox, path: PipelinePath) -> list[int]:
    """Return the numbers of a pipeline's dead letters, oldest first."""
    dead = inbox.events(pipelines=[path], states=["dead"], limit=max(_count(inbox, path), 1))
    return sorted(kept.number for kept in dead)
