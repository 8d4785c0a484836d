"""What counts as a material change: each test alone, with its evidence, and what the policy switches off."""

from typing import Any

import pytest

from ml_assets.material import MaterialTest, material_tests, needs_approval
from ml_assets.testing.policy_source import effective_policy

MADE_OF = {
    "sources": {"partitions": "flights/{time}.csv", "weather": "weather.csv"},
    "columns": {"carrier": "string", "distance": "float64"},
    "features": ["carrier", "distance"],
    "estimator": "sklearn.ensemble.RandomForestClassifier",
    "feature_code": "a" * 64,
    "classification": "public",
    "label": "late",
}
BAND = {"roc_auc.material_band": 0.05}


def challenge(estimate: float = 0.01, **slices: float | None) -> dict[str, Any]:
    return {
        "metric": "roc_auc",
        "improvement": {"estimate": estimate},
        "slices": [
            {
                "column": "origin",
                "value": value,
                "improvement": None if moved is None else {"estimate": moved},
                "reason": "5 rows" if moved is None else "",
            }
            for value, moved in slices.items()
        ],
    }


def changed(
    candidate: dict[str, Any], found: dict[str, Any] | None = None, policy: dict[str, Any] | None = None
) -> dict[str, MaterialTest]:
    effective = effective_policy({**BAND, **(policy or {})})
    tests = material_tests({**MADE_OF, **candidate}, MADE_OF, found or challenge(), effective)
    return {test.name: test for test in tests if test.changed}


def test_nothing_changed_and_every_test_says_so() -> None:
    tests = material_tests(MADE_OF, MADE_OF, challenge(), effective_policy(BAND))

    assert [test.name for test in tests if test.changed] == []
    assert len(tests) == 10
    assert all(test.sentence for test in tests)
    assert needs_approval(tests, effective_policy(BAND)) == []


def test_a_first_model_is_material_and_the_other_tests_have_nothing_to_compare() -> None:
    tests = material_tests(MADE_OF, None, challenge(), effective_policy(BAND))

    assert [test.name for test in tests if test.changed] == ["first_model"]
    assert needs_approval(tests, effective_policy(BAND)) == ["it is the first model: there is no champion"]


@pytest.mark.parametrize(
    ("name", "candidate", "sentence"),
    [
        ("data_source", {"sources": {"partitions": "flights/{time}.csv"}}, "data sources: gone weather"),
        ("data_source", {"sources": {**MADE_OF["sources"], "weather": "w2.csv"}}, "data sources: other weather"),
        ("columns", {"columns": {**MADE_OF["columns"], "dest": "string"}}, "source columns: new dest"),
        ("columns", {"columns": {**MADE_OF["columns"], "distance": "int32"}}, "source columns: other distance"),
        ("features", {"features": ["carrier", "dest"]}, "features: new dest; gone distance"),
        (
            "estimator",
            {"estimator": "sklearn.linear_model.LogisticRegression"},
            "another estimator: was RandomForestClassifier, is LogisticRegression",
        ),
        ("feature_code", {"feature_code": "b" * 64}, "another feature code: was aaaaaaaaaaaa, is bbbbbbbbbbbb"),
        ("label", {"label": "very_late"}, "another label: was late, is very_late"),
        ("classification", {"classification": "restricted"}, "another data classification: was public, is restricted"),
    ],
)
def test_each_difference_is_found_and_told(name: str, candidate: dict[str, Any], sentence: str) -> None:
    found = changed(candidate)

    assert list(found) == [name]
    assert found[name].sentence == sentence


def test_the_order_of_features_is_no_difference() -> None:
    assert changed({"features": ["distance", "carrier"]}) == {}


@pytest.mark.parametrize(("estimate", "material"), [(0.05, False), (0.0501, True), (-0.0501, True)])
def test_a_metric_is_material_beyond_its_band_either_way(estimate: float, material: bool) -> None:
    assert ("metric" in changed({}, challenge(estimate))) == material


def test_without_a_band_every_move_is_material() -> None:
    tests = material_tests(MADE_OF, MADE_OF, challenge(0.0001), effective_policy({}))

    assert [t.sentence for t in tests if t.changed] == [
        "roc_auc moved by +0.0001, and the policy sets no roc_auc.material_band"
    ]


@pytest.mark.parametrize(
    ("protected", "sentence"),
    [
        (["origin"], "protected slices moved: origin=LGA moved by -0.0900, more than 0.05"),
        (["origin=LGA"], "protected slices moved: origin=LGA moved by -0.0900, more than 0.05"),
        (["origin=JFK"], "protected slices moved: origin=JFK could not be measured: 5 rows"),
        (["carrier"], "protected slices moved: carrier is protected, and the evaluation has no such slice"),
    ],
)
def test_a_protected_slice_that_moved_or_cannot_be_seen_is_material(protected: list[str], sentence: str) -> None:
    slices = challenge(0.01, EWR=0.01, LGA=-0.09, JFK=None if protected != ["origin"] else 0.0)

    found = changed({}, slices, {"material.protected_slices": protected})

    assert list(found) == ["protected_slice"]
    assert found["protected_slice"].sentence == sentence


def test_a_slice_that_nobody_protects_may_move() -> None:
    assert changed({}, challenge(0.01, LGA=-0.09), {"material.protected_slices": ["origin=EWR"]}).keys() == {
        "protected_slice"
    }
    assert changed({}, challenge(0.01, LGA=-0.09)) == {}


def test_what_the_policy_switches_off_is_told_and_asks_nobody() -> None:
    policy = effective_policy({**BAND, "material.feature_code": False})
    tests = material_tests({**MADE_OF, "feature_code": "b" * 64}, MADE_OF, challenge(), policy)

    assert [test.name for test in tests if test.changed] == ["feature_code"]
    assert needs_approval(tests, policy) == []


def test_a_policy_may_want_every_promotion_approved() -> None:
    policy = effective_policy({**BAND, "approval.always": True})
    tests = material_tests(MADE_OF, MADE_OF, challenge(), policy)

    assert needs_approval(tests, policy) == ["the policy wants every promotion approved"]
