"""`ml-assets inbox`: events from outside, and which run carries each."""

from collections.abc import Collection, Sequence
from typing import cast, get_args

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ml_assets.cli.arguments import current_project, pipeline_path
from ml_assets.cli.inbox_release import abandoned, release
from ml_assets.cli.inbox_serve import serve
from ml_assets.cli.inbox_watch import watch
from ml_assets.cli.tables import add_row, make_console
from ml_assets.inbox_rules import BATCH_STATES, place_of
from ml_assets.interfaces import EventState, InboxEvent
from ml_assets.texts import visible_text


@click.group()
def inbox() -> None:
    """Show events from outside that start runs."""


inbox.add_command(watch)
inbox.add_command(serve)
inbox.add_command(release)


@inbox.command("list")
@click.argument("pipeline", metavar="[TEAM/PIPELINE]", required=False)
@click.option("--state", "states", type=click.Choice(get_args(EventState)), multiple=True, help="Only events in it.")
@click.option("--last", type=click.IntRange(min=1), default=50, help="How many, at most.")
def list_events(pipeline: str | None, states: Sequence[str], last: int) -> None:
    """Show the newest events, newest first, and the batches that no sensor looks after."""
    project, console = current_project(), make_console()
    path = None if pipeline is None else pipeline_path(project, pipeline)
    inbox = project.profile.services().inbox
    left = abandoned(project, inbox.batches(None if path is None else [path]))
    marked = {batch.name for batch in left}
    found = inbox.events(
        pipelines=None if path is None else [path],
        states=cast("Sequence[EventState]", states) or None,
        limit=last,
    )
    if not found:
        console.print("There is no such event." if states or pipeline else "The inbox is empty.")
        return
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("number", "state", "pipeline", "partition", "source", "place or key", "received", "run"):
        table.add_column(column, overflow="fold", no_wrap=column not in {"source", "place or key"})
    for kept in found:
        add_row(table, *_row(kept, marked))
    console.print(table)
    for batch in left:
        line = f"* {'/'.join(batch.pipeline)}: no sensor looks after it. End it: ml-assets inbox release {batch.name}"
        console.print(visible_text(line), style="yellow", highlight=False, markup=False, soft_wrap=True)


def _row(kept: InboxEvent, marked: Collection[str]) -> list[str]:
    event = kept.event
    is_left = kept.state in BATCH_STATES and kept.batch in marked
    return [
        str(kept.number),
        f"{kept.state} *" if is_left else kept.state,
        "/".join(event.pipeline),
        event.partition,
        event.source,
        place_of(event) or event.key,
        f"{kept.received_at:%Y-%m-%d %H:%M}",
        (kept.run_id or "–")[:8],
    ]
