"""From the files of the tree to what holds for one pipeline at one instant; nothing here reads a file."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ml_assets.digest import document_digest
from ml_assets.errors import PolicyError, Problem
from ml_assets.interfaces import EffectivePolicy, PipelinePath, Setting, SettingKind, SettingValue
from ml_assets.policy.catalogue import CATALOGUE, shown
from ml_assets.policy.tree import Entry, Places, PolicyFile, PolicyTree, by_place, files_above, files_for
from ml_assets.reading.wording import count

WHICH_WAY: Mapping[SettingKind, str] = {
    "floor": "raise it",
    "ceiling": "lower it",
    "allowed": "take names away",
    "required": "add names",
    "flag": "set it to true",
}
"""What tightening a setting means."""


def effective(tree: PolicyTree, pipeline: PipelinePath, at: datetime | None = None) -> EffectivePolicy:
    """Return what holds for a pipeline at an instant (now, when None), if the whole tree is right then.

    Raises:
        PolicyError: If a file of the tree has a problem, or loosens at that instant what an upper level locked.
    """
    instant = require_sound(tree, at)
    return merge(tree.files, pipeline, instant)


def require_sound(tree: PolicyTree, at: datetime | None = None) -> datetime:
    """Return the instant that is meant, when the whole tree is right then.

    Raises:
        PolicyError: With every problem of the tree, or if the instant has no time zone.
    """
    instant = datetime.now(UTC) if at is None else at
    if instant.tzinfo is None:
        raise PolicyError(f"The instant {instant.isoformat()} has no time zone; give one, such as UTC.")
    if problems := [*tree.problems, *loosenings(tree.files, instant)]:
        raise all_at_once(problems)
    return instant


def all_at_once(problems: Iterable[Problem]) -> PolicyError:
    """Return one error that tells every problem, in the order of files and lines."""
    lines = sorted(set(problems), key=lambda problem: (problem.file, problem.line, problem.field, problem.found))
    head = f"{count(len(lines), 'problem')} in the policy files:"
    return PolicyError("\n".join([head, *(f"  {problem}" for problem in lines)]))


def merge(files: Sequence[PolicyFile], pipeline: PipelinePath, at: datetime) -> EffectivePolicy:
    """Return what holds for a pipeline: of each setting the value of the lowest level that sets it.

    Args:
        files: All files of the tree, in any order, without a loosening at `at`.
        pipeline: (team, pipeline).
        at: The instant, with a time zone.
    """
    chains: dict[str, list[Setting]] = {
        name: [default] for name, definition in CATALOGUE.items() if (default := definition.built_in())
    }
    for file in files_for(files, pipeline):
        for name, entry in file.in_force(at).items():
            chain = chains.setdefault(name, [])
            chain.append(_with_inherited_mark(entry.setting, chain))
    settings = {name: chains[name][-1] for name in sorted(chains)}
    return EffectivePolicy(
        pipeline=pipeline,
        settings=settings,
        chains={name: tuple(chains[name]) for name in settings},
        digest=policy_digest(settings.values()),
    )


def _with_inherited_mark(setting: Setting, above: Sequence[Setting]) -> Setting:
    marked = any(upper.locked and upper.unwaivable for upper in above)
    return replace(setting, unwaivable=setting.unwaivable or marked)


def policy_digest(settings: Iterable[Setting]) -> str:
    """Return the digest of what settings ask for: names, values, severities, marks and kinds, not their reasons."""
    return document_digest(sorted([s.name, s.value, s.severity, s.unwaivable, s.kind] for s in settings))


def at_least_as_strict(kind: SettingKind, value: SettingValue, limit: SettingValue) -> bool:
    """Whether a value is as strict as a limit of the same kind, or stricter.

    >>> at_least_as_strict("floor", 0.6, 0.55), at_least_as_strict("allowed", ("a", "b"), ("a",))
    (True, False)
    """
    if isinstance(value, tuple) and isinstance(limit, tuple):
        return set(value) <= set(limit) if kind == "allowed" else set(value) >= set(limit)
    mine, other = _as_number(value), _as_number(limit)
    return mine <= other if kind == "ceiling" else mine >= other


def _as_number(value: SettingValue) -> float:
    if isinstance(value, tuple):
        raise PolicyError(f"The names {shown(value)} cannot be compared with a number.")
    return float(value or 0)


def loosenings(files: Sequence[PolicyFile], at: datetime) -> list[Problem]:
    """Return every entry in force at an instant that loosens what an upper level in force locks."""
    placed = by_place(files)
    return [problem for file in files for problem in _loosenings_of(file, placed, at)]


def _loosenings_of(file: PolicyFile, placed: Places, at: datetime) -> Iterator[Problem]:
    mine = file.in_force(at)
    for upper in files_above(placed, file.level, file.scope):
        for name, lock in upper.in_force(at).items():
            if lock.setting.locked and name in mine:
                yield from _against(mine[name], lock.setting)


def _against(entry: Entry, lock: Setting) -> Iterator[Problem]:
    """Yield each way in which an entry is looser than a locked setting above it."""
    setting, where = entry.setting, f"{lock.file}:{lock.line} (level {lock.level}) locks"
    who = f"; ask {lock.owner}, who owns the lock, to change it" if lock.owner else ""

    def problem(part: str, found: str, expected: str, hint: str) -> Problem:
        field = f"settings.{setting.name}.{part}"
        return Problem(
            file=setting.file, line=setting.line, field=field, found=found, expected=expected, hint=hint + who
        )

    if not at_least_as_strict(setting.kind, setting.value, lock.value):
        found = f"{shown(setting.value)} is looser than {shown(lock.value)}"
        hint = f"a lower level may only {WHICH_WAY[setting.kind]}"
        yield problem("value", found, f"{_limit(lock)}, which {where}", hint)
    if lock.severity == "error" and setting.severity == "warning":
        hint = "a lower level may not turn an error into a warning"
        yield problem("severity", "warning is looser than error", f"error, which {where}", hint)
    if lock.unwaivable and entry.waivable:
        hint = "a lower level may not make the gate waivable"
        yield problem("unwaivable", "false is looser than true", f"true, which {where}", hint)


def _limit(lock: Setting) -> str:
    """Return what a locked setting leaves open."""
    words = {"floor": "at least", "ceiling": "at most", "allowed": "only names of", "required": "all of", "flag": ""}
    return f"{words[lock.kind]} {shown(lock.value)}".strip()
