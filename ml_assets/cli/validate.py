"""`ml-assets validate` and `ml-assets schema`: check pipelines' YAML without a code location, and document it."""

import json
from pathlib import Path

import click

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
    problems = 0
    chosen = [f / "defs.yaml" if f.is_dir() else f for f in files] or project.pipeline_files()
    for file in chosen:
        try:
            loaded = read_placed_pipeline(file)
            problems += _check_services(project, loaded, file, deep=deep)
        except SpecError as error:
            problems += len(error.problems)
            click.echo(str(error), err=True)
    if problems:
        click.echo(f"{_counted(problems, 'problem')} in {_counted(len(chosen), 'file')}.", err=True)
        raise SystemExit(1)
    click.echo(f"{_counted(len(chosen), 'pipeline')} without a problem.")


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
