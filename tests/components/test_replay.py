"""Decisions made again by another policy: the same policy changes nothing, a stricter one shows what it would stop."""

import dagster as dg
import pytest

from ml_assets.stages.replay import replay
from tests.components.shop import Shop, land_orders, policy, services

PATH = ("shop", "returns")


@pytest.fixture(scope="module")
def decided(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """Two months' decisions; a replay changes nothing, so that the tests may share them."""
    folder = tmp_path_factory.mktemp("shop")
    land_orders(folder / "landing")
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(folder, services(folder / "landing"), instance)
        for month in ("2024-01", "2024-02", "2024-03"):
            shop.data(month)
            shop.run("row_index", partition=month)
        for month in ("2024-02", "2024-03"):
            assert shop.models(month).success
    return shop


def outcomes(shop: Shop, **settings: object) -> list[tuple[str, str | None, bool]]:
    found = replay(
        shop.world, shop.pipeline.spec, shop.world.ledger.decisions(PATH), policy(**settings).effective(PATH)
    )
    return [(each.decision.partition, each.outcome, each.differs) for each in found]


def test_the_same_policy_decides_the_same(decided: Shop) -> None:
    assert outcomes(decided) == [("2024-02", "promoted", False), ("2024-03", "promoted", False)]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"roc_auc.floor": 0.99}, ["refused", "refused"]),
        ({"material.first_model": True}, ["awaiting_approval", "promoted"]),
        ({"approval.always": True}, ["awaiting_approval", "awaiting_approval"]),
        ({"serving.latency_ms": 0.5}, ["refused", "refused"]),
        ({"comparison.block_days": 10}, [None, None]),
    ],
    ids=["floor", "first-model", "always", "latency", "three-blocks"],
)
def test_a_stricter_policy_shows_what_it_would_change(
    decided: Shop, settings: dict[str, object], expected: list[str | None]
) -> None:
    assert [outcome for _, outcome, _ in outcomes(decided, **settings)] == expected


def test_nothing_is_recorded_by_a_replay(decided: Shop) -> None:
    before = decided.world.ledger.heads()

    outcomes(decided, **{"roc_auc.floor": 0.99})

    assert decided.world.ledger.heads() == before
