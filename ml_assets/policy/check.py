"""Checks a whole tree, now and at every later instant at which something begins or ends."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from ml_assets.errors import Problem
from ml_assets.interfaces import PipelinePath, Setting
from ml_assets.policy.catalogue import shown
from ml_assets.policy.merge import loosenings
from ml_assets.policy.schema import shown_instant
from ml_assets.policy.tree import PolicyFile, PolicyTree
from ml_assets.reading import wording

SOON = timedelta(days=30)


@dataclass(frozen=True, kw_only=True)
class TreeCheck:
    """What a check of a tree found.

    Attributes:
        problems: What is wrong, in the order of files and lines.
        warnings: What is allowed and probably not meant, a sentence each.
        n_files: Files read.
        n_settings: Settings of all files, each version of one counted.
        pipelines: Pipelines that the tree was checked for, sorted.
        n_people: People who may decide.
        n_instants: Instants the tree was checked at.
    """

    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]
    n_files: int
    n_settings: int
    pipelines: tuple[PipelinePath, ...]
    n_people: int
    n_instants: int


def check_tree(
    tree: PolicyTree,
    now: datetime,
    pipelines: Sequence[PipelinePath] | None = None,
    locations: Sequence[str] = (),
) -> TreeCheck:
    """Check a tree.

    Args:
        tree: As it was read; its problems are among the result's.
        now: The present, with a time zone.
        pipelines: The pipelines that there are, to tell files for none; None when they are not known.
        locations: Names of the code locations that there are; a team may have one without any pipeline yet.
    """
    instants = [now, *turning_points(tree, now)]
    # Past instants too: what was decided then is looked at again by the policy of its time.
    past = [instant for instant in turning_points(tree, datetime.min.replace(tzinfo=UTC)) if instant < now]
    problems = [*tree.problems, *tree.compute_problems, *_loosenings_at(tree.files, [*instants, *past])]
    return TreeCheck(
        problems=tuple(sorted(set(problems), key=lambda p: (p.file, p.line, p.field, p.found))),
        warnings=(*_ending_soon(tree, now), *([] if pipelines is None else _for_nobody(tree, pipelines, locations))),
        n_files=tree.n_files,
        n_settings=sum(1 for _ in tree.entries()),
        pipelines=tuple(sorted({*tree.pipelines(), *(pipelines or ())})),
        n_people=len(tree.people),
        n_instants=len(instants),
    )


def turning_points(tree: PolicyTree, after: datetime) -> list[datetime]:
    """Return the instants after another at which a setting begins or ends, sorted."""
    settings = [entry.setting for entry in tree.entries()]
    instants = {instant for s in settings for instant in (s.effective_from, s.expires) if instant is not None}
    return sorted(instant for instant in instants if instant > after)


def _loosenings_at(files: Sequence[PolicyFile], instants: Iterable[datetime]) -> list[Problem]:
    """Return each loosening once, with the first instant if that is yet to come."""
    found: dict[Problem, Problem] = {}
    for i, instant in enumerate(instants):
        for problem in loosenings(files, instant):
            when = f" from {shown_instant(instant)} on" if i else ""
            found.setdefault(problem, replace(problem, found=problem.found + when))
    return list(found.values())


def _ending_soon(tree: PolicyTree, now: datetime) -> Iterator[str]:
    for entry in tree.entries():
        setting = entry.setting
        if entry.holds(now) and setting.expires is not None and setting.expires <= now + SOON:
            yield (
                f"{_place(setting)}: {setting.name} = {shown(setting.value)} ends on {shown_instant(setting.expires)}; "
                f"{setting.owner} decides what holds then"
            )
    for person in tree.people.values():
        for key in person.keys:
            if key.effective_from <= now and key.expires is not None and now < key.expires <= now + SOON:
                yield (
                    f"{person.file}:{person.line}: a key of {person.name} ends on {shown_instant(key.expires)}; "
                    f"`ml-assets access new-key {person.name}` makes a new one"
                )


def _for_nobody(tree: PolicyTree, pipelines: Sequence[PipelinePath], locations: Sequence[str]) -> Iterator[str]:
    """Yield each file that speaks for a team, pipeline or domain which there is not, and each such team's share."""
    domains = {f.domain for f in tree.files if f.domain is not None}
    known = {
        "domain": sorted(domains),
        "team": sorted({*locations, *(team for team, _ in pipelines)}),
        "pipeline": sorted("/".join(pipeline) for pipeline in pipelines),
    }
    for name, share in tree.compute.teams.items():
        if name not in known["team"]:
            hint = wording.did_you_mean(name, known["team"]) or f"there are {wording.listed(known['team']) or 'none'}"
            yield f"{tree.compute.file}:{share.line}: teams.{name}: the project has no such team; {hint}"
    for file in tree.files:
        name = "/".join(file.scope)
        if file.level in known and name not in known[file.level]:
            hint = wording.did_you_mean(name, known[file.level])
            why = "no team is in it" if file.level == "domain" else f"the project has no such {file.level}"
            yield f"{file.file}: speaks for the {file.level} {name}, but {why}{'; ' if hint else ''}{hint}"


def _place(setting: Setting) -> str:
    return f"{setting.file}:{setting.line}"
