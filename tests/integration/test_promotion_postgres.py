"""The way from a waiting candidate to a champion and back, with the ledger on PostgreSQL."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from ml_assets.approvals.giving import give_with_retry, submit
from ml_assets.approvals.signing import sign_statement
from ml_assets.approvals.statements import subject_of
from ml_assets.stages.rollback import roll_back
from resources.ledger import SqlLedger
from tests.components.shop import Shop, TestSigner, land_orders, policy, services

pytestmark = pytest.mark.postgres
PATH, NAME = ("shop", "returns"), "shop.returns"


@pytest.fixture
def shop(tmp_path: Path, postgres_database: str) -> Iterator[Shop]:
    ledger = SqlLedger(postgres_database)
    months = ("2024-01", "2024-02", "2024-03")
    land_orders(tmp_path / "landing", months)
    with dg.DagsterInstance.ephemeral() as instance:
        made = Shop(tmp_path, services(tmp_path / "landing"), instance)
        made.world = replace(made.world, ledger=ledger, policy=policy(**{"material.first_model": True}))
        for month in months:
            made.data(month)
            made.run("row_index", partition=month)
        yield made
    ledger.close()


def approve(shop: Shop) -> None:
    world, now = shop.world, datetime.now(UTC)
    waiting = world.ledger.decisions(PATH)[-1]
    give_with_retry(
        world.ledger,
        PATH,
        lambda previous: sign_statement(
            TestSigner("anna"),
            action="approve",
            pipeline=PATH,
            partition=waiting.partition,
            subject=subject_of(waiting),
            reason="I read the dossier.",
            issued_at=now,
            valid_for=timedelta(days=1),
            previous=previous,
        ),
        lambda statement: submit(world.ledger, world.policy, statement, now=now),
    )


def test_wait_approve_promote_succeed_and_roll_back(shop: Shop) -> None:
    assert shop.models("2024-02").success
    approve(shop)
    assert shop.run("promotion", partition="2024-02").success
    assert shop.models("2024-03").success

    roll_back(shop.world, PATH, reason="Complaints.", by="olga", expected="2")

    outcomes = [(d.partition, d.outcome) for d in shop.world.ledger.decisions(PATH)]
    assert outcomes == [
        ("2024-02", "awaiting_approval"),
        ("2024-02", "promoted"),
        ("2024-03", "promoted"),
        ("2024-03", "rolled_back"),
    ]
    champion = shop.world.model_registry.version_by_alias(NAME, "champion")
    assert champion is not None
    assert champion.version == "1"
    assert shop.world.ledger.verify() == []
