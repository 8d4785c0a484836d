"""FakePolicySource, and PolicySourceSuite that every policy source passes."""
# ruff: noqa: D102 - the names of the tests are the sentences

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ml_assets.errors import PolicyError
from ml_assets.interfaces import (
    ComputeRules,
    EffectivePolicy,
    Person,
    PipelinePath,
    PolicySource,
    PublicKey,
    Setting,
    SettingValue,
)
from ml_assets.policy.catalogue import CATALOGUE, as_value
from ml_assets.policy.merge import effective, policy_digest
from ml_assets.policy.tree import Entry, PolicyFile, PolicyTree

PIPELINE = ("flights", "arrival_delay")
LONG_AGO = datetime(2013, 1, 1, tzinfo=UTC)


class FakePolicySource:
    """A policy in memory: the same settings for every pipeline, and the catalogue's defaults.

    Args:
        settings: By name: a whole setting, or only its value (severity "error").
        people: Who may decide, by name.
        compute: Rules of compute; none when None.
    """

    def __init__(
        self,
        settings: Mapping[str, Setting | SettingValue | list[str]],
        people: Mapping[str, Person] | None = None,
        compute: ComputeRules | None = None,
    ) -> None:
        entries = tuple(
            Entry(setting=given if isinstance(given, Setting) else setting(name, given, line=line))
            for line, (name, given) in enumerate(settings.items(), start=1)
        )
        file = PolicyFile(level="organization", file="policies/test.yaml", entries=entries)
        self._tree = PolicyTree(files=(file,), people=dict(people or {}), compute=compute or ComputeRules(), n_files=1)

    def tree(self) -> PolicyTree:
        """Return the policy as a tree of one file."""
        return self._tree

    def effective(self, pipeline: PipelinePath, at: datetime | None = None) -> EffectivePolicy:
        """Return what holds for any pipeline at an instant (now, when None)."""
        return effective(self._tree, pipeline, at)

    def people(self) -> dict[str, Person]:
        """Return who may decide, by name."""
        return dict(self._tree.people)

    def compute(self) -> ComputeRules:
        """Return the rules of compute."""
        return self._tree.compute


def setting(name: str, value: SettingValue | list[str], *, line: int = 1, **changes: Any) -> Setting:
    """Return a setting to test with, of the kind that the catalogue knows.

    Raises:
        PolicyError: If the catalogue has no such setting.
    """
    if name not in CATALOGUE:
        raise PolicyError(f"There is no setting {name!r} in ml_assets.policy.catalogue.")
    given = Setting(
        name=name,
        value=as_value(value),
        kind=CATALOGUE[name].kind,
        reason=f"What the test asks of {name}.",
        owner="ml-platform",
        file="policies/test.yaml",
        line=line,
        effective_from=LONG_AGO,
    )
    return replace(given, **changes)


def effective_policy(
    settings: Mapping[str, Setting | SettingValue | list[str]], pipeline: PipelinePath = PIPELINE
) -> EffectivePolicy:
    """Return an effective policy to test with: these settings and the catalogue's defaults."""
    return FakePolicySource(settings).effective(pipeline)


def person(name: str, **changes: Any) -> Person:
    """Return a reviewer of all teams with one key."""
    key = PublicKey(value=name.encode().hex().ljust(64, "0")[:64], effective_from=LONG_AGO)
    given = Person(name=name, logins=(f"{name}@example.com",), roles=("model_reviewer",), teams=("*",), keys=(key,))
    return replace(given, **changes)


MakePolicySource = Callable[[Mapping[str, Setting], Mapping[str, Person]], PolicySource]


class PolicySourceSuite:
    """What every policy source does.

    Subclass it and provide a fixture `make_source`: a function that writes the given settings (as the
    organization's) and people where a source reads them, and returns the source. File and line are its own.
    """

    def test_settings_come_back_by_name(self, make_source: MakePolicySource) -> None:
        given = {
            "roc_auc.floor": setting("roc_auc.floor", 0.55, locked=True, unwaivable=True),
            "log_loss.beats_baseline": setting("log_loss.beats_baseline", -1e-9, severity="warning"),
            "approval.roles": setting("approval.roles", ["risk", "model_reviewer"], owner="risk"),
            "shadow.enabled": setting("shadow.enabled", True, reason='Größe: "n > 10⁵", it\'s a #rule'),
            "comparison.replicates": setting("comparison.replicates", 500, expires=datetime(2999, 1, 1, tzinfo=UTC)),
        }

        found = make_source(given, {}).effective(PIPELINE).settings

        assert {n: replace(found[n], file="", line=0) for n in given} == {
            n: replace(s, file="", line=0) for n, s in given.items()
        }

    def test_what_nobody_sets_has_the_default_of_the_catalogue(self, make_source: MakePolicySource) -> None:
        found = make_source({}, {}).effective(PIPELINE)

        assert found.pipeline == PIPELINE
        assert {n: s.value for n, s in found.settings.items()} == {
            n: d.default for n, d in CATALOGUE.items() if d.default is not None
        }
        assert {s.level for s in found.settings.values()} == {"built-in"}

    def test_a_chain_leads_from_the_built_in_default_to_what_counts(self, make_source: MakePolicySource) -> None:
        found = make_source({"approval.needed": setting("approval.needed", 2)}, {}).effective(PIPELINE)

        assert [(s.level, s.value) for s in found.chains["approval.needed"]] == [
            ("built-in", 1.0),
            ("organization", 2.0),
        ]
        assert all(chain[-1] == found.settings[name] for name, chain in found.chains.items())
        assert set(found.chains) == set(found.settings)

    def test_each_setting_says_where_it_stands(self, make_source: MakePolicySource) -> None:
        names = ("roc_auc.floor", "wape.ceiling", "roc_auc.margin")

        found = make_source({name: setting(name, 0.5) for name in names}, {}).effective(PIPELINE).settings

        assert all(found[name].file and found[name].line >= 1 for name in names)

    @pytest.mark.parametrize("value", [0.55, 1.0, -3.0, 0.1 + 0.2, 1e-300, 1e300])
    def test_numbers_are_exact_floats(self, make_source: MakePolicySource, value: float) -> None:
        name = "log_loss.beats_baseline"

        found = make_source({name: setting(name, value)}, {}).effective(PIPELINE).settings[name].value

        assert found == value
        assert type(found) is float

    def test_a_setting_holds_from_its_first_instant_until_before_its_last(self, make_source: MakePolicySource) -> None:
        begins, ends = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 4, 1, tzinfo=UTC)
        given = setting("approval.needed", 2, effective_from=begins, expires=ends)
        source, moment = make_source({given.name: given}, {}), timedelta(microseconds=1)

        found = [
            source.effective(PIPELINE, at).number(given.name) for at in (begins - moment, begins, ends - moment, ends)
        ]

        assert found == [1.0, 2.0, 2.0, 1.0]

    def test_the_digest_is_that_of_the_settings_in_force(self, make_source: MakePolicySource) -> None:
        one = setting("roc_auc.floor", 0.55)

        found = make_source({one.name: one}, {}).effective(PIPELINE)

        assert found.digest == policy_digest(found.settings.values())
        for change, same in (
            ({"value": 0.6}, False),
            ({"severity": "warning"}, False),
            ({"unwaivable": True}, False),
            ({"reason": "Other words.", "owner": "risk", "expires": datetime(2999, 1, 1, tzinfo=UTC)}, True),
        ):
            other = make_source({one.name: replace(one, **change)}, {}).effective(PIPELINE)
            assert (other.digest == found.digest) is same, change

    def test_an_instant_without_a_zone_is_refused(self, make_source: MakePolicySource) -> None:
        with pytest.raises(PolicyError, match="has no time zone"):
            make_source({}, {}).effective(PIPELINE, datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point

    def test_people_come_back_by_name(self, make_source: MakePolicySource) -> None:
        ended = PublicKey(value="ab" * 32, effective_from=LONG_AGO, expires=datetime(2020, 1, 1, tzinfo=UTC))
        given = {
            "olga": person("olga", keys=(ended, *person("olga").keys)),
            "ben": person("ben", logins=(), roles=(), teams=("births", "flights"), keys=()),
        }

        found = make_source({}, given).people()

        assert {n: replace(p, file="", line=0) for n, p in found.items()} == given

    def test_without_rules_of_compute_there_are_no_profiles_and_no_limits(self, make_source: MakePolicySource) -> None:
        assert make_source({}, {}).compute() == ComputeRules()

    def test_there_may_be_nobody(self, make_source: MakePolicySource) -> None:
        assert make_source({}, {}).people() == {}
