import re

import numpy as np
import pandas as pd
import pytest

from ml_assets.digest import canonical_json
from ml_assets.errors import EvaluationError
from ml_assets.experiments.assignment import arms
from ml_assets.experiments.report import ab_report

SHARE, ALPHA = 0.2, 0.05


def scored_rows(n_days=30, per_day=200, gain=0.0, seed=0):
    """Return rows of both arms; the challenger's loss is smaller by `gain`."""
    rng = np.random.default_rng(seed)
    n_rows = n_days * per_day
    ids = [f"row-{number}" for number in range(n_rows)]
    challenger = arms(ids, salt="shop/returns:2-vs-1", challenger_share=SHARE)
    start = pd.Timestamp("2024-03-01 05:00", tz="UTC")
    return pd.DataFrame(
        {
            "row_id": ids,
            "event_time": start + pd.to_timedelta(np.repeat(np.arange(n_days), per_day), unit="D"),
            "arm": np.where(challenger, "challenger", "champion"),
            "loss": rng.gamma(2.0, 0.25, n_rows) - gain * challenger,
        }
    )


def report(rows, **changes):
    return ab_report(rows, **({"share": SHARE, "alpha": ALPHA} | changes))


@pytest.mark.parametrize(("gain", "outcome"), [(0.2, "challenger_better"), (-0.2, "champion_better"), (0, "go_on")])
def test_the_outcome_is_the_stop_rules_when_the_arms_are_as_planned(gain, outcome):
    found = report(scored_rows(gain=gain))
    assert found.outcome == found.verdict.outcome == outcome
    assert found.scored == found.labelled
    assert found.verdict.n_days == 30


def test_the_sentence_says_what_to_do_and_why():
    better, open_end = report(scored_rows(gain=0.2)).sentence, report(scored_rows()).sentence
    assert better.startswith("The test may stop: the challenger's loss minus the champion's is -0.")
    assert "over 30 days, at 95 % for all looks together: the challenger is better; 1," in better
    assert better.endswith("went to the challenger; planned were 20 %, and the difference may be chance "
                           "(p = 1, alpha = 0.025).")  # fmt: skip
    assert open_end.startswith("The test goes on: ")
    assert "the interval holds 0" in open_end


def test_a_test_whose_arms_are_not_as_planned_is_invalid_whatever_the_losses_say():
    rows = scored_rows(gain=0.2)
    lost = rows[(rows["arm"] == "champion") | (np.arange(len(rows)) % 3 > 0)]
    found = report(lost)
    assert found.outcome == "invalid"
    assert found.verdict.outcome == "challenger_better"
    assert found.sentence.startswith("The test must not be read: of all rows, ")


def test_labels_that_stay_away_from_one_arm_make_it_invalid_too():
    rows = scored_rows(gain=0.2)
    rows.loc[(rows["arm"] == "challenger") & (np.arange(len(rows)) % 3 == 0), "loss"] = np.nan
    found = report(rows)
    assert found.scored.matches
    assert not found.labelled.matches
    assert found.outcome == "invalid"
    assert found.sentence.startswith("The test must not be read: of rows with a label, ")


def test_rows_whose_label_is_not_known_count_for_the_split_alone():
    rows = scored_rows()
    late = rows["event_time"] >= "2024-03-28"
    rows.loc[late, "loss"] = np.nan
    found = report(rows)
    assert found.scored.n_challenger + found.scored.n_champion == len(rows)
    assert found.labelled.n_challenger + found.labelled.n_champion == (~late).sum()
    assert found.verdict == report(rows[~late]).verdict


def test_event_times_are_cut_into_days_of_the_pipelines_time_zone():
    rows = scored_rows(n_days=2, per_day=4)
    rows["event_time"] = pd.date_range("2024-03-02 01:00", periods=8, freq="6h", tz="UTC")
    assert report(rows, timezone="UTC", min_days=2).verdict.n_days + len(report(rows).verdict.skipped_days) == 2
    local = report(rows, timezone="America/New_York").verdict
    assert local.n_days + len(local.skipped_days) == 3
    assert {"2024-03-01"} <= {*local.skipped_days}


def test_given_days_are_taken_as_they_are():
    rows = scored_rows(gain=0.2)
    given_days = rows.drop(columns="event_time").assign(day=rows["event_time"].dt.date)
    assert report(given_days) == report(rows)


def test_a_test_without_rows_goes_on():
    found = report(scored_rows().head(0))
    assert found.outcome == "go_on"
    assert found.sentence == (
        "The test goes on: no day has rows with labels in both arms yet; no rows were assigned yet."
    )


def test_rows_in_another_order_give_the_same_report():
    rows = scored_rows(gain=0.01)
    found, shuffled = report(rows), report(rows.sample(frac=1, random_state=1))
    assert shuffled.outcome == found.outcome
    assert shuffled.scored == found.scored
    assert shuffled.verdict.lower == pytest.approx(found.verdict.lower, rel=1e-9)


@pytest.mark.parametrize("n_days", [0, 1, 30])
def test_the_document_is_json(n_days):
    document = report(scored_rows(n_days=n_days)).to_document()
    assert canonical_json(document)
    assert document["verdict"]["n_days"] == n_days
    assert document["format"] == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows: rows.drop(columns="loss"),
            "have the columns row_id, event_time, arm; expected row_id, arm, loss",
        ),
        (
            lambda rows: rows.drop(columns="event_time"),
            "have the columns row_id, arm, loss; expected row_id, arm, loss",
        ),
        (
            lambda rows: pd.concat([rows, rows.head(2)]),
            "2 of 42 rows repeat a row_id, such as 'row-0'; expected each row",
        ),
        (lambda rows: rows.assign(arm="control"), "arm holds control; expected champion and challenger."),
        (lambda rows: rows.assign(loss=np.inf), "40 of 40 losses are infinite; expected those of `row_losses`"),
    ],
)
def test_rows_that_are_no_ab_test_are_refused(change, message):
    with pytest.raises(EvaluationError, match=re.escape(message)):
        report(change(scored_rows(n_days=2, per_day=20)))
