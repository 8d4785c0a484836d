"""The champion of its time, read from decisions."""

from typing import Any

import pytest

from ml_assets.interfaces import Decision
from ml_assets.stages.champions import (
    arm_before,
    champion_before,
    latest_by_partition,
    newest_registered,
    promotions_before,
    shadow_before,
)
from ml_assets.testing.ledger import decision

SERVED = {"serving": {"problems": []}}


def test_only_promotions_of_earlier_periods_count() -> None:
    decisions = [
        decision(partition="2013-02", outcome="refused", model_version=None),
        decision(partition="2013-03", outcome="promoted", model_version="1"),
        decision(partition="2013-04", outcome="kept", model_version="2"),
        decision(partition="2013-05", outcome="promoted", model_version="3"),
    ]

    found = {t: champion_before(decisions, t) for t in ("2013-03", "2013-04", "2013-05", "2013-06", None)}

    assert {t: d and d.model_version for t, d in found.items()} == {
        "2013-03": None,
        "2013-04": "1",
        "2013-05": "1",
        "2013-06": "3",
        None: "3",
    }


def test_a_later_decision_on_the_same_partition_supersedes_the_earlier_one() -> None:
    decisions = [
        decision(partition="2013-03", outcome="promoted", model_version="1"),
        decision(partition="2013-03", outcome="refused", model_version=None),
    ]

    assert champion_before(decisions, None) is None
    assert latest_by_partition(decisions)["2013-03"].outcome == "refused"


def test_a_late_backfill_of_an_old_partition_does_not_take_over() -> None:
    decisions = [
        decision(partition="2013-05", outcome="promoted", model_version="3"),
        decision(partition="2013-03", outcome="promoted", model_version="4"),
    ]

    champion = champion_before(decisions, None)

    assert champion is not None
    assert champion.model_version == "3"


def test_a_promotion_that_was_taken_back_leaves_the_one_before_it_in_force() -> None:
    decisions = [
        decision(partition="2013-03", outcome="promoted", model_version="1"),
        decision(partition="2013-04", outcome="promoted", model_version="2"),
        decision(partition="2013-04", outcome="rolled_back", model_version="2"),
    ]

    assert [d.model_version for d in promotions_before(decisions, None)] == ["1"]


def test_promotions_come_newest_partition_first_whenever_they_were_made() -> None:
    decisions = [
        decision(partition="2013-05", outcome="promoted", model_version="1"),
        decision(partition="2013-03", outcome="promoted", model_version="2"),
        decision(partition="2013-04", outcome="promoted", model_version="3"),
    ]

    assert [d.partition for d in promotions_before(decisions, None)] == ["2013-05", "2013-04", "2013-03"]
    assert [d.partition for d in promotions_before(decisions, "2013-05")] == ["2013-04", "2013-03"]


def version(found: Decision | None) -> str | None:
    return None if found is None else found.model_version


@pytest.mark.parametrize(
    ("outcome", "watched"),
    [
        ("awaiting_approval", True),
        ("undecided", True),
        ("kept", False),
        ("refused", False),
        ("rejected", False),
        ("rolled_back", False),
    ],
)
def test_a_shadow_is_what_is_not_settled_and_newer_than_the_champion(outcome: Any, *, watched: bool) -> None:
    champion = decision(partition="2013-03", outcome="promoted", model_version="1")
    decisions = [
        decision(partition="2013-02", outcome="undecided", model_version="9"),
        champion,
        decision(partition="2013-04", outcome=outcome, model_version="2"),
    ]

    assert version(shadow_before(decisions, champion, None)) == ("2" if watched else None)
    assert shadow_before(decisions, champion, "2013-04") is None  # its own period is not scored by it


def test_what_was_never_registered_is_no_shadow() -> None:
    assert shadow_before([decision(outcome="undecided", model_version=None)], None, None) is None


@pytest.mark.parametrize(
    ("outcome", "evidence", "arm"),
    [
        ("undecided", SERVED, "2"),
        ("undecided", SERVED | {"approval_reasons": ["the estimator is another one"]}, None),
        ("undecided", {"serving": {"problems": ["it is too slow"]}}, None),
        ("undecided", {}, None),
        ("awaiting_approval", SERVED, None),
    ],
)
def test_an_arm_takes_what_serves_and_needs_rows_alone(outcome: Any, evidence: dict[str, Any], arm: str | None) -> None:
    candidate = decision(partition="2013-04", outcome=outcome, model_version="2", evidence=evidence)

    assert version(arm_before([candidate], None, None)) == arm


def test_the_newest_registered_is_that_of_the_newest_partition() -> None:
    decisions = [
        decision(partition="2013-05", outcome="kept", model_version="2"),
        decision(partition="2013-06", outcome="refused", model_version=None),
        decision(partition="2013-04", outcome="promoted", model_version="3"),
    ]

    assert version(newest_registered(decisions)) == "2"
    assert newest_registered(decisions[1:2]) is None
