"""Stands in for a pipeline whose description is wrong: visible in the UI as broken, and harmless to its neighbours."""

import re
import traceback
from pathlib import Path

import dagster as dg

from ml_assets.assets.previews import quiet_previews
from ml_assets.errors import SpecError


class BrokenPipeline(dg.Component):
    """One asset that carries every problem of a pipeline and fails with them when it is materialized.

    Attributes:
        place: The pipeline's folder, or a Python file of plain definitions, below the team's `defs`.
        error: What is wrong with it.
    """

    def __init__(self, *, place: Path, error: Exception) -> None:
        self.place, self.error = place, error

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the one asset, under the folders' names since the file's own may be what is wrong."""
        del context
        return self.definitions()

    def definitions(self) -> dg.Definitions:
        """Return the one asset; see `build_defs`."""
        with quiet_previews():
            return dg.Definitions(assets=[self._asset()])

    def _asset(self) -> dg.AssetsDefinition:
        team, pipeline = self.place.parent.parent.name, self.place.stem
        places, message = self._places(), self._message()

        @dg.asset(
            key=dg.AssetKey([team, pipeline, "broken"]),
            description=f"This pipeline did not load.\n\n```\n{message}\n```",
            group_name=re.sub(r"\W", "_", f"{team}__{pipeline}"),
            kinds={"broken"},
            tags={"ml_assets/broken": "true"},
            metadata={
                "dagster/code_references": dg.CodeReferencesMetadataValue(
                    code_references=[
                        dg.LocalFileCodeReference(file_path=file, line_number=line, label=label)
                        for file, line, label in places
                    ]
                )
            },
        )
        def broken() -> None:
            raise dg.Failure(description=message, allow_retries=False)

        return broken

    def _message(self) -> str:
        if isinstance(self.error, SpecError):
            return str(self.error)
        file, line, _ = self._places()[0]
        cause = _root_cause(self.error)
        return f"{file}:{line}: {type(cause).__name__}: {cause}"

    def _places(self) -> list[tuple[str, int, str]]:
        """Return file, line and label of what is wrong; of an exception, the last line below the place."""
        if isinstance(self.error, SpecError):
            return [(p.file, max(p.line, 1), p.field or "problem") for p in self.error.problems[:10]]
        inside = [
            (frame.filename, frame.lineno or 1, "raised here")
            for frame in traceback.extract_tb(_root_cause(self.error).__traceback__)
            if Path(frame.filename).is_relative_to(self.place)
        ]
        return inside[-1:] or [(str(self.place), 1, "here")]


def _root_cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
