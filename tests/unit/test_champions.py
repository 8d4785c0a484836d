"""The champion of its time, read from decisions."""

from ml_assets.stages.champions import champion_before, latest_by_partition
from ml_assets.testing.ledger import decision


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
