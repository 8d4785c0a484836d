"""Judgements from numbers, and the gate's question to the ledger."""

from types import SimpleNamespace
from typing import Any

import pytest

from ml_assets.errors import GateClosedError, PolicyError
from ml_assets.gates import (
    judge_expectations,
    judge_metrics,
    parse_gate,
    require_open,
    select_thresholds,
    thresholds_version,
)
from ml_assets.interfaces import Expectation, ExpectationResult
from ml_assets.testing.ledger import FakeLedger, verdict
from ml_assets.testing.policy_source import effective_policy, setting


def interval(estimate: float, lower: float, upper: float) -> SimpleNamespace:
    return SimpleNamespace(estimate=estimate, lower=lower, upper=upper)


@pytest.mark.parametrize(
    ("name", "value", "passes"),
    [
        ("roc_auc.floor", 0.58, True),
        ("roc_auc.floor", 0.60, False),  # the estimate is above it, the lower end is not
        ("log_loss.ceiling", 0.50, True),
        ("log_loss.ceiling", 0.47, False),
        ("log_loss.beats_baseline", 0.0, False),
        ("roc_auc.beats_baseline", 0.0, True),
    ],
)
def test_the_end_of_the_interval_that_argues_against_it_decides(name: str, value: float, passes: bool) -> None:
    intervals = {"roc_auc": interval(0.62, 0.59, 0.65), "log_loss": interval(0.46, 0.44, 0.49)}
    improvements = {"roc_auc": interval(0.12, 0.09, 0.15), "log_loss": interval(0.01, -0.002, 0.03)}

    (judgement,) = judge_metrics([setting(name, value)], intervals, improvements)

    assert judgement.passed is passes
    assert f"{value:g}" in judgement.reason


def test_expectations_make_one_verdict_of_errors_and_one_of_warnings() -> None:
    def result(severity: str, success: bool) -> ExpectationResult:
        expectation = Expectation(type="expect_column_values_to_not_be_null", kwargs={"column": "a"}, severity=severity)  # pyright: ignore[reportArgumentType]
        return ExpectationResult(expectation=expectation, success=success, n_failing=0 if success else 3, n_rows=10)

    errors, warnings = judge_expectations([result("error", True), result("warning", False), result("error", False)])

    assert (errors.passed, errors.severity) == (False, "error")
    assert errors.reason == "1 of 2 expectations failed: column_values_to_not_be_null(a)"
    assert (warnings.passed, warnings.severity) == (False, "warning")
    assert judge_expectations([])[0].passed, "nothing expected is a verdict too, and it passes"


def test_a_gate_names_a_known_metric_and_rule() -> None:
    assert parse_gate("roc_auc.floor") == ("roc_auc", "floor")
    for name in ("roc_auc.top", "aucc.floor", "roc_auc"):
        with pytest.raises(PolicyError, match=r"is not <metric>\.<rule>"):
            parse_gate(name)


def test_a_missing_setting_is_told_with_those_alike() -> None:
    policy = effective_policy({"roc_auc.floor": 0.55, "roc_auc.margin": 0.02})

    assert [s.name for s in select_thresholds(["roc_auc.floor"], policy)] == ["roc_auc.floor"]
    with pytest.raises(PolicyError) as error:
        select_thresholds(["roc_auc.floor", "wape.floor", "wape.ceiling"], policy)
    assert str(error.value) == (
        "The policy of flights/arrival_delay sets no wape.floor, wape.ceiling; it sets roc_auc.floor. Add it to a "
        "policy file (`ml-assets policy explain flights/arrival_delay` lists what holds), or correct `gates` (for a "
        "margin: `selection.metric`) in the pipeline's YAML."
    )


def test_the_policy_version_follows_values_and_not_places() -> None:
    one = thresholds_version([setting("roc_auc.floor", 0.5, line=1), setting("f1.floor", 0.1, line=2)])

    assert one == thresholds_version([setting("f1.floor", 0.1, line=9), setting("roc_auc.floor", 0.5, line=8)])
    assert one != thresholds_version([setting("roc_auc.floor", 0.6), setting("f1.floor", 0.1)])


def test_a_gate_without_a_number_is_0_and_one_with_names_is_refused() -> None:
    improvements = {"roc_auc": interval(0.12, 0.09, 0.15)}

    (judgement,) = judge_metrics([setting("roc_auc.beats_baseline", None)], {}, improvements)

    assert (judgement.passed, judgement.evidence["threshold"]) == (True, 0.0)
    with pytest.raises(PolicyError, match=r"The gate roc_auc\.beats_baseline \(policies/test\.yaml:1\) is True"):
        judge_metrics([setting("roc_auc.beats_baseline", True)], {}, improvements)


def ask(ledger: FakeLedger, **changes: str) -> None:
    given = verdict(check="expectations")
    question: dict[str, Any] = {
        "partition": given.partition,
        "data_version": given.data_version,
        "policy_version": given.policy_version,
        **changes,
    }
    require_open(ledger, asset=given.asset, checks=["expectations"], **question)


def test_only_a_passing_verdict_on_exactly_this_version_opens() -> None:
    ledger = FakeLedger()
    with pytest.raises(GateClosedError, match="no verdict means closed"):
        ask(ledger)

    ledger.record_verdicts([verdict(check="expectations", outcome="passed", severity="error")])
    ask(ledger)
    for change in ({"partition": "other"}, {"data_version": "0" * 64}, {"policy_version": "1" * 64}):
        with pytest.raises(GateClosedError, match="no verdict"):
            ask(ledger, **change)

    ledger.record_verdicts([verdict(check="expectations", outcome="failed", severity="error", reason="3 rows are bad")])
    with pytest.raises(GateClosedError, match="3 rows are bad"):
        ask(ledger)


def test_a_failed_warning_does_not_close() -> None:
    ledger = FakeLedger()
    ledger.record_verdicts([verdict(check="expectations", outcome="failed", severity="warning")])

    ask(ledger)
