"""`ml-assets policy`: what holds for a pipeline and why, and whether a policy tree is right."""

from collections.abc import Sequence
from datetime import UTC, datetime

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from ml_assets.cli.policy_dry_run import dry_run
from ml_assets.cli.project import Project, load_project
from ml_assets.cli.tables import make_console
from ml_assets.errors import PolicyError
from ml_assets.interfaces import EffectivePolicy, PipelinePath, Setting
from ml_assets.policy.catalogue import BUILT_IN, CATALOGUE, shown
from ml_assets.policy.check import TreeCheck, check_tree
from ml_assets.policy.folder import read_tree
from ml_assets.policy.merge import WHICH_WAY, effective
from ml_assets.policy.schema import INSTANT_WORDS, parse_instant, shown_instant
from ml_assets.policy.tree import Entry, PolicyTree, files_for
from ml_assets.reading import wording

SHORT_NAMES = {"auc": "roc_auc", "ap": "average_precision", "brier": "brier_score"}
"""Metrics as people say them."""


@click.group()
def policy() -> None:
    """Explain, check and try out policies."""


class _Instant(click.ParamType):
    name = "instant"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return parse_instant(value)
        except ValueError:
            self.fail(f"{value!r} is not {INSTANT_WORDS}.", param, ctx)


@policy.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.argument("setting", required=False)
@click.option("--at", type=_Instant(), help="At this instant instead of now: a date, or an instant with its zone.")
def explain(pipeline: str, setting: str | None, at: datetime | None) -> None:
    """Show what holds for a pipeline; with a SETTING, every level that sets it and which counts."""
    project = load_project()
    tree = read_tree(project.profile.policy_url, trial_people=project.profile.trial_people)
    path = _pipeline(pipeline, {*_pipelines(project), *tree.pipelines()})
    instant = at or datetime.now(UTC)
    found = effective(tree, path, instant)
    if setting is None:
        make_console().print(_overview(found, project.profile.policy_url))
        return
    name = _setting_name(setting)
    for line in chain_lines(found, tree, name, instant):
        click.echo(line)


@policy.command()
@click.argument("folder", required=False)
def check(folder: str | None) -> None:
    """Check a policy tree, the project's when no FOLDER (or URL) is named; tell every problem at once.

    Any entry below `teams:` in compute.yaml turns fair sharing on for all teams; one of no team of the project is
    warned of.
    """
    if folder is None:
        project = load_project()
        url, pipelines = project.profile.policy_url, _pipelines(project)
        locations = [location.name for location in project.locations]
        tree = read_tree(url, trial_people=project.profile.trial_people)
    else:
        url, pipelines, locations = folder, None, []  # a policy repository knows nobody's pipelines
        tree = read_tree(folder)
    found = check_tree(tree, datetime.now(UTC), pipelines, locations)
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    if found.problems:
        for problem in found.problems:
            click.echo(str(problem), err=True)
        click.echo(f"{wording.count(len(found.problems), 'problem')} in {url}.", err=True)
        raise SystemExit(1)
    click.echo(_all_right(url, found))


def _all_right(url: str, found: TreeCheck) -> str:
    people = "1 person" if found.n_people == 1 else f"{found.n_people} people"
    later = f", now and at {wording.count(found.n_instants - 1, 'later change')}" if found.n_instants > 1 else ""
    return (
        f"{url}: {wording.count(found.n_files, 'file')}, {wording.count(found.n_settings, 'setting')}, "
        f"{wording.count(len(found.pipelines), 'pipeline')} and {people} without a problem{later}."
    )


def _pipelines(project: Project) -> list[PipelinePath]:
    return [(file.parents[2].name, file.parent.name) for file in project.pipeline_files()]


def _pipeline(name: str, known: set[PipelinePath]) -> PipelinePath:
    """Return a pipeline that the project or the tree knows; of any other, only the upper levels would be shown."""
    team, _, pipeline = name.partition("/")
    if (team, pipeline) in known:
        return team, pipeline
    names = sorted("/".join(path) for path in known)
    raise click.UsageError(f"There is no pipeline {name!r}; there are {', '.join(names) or 'none'}.")


def _setting_name(given: str) -> str:
    metric, dot, rule = given.partition(".")
    name = f"{SHORT_NAMES.get(metric, metric)}{dot}{rule}"
    if name in CATALOGUE:
        return name
    hint = wording.did_you_mean(name, CATALOGUE)
    raise PolicyError(
        f"There is no setting {given!r}; expected {wording.one_of(CATALOGUE, hint)}{'; ' if hint else '.'}{hint}"
    )


def _overview(found: EffectivePolicy, url: str) -> Table:
    """Return a row for each setting in force, with its place below the tree's root."""
    title = f"{'/'.join(found.pipeline)}: policy {found.digest[:12]} of {url}"
    table = Table(title=title, title_justify="left", title_style="bold", header_style="bold", box=SIMPLE_HEAD)
    for column in ("setting", "value", "level", "place"):
        table.add_column(column, overflow="fold")
    for name, setting in found.settings.items():
        chain = found.chains[name]
        marks = _marks(setting, bound=any(s.locked for s in chain))
        value = f"{shown(setting.value)}{f' ({marks})' if marks else ''}"
        style = "dim" if setting.level == BUILT_IN else ""
        place = _place(setting).removeprefix(f"{url.rstrip('/')}/")
        table.add_row(*(Text(text, style=style) for text in (name, value, setting.level, place)))
    return table


def _marks(setting: Setting, *, bound: bool) -> str:
    marks = [
        "warning" if setting.severity == "warning" else "",
        "locked" if bound else "",
        "unwaivable" if setting.unwaivable else "",
    ]
    return ", ".join(mark for mark in marks if mark)


def _place(setting: Setting) -> str:
    return setting.file if setting.line == 0 else f"{setting.file}:{setting.line}"


def chain_lines(found: EffectivePolicy, tree: PolicyTree, name: str, at: datetime) -> list[str]:
    """Return in lines every level that sets a setting, what is not in force, and which counts."""
    pipeline, chain = "/".join(found.pipeline), found.chains.get(name, ())
    definition = CATALOGUE[name]
    unit = f" {definition.unit}" if definition.unit else ""
    head = f"{shown(chain[-1].value)}{unit}" if chain else "not set"
    lines = [f"{name} of {pipeline}: {head}", f"{definition.description} Stricter is: {WHICH_WAY[definition.kind]}."]
    for setting in chain:
        state = "counts" if setting is chain[-1] else "overridden"
        lines += ["", *_described(setting, state)]
    for entry in _out_of_force(tree, found.pipeline, name, chain):
        lines += ["", *_described(entry.setting, _why_not(entry, at))]
    return [*lines, "", *_verdict(name, chain)]


def _described(setting: Setting, state: str) -> list[str]:
    """Return what one level says."""
    marks = _marks(setting, bound=setting.locked)
    lines = [f"  {setting.level:<13}{shown(setting.value)}{f' ({marks})' if marks else ''}: {state}"]
    if setting.level == BUILT_IN:
        return lines
    ends = f" until {shown_instant(setting.expires)}" if setting.expires else ""
    begins = f" from {shown_instant(setting.effective_from)}" if setting.effective_from else ""
    return [*lines, f"    {_place(setting)}, {setting.owner},{begins}{ends}", f"    {setting.reason}"]


def _out_of_force(tree: PolicyTree, pipeline: PipelinePath, name: str, chain: Sequence[Setting]) -> list[Entry]:
    """Return the versions of a setting that the chain does not show."""
    shown_places = {(s.file, s.line) for s in chain}
    entries = (entry for file in files_for(tree.files, pipeline) for entry in file.entries)
    return [e for e in entries if e.setting.name == name and (e.setting.file, e.setting.line) not in shown_places]


def _why_not(entry: Entry, at: datetime) -> str:
    begins, ends = entry.setting.effective_from, entry.setting.expires
    if begins is not None and at < begins:
        return f"begins on {shown_instant(begins)}"
    if ends is not None and ends <= at:
        return f"ended on {shown_instant(ends)}"
    return "replaced by a newer version"


def _verdict(name: str, chain: Sequence[Setting]) -> list[str]:
    """Return which value counts and why."""
    if not chain:
        return [f"No level sets {name}, and it has no default: nothing asks for it."]
    last = chain[-1]
    lines = [
        "The library's default counts: no level sets another value."
        if last.level == BUILT_IN
        else f"The value of the level {last.level} counts: it is the lowest that sets one."
    ]
    lines += [
        f"The level {s.level} locks it ({_place(s)}): lower levels may only {WHICH_WAY[s.kind]}."
        for s in chain
        if s.locked
    ]
    return lines


policy.add_command(dry_run)
