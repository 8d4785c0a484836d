"""Collects what is wrong in a document, by the path of the field, as problems with file and line."""

from collections.abc import Callable
from dataclasses import dataclass, field

from ml_assets.errors import Problem
from ml_assets.reading.wording import visible
from ml_assets.yaml_positions import YamlPath, dotted


@dataclass(frozen=True, kw_only=True)
class Document:
    """A file that a person wrote, and where its fields stand.

    Attributes:
        file: Path as the reader would open it.
        line: Gives the 1-based line of a field's path, or 0 when the file has no lines for fields (Python).
    """

    file: str
    line: Callable[[YamlPath], int]


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Problems found so far; `document` is the pipeline's own file."""

    document: Document
    problems: list[Problem] = field(default_factory=list)

    def add(
        self, path: YamlPath, found: str, expected: str, hint: str = "", *, document: Document | None = None
    ) -> None:
        """Record a problem of a field, in the pipeline's file unless another document is given."""
        where = document or self.document
        self.add_at(where.file, where.line(path), visible(dotted(path)), found, expected, hint)

    def add_at(self, file: str, line: int, field: str, found: str, expected: str, hint: str = "") -> None:
        """Record a problem at a line of any file."""
        problem = Problem(file=file, line=line, field=field, found=found, expected=expected, hint=hint)
        if problem not in self.problems:
            self.problems.append(problem)
