"""`ml-assets alerts`: what people were told, what is still to be sent, and whether a channel works."""

import secrets
import sys
from datetime import UTC, datetime

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ml_assets.alerting.sending import LONGEST_WAIT
from ml_assets.cli.arguments import current_project
from ml_assets.cli.tables import add_row, make_console
from ml_assets.errors import AlertError
from ml_assets.interfaces import Alert, AlertStore, RaisedAlert

_MOST_SHOWN = 200


@click.group()
def alerts() -> None:
    """Show alerts, and try the channels that they are sent over."""


@alerts.command("list")
@click.option("--pending", is_flag=True, help="Only those that did not arrive yet.")
def list_alerts(pending: bool) -> None:
    """Show the newest alerts, newest first, a row for each channel."""
    console, services = make_console(), current_project().profile.services()
    shown = _unsent(services.alerts) if pending else services.alerts.recent(_MOST_SHOWN)
    if not shown:
        console.print("Every alert was sent." if pending else "There was no alert yet.")
        return
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for column in ("raised", "channel", "kind", "what", "state"):
        table.add_column(column, overflow="fold", no_wrap=column in {"raised", "channel", "kind"})
    for row in shown:
        channel = row.alert.key.partition("|")[0]
        state = _state(row, channel in services.notifier.channels)
        add_row(table, f"{row.created_at:%Y-%m-%d %H:%M}", channel, row.alert.kind, row.alert.title, state)
    console.print(table)
    if pending and len(shown) == _MOST_SHOWN:
        console.print(f"These are the oldest {_MOST_SHOWN} that did not arrive; there may be more.")


@alerts.command()
@click.option("--channel", metavar="NAME", help="Only this one; every channel there is otherwise.")
def test(channel: str | None) -> None:
    """Send a test message and say what happened.

    Code 1 when a channel did not take it.
    """
    project = current_project()
    notifier = project.profile.services().notifier
    if channel is not None and channel not in notifier.channels:
        raise click.UsageError(f"There is no channel {channel!r}; there are {', '.join(notifier.channels)}.")
    now = datetime.now(UTC)
    message = Alert(
        key=f"test/{secrets.token_hex(8)}",
        kind="test",
        pipeline=("ml-assets", "alerts"),
        title="a test of this channel",
        body=f"{project.profile.user} sent it on {now:%Y-%m-%d %H:%M} UTC. Nothing needs to be done.",
    )
    failed = False
    for name in notifier.channels if channel is None else (channel,):
        try:
            notifier.send(name, message)
        except AlertError as error:
            click.echo(f"{name}: {error}", err=True)
            failed = True
        else:
            click.echo(f"{name}: sent.")
    if failed:
        sys.exit(1)


def _unsent(alerts: AlertStore) -> list[RaisedAlert]:
    """Return the oldest alerts that did not arrive, however many did since, newest first."""
    longest = datetime.now(UTC) + 2 * LONGEST_WAIT  # nothing is put off for longer
    return alerts.pending(now=longest, limit=_MOST_SHOWN)[::-1]


def _state(row: RaisedAlert, has_channel: bool) -> str:
    if row.sent_at is not None:
        return f"sent {row.sent_at:%Y-%m-%d %H:%M}"
    if not has_channel:
        return "there is no such channel now; sent when there is again"
    if row.attempts:
        times = "1 time" if row.attempts == 1 else f"{row.attempts} times"
        return f"failed {times}, next at {row.not_before:%Y-%m-%d %H:%M}: {row.last_error}"
    return "to be sent"
