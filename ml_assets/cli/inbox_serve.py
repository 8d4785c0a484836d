"""`ml-assets inbox serve`: an HTTP endpoint at which programs say that something arrived."""

from collections.abc import Sequence

import click

from ml_assets.cli.inbox_watch import pushes_of
from ml_assets.cli.project import load_project

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@click.command()
@click.argument("teams", nargs=-1, metavar="[TEAM]...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=4100, show_default=True, help="Port; 0 for a free one.")
def serve(teams: Sequence[str], host: str, port: int) -> None:
    """Take events over HTTP and submit their runs at once, until interrupted.

    Callers send the token of ML_ASSETS_INBOX_TOKEN. Speaks plain HTTP: beyond this machine, put a proxy with TLS in
    front of it.
    """
    project = load_project()
    if host not in LOOPBACK:
        click.echo(f"{host} can be reached from elsewhere: the token travels in the clear unless a proxy adds TLS.")
    project.profile.serve_inbox(pushes_of(project, teams), host=host, port=port, ready=lambda real: _told(host, real))
    click.echo("Stopped.")


def _told(host: str, port: int) -> None:
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"Inbox        http://{shown}:{port}/v1/events\nStop with Ctrl-C.")
