"""From a passing candidate to a champion: what waits, who lets it pass, what is refused, and what is put back."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.approvals.giving import give_with_retry, submit
from ml_assets.approvals.signing import sign_statement
from ml_assets.approvals.statements import Statement, subject_of, subject_of_gate
from ml_assets.approvals.waivers import grant_waiver
from ml_assets.components.team import pipelines_of
from ml_assets.errors import ApprovalError, RegistryUnavailableError
from ml_assets.interfaces import Decision
from ml_assets.policy.merge import policy_digest
from ml_assets.stages import trust
from ml_assets.stages.aliases import sync_aliases
from ml_assets.stages.champions import latest_by_partition
from ml_assets.stages.recorded_policy import policy_document
from ml_assets.stages.rollback import RollbackError, roll_back
from ml_assets.testing.dossiers import FakeDossierStore
from ml_assets.testing.model_registry import FakeModelRegistry
from ml_assets.testing.serving_check import FakeServingCheck
from tests.components.shop import Shop, TestSigner, land_orders, policy, services
from tests.components.test_gates import failure

MakeShop = Callable[..., Shop]
PATH, NAME = ("shop", "returns"), "shop.returns"
FIRST, SECOND, THIRD = "2024-02", "2024-03", "2024-04"
WAITS = {"material.first_model": True}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A shop with its data up to April, whose first model must be approved and was not trained yet."""
    folder = tmp_path_factory.mktemp("shop")
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(folder, services(folder / "landing"), instance)
        shop.world = replace(shop.world, policy=policy(**WAITS))
        prepare(shop, "2024-01", FIRST, SECOND, THIRD)
    return shop


@pytest.fixture(scope="module")
def evaluated(prepared: Shop) -> Shop:
    """The same, with February's candidate evaluated and waiting."""
    with dg.DagsterInstance.ephemeral() as instance:
        shop = prepared.copy(instance)
        assert shop.models(FIRST).success
    return shop


@pytest.fixture
def governed(prepared: Shop, instance: dg.DagsterInstance) -> Shop:
    """A copy of `prepared` of the test's own."""
    return prepared.copy(instance)


@pytest.fixture
def waiting(evaluated: Shop, instance: dg.DagsterInstance) -> Shop:
    """A copy of `evaluated` of the test's own: version 1 waits for its approval."""
    return evaluated.copy(instance)


@pytest.fixture
def led(waiting: Shop) -> Shop:
    """The same, after anna approved: version 1 is champion."""
    say(waiting, "anna")
    assert waiting.run("promotion", partition=FIRST).success
    return waiting


def prepare(shop: Shop, *months: str) -> None:
    land_orders(Path(shop.world.landing.root), months)
    for month in months:
        shop.data(month)
        assert shop.run("row_index", partition=month).success


def decision(shop: Shop, month: str = FIRST) -> Decision:
    return latest_by_partition(shop.world.ledger.decisions(PATH))[month]


def outcomes(shop: Shop) -> list[tuple[str, str]]:
    return [(d.partition, d.outcome) for d in shop.world.ledger.decisions(PATH)]


def alias(shop: Shop, name: str = "champion") -> str | None:
    found = shop.world.model_registry.version_by_alias(NAME, name)
    return None if found is None else found.version


def say(shop: Shop, person: str, action: Any = "approve", month: str = FIRST, **changes: Any) -> None:
    waiting, now = decision(shop, month), changes.pop("now", datetime.now(UTC))

    def signed(previous: str) -> Statement:
        fields: dict[str, Any] = {
            "action": action,
            "pipeline": PATH,
            "partition": month,
            "subject": subject_of(waiting),
            "reason": "I read the dossier.",
            "issued_at": now,
            "valid_for": timedelta(days=1),
            "previous": previous,
        }
        return sign_statement(TestSigner(person), **fields | changes)

    world = shop.world
    give_with_retry(world.ledger, PATH, signed, lambda s: submit(world.ledger, world.policy, s, now=now))


def test_a_first_model_waits_and_holds_no_worker(governed: Shop) -> None:
    result = governed.models(FIRST)

    assert result.success
    assert decision(governed).outcome == "awaiting_approval"
    assert decision(governed).evidence["approval_reasons"] == ["it is the first model: there is no champion"]
    assert (alias(governed), alias(governed, "challenger")) == (None, "1")


def test_the_approved_model_becomes_champion(waiting: Shop) -> None:
    say(waiting, "anna")

    assert waiting.run("promotion", partition=FIRST, launched_by="sensor:approvals").success

    assert outcomes(waiting) == [(FIRST, "awaiting_approval"), (FIRST, "promoted")]
    assert decision(waiting).decided_by == "anna"
    assert alias(waiting) == "1"


def test_promotion_without_an_approval_changes_nothing(waiting: Shop) -> None:
    assert waiting.run("promotion", partition=FIRST).success

    assert outcomes(waiting) == [(FIRST, "awaiting_approval")]
    assert alias(waiting) is None


def test_whoever_launched_the_training_cannot_approve(governed: Shop) -> None:
    months = [f"models/{name}" for name in governed.component.variants]
    governed.run("training_set", *months, "candidate", "evaluation", "promotion", partition=FIRST, launched_by="anna")

    with pytest.raises(ApprovalError, match="launched a run") as refused:
        say(governed, "anna")

    assert refused.value.reason == "self_approval"


def test_an_unknown_launcher_may_be_an_approver_so_that_two_must_agree(governed: Shop) -> None:
    months = [f"models/{name}" for name in governed.component.variants]
    governed.run("training_set", *months, "candidate", "evaluation", "promotion", partition=FIRST, launched_by="")
    say(governed, "anna")
    assert governed.run("promotion", partition=FIRST).success
    assert decision(governed).outcome == "awaiting_approval"

    say(governed, "olga")
    assert governed.run("promotion", partition=FIRST).success

    assert decision(governed).outcome == "promoted"


def test_a_rejected_model_stays_rejected(waiting: Shop) -> None:
    say(waiting, "anna", "reject")

    assert waiting.run("promotion", partition=FIRST).success

    assert decision(waiting).outcome == "rejected"
    assert "Rejected by anna" in decision(waiting).reason
    assert alias(waiting) is None


def test_an_approval_under_another_policy_is_void(waiting: Shop) -> None:
    say(waiting, "anna")
    waiting.world = replace(waiting.world, policy=policy(**WAITS, **{"roc_auc.margin": 0.01}))

    assert waiting.run("promotion", partition=FIRST).success

    assert decision(waiting).outcome == "awaiting_approval"
    assert len(outcomes(waiting)) == 2  # it is asked again, under the policy of now
    assert alias(waiting) is None


def test_a_request_that_nobody_answered_is_closed_and_can_be_made_again(waiting: Shop) -> None:
    old = decision(waiting)
    assert old.recorded_at is not None
    waiting.world.ledger.record_decision(replace(old, recorded_at=old.recorded_at - timedelta(days=8)))

    assert waiting.run("promotion", partition=FIRST).success
    assert decision(waiting).outcome == "refused"
    assert "was not approved in time" in decision(waiting).reason

    assert waiting.run("promotion", partition=FIRST).success
    assert decision(waiting).outcome == "awaiting_approval"


def test_a_successor_that_is_not_material_is_promoted_without_anybody(led: Shop) -> None:
    assert led.models(SECOND).success

    found = decision(led, SECOND)
    assert found.outcome == "promoted"
    assert found.decided_by == "pipeline"
    tests = {t["name"]: t["changed"] for t in found.evidence["material"]}
    assert tests == dict.fromkeys(tests, False)
    assert len(tests) == 10
    assert alias(led) == "2"


@pytest.mark.parametrize(
    ("test", "change"),
    [
        ("metric", {"roc_auc.material_band": 0.0}),
        ("protected_slice", {"roc_auc.material_band": 0.0, "material.protected_slices": ["country=DE"]}),
    ],
)
def test_a_metric_or_protected_slice_that_moved_is_material(led: Shop, test: str, change: dict[str, Any]) -> None:
    led.world = replace(led.world, policy=policy(**WAITS, **change))

    assert led.models(SECOND).success

    found = decision(led, SECOND)
    assert found.outcome == "awaiting_approval"
    assert test in {t["name"] for t in found.evidence["material"] if t["changed"]}


def test_a_model_that_cannot_be_served_is_refused(governed: Shop) -> None:
    registry = governed.world.model_registry
    governed.world = replace(
        governed.world, serving_check=FakeServingCheck(registry, problems=["scoring took 9 s; at most 2 s"])
    )

    assert governed.models(FIRST).success

    assert decision(governed).outcome == "refused"
    assert "cannot be served: scoring took 9 s" in decision(governed).reason


def test_a_useless_signal_is_refused_before_anybody_is_asked(make_shop: MakeShop) -> None:
    shop = make_shop(signal=0.0, gates=())
    for month in ("2024-01", FIRST):
        shop.data(month)
    shop.run("row_index", partition="2024-01")

    assert shop.models(FIRST).success

    assert decision(shop).outcome in ("refused", "undecided")
    assert alias(shop) is None


def test_an_alias_that_somebody_moved_is_refused_named_and_put_back(led: Shop) -> None:
    led.world = replace(led.world, policy=policy(**WAITS, **{"roc_auc.material_band": 0.0}))
    led.models(SECOND)
    assert decision(led, SECOND).outcome == "awaiting_approval"
    led.world.model_registry.set_alias(NAME, "champion", "2")

    result = led.run("predictions", partition=f"DE|{THIRD}")

    assert result.success
    (event,) = result.asset_materializations_for_node("shop__returns__predictions")
    assert event.metadata["model_version"].value == "1"
    assert "alias champion had been pointed at version 2 without a decision" in str(event.metadata["incidents"].value)
    assert alias(led) == "1"
    (incident,) = led.world.ledger.records(PATH, kind="incident")
    assert incident.body["from"] == "2"


def test_an_alias_that_was_moved_just_before_a_crash_is_nobody_elses(led: Shop) -> None:
    led.models(SECOND)
    ledger = led.world.ledger
    last = [r for r in ledger.records(PATH, kind="alias") if r.subject == "champion"][-1]
    ledger.append(
        replace(last, body={**last.body, "to": "1"}, recorded_at=None)
    )  # as if the last move was not recorded

    sync_aliases(led.world, PATH, NAME)
    led.world.model_registry.set_alias(NAME, "champion", "1")
    sync_aliases(led.world, PATH, NAME)

    assert [r.body["from"] for r in ledger.records(PATH, kind="incident")] == ["1"]
    assert alias(led) == "2"


def test_a_forged_promotion_is_not_believed(led: Shop) -> None:
    led.world = replace(led.world, policy=policy(**WAITS, **{"roc_auc.material_band": 0.0}))
    led.models(SECOND)
    waiting = decision(led, SECOND)
    led.world.ledger.record_decision(replace(waiting, outcome="promoted", reason="Trust me.", recorded_at=None))

    result = led.run("predictions", partition=f"DE|{THIRD}")

    (event,) = result.asset_materializations_for_node("shop__returns__predictions")
    assert event.metadata["model_version"].value == "1"
    assert alias(led) == "1"


def test_evidence_that_says_nothing_is_material_does_not_help_a_forger(led: Shop) -> None:
    led.world = replace(led.world, policy=policy(**WAITS, **{"roc_auc.material_band": 0.0}))
    led.models(SECOND)
    waiting = decision(led, SECOND)
    evidence = {**waiting.evidence, "material": [], "approval_reasons": []}
    led.world.ledger.record_decision(
        replace(waiting, outcome="promoted", evidence=evidence, champion_version=None, recorded_at=None)
    )

    sync_aliases(led.world, PATH, NAME)

    assert alias(led) == "1"


def test_a_promotion_stays_believed_when_the_policy_is_edited_in_place_later(led: Shop) -> None:
    led.models(SECOND)
    assert alias(led) == "2"
    led.world = replace(led.world, policy=policy(**WAITS, **{"roc_auc.material_band": 0.0}))

    result = led.run("predictions", partition=f"DE|{THIRD}")

    (event,) = result.asset_materializations_for_node("shop__returns__predictions")
    assert event.metadata["model_version"].value == "2"


def test_a_policy_that_only_the_forged_decision_knows_does_not_help(led: Shop) -> None:
    led.world = replace(led.world, policy=policy(**WAITS, **{"roc_auc.material_band": 0.0}))
    led.models(SECOND)
    waiting = decision(led, SECOND)
    lenient = policy(**WAITS).effective(PATH)
    other = replace(lenient.settings["ab.alpha"], value=0.1)
    lenient = replace(lenient, settings={**lenient.settings, "ab.alpha": other})
    digest = policy_digest(lenient.settings.values())
    forged = {**waiting.evidence, "policy": policy_document(lenient), "approval_reasons": []}
    led.world.ledger.record_decision(
        replace(waiting, outcome="promoted", evidence=forged, policy_digest=digest, recorded_at=None)
    )

    sync_aliases(led.world, PATH, NAME)

    assert alias(led) == "1"


def test_a_promotion_that_is_not_believed_any_more_is_asked_about_again(led: Shop) -> None:
    led.models(SECOND)
    led.world = replace(led.world, policy=policy(**WAITS, **{"approval.always": True, "ab.alpha": 0.04}))
    automatic = decision(led, SECOND)
    led.world.ledger.record_decision(
        replace(automatic, evidence={**automatic.evidence, "policy": []}, recorded_at=None)
    )

    assert led.run("promotion", partition=SECOND).success

    assert decision(led, SECOND).outcome == "awaiting_approval"
    assert alias(led) == "1"


def test_a_rejection_that_nobody_signed_ends_nothing(waiting: Shop) -> None:
    asked = decision(waiting)
    unsigned = replace(asked, outcome="rejected", reason="Rejected by anna: no", decided_by="anna", recorded_at=None)
    waiting.world.ledger.record_decision(unsigned)

    assert waiting.run("promotion", partition=FIRST).success

    assert decision(waiting).outcome == "awaiting_approval"


def test_a_forged_promotion_of_a_later_period_closes_no_request(waiting: Shop) -> None:
    forged = replace(decision(waiting), partition="9999-12", outcome="promoted", recorded_at=None)
    waiting.world.ledger.record_decision(forged)
    say(waiting, "anna")

    assert waiting.run("promotion", partition=FIRST).success

    assert decision(waiting).outcome == "promoted"
    assert alias(waiting) == "1"


def test_a_forged_verdict_opens_no_gate(governed: Shop) -> None:
    governed.world = replace(governed.world, policy=policy(**WAITS, **{"roc_auc.floor": 0.99}))
    governed.models(FIRST)
    ledger = governed.world.ledger
    (failed,) = [v for v in ledger.verdicts((*PATH, "evaluation"), FIRST) if v.check == "roc_auc.floor"]
    ledger.record_verdicts([replace(failed, outcome="passed", recorded_at=None)])

    result = governed.run("promotion", partition=FIRST)

    assert not result.success
    assert "Gate 'roc_auc.floor' fails" in failure(result, "promotion")
    assert "whatever the ledger says of it" in failure(result, "promotion")


def test_after_many_automatic_promotions_people_are_asked_again(led: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "LONGEST_DELEGATION", 0)

    assert led.models(SECOND).success
    assert decision(led, SECOND).outcome == "awaiting_approval"
    assert decision(led, SECOND).evidence["approval_reasons"] == ["0 automatic promotions followed the last approval"]

    say(led, "olga", month=SECOND)
    assert led.run("promotion", partition=SECOND).success
    assert alias(led) == "2"


def test_who_launched_any_run_of_the_candidate_may_not_approve(waiting: Shop) -> None:
    asked = decision(waiting)
    waiting.world.ledger.record_decision(replace(asked, launched_by=("anna",), recorded_at=None))
    waiting.world.ledger.record_decision(replace(asked, recorded_at=None))  # written again, as if lena alone had

    with pytest.raises(ApprovalError, match="launched a run"):
        say(waiting, "anna")


def test_a_rollback_puts_the_previous_champion_back_and_is_a_decision(led: Shop) -> None:
    led.models(SECOND)
    assert alias(led) == "2"

    done = roll_back(led.world, PATH, reason="Complaints from the desk.", by="olga")

    assert alias(led) == "1"
    assert done.champion is not None
    assert done.champion.model_version == "1"
    assert decision(led, SECOND).outcome == "rolled_back"
    assert decision(led, SECOND).decided_by == "olga"
    assert led.run("promotion", partition=SECOND).success
    assert alias(led) == "1", "repeating the promotion does not bring it back"


def test_a_rollback_without_an_earlier_champion_must_be_meant(led: Shop) -> None:
    with pytest.raises(RollbackError, match="no champion before version 1"):
        roll_back(led.world, PATH, reason="Wrong.", by="olga")

    roll_back(led.world, PATH, reason="Wrong.", by="olga", without_successor=True)
    assert alias(led) is None


def test_a_champion_whose_file_was_changed_is_rolled_back_in_scoring(led: Shop) -> None:
    led.models(SECOND)
    registry = led.world.model_registry
    assert isinstance(registry, FakeModelRegistry)
    run_id, old_run = registry.version(NAME, "2").run_id, registry.version(NAME, "1").run_id
    registry.runs[run_id] = replace(registry.runs[run_id], data=registry.runs[old_run].data)

    result = led.run("predictions", partition=f"DE|{THIRD}")

    assert result.success
    (event,) = result.asset_materializations_for_node("shop__returns__predictions")
    assert event.metadata["model_version"].value == "1"
    assert decision(led, SECOND).outcome == "rolled_back"
    assert decision(led, SECOND).decided_by == "predictions"
    assert alias(led) == "1"


def test_a_failing_champion_is_an_error_where_the_policy_wants_no_automatic_rollback(led: Shop) -> None:
    registry = led.world.model_registry
    assert isinstance(registry, FakeModelRegistry)
    run_id = registry.version(NAME, "1").run_id
    registry.runs[run_id] = replace(registry.runs[run_id], data=b"broken")
    led.world = replace(led.world, policy=policy(**WAITS, **{"rollback.automatic": False}))

    result = led.run("predictions", partition=f"DE|{SECOND}")

    assert not result.success
    assert decision(led).outcome == "promoted"


def test_an_outage_of_the_registry_takes_no_champion_back(led: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise RegistryUnavailableError("the file store did not answer")

    monkeypatch.setattr(led.world.model_registry, "load", unreachable)

    result = led.run("predictions", partition=f"DE|{SECOND}")

    assert not result.success
    assert decision(led).outcome == "promoted"


def test_a_champion_whose_version_was_deleted_is_rolled_back_in_scoring(led: Shop) -> None:
    led.models(SECOND)
    registry = led.world.model_registry
    assert isinstance(registry, FakeModelRegistry)
    registry._versions[NAME].pop()
    registry.aliases.pop((NAME, "champion"))

    result = led.run("predictions", partition=f"DE|{THIRD}")

    assert result.success
    (event,) = result.asset_materializations_for_node("shop__returns__predictions")
    assert event.metadata["model_version"].value == "1"
    assert decision(led, SECOND).outcome == "rolled_back"


def test_a_champion_that_cannot_score_the_rows_makes_people_decide(led: Shop) -> None:
    registry = led.world.model_registry
    assert isinstance(registry, FakeModelRegistry)
    run_id = registry.version(NAME, "1").run_id
    registry.runs[run_id] = replace(registry.runs[run_id], data=b"broken")

    assert led.models(SECOND).success

    found = decision(led, SECOND)
    assert found.outcome == "awaiting_approval"
    assert any("cannot score these rows" in reason for reason in found.evidence["approval_reasons"])
    say(led, "anna", month=SECOND)
    assert led.run("promotion", partition=SECOND).success
    assert alias(led) == "2"


def test_an_evaluation_that_is_made_again_keeps_its_waiver(governed: Shop) -> None:
    governed.world = replace(governed.world, policy=policy(**WAITS, **{"roc_auc.floor": 0.99}))
    governed.models(FIRST)
    waive(governed, "roc_auc.floor")
    assert governed.run("promotion", partition=FIRST).success
    say(governed, "olga")
    assert governed.run("promotion", partition=FIRST).success

    governed.run("evaluation", partition=FIRST)

    assert decision(governed).outcome == "promoted"


def test_a_late_approval_is_superseded_by_a_later_champion(waiting: Shop) -> None:
    assert waiting.models(SECOND).success
    say(waiting, "anna", month=SECOND)
    assert waiting.run("promotion", partition=SECOND).success

    with pytest.raises(ApprovalError, match="superseded: version 2 of 2024-03 was promoted while it waited"):
        say(waiting, "olga")

    assert decision(waiting).outcome == "refused"
    assert alias(waiting) == "2"


def test_an_approval_from_before_a_later_promotion_promotes_nothing(waiting: Shop) -> None:
    say(waiting, "anna")
    old = decision(waiting)
    assert waiting.models(SECOND).success
    say(waiting, "anna", month=SECOND)
    assert waiting.run("promotion", partition=SECOND).success
    waiting.world.ledger.record_decision(replace(old, recorded_at=None))  # it waits again, as if in a race

    assert waiting.run("promotion", partition=FIRST).success

    assert decision(waiting).outcome == "refused"
    assert decision(waiting).decided_by == "supersession"
    assert alias(waiting) == "2"


def test_a_candidate_compared_with_a_champion_that_was_taken_back_is_not_promoted(led: Shop) -> None:
    variants = [f"models/{name}" for name in led.component.variants]
    assert led.run("training_set", *variants, "candidate", "evaluation", partition=SECOND).success
    roll_back(led.world, PATH, reason="Wrong.", by="olga", without_successor=True)

    result = led.run("promotion", partition=SECOND)

    assert not result.success
    assert "was evaluated against version 1, but version none is champion" in failure(result, "promotion")


def test_the_shadow_scores_beside_the_champion(led: Shop) -> None:
    settings = {**WAITS, "roc_auc.material_band": 0.0, "shadow.enabled": True}
    led.world = replace(led.world, policy=policy(**settings))
    led.models(SECOND)

    result = led.run("predictions", partition=f"DE|{THIRD}")

    table = led.world.data_store.read((*PATH, "predictions"), f"DE|{THIRD}")
    assert set(table["model_version"].to_pylist()) == {"1"}
    assert set(table["shadow_version"].to_pylist()) == {"2"}
    (event,) = result.asset_materializations_for_node("shop__returns__predictions")
    rate = event.metadata["shadow_disagreement"].value
    assert isinstance(rate, float)
    assert 0 <= rate < 0.5
    assert alias(led, "shadow") == "2"


def test_a_dossier_is_written_and_linked(governed: Shop) -> None:
    result = governed.models(FIRST)

    dossiers = governed.world.dossiers
    assert isinstance(dossiers, FakeDossierStore)
    (event,) = result.asset_materializations_for_node("shop__returns__promotion")
    address = str(event.metadata["dossier"].value)
    assert governed.world.model_registry.version(NAME, "1").tags["ml_assets.dossier"] == address
    (page,) = dossiers.pages.values()
    assert "it is the first model" in page


def test_a_waiver_lets_one_failed_gate_of_one_data_version_pass(governed: Shop) -> None:
    strict = policy(**WAITS, **{"roc_auc.floor": 0.99})
    governed.world = replace(governed.world, policy=strict)
    assert not governed.models(FIRST).success
    assert not governed.run("promotion", partition=FIRST).success
    waive(governed, "roc_auc.floor")

    assert governed.run("promotion", partition=FIRST).success

    found = decision(governed)
    assert found.outcome == "awaiting_approval"
    assert "anna until" in str(found.evidence["waivers"])


def test_an_expired_waiver_closes_the_gate_again(governed: Shop) -> None:
    governed.world = replace(governed.world, policy=policy(**WAITS, **{"roc_auc.floor": 0.99}))
    governed.models(FIRST)
    waive(governed, "roc_auc.floor", at=datetime.now(UTC) - timedelta(days=2), days=1)

    result = governed.run("promotion", partition=FIRST)

    assert not result.success
    assert "Gate 'roc_auc.floor' failed" in failure(result, "promotion")


def waive(shop: Shop, gate: str, *, at: datetime | None = None, days: float = 1) -> None:
    now, world = at or datetime.now(UTC), shop.world
    (failed,) = [v for v in world.ledger.verdicts((*PATH, "evaluation"), FIRST) if v.check == gate]

    def signed(previous: str) -> Statement:
        return sign_statement(
            TestSigner("anna"),
            action="waive",
            pipeline=PATH,
            partition=FIRST,
            subject=subject_of_gate(failed),
            reason="The holidays; looked at by hand.",
            issued_at=now,
            valid_for=timedelta(days=days),
            previous=previous,
        )

    def give(statement: Statement) -> Statement:
        effective, people = world.policy.effective(PATH), world.policy.people()
        return grant_waiver(world.ledger, statement, verdict=failed, policy=effective, people=people, now=now)

    give_with_retry(world.ledger, PATH, signed, give)


def test_the_sensor_asks_for_what_is_approved(waiting: Shop, instance: dg.DagsterInstance) -> None:
    from sensors import team_sensors

    sensors = team_sensors(pipelines_of(waiting.definitions), waiting.world)
    sensor = next(sensor for sensor in sensors if sensor.name == "approvals")
    resources = {"ledger": waiting.world.ledger, "policy": waiting.world.policy}

    repository = dg.Definitions(
        assets=waiting.definitions.assets, sensors=[sensor], resources=dict(vars(waiting.world))
    ).get_repository_def()

    def tick(cursor: str | None) -> Any:
        context = dg.build_sensor_context(
            instance=instance, cursor=cursor, resources=resources, repository_def=repository
        )
        return sensor.evaluate_tick(context)

    quiet = tick(None)
    assert not quiet.run_requests
    say(waiting, "anna")
    asked = tick(quiet.cursor)
    (request,) = asked.run_requests or []
    assert request.partition_key == FIRST
    assert request.asset_selection == [dg.AssetKey([*PATH, "promotion"])]
    again = tick(asked.cursor)
    assert not again.run_requests, "the next attempt waits a minute"
    assert waiting.run("promotion", partition=FIRST, launched_by="sensor:approvals").success
    assert not tick(again.cursor).run_requests
