"""`ml-assets status`: what every pipeline has, what its gates say, and which version is champion."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ml_assets.arrivals.put_aside import standing_files
from ml_assets.arrivals.quarantine import quarantine_folder
from ml_assets.cli.backfill import find_pipeline
from ml_assets.cli.project import Project, load_project
from ml_assets.cli.tables import make_console, plain, summary
from ml_assets.errors import MlAssetsError, SourceError, SpecError
from ml_assets.interfaces import EventState, Inbox, Ledger, PipelinePath
from ml_assets.periods import split_partition
from ml_assets.reading.placement import read_placed_pipeline
from ml_assets.retraining.pauses import Pause, pause_of, scopes_of
from ml_assets.sources import LandingZone
from ml_assets.spec import PipelineSpec
from ml_assets.stages.trust import trusted_champion
from ml_assets.texts import visible_text


@click.command()
@click.argument("pipeline", metavar="[TEAM/PIPELINE]", required=False)
def status(pipeline: str | None) -> None:
    """Show every pipeline in a line, or one pipeline period by period."""
    project, console = load_project(), make_console()
    if pipeline is None:
        table, remarks = _overview(project)
        console.print(table)
        services = project.profile.services()
        for remark in remarks:
            say(console, remark, style="red")
        for held in pauses(services.ledger, [path_of(file) for file in project.pipeline_files()]):
            say(console, f"{held}.", style="yellow")
        if dead := dead_letters_line(services.inbox, None):
            console.print(dead, style="red")
        return
    loaded = find_pipeline(project, pipeline)
    services = project.profile.services()
    stored = services.data_store.partitions((loaded.spec.team, loaded.spec.name, "raw_data"))
    periods = sorted({split_partition(key)[1] for key in stored})
    aside = quarantine_line(services.landing, services.inbox, loaded.spec)
    if not periods:
        console.print(f"{pipeline} has no data yet; `ml-assets backfill {pipeline} --from … --to …` makes some.")
        if aside:
            say(console, aside, style="red")
        return
    console.print(summary(services, loaded, periods))
    for decision in services.ledger.decisions((loaded.spec.team, loaded.spec.name)):
        outcome = decision.outcome.replace("_", " ")
        say(console, f"{decision.partition}  {outcome:<18}{decision.reason}")
    path = (loaded.spec.team, loaded.spec.name)
    for held in pauses(services.ledger, [path]):
        say(console, f"{held}.", style="yellow")
    console.print(f"events: {event_words(services.inbox.counts().get(path, {}))}", highlight=False)
    if dead := dead_letters_line(services.inbox, path):
        console.print(dead, style="red")
    if aside:
        say(console, aside, style="red")


def say(console: Console, line: str, *, style: str = "") -> None:
    """Print a line as it is: what others wrote is never taken for markup, or for commands to the terminal."""
    console.print(visible_text(line, keep="\n"), style=style, highlight=False, markup=False, soft_wrap=True)


def pauses(ledger: Ledger, paths: Sequence[PipelinePath]) -> list[Pause]:
    """Return every pause that covers some of the pipelines, widest first."""
    scopes = dict.fromkeys(scope for path in paths for scope in scopes_of(path))
    held = (pause_of(ledger, scope) for scope in sorted(scopes, key=lambda scope: (scope.count("*") * -1, scope)))
    return [pause for pause in held if pause is not None]


def path_of(file: Path) -> PipelinePath:
    """Return the pipeline whose YAML file it is, from where the file lies."""
    return file.parents[2].name, file.parent.name


def event_words(counts: Mapping[EventState, int]) -> str:
    """Return how many events wait, run and are dead, for a cell; those that have ended well are not told.

    >>> event_words({"done": 1000, "waiting": 2, "claimed": 1, "running": 3, "dead": 1})
    '2 waiting, 4 running, 1 dead'
    """
    told = {
        "waiting": counts.get("waiting", 0),
        "running": counts.get("claimed", 0) + counts.get("running", 0),
        "dead": counts.get("dead", 0),
    }
    return ", ".join(f"{count} {word}" for word, count in told.items() if count) or "–"


def dead_letters_line(inbox: Inbox, path: PipelinePath | None) -> str:
    """Return how many dead letters there are (of one pipeline) and how to see them; empty when there is none."""
    n_dead = sum(counts.get("dead", 0) for owner, counts in inbox.counts().items() if path in (None, owner))
    if not n_dead:
        return ""
    name = "" if path is None else f" {'/'.join(path)}"
    return f"{n_dead} dead letter{'' if n_dead == 1 else 's'}; see: ml-assets dead-letters list{name}"


def quarantine_line(landing: LandingZone, inbox: Inbox, spec: PipelineSpec) -> str:
    """Return how many files of a pipeline were put aside, and where they lie; empty when there is none.

    Those whose place a good file has taken since are not counted.
    """
    if not spec.automation.arrivals:
        return ""
    try:
        n_aside = len(standing_files(landing, inbox, spec))
    except SourceError as error:
        return str(error)
    if not n_aside:
        return ""
    return (
        f"{spec.team}/{spec.name}: {n_aside} file{'' if n_aside == 1 else 's'} in quarantine, each beside its reason: "
        f"{quarantine_folder(landing, spec)}"
    )


def _overview(project: Project) -> tuple[Table, list[str]]:
    """Return a row for each pipeline, and what to say below them of those that are broken or had bad files."""
    table, remarks = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0)), list[str]()
    for column in ("pipeline", "data", "predictions", "decisions", "champion", "events"):
        table.add_column(column, no_wrap=True)
    services = project.profile.services()
    for file in project.pipeline_files():
        name = "/".join(path_of(file))
        try:
            spec = read_placed_pipeline(file).spec
            path = (spec.team, spec.name)
            data = services.data_store.partitions((*path, "raw_data"))
            scored = services.data_store.partitions((*path, "predictions"))
            decisions = services.ledger.decisions(path)
            events = event_words(services.inbox.counts().get(path, {}))
            remarks += filter(None, [quarantine_line(services.landing, services.inbox, spec)])
        except SpecError as error:
            table.add_row(name, "[red]broken")
            remarks.append(f"{name}: {len(error.problems)} problems; see `ml-assets validate`")
            continue
        except MlAssetsError as error:
            table.add_row(name, "[red]unknown")
            remarks.append(f"{name}: {error}")
            continue
        try:
            champion = trusted_champion(services, path, None).champion
        except MlAssetsError as error:
            table.add_row(name, "[red]unknown")
            remarks.append(f"{name}: {error}")
            continue
        table.add_row(
            name,
            f"{len(data)} partition{'' if len(data) == 1 else 's'}",
            f"{len(scored)} partition{'' if len(scored) == 1 else 's'}",
            str(len(decisions)),
            plain("–" if champion is None else f"version {champion.model_version} of {champion.partition}"),
            events,
        )
    return table, remarks
