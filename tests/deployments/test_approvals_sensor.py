"""The sensor that promotes what people approved: what it starts, how often it tries, and what it says otherwise."""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.sensor_definition import SensorExecutionData
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.approvals.giving import give_with_retry, submit
from ml_assets.approvals.signing import sign_statement
from ml_assets.approvals.statements import Statement, subject_of
from ml_assets.assets.team_pipeline import TeamPipeline
from ml_assets.interfaces import Decision, PipelinePath, Record
from ml_assets.testing.ledger import FakeLedger, decision
from sensors.approvals import RETRY_AFTER, Due, build_approvals_sensor, due, plan_attempts
from tests.components.shop import TestSigner, policy

PATH, YEARLY = ("shop", "returns"), ("shop", "stock")
MONTHS = dg.MonthlyPartitionsDefinition("2024-01", end_date="2024-06", fmt="%Y-%m")
YEARS = dg.TimeWindowPartitionsDefinition(cron_schedule="0 0 1 1 *", start="2020", end="2025", fmt="%Y")
NOT_READ: Any = None
PIPELINES: dict[PipelinePath, TeamPipeline] = {
    PATH: TeamPipeline(loaded=NOT_READ, data=MONTHS, time=MONTHS),
    YEARLY: TeamPipeline(loaded=NOT_READ, data=YEARS, time=YEARS),
}
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


def asked(ledger: FakeLedger, month: str = "2024-02", **changes: Any) -> Decision:
    """Record a decision that waits, and return it."""
    fields: dict[str, Any] = {
        "pipeline": PATH,
        "partition": month,
        "outcome": "awaiting_approval",
        "model_digest": "a" * 64,
        "evaluation_digest": "b" * 64,
        "policy_digest": policy().effective(PATH).digest,
        "launched_by": ("lena",),
        "recorded_at": NOW - timedelta(hours=1),
    }
    made = decision(**fields | changes)
    ledger.record_decision(made)
    return ledger.decisions(made.pipeline)[-1]


def approve(ledger: FakeLedger, waiting: Decision, *, now: datetime = NOW) -> None:
    def signed(previous: str) -> Statement:
        return sign_statement(
            TestSigner("anna"),
            action="approve",
            pipeline=waiting.pipeline,
            partition=waiting.partition,
            subject=subject_of(waiting),
            reason="I read the dossier.",
            issued_at=now - timedelta(minutes=1),
            valid_for=timedelta(days=1),
            previous=previous,
        )

    give_with_retry(ledger, waiting.pipeline, signed, lambda s: submit(ledger, policy(), s, now=now))


def found(ledger: FakeLedger, now: datetime = NOW) -> list[tuple[str, str]]:
    return [(item.decision.partition, item.why) for item in due(ledger, policy(), [PATH], now)]


def test_only_what_has_its_approvals_or_is_out_of_time_is_due() -> None:
    ledger = FakeLedger()
    waiting = asked(ledger)
    asked(ledger, "2024-03")
    assert found(ledger) == []

    approve(ledger, waiting)

    assert found(ledger) == [("2024-02", "approved")]
    days = policy().effective(PATH).number("approval.valid_days")
    late = NOW + timedelta(days=days)
    assert found(ledger, late) == [("2024-02", "expired"), ("2024-03", "expired")]


def test_a_promotion_whose_alias_did_not_follow_is_finished() -> None:
    ledger = FakeLedger()
    promoted = asked(ledger, outcome="promoted", recorded_at=NOW - timedelta(seconds=59))
    assert found(ledger) == [], "it may be at it"
    assert found(ledger, NOW + timedelta(seconds=1)) == [("2024-02", "unfinished")]

    move = Record(pipeline=PATH, kind="alias", subject="champion", body={"to": promoted.model_version})
    ledger.append(move)

    assert found(ledger, NOW + timedelta(seconds=1)) == []


def test_what_is_decided_is_due_no_more() -> None:
    ledger = FakeLedger()
    waiting = asked(ledger)
    approve(ledger, waiting)

    ledger.record_decision(replace(waiting, outcome="promoted", recorded_at=NOW))

    assert found(ledger) == []


def promotion_of(path: PipelinePath, partitions: dg.PartitionsDefinition) -> dg.AssetsDefinition:
    @dg.asset(key=[*path, "promotion"], partitions_def=partitions)
    def promotion() -> None:
        return None

    return promotion


def ask(ledger: FakeLedger, cursor: str | None = None) -> SensorExecutionData:
    """Evaluate the sensor as the daemon does, in a code location with the promotions that it asks for."""
    sensor = build_approvals_sensor(PIPELINES)
    resources = {"ledger": ledger, "policy": policy()}
    promotions = [promotion_of(path, pipeline.time) for path, pipeline in PIPELINES.items()]
    location = dg.Definitions(assets=promotions, sensors=[sensor], resources=resources).get_repository_def()
    with dg.build_sensor_context(resources=resources, cursor=cursor, repository_def=location) as context:
        return sensor.evaluate_tick(context)


def test_it_asks_for_one_run_of_the_waiting_partition_and_not_at_once_for_another() -> None:
    ledger, now = FakeLedger(), datetime.now(UTC)
    waiting = asked(ledger, recorded_at=now - timedelta(seconds=90))
    assert ask(ledger).skip_message == "Nothing that waits has its approvals yet."
    approve(ledger, waiting, now=now)

    first = ask(ledger)

    (request,) = first.run_requests or []
    assert request.tags["dagster/partition"] == "2024-02"
    assert request.asset_selection == [dg.AssetKey(["shop", "returns", "promotion"])]
    assert request.tags["ml_assets/launched_by"] == "sensor:approvals"
    second = ask(ledger, first.cursor)
    assert not second.run_requests
    assert json.loads(second.cursor or "") == json.loads(first.cursor or "")


def test_pipelines_of_other_partitions_are_promoted_by_a_run_of_theirs() -> None:
    ledger, now = FakeLedger(), datetime.now(UTC)
    asked_at = now - timedelta(seconds=90)
    approve(ledger, asked(ledger, recorded_at=asked_at), now=now)
    approve(ledger, asked(ledger, "2023", pipeline=YEARLY, recorded_at=asked_at), now=now)

    requests = ask(ledger).run_requests or []

    assert {
        (r.tags["dagster/partition"], *[key.to_user_string() for key in r.asset_selection or []]) for r in requests
    } == {
        ("2024-02", "shop/returns/promotion"),
        ("2023", "shop/stock/promotion"),
    }
    assert len({request.job_name for request in requests}) == 2


def test_it_says_when_it_has_tried_often_enough() -> None:
    ledger, now = FakeLedger(), datetime.now(UTC)
    approve(ledger, asked(ledger, recorded_at=now - timedelta(seconds=90)), now=now)
    (item,) = due(ledger, policy(), [PATH], now)

    result = ask(ledger, json.dumps({item.key: [len(RETRY_AFTER), "2024-01-01T00:00:00+00:00"]}))

    assert result.skip_message == "1 waiting candidates were not decided on in 5 attempts; see their runs."


def attempts(wanted: Sequence[Due], waits: Sequence[timedelta]) -> list[int]:
    """Return the numbers of the attempts that evaluations at these distances start."""
    remembered: dict[str, list[Any]] = {}
    now, numbers = NOW, []
    for wait in waits:
        now += wait
        start, remembered = plan_attempts(wanted, remembered, now)
        numbers += [number for _, number in start]
    return numbers


WANTED = [Due(decision=decision(recorded_at=NOW), why="approved")]


@given(st.lists(st.timedeltas(min_value=timedelta(0), max_value=timedelta(hours=1)), max_size=60))
def test_attempts_are_counted_up_and_end(waits: list[timedelta]) -> None:
    numbers = attempts(WANTED, waits)

    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) <= len(RETRY_AFTER)
    assert bool(numbers) == bool(waits)


def test_attempts_wait_longer_each_time() -> None:
    waits = [*RETRY_AFTER, timedelta(days=1)]

    assert attempts(WANTED, waits) == [1, 2, 3, 4, 5]
    early = [wait - timedelta(seconds=1) for wait in RETRY_AFTER[1:]]
    assert attempts(WANTED, [timedelta(0), early[0]]) == [1]


def test_what_is_due_no_more_is_forgotten() -> None:
    _, remembered = plan_attempts(WANTED, {"somebody else|2024-02||x|approved": [3, NOW.isoformat()]}, NOW)

    assert list(remembered) == [WANTED[0].key]
