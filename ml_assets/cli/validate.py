"""`ml-assets validate` and `ml-assets schema`: check pipelines' YAML without a code location, and document it."""

import json
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

import click

from ml_assets.arrivals.pattern import ArrivalPattern
from ml_assets.cli.project import Project, load_project
from ml_assets.errors import PolicyError, SpecError
from ml_assets.gates import select_thresholds
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.reading.placement import read_placed_pipeline
from ml_assets.reading.schema import pipeline_schema


@click.command()
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--deep", is_flag=True, help="Also ask Great Expectations about every expectation (takes seconds).")
def validate(files: tuple[Path, ...], *, deep: bool) -> None:
    """Check pipelines' YAML, all of the project's when no FILE is named; tell every problem at once."""
    project = load_project()
    problems, read = 0, list[LoadedPipeline]()
    rules = cache(project.profile.services().policy.compute)
    chosen = [f / "defs.yaml" if f.is_dir() else f for f in files] or project.pipeline_files()
    for file in chosen:
        try:
            loaded = read_placed_pipeline(file, rules)
            read.append(loaded)
            problems += _check_services(project, loaded, file, deep=deep)
        except SpecError as error:
            problems += len(error.problems)
            click.echo(str(error), err=True)
        except PolicyError as error:
            problems += 1
            click.echo(f"{file}: {error}", err=True)
    for line in crossings(read):
        click.echo(line, err=True)
        problems += 1
    if problems:
        click.echo(f"{_counted(problems, 'problem')} in {_counted(len(chosen), 'file')}.", err=True)
        raise SystemExit(1)
    click.echo(f"{_counted(len(chosen), 'pipeline')} without a problem.")


def crossings(pipelines: Sequence[LoadedPipeline]) -> Iterator[str]:
    """Yield a line for each pipeline whose arrivals would put another pipeline's files into quarantine."""
    for one in pipelines:
        pattern = ArrivalPattern.of(one.spec)
        for other in pipelines if one.spec.automation.arrivals else ():
            place = pattern.takes_for_misnamed(other.spec)
            if place is not None:
                yield (
                    f"{one.spec.team}/{one.spec.name}: source.url {one.spec.source.url!r} fits {place!r} of "
                    f"{other.spec.team}/{other.spec.name}, which it would put into quarantine as misnamed. Give each "
                    "pipeline a folder, or a beginning of names, of its own."
                )


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'s' if count != 1 else ''}"


def _check_services(project: Project, loaded: LoadedPipeline, file: Path, *, deep: bool) -> int:
    """Check what the file alone cannot tell: the policy's settings, and the expectations' arguments."""
    services, found = project.profile.services(), 0
    try:
        names = [*loaded.spec.gates, f"{loaded.spec.selection.metric}.margin"]
        select_thresholds(names, services.policy.effective((loaded.spec.team, loaded.spec.name)))
    except PolicyError as error:
        click.echo(f"{file}: {error}", err=True)
        found += 1
    if deep:
        expectations = [*loaded.raw_data_expectations, *loaded.features_expectations]
        for expectation, reason in zip(expectations, services.validator.check_definitions(expectations), strict=True):
            if reason is not None:
                click.echo(f"{file}: expectation {expectation.label}: {reason}", err=True)
                found += 1
    return found


@click.command()
@click.option("--output", type=click.Path(path_type=Path), help="Write to this file instead of standard output.")
def schema(output: Path | None) -> None:
    """Print the JSON schema of a pipeline's YAML, for editors and for readers."""
    text = json.dumps(pipeline_schema(), indent=2, ensure_ascii=False) + "\n"
    if output is None:
        click.echo(text, nl=False)
    else:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise click.BadParameter(f"{output} cannot be written: {error.strerror}.", param_hint="--output") from error
