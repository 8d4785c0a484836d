"""The parsed policy tree: which file sets what, for whom and when."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ml_assets.errors import Problem
from ml_assets.interfaces import ComputeRules, Level, Person, PipelinePath, Setting


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One dated version of one setting, as a file has it.

    Attributes:
        setting: The setting.
        waivable: Whether the file says `unwaivable: false` in so many words, against what an upper level says.
    """

    setting: Setting
    waivable: bool = False

    def holds(self, at: datetime) -> bool:
        """Whether it has begun and not ended at an instant."""
        setting = self.setting
        begun = setting.effective_from is None or setting.effective_from <= at
        return begun and (setting.expires is None or at < setting.expires)


@dataclass(frozen=True, kw_only=True)
class PolicyFile:
    """One file of the tree.

    Attributes:
        level: What it speaks for.
        scope: () for the organization, (domain,), (team,) or (team, pipeline).
        file: Path as the reader would open it.
        domain: Domain that a team's file names; None for none.
        domain_line: 1-based line of that; 0 without one.
        entries: What it sets, every version of each setting, in the file's order.
    """

    level: Level
    scope: tuple[str, ...] = ()
    file: str
    domain: str | None = None
    domain_line: int = 0
    entries: tuple[Entry, ...] = ()

    def in_force(self, at: datetime) -> dict[str, Entry]:
        """Return the entry of each setting that counts here at an instant: of those that hold, the newest."""
        found: dict[str, Entry] = {}
        for entry in self.entries:
            name = entry.setting.name
            if entry.holds(at) and (name not in found or _begins(entry) > _begins(found[name])):
                found[name] = entry
        return found


@dataclass(frozen=True, kw_only=True)
class PolicyTree:
    """A whole tree as it was when it was read.

    Attributes:
        files: The policy files that could be read, in any order.
        people: Who may decide, by name.
        problems: What is wrong in the files; while there is one, nothing of the tree counts.
        compute: What the file of compute says.
        compute_problems: What is wrong in it; that stops what needs it, and no decision.
        n_files: Files that were read, with those of the people and of compute.
    """

    files: tuple[PolicyFile, ...] = ()
    people: Mapping[str, Person] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    compute: ComputeRules = field(default_factory=ComputeRules)
    compute_problems: tuple[Problem, ...] = ()
    n_files: int = 0

    def entries(self) -> Iterator[Entry]:
        """Return every version of every setting of every file."""
        return (entry for file in self.files for entry in file.entries)

    def pipelines(self) -> list[PipelinePath]:
        """Return the pipelines that have a file, sorted."""
        return sorted((f.scope[0], f.scope[1]) for f in self.files if f.level == "pipeline")


Places = Mapping[tuple[str, tuple[str, ...]], PolicyFile]
"""(level, scope) → the file that speaks for it."""


def by_place(files: Iterable[PolicyFile]) -> Places:
    """Return the files of a tree by what they speak for."""
    return {(f.level, f.scope): f for f in files}


def files_above(placed: Places, level: Level, scope: tuple[str, ...]) -> list[PolicyFile]:
    """Return the files above a place of the tree, from the organization's down.

    Args:
        placed: All files, from `by_place`: whoever asks for many places makes it once.
        level: The place's level.
        scope: Its scope, as `PolicyFile.scope`.
    """
    return [f for f in _line_of(placed, level, scope) if (f.level, f.scope) != (level, scope)]


def files_for(files: Iterable[PolicyFile], pipeline: PipelinePath) -> list[PolicyFile]:
    """Return the files that speak for a pipeline, from the organization's down to its own."""
    return _line_of(by_place(files), "pipeline", pipeline)


def _line_of(placed: Places, level: Level, scope: tuple[str, ...]) -> list[PolicyFile]:
    places: list[tuple[str, tuple[str, ...]]] = [("organization", ())]
    if level == "domain":
        places.append((level, scope))
    elif level in {"team", "pipeline"}:
        team = placed.get(("team", scope[:1]))
        if team is not None and team.domain is not None:
            places.append(("domain", (team.domain,)))
        places.append(("team", scope[:1]))
        places += [("pipeline", scope)] if level == "pipeline" else []
    return [placed[place] for place in places if place in placed]


def _begins(entry: Entry) -> datetime:
    return entry.setting.effective_from or datetime.min.replace(tzinfo=UTC)
