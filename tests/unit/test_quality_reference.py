"""What is frozen of a champion: importances, sums by score and day, and their documents."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.errors import EvaluationError
from ml_assets.profiles.table import profile_table
from ml_assets.quality.importance import permutation_importance, shares
from ml_assets.quality.reference import Reference, ReferencePart, reference_part
from ml_assets.quality.score_bins import ScoreBins, score_bins


def rows(n_rows: int = 2_000) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "amount": rng.uniform(0, 1, n_rows),
            "noise": rng.normal(0, 1, n_rows),
            "country": rng.choice(["DE", "FR"], n_rows),
        }
    )
    return frame, (rng.random(n_rows) < frame["amount"]).astype(np.float64).to_numpy()


def by_amount(frame: pd.DataFrame) -> np.ndarray:
    return frame["amount"].to_numpy(dtype=np.float64) * 0.9 + 0.1 * (frame["country"] == "DE").to_numpy()


def test_importance_is_a_share_of_what_shuffling_costs() -> None:
    frame, y = rows()
    found, metric = permutation_importance(frame, y, score=by_amount, task="binary", metric="roc_auc")

    assert metric == "roc_auc"
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-5)
    assert found["amount"] > 0.9
    assert found["noise"] == 0.0
    assert found == permutation_importance(frame, y, score=by_amount, task="binary", metric="roc_auc")[0]


def test_the_importance_of_a_column_does_not_depend_on_those_after_it() -> None:
    frame, y = rows()
    two = frame[["amount", "noise"]].assign(country="DE")

    def score(given: pd.DataFrame) -> np.ndarray:
        return given["amount"].to_numpy(dtype=np.float64)

    alone, _ = permutation_importance(frame[["amount"]], y, score=score, task="binary", metric="log_loss")
    among, _ = permutation_importance(two, y, score=score, task="binary", metric="log_loss")
    assert alone["amount"] == among["amount"] == 1.0


def test_a_model_that_uses_nothing_gives_equal_shares_and_says_so() -> None:
    frame, y = rows(100)
    found, metric = permutation_importance(
        frame, y, score=lambda given: np.full(len(given), 0.5), task="binary", metric="roc_auc"
    )

    assert metric == ""
    assert found == pytest.approx({"amount": 1 / 3, "noise": 1 / 3, "country": 1 / 3})


def test_a_metric_without_a_value_is_replaced() -> None:
    frame, _ = rows(100)
    found, metric = permutation_importance(frame, np.ones(100), score=by_amount, task="binary", metric="roc_auc")

    assert metric in {"log_loss", ""}
    assert set(found) == set(frame.columns)


@given(st.dictionaries(st.text(min_size=1, max_size=3), st.floats(-1, 1), min_size=1, max_size=30))
def test_shares_are_not_negative_and_sum_to_one(losses: dict[str, float]) -> None:
    found = shares(losses)

    assert all(share >= 0 for share in found.values())
    assert sum(found.values()) == pytest.approx(1.0, abs=1e-4)
    best = max(losses, key=lambda name: losses[name])
    assert found[best] == max(found.values())


def test_bins_add_up_to_the_rows() -> None:
    frame, y = rows()
    score, days = by_amount(frame), np.datetime64("2024-03-01") + np.arange(2_000) % 25
    found = score_bins(score, days, {"y": y})

    assert found.counts.sum() == 2_000
    assert found.sums["y"].sum() == y.sum()
    assert found.counts.shape == (25, 40)
    assert (np.diff(found.centres) > 0).all()
    assert float((found.counts.sum(axis=0) * found.centres).sum()) == pytest.approx(score.sum())


def test_equal_scores_share_a_bin() -> None:
    score, days = np.repeat([0.2, 0.8], 50), np.datetime64("2024-03-01") + np.arange(100) % 10
    found = score_bins(score, days, {"y": np.ones(100)})

    assert found.centres.tolist() == pytest.approx([0.2, 0.8])
    assert found.means("y", np.ones(10)).tolist() == [1.0, 1.0]
    assert np.isnan(found.means("y", np.zeros(10))).all()


def _part() -> ReferencePart:
    frame, y = rows()
    days = np.datetime64("2024-03-01") + np.arange(2_000) % 25
    return reference_part(task="binary", y=y, score=by_amount(frame), days=days, metrics=["roc_auc", "log_loss"])


def test_a_reference_comes_back_from_its_document() -> None:
    import pyarrow as pa

    frame, _ = rows()
    score = by_amount(frame)
    days = np.datetime64("2024-03-01") + np.arange(2_000) % 25
    reference = Reference(
        version="3",
        partition="2024-03",
        model_digest="a" * 64,
        evaluation="b" * 64,
        partitions=(("DE|2024-02", "c" * 64),),
        importance={"amount": 1.0},
        importance_metric="roc_auc",
        scores=profile_table(pa.table({"score": score}), ["score"], days),
        classes=(),
        parts={"": _part()},
    )
    document = json.loads(json.dumps(reference.document()))

    assert Reference.from_document(document).document() == document == reference.document()
    with pytest.raises(EvaluationError, match=r"format 7; expected 1. Another release wrote it"):
        Reference.from_document(document | {"format": 7})


def test_a_damaged_document_says_so() -> None:
    document = _part().bins[0].to_document()
    with pytest.raises(EvaluationError, match=r"counts of shape \(24, 40\); expected \(25, 40\)"):
        ScoreBins.from_document(document | {"counts": document["counts"][1:]})


def test_a_part_without_enough_days_is_no_error() -> None:
    frame, y = rows(40)
    days = np.datetime64("2024-03-01") + np.arange(40) % 4
    found = reference_part(task="binary", y=y, score=by_amount(frame), days=days, metrics=["roc_auc"])

    assert found.gains == {}
    assert "there are 4 days; an error needs at least 6" in found.unmeasured["roc_auc"]
