"""Stands in for a pipeline whose description is wrong: visible in the UI as broken, and harmless to its neighbours."""

from pathlib import Path
from typing import Any, NoReturn

import dagster as dg

from ml_assets.assets.previews import quiet_previews
from ml_assets.errors import SpecError


class BrokenPipeline(dg.Component):
    """One asset that carries every problem of the file and fails with them when it is materialized.

    Attributes:
        file: The YAML file.
        error: What is wrong with it.
    """

    def __init__(self, *, file: Path, error: Exception) -> None:
        self.file, self.error = file, error

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the one asset, under the folders' names since the file's own may be what is wrong."""
        del context
        return self.definitions()

    def definitions(self) -> dg.Definitions:
        """Return the one asset; see `build_defs`."""
        with quiet_previews():
            return dg.Definitions(assets=[self._asset()])

    def _asset(self) -> dg.AssetsDefinition:
        pipeline, team = self.file.parent.name, self.file.parent.parent.parent.name
        message = str(self.error)

        @dg.asset(
            key=dg.AssetKey([team, pipeline, "broken"]),
            description=f"This pipeline did not load.\n\n```\n{message}\n```",
            group_name=f"{team}__{pipeline}",
            kinds={"broken"},
            tags={"ml_assets/broken": "true"},
            metadata={
                "dagster/code_references": dg.CodeReferencesMetadataValue(
                    code_references=[
                        dg.LocalFileCodeReference(file_path=str(file), line_number=max(line, 1), label=label)
                        for file, line, label in self._places()
                    ]
                )
            },
        )
        def broken() -> NoReturn:
            raise dg.Failure(description=message, allow_retries=False)

        return broken

    def _places(self) -> list[tuple[Any, int, str]]:
        if isinstance(self.error, SpecError):
            return [(p.file, p.line, p.field or "problem") for p in self.error.problems[:10]]
        return [(self.file, 1, "the file")]
