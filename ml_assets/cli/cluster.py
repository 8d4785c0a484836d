"""`ml-assets cluster`: what an administrator does about the pods of steps."""

import time

import click

from ml_assets.cli.arguments import current_project
from ml_assets.errors import LeftoverError, MlAssetsError


@click.group()
def cluster() -> None:
    """Look after the pods of steps in a Kubernetes cluster."""


@cluster.command()
@click.option(
    "--namespace", "-n", "namespaces", multiple=True, help="Where to look; by default where runs are launched."
)
@click.option(
    "--keep-hours", default=24, type=float, show_default=True, help="How long Jobs that have ended stay to be read."
)
@click.option(
    "--grace", default=60, type=float, show_default=True, help="Seconds a run must be over before its pods are removed."
)
@click.option("--every", type=float, help="Do it again after so many seconds, until interrupted.")
def reap(namespaces: tuple[str, ...], keep_hours: float, grace: float, every: float | None) -> None:
    """Remove Jobs of runs that are over, and free pool slots that such runs still hold."""
    profile = current_project().profile
    profile.activate()

    def once() -> list[str]:
        reaped = profile.reap(namespaces, keep_seconds=keep_hours * 3600, grace_seconds=grace)
        for line in reaped:
            click.echo(f"removed {line}")
        return reaped

    if every is None:
        if not once():
            click.echo("nothing to remove")
        return
    first = True
    while True:
        try:
            once()
        except MlAssetsError as error:  # the cluster may be away for a while, or keep one Job
            if first and not isinstance(error, LeftoverError):
                raise  # what is set up wrongly ends the command at once
            click.echo(f"{error}\nAsked again in {every:g} s.", err=True)
        first = False
        time.sleep(every)
