"""`ml-assets inbox watch`: files become runs within a second or two, without waiting for a tick of the sensor."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import click

from ml_assets.cli.project import Project, load_project
from ml_assets.delivery.push import Push
from ml_assets.delivery.watching import Watch
from ml_assets.texts import visible_text

STEP_MILLISECONDS, GROUP_MILLISECONDS, LOOK_MILLISECONDS = 20, 100, 50
CODE_SECONDS = 2.0
"""How often it is looked whether the code changed."""


@click.command()
@click.argument("teams", nargs=-1, metavar="[TEAM]...")
def watch(teams: Sequence[str]) -> None:
    """Watch the landing folders and submit the runs of files that arrive at once, until interrupted.

    The arrivals sensor does the same within some seconds; it stays the net under this. Dagster's daemon must run.
    """
    project = load_project()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    watches = [Watch(push=push, say=_say) for push in pushes_of(project, teams)]
    watched = {folder for one in watches for folder in one.folders.values() if folder is not None}
    for folder in watched:
        folder.mkdir(parents=True, exist_ok=True)
    click.echo("Watching " + (", ".join(sorted(map(str, watched))) or "by listing") + ". Stop with Ctrl-C.")
    if _follow(watches, [str(folder) for folder in sorted(watched)], stop):
        click.echo("The code changed; starting again with it.")
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - this very command
    click.echo("Stopped.")


def pushes_of(project: Project, teams: Sequence[str]) -> list[Push]:
    """Return a push for each code location (of the named teams) that has a pipeline which starts by events.

    Raises:
        click.UsageError: If there is none.
    """
    locations = [project.location(team) for team in teams] if teams else list(project.locations)
    project.profile.initialise()
    pushes = [project.profile.push(location.name) for location in locations]
    pushes = [push for push in pushes if push.submission.pipelines]
    if not pushes:
        raise click.UsageError(
            "No pipeline here starts by events; write `automation: {arrivals: true}` into its YAML first."
        )
    return pushes


def _follow(watches: Sequence[Watch], folders: Sequence[str], stop: threading.Event) -> bool:
    """Watch until told to stop; whether it ended because the code changed."""
    looked_at = time.monotonic()
    for changed in _changes(folders, stop):
        now = datetime.now(UTC)
        for one in watches:
            for file in changed:
                one.notice(file, now=now)
            one.step(now)
        if time.monotonic() - looked_at >= CODE_SECONDS:
            looked_at = time.monotonic()
            if any(one.push.submission.changed() for one in watches):
                return True
        if stop.is_set():
            return False
    return False


def _changes(folders: Sequence[str], stop: threading.Event) -> Iterator[set[str]]:
    """Yield the files that changed, and nothing at all each time that nothing did for a moment."""
    import watchfiles

    if not folders:
        while not stop.wait(LOOK_MILLISECONDS / 1000):
            yield set()
        return
    for changes in watchfiles.watch(
        *folders,
        watch_filter=None,
        debounce=GROUP_MILLISECONDS,
        step=STEP_MILLISECONDS,
        rust_timeout=LOOK_MILLISECONDS,
        yield_on_timeout=True,
        stop_event=stop,
        raise_interrupt=False,
    ):
        yield {file for kind, file in changes if kind != watchfiles.Change.deleted}


def _say(line: str) -> None:
    click.echo(f"{datetime.now(UTC):%H:%M:%S} {visible_text(line)}")
