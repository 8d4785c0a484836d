"""A check of a tree: now, at every later change, and what is allowed but hardly meant."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ml_assets.policy.check import check_tree, turning_points
from ml_assets.policy.folder import read_tree
from ml_assets.policy.tree import PolicyTree

NOW = datetime(2026, 6, 1, tzinfo=UTC)
ORGANIZATION = """owner: ml-platform
effective_from: 2013-01-01
settings:
  approval.needed:
    - {value: 1, reason: One is enough., locked: true}
    - {value: 2, reason: Two see more., locked: true, effective_from: 2026-07-01}
  waiver.valid_days: {value: 3, reason: Summer., expires: 2026-06-20}
  approval.valid_days: {value: 5, reason: Autumn., expires: 2026-12-01}
"""
TEAM = "owner: flights\neffective_from: 2013-01-01\nsettings:\n  approval.needed: {value: 1, reason: We are few.}\n"

Read = Callable[[Mapping[str, str]], PolicyTree]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)

    def make(files: Mapping[str, str]) -> PolicyTree:
        for name, text in files.items():
            file = tmp_path / "policies" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        return read_tree("policies")

    return make


def test_everything_that_is_right_is_counted(read: Read) -> None:
    found = check_tree(read({"organization.yaml": ORGANIZATION}), NOW, [("flights", "arrival_delay")])

    assert found.problems == ()
    assert (found.n_files, found.n_settings, found.n_people, found.n_instants) == (1, 4, 0, 4)
    assert found.pipelines == (("flights", "arrival_delay"),)


def test_a_share_of_a_team_that_there_is_not_is_a_warning_with_its_line_and_the_near_name(read: Read) -> None:
    teams = "teams:\n  flights: {}\n  brths: {weight: 2}\n  rides: {}\n  zzz: {}\n"
    tree = read({"organization.yaml": ORGANIZATION, "compute.yaml": teams})

    found = check_tree(tree, NOW, [("flights", "arrival_delay")], ["births", "rides"])

    assert found.problems == ()
    assert [warning for warning in found.warnings if "compute.yaml" in warning] == [
        "policies/compute.yaml:3: teams.brths: the project has no such team; did you mean 'births'?",
        "policies/compute.yaml:5: teams.zzz: the project has no such team; there are births, flights, rides",
    ]
    assert not [warning for warning in check_tree(tree, NOW).warnings if "no such team" in warning]


def test_a_lock_that_is_dated_back_over_a_looser_value_is_told(read: Read) -> None:
    lock = "    - {value: 2, reason: Always., locked: true, effective_from: 2026-01-01}\n"
    ended = TEAM.replace("reason: We are few.", "reason: We are few., expires: 2026-05-01")
    organization = "owner: ml-platform\nsettings:\n  approval.needed:\n" + lock
    tree = read({"organization.yaml": organization, "teams/flights.yaml": ended})

    found = check_tree(tree, NOW)

    assert [problem.found for problem in found.problems] == ["1 is looser than 2 from 2026-01-01 on"]


def test_a_loosening_that_is_yet_to_come_is_told_once_with_its_first_instant(read: Read) -> None:
    tree = read({"organization.yaml": ORGANIZATION, "teams/flights.yaml": TEAM})

    found = check_tree(tree, NOW)

    assert [str(problem) for problem in found.problems] == [
        "policies/teams/flights.yaml:4: settings.approval.needed.value: 1 is looser than 2 from 2026-07-01 on; "
        "expected at least 2, which policies/organization.yaml:6 (level organization) locks\n"
        "    hint: a lower level may only raise it; ask ml-platform, who owns the lock, to change it"
    ]
    later = check_tree(tree, datetime(2026, 8, 1, tzinfo=UTC))
    assert [problem.found for problem in later.problems] == ["1 is looser than 2"]


def test_the_tree_is_checked_whenever_something_begins_or_ends(read: Read) -> None:
    found = turning_points(read({"organization.yaml": ORGANIZATION}), NOW)

    assert [instant.date().isoformat() for instant in found] == ["2026-06-20", "2026-07-01", "2026-12-01"]


def test_problems_of_files_and_loosenings_are_told_together(read: Read) -> None:
    tree = read(
        {"organization.yaml": ORGANIZATION, "teams/flights.yaml": TEAM, "teams/births.yaml": "owner: b\nx: 1\n"}
    )

    found = check_tree(tree, NOW)

    assert [problem.file for problem in found.problems] == ["policies/teams/births.yaml", "policies/teams/flights.yaml"]


def test_what_ends_within_thirty_days_is_told(read: Read) -> None:
    key = f"{{ed25519: '{'ab' * 32}', effective_from: 2026-01-01, expires: 2026-06-30}}"
    tree = read({"organization.yaml": ORGANIZATION, "people.yaml": f"owner: x\npeople:\n  olga: {{keys: [{key}]}}\n"})

    assert check_tree(tree, NOW).warnings == (
        "policies/organization.yaml:7: waiver.valid_days = 3 ends on 2026-06-20; ml-platform decides what holds then",
        "policies/people.yaml:3: a key of olga ends on 2026-06-30; `ml-assets access new-key olga` makes a new one",
    )


def test_files_that_speak_for_nobody_are_told(read: Read) -> None:
    tree = read(
        {
            "organization.yaml": "owner: x\n",
            "domains/operations.yaml": "owner: x\n",
            "teams/flight.yaml": "owner: x\n",
            "pipelines/flights/arival_delay.yaml": "owner: x\n",
        }
    )

    assert check_tree(tree, NOW).warnings == (), "without a project nobody knows what there is"
    assert check_tree(tree, NOW, [("flights", "arrival_delay")]).warnings == (
        "policies/domains/operations.yaml: speaks for the domain operations, but no team is in it",
        "policies/pipelines/flights/arival_delay.yaml: speaks for the pipeline flights/arival_delay, but the project "
        "has no such pipeline; did you mean 'flights/arrival_delay'?",
        "policies/teams/flight.yaml: speaks for the team flight, but the project has no such team; "
        "did you mean 'flights'?",
    )
