"""Laws of merging levels: what may be tightened, what may not be loosened, and what the digest depends on."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.errors import PolicyError
from ml_assets.interfaces import Level, Setting, SettingKind
from ml_assets.policy.catalogue import CATALOGUE, Definition
from ml_assets.policy.merge import at_least_as_strict, effective, loosenings, merge, policy_digest
from ml_assets.policy.tree import Entry, PolicyFile, PolicyTree
from ml_assets.testing.policy_source import PIPELINE, setting

NOW = datetime(2026, 6, 1, tzinfo=UTC)
PLACES: tuple[tuple[Level, tuple[str, ...]], ...] = (
    ("organization", ()),
    ("domain", ("operations",)),
    ("team", ("flights",)),
    ("pipeline", PIPELINE),
)
NAMES = ("a", "b", "c", "d")
INSTANTS = st.integers(-400, 400).map(lambda days: NOW + timedelta(days=days))


def values(definition: Definition) -> st.SearchStrategy[Any]:
    if definition.kind == "flag":
        return st.booleans()
    if definition.kind in {"allowed", "required"}:
        return st.sets(st.sampled_from(NAMES)).map(lambda names: tuple(sorted(names)))
    return st.integers(-20, 20).map(lambda n: n / 4)


@st.composite
def entries(draw: st.DrawFn, name: str, level: Level) -> Entry:
    definition = CATALOGUE[name]
    begins = draw(INSTANTS)
    expires = draw(st.none() | st.integers(1, 400).map(lambda days: begins + timedelta(days=days)))
    return Entry(
        setting=setting(
            name,
            draw(values(definition)),
            level=level,
            file=f"{level}.yaml",
            line=draw(st.integers(1, 99)),
            severity=draw(st.sampled_from(["error", "warning"])),
            unwaivable=draw(st.booleans()),
            locked=draw(st.booleans()),
            effective_from=begins,
            expires=expires,
        )
    )


@st.composite
def trees(draw: st.DrawFn) -> tuple[PolicyFile, ...]:
    """Return the files of the four levels, each with some versions of a few settings."""
    names = draw(st.lists(st.sampled_from(sorted(CATALOGUE)), min_size=1, max_size=3, unique=True))
    files = []
    for level, scope in PLACES:
        per_name = [draw(st.lists(entries(name, level), max_size=2)) for name in names]
        domain = "operations" if level == "team" else None
        given_entries = tuple(entry for versions in per_name for entry in versions)
        files.append(PolicyFile(level=level, scope=scope, file=f"{level}.yaml", domain=domain, entries=given_entries))
    return tuple(files)


def two_levels(upper: Setting, lower: Setting, *, waivable: bool = False) -> list[PolicyFile]:
    upper = replace(upper, level="organization", file="organization.yaml", line=7)
    lower = replace(lower, level="pipeline", file="pipeline.yaml", line=3)
    return [
        PolicyFile(level="organization", file=upper.file, entries=(Entry(setting=upper),)),
        PolicyFile(
            level="pipeline", scope=PIPELINE, file=lower.file, entries=(Entry(setting=lower, waivable=waivable),)
        ),
    ]


def tightened(kind: SettingKind, value: Any, by: Any) -> Any:
    """Return a value that is at least as strict, from another one."""
    if kind == "allowed":
        return tuple(sorted(set(value) & set(by)))
    if kind == "required":
        return tuple(sorted(set(value) | set(by)))
    if kind == "flag":
        return value or by
    return value - abs(by) if kind == "ceiling" else value + abs(by)


@given(st.sampled_from(sorted(CATALOGUE)), st.data())
def test_tightening_a_locked_value_is_always_accepted(name: str, data: st.DataObject) -> None:
    definition = CATALOGUE[name]
    value, by = data.draw(values(definition)), data.draw(values(definition))
    stricter = tightened(definition.kind, value, by)

    files = two_levels(setting(name, value, locked=True), setting(name, stricter))

    assert loosenings(files, NOW) == []
    assert merge(files, PIPELINE, NOW).settings[name].value == stricter


@given(st.sampled_from(sorted(CATALOGUE)), st.data())
def test_loosening_a_locked_value_is_always_refused_and_both_places_are_named(name: str, data: st.DataObject) -> None:
    definition = CATALOGUE[name]
    upper = setting(name, data.draw(values(definition)), locked=True)
    lower = setting(name, data.draw(values(definition).filter(lambda v: v != upper.value)))
    if at_least_as_strict(definition.kind, lower.value, upper.value):
        upper, lower = replace(lower, locked=True), upper  # what is not looser one way is looser the other way
        if at_least_as_strict(definition.kind, lower.value, upper.value):
            pytest.fail("two different values are both at least as strict as the other")

    (problem,) = loosenings(two_levels(upper, lower), NOW)

    assert (problem.file, problem.line, problem.field) == ("pipeline.yaml", 3, f"settings.{name}.value")
    assert "organization.yaml:7" in problem.expected


@given(trees(), st.randoms(use_true_random=False), INSTANTS)
def test_the_order_of_files_does_not_matter(files: tuple[PolicyFile, ...], random: Any, at: datetime) -> None:
    shuffled = list(files)
    random.shuffle(shuffled)

    assert merge(shuffled, PIPELINE, at) == merge(files, PIPELINE, at)
    assert set(loosenings(shuffled, at)) == set(loosenings(files, at))


@given(trees(), INSTANTS, st.text(min_size=1, max_size=5))
def test_the_digest_ignores_reasons_owners_places_and_locks(
    files: tuple[PolicyFile, ...], at: datetime, text: str
) -> None:
    reworded = [
        replace(file, entries=tuple(replace(e, setting=_reworded(e.setting, text)) for e in file.entries))
        for file in files
    ]

    assert merge(reworded, PIPELINE, at).digest == merge(files, PIPELINE, at).digest


def _reworded(given_setting: Setting, text: str) -> Setting:
    return replace(given_setting, reason=text, owner=text, file=f"{text}.yaml", line=given_setting.line + 1)


@given(trees(), INSTANTS)
def test_what_counts_is_the_lowest_level_and_its_newest_version(files: tuple[PolicyFile, ...], at: datetime) -> None:
    found = merge(files, PIPELINE, at)

    for name, effective_setting in found.settings.items():
        holding = [
            (depth, e.setting.effective_from or NOW)
            for depth, file in enumerate(files)
            for e in file.entries
            if e.setting.name == name and e.holds(at)
        ]
        if not holding:
            assert effective_setting.level == "built-in"
            continue
        lowest = max(depth for depth, _ in holding)
        begins = max(begins for depth, begins in holding if depth == lowest)
        assert (effective_setting.level, effective_setting.effective_from) == (PLACES[lowest][0], begins)


def without_loosenings(files: Sequence[PolicyFile], at: datetime) -> Sequence[PolicyFile]:
    while places := {(problem.file, problem.line) for problem in loosenings(files, at)}:
        files = [
            replace(f, entries=tuple(e for e in f.entries if (e.setting.file, e.setting.line) not in places))
            for f in files
        ]
    return files


@given(trees(), INSTANTS)
def test_a_sound_tree_is_at_least_as_strict_as_every_lock(files: tuple[PolicyFile, ...], at: datetime) -> None:
    found = merge(without_loosenings(files, at), PIPELINE, at)

    for name, chain in found.chains.items():
        for lock in (s for s in chain if s.locked):
            last = found.settings[name]
            assert at_least_as_strict(last.kind, last.value, lock.value)
            assert last.unwaivable or not lock.unwaivable
            assert not (last.severity == "warning" and lock.severity == "error")


@given(st.sampled_from(sorted(CATALOGUE)), st.data())
def test_strictness_is_an_order(name: str, data: st.DataObject) -> None:
    definition = CATALOGUE[name]
    a, b, c = (data.draw(values(definition)) for _ in range(3))

    def holds(x: Any, y: Any) -> bool:
        return at_least_as_strict(definition.kind, x, y)

    assert holds(a, a)
    assert not (holds(a, b) and holds(b, a)) or a == b
    assert not (holds(a, b) and holds(b, c)) or holds(a, c)


def test_a_value_between_levels_may_be_loosened_down_to_the_lock() -> None:
    locked = setting("roc_auc.floor", 0.55, locked=True, level="organization", file="o.yaml")
    files = [
        PolicyFile(level="organization", file="o.yaml", entries=(Entry(setting=locked),)),
        PolicyFile(
            level="team",
            scope=("flights",),
            file="t.yaml",
            entries=(Entry(setting=setting("roc_auc.floor", 0.7, level="team")),),
        ),
        PolicyFile(
            level="pipeline",
            scope=PIPELINE,
            file="p.yaml",
            entries=(Entry(setting=setting("roc_auc.floor", 0.6, level="pipeline")),),
        ),
    ]

    assert loosenings(files, NOW) == []
    assert merge(files, PIPELINE, NOW).number("roc_auc.floor") == 0.6


def test_a_lock_binds_only_while_it_is_in_force() -> None:
    ended = setting("roc_auc.floor", 0.55, locked=True, expires=NOW)
    files = two_levels(ended, setting("roc_auc.floor", 0.5))

    assert loosenings(files, NOW) == []
    assert len(loosenings(files, NOW - timedelta(seconds=1))) == 1


def test_a_lock_does_not_bind_another_team() -> None:
    team = PolicyFile(
        level="team",
        scope=("births",),
        file="t.yaml",
        entries=(Entry(setting=setting("roc_auc.floor", 0.9, locked=True)),),
    )
    files = [team, *two_levels(setting("roc_auc.floor", 0.55), setting("roc_auc.floor", 0.5))]

    assert loosenings(files, NOW) == []


def test_unwaivable_sticks_below_a_lock_and_only_there() -> None:
    lower = setting("roc_auc.floor", 0.6)

    def marked(*, locked: bool) -> bool:
        upper = setting("roc_auc.floor", 0.55, locked=locked, unwaivable=True)
        return merge(two_levels(upper, lower), PIPELINE, NOW).settings["roc_auc.floor"].unwaivable

    assert marked(locked=True)
    assert not marked(locked=False)


def test_severity_and_mark_of_a_locked_gate_may_not_be_dropped() -> None:
    upper = setting("roc_auc.floor", 0.55, locked=True, unwaivable=True)
    files = two_levels(upper, setting("roc_auc.floor", 0.6, severity="warning"), waivable=True)

    found = [str(problem) for problem in loosenings(files, NOW)]

    ask = "; ask ml-platform, who owns the lock, to change it"
    assert found == [
        "pipeline.yaml:3: settings.roc_auc.floor.severity: warning is looser than error; expected error, which "
        "organization.yaml:7 (level organization) locks\n"
        f"    hint: a lower level may not turn an error into a warning{ask}",
        "pipeline.yaml:3: settings.roc_auc.floor.unwaivable: false is looser than true; expected true, which "
        "organization.yaml:7 (level organization) locks\n"
        f"    hint: a lower level may not make the gate waivable{ask}",
    ]


def test_one_loosening_anywhere_stops_the_whole_tree() -> None:
    files = two_levels(setting("approval.needed", 2, locked=True), setting("approval.needed", 1))

    with pytest.raises(PolicyError) as error:
        effective(PolicyTree(files=tuple(files)), ("births", "daily_births"), NOW)

    assert str(error.value) == (
        "1 problem in the policy files:\n"
        "  pipeline.yaml:3: settings.approval.needed.value: 1 is looser than 2; expected at least 2, which "
        "organization.yaml:7 (level organization) locks\n"
        "    hint: a lower level may only raise it; ask ml-platform, who owns the lock, to change it"
    )


def test_the_digest_is_that_of_plain_json_in_any_order() -> None:
    settings = [setting("roc_auc.floor", 0.55), setting("approval.roles", ["model_reviewer"])]
    text = (
        '[["approval.roles",["model_reviewer"],"error",false,"allowed"],["roc_auc.floor",0.55,"error",false,"floor"]]'
    )

    assert policy_digest(settings) == policy_digest(settings[::-1]) == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("change", [{"value": 0.6}, {"severity": "warning"}, {"unwaivable": True}, {"kind": "ceiling"}])
def test_the_digest_follows_what_is_asked(change: dict[str, Any]) -> None:
    one = setting("roc_auc.floor", 0.55)

    assert policy_digest([one]) != policy_digest([replace(one, **change)])
