"""Reads a pipeline where it lies: deployments/TEAM/defs/NAME/defs.yaml, whose folders are named as the file says."""

from pathlib import Path

from ml_assets.errors import Problem, SpecError
from ml_assets.reading import wording
from ml_assets.reading.compute_checks import RulesReader
from ml_assets.reading.pipeline_file import LoadedPipeline, read_pipeline

DEFS = "defs"


def read_placed_pipeline(file: Path, rules: RulesReader | None = None) -> LoadedPipeline:
    """Return the pipeline of a YAML file; below a team's `defs`, team and name must be those of the folders.

    Two pipelines of one name, as after copying a folder, would have the same assets and take their whole code
    location down; the command line finds pipelines by their folders.

    Args:
        file: The file.
        rules: Reads the compute profiles that policy has; None to leave them alone.

    Raises:
        SpecError: If anything is wrong with the file, the files it names, what it asks of the rules, or its place.
        PolicyError: If nothing else is wrong, and the rules cannot be read.
    """
    loaded = read_pipeline(file, rules)
    folder = file.resolve().parent
    if folder.parent.name != DEFS:
        return loaded
    problems = [
        Problem(
            file=str(file),
            line=loaded.line((field,)),
            field=field,
            found=wording.found(named),
            expected=f"{wording.quoted(placed)}, the name of its folder",
            hint="change the one or the other; renaming a pipeline that has run starts it anew",
        )
        for field, named, placed in (
            ("name", loaded.spec.name, folder.name),
            ("team", loaded.spec.team, folder.parent.parent.name),
        )
        if named != placed
    ]
    if problems:
        raise SpecError(problems)
    return loaded
