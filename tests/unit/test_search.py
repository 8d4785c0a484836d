"""Searches without processes or databases: folds, what trials may know, reports between rounds, documents."""

import doctest
from typing import Any

import numpy as np
import pytest

from ml_assets.checkpoints import NoCheckpoint
from ml_assets.errors import SplitError
from ml_assets.interfaces import Parameter, Trial, TrialResult
from ml_assets.search import document as documents
from ml_assets.search import pictures
from ml_assets.search.document import search_document, search_record, state_counts, trials_table
from ml_assets.search.folds import inner_folds
from ml_assets.search.leading import Found
from ml_assets.search.objective import direction_of, with_params
from ml_assets.search.trials import best_of, known_to, propose
from ml_assets.search.watching import Watch, WatchedRounds
from ml_assets.spec import PreprocessingSpec, VariantSpec
from ml_assets.testing.checkpoints import FakeCheckpoints
from ml_assets.testing.studies import FakeStudies
from ml_assets.testing.studies_suite import objective, small_plan

# Inner folds


def rows(days: int, per_day: int = 10, *, label_days: int = 1, days_a_period: int = 30) -> dict[str, Any]:
    """Return rows of so many days, whose labels are known some days later."""
    day = np.repeat(np.arange(days), per_day)
    start = np.datetime64("2024-01-01", "us")
    event = start + day * np.timedelta64(1, "D") + np.tile(np.arange(per_day), days) * np.timedelta64(1, "h")
    return {
        "period": day // days_a_period,
        "day": event.astype("datetime64[D]"),
        "event_time": event,
        "label_time": event + np.timedelta64(label_days, "D"),
    }


def test_the_last_periods_validate() -> None:
    data = rows(120)

    folds = inner_folds(**data, folds=2, min_rows=10)

    assert [set(data["period"][fold.validation]) for fold in folds] == [{2}, {3}]


def test_blocks_of_days_validate_when_there_are_too_few_periods() -> None:
    data = rows(31, days_a_period=31)

    folds = inner_folds(**data, folds=3, min_rows=10)

    assert [fold.span for fold in folds] == [
        "2024-01-11 to 2024-01-17",
        "2024-01-18 to 2024-01-24",
        "2024-01-25 to 2024-01-31",
    ]


@pytest.mark.parametrize("label_days", [0, 1, 9])
@pytest.mark.parametrize(("days", "folds"), [(31, 3), (120, 2), (61, 1)])
def test_no_row_is_learnt_from_before_its_label_was_known(days: int, folds: int, label_days: int) -> None:
    data = rows(days, label_days=label_days)
    order = np.random.default_rng(0).permutation(len(data["day"]))
    data = {name: values[order] for name, values in data.items()}

    for fold in inner_folds(**data, folds=folds, min_rows=1):
        begins = data["event_time"][fold.validation].min()
        assert (data["label_time"][fold.train] <= begins).all()
        assert (data["event_time"][fold.train] < begins).all()
        assert not set(fold.train) & set(fold.validation)


def test_a_fold_with_too_few_rows_says_what_to_do() -> None:
    with pytest.raises(SplitError, match=r"validates on 2024-01-11 .* has 91 training rows; .* asks for 100\. Lower"):
        inner_folds(**rows(31, label_days=1), folds=3, min_rows=100)
    with pytest.raises(SplitError, match=r"has 2 days, too few for 3 inner folds"):
        inner_folds(**rows(2), folds=3, min_rows=1)


# What trials may know


def told(number: int, value: float | None = None) -> Trial:
    result = TrialResult(state="completed", value=float(number) if value is None else value)
    return Trial(number=number, params={"a": number}, state="completed", result=result)


def test_a_trial_knows_earlier_rounds_and_that_its_own_is_running() -> None:
    trials = [told(number) for number in range(8)]

    known = known_to(small_plan(parallel=3), 5, trials)

    assert [trial.number for trial in known] == [0, 1, 2, 3, 4]
    assert [trial.state for trial in known] == ["completed"] * 3 + ["running"] * 2
    assert [trial.result is None for trial in known] == [False] * 3 + [True] * 2


@pytest.mark.parametrize(
    ("there", "count", "expected"), [(0, 20, [0, 1, 2]), (3, 4, [3]), (4, 20, [4, 5]), (6, 7, [6])]
)
def test_rounds_begin_at_multiples_of_their_length(there: int, count: int, expected: list[int]) -> None:
    proposed = propose(FakeStudies(), small_plan(parallel=3), [told(n) for n in range(there)], count)

    assert [trial.number for trial in proposed] == expected


def test_a_grid_tries_every_point_once_in_an_order_of_the_seed() -> None:
    space = (
        Parameter(name="a", kind="choice", choices=(1, 2, 3)),
        Parameter(name="b", kind="int", low=1, high=2, when={"a": (1, 3)}),
    )

    def points(seed: int) -> list[Any]:
        trials: list[Trial] = []
        plan = small_plan(sampler="grid", space=space, seed=seed)
        while len(trials) < 5:
            trials += propose(FakeStudies(), plan, trials, 5)
        return [dict(trial.params) for trial in trials]

    every = [{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2}, {"a": 3, "b": 1}, {"a": 3, "b": 2}]
    assert sorted(points(1), key=str) == sorted(every, key=str)
    assert points(1) == points(1)
    assert points(1) != points(2)


def test_of_equal_trials_the_earliest_is_best() -> None:
    trials = [
        told(0, 0.5),
        told(1, 0.3),
        told(2, 0.3),
        Trial(number=3, params={}, state="pruned", result=told(0, 0.1).result),
    ]

    assert best_of("minimize", trials) is trials[1]
    assert best_of("maximize", trials) is trials[0]
    assert best_of("minimize", [Trial(number=0, params={})]) is None


# The objective


def test_searched_parameters_replace_the_variants_own() -> None:
    variant = VariantSpec(
        estimator="sklearn.linear_model.LogisticRegression",
        params={"C": 1.0, "max_iter": 50},
        preprocessing=PreprocessingSpec(numeric="standardize"),
    )

    found = with_params(variant, {"estimator.C": 0.1, "preprocessing.categorical": "target"})

    assert found.params == {"C": 0.1, "max_iter": 50}
    assert found.preprocessing == PreprocessingSpec(numeric="standardize", categorical="target")
    assert variant.params["C"] == 1.0


def test_the_direction_follows_the_metric() -> None:
    assert direction_of("roc_auc") == "maximize"
    assert [direction_of(name) for name in ("log_loss", "bias", "mae")] == ["minimize"] * 3


# Reports between rounds


class Scripted:
    """Ends a trial at one step."""

    def __init__(self, ends_at: int = 0) -> None:
        self.seen: list[tuple[int, float]] = []
        self._ends_at = ends_at

    def report(self, step: int, value: float) -> bool:
        self.seen.append((step, value))
        return step == self._ends_at

    def marks(self) -> dict[str, float]:
        return {}


@pytest.mark.parametrize("saved_first", [True, False])
def test_reports_come_back_with_the_state_they_belong_to(saved_first: bool) -> None:
    store = FakeCheckpoints()
    rounds = WatchedRounds(store.open("k"), Watch(Scripted()))
    for done in (10, 20, 30):
        if saved_first:
            rounds.save(done, {"state": b"%d" % done})
        rounds.report(done, done / 10)
        if not saved_first and done < 30:
            rounds.save(done, {"state": b"%d" % done})

    pruning = Scripted()
    watch = Watch(pruning)
    again = WatchedRounds(store.open("k"), watch)
    done = 30 if saved_first else 20
    assert again.load() == (done, {"state": b"%d" % done})
    assert pruning.seen == [(1, 1.0), (2, 2.0), (3, 3.0)][: done // 10]
    assert again.report(done, 9.9) is False
    assert again.report(40, 4.0) is False
    assert list(watch.reports.values()) == [*(step / 10 for step in range(10, done + 1, 10)), 4.0]


def test_a_state_that_was_never_reported_is_kept_with_the_reports_before_it() -> None:
    store = FakeCheckpoints()
    rounds = WatchedRounds(store.open("k"), Watch(Scripted()))
    rounds.report(10, 1.0)
    rounds.save(15, {"state": b"15"})
    rounds.report(20, 2.0)

    watch = Watch(Scripted())
    assert WatchedRounds(store.open("k"), watch).load() == (15, {"state": b"15"})
    assert watch.reports == {1: 1.0}


def test_the_state_at_which_a_trial_was_ended_is_not_saved() -> None:
    store = FakeCheckpoints()
    rounds = WatchedRounds(store.open("k"), Watch(Scripted(ends_at=2)))
    for done in (10, 20):
        rounds.save(done, {"state": b""})
        ended = rounds.report(done, 1.0)

    assert ended
    assert store.saved == [("k", 10)]


def test_without_a_store_nothing_is_kept() -> None:
    rounds = WatchedRounds(NoCheckpoint(), Watch(Scripted()))
    rounds.report(1, 0.5)
    rounds.save(1, {"state": b""})

    assert rounds.load() is None


# What is stored and shown


def found(failed: bool = False) -> tuple[Found, dict[str, Any]]:
    studies, plan = FakeStudies(), small_plan()
    trials: list[Trial] = []
    for number in range(9):
        params = studies.suggest(plan, number, trials)
        state = "pruned" if number == 4 else "failed" if failed and number == 6 else "completed"
        value = None if state == "failed" else objective(params)
        result = TrialResult(state=state, value=value, seconds=0.5, reason="no" if value is None else "")
        trials.append(Trial(number=number, params=params, state=state, result=result, folds=(0.1,)))
    best = best_of("minimize", trials)
    assert best is not None
    search = Found(trials=tuple(trials), best=best, kept=2, resumed=1, out_of_time=False)
    document = search_document(plan, search, metric="log_loss", folds=[], importance=studies.importance(plan, trials))
    return search, document


def test_a_document_has_all_trials_and_nothing_that_differs_between_runs() -> None:
    search, document = found()

    assert len(document["trials"]) == 9
    assert document["best"]["params"] == dict(search.best.params)
    assert document["best"]["value"] == min(t["value"] for t in document["trials"] if t["state"] == "completed")
    assert "seconds" not in str(document)
    assert search_record(search)["seconds"] == 4.5
    assert state_counts(document) == "9: 8 completed, 1 pruned"


def test_the_table_shows_the_best_trial_first_and_failed_ones_last() -> None:
    search, document = found(failed=True)

    table = trials_table(document, search_record(search))

    assert table["trial"].iloc[0] == f"{search.best.number} ★"
    assert list(table["state"]) == ["completed"] * 7 + ["pruned", "failed"]
    assert list(table["log_loss"].iloc[:7]) == sorted(table["log_loss"].iloc[:7])
    assert table["reason"].iloc[-1] == "no"


def test_parameters_of_one_name_have_a_column_each_in_the_table() -> None:
    search, document = found()
    clashing = {"estimator.missing": None, "preprocessing.missing": "median", "estimator.state": "x", "estimator.C": 2}
    trials = [{**trial, "params": clashing} for trial in document["trials"]]

    table = trials_table({**document, "trials": trials}, search_record(search))

    assert list(table.columns[4:]) == ["estimator.missing", "preprocessing.missing", "estimator.state", "C"]
    assert list(table.iloc[0, 4:]) == ["null", "median", "x", "2"]
    assert "completed" in set(table["state"])


@pytest.mark.parametrize("failed", [True, False])
def test_pictures_are_small_and_the_same_again(failed: bool) -> None:
    _, document = found(failed)

    history = pictures.history(document, title="shop/returns forest [2024-02]")
    importance = pictures.importance(document)

    assert history.startswith(b"\x89PNG")
    assert importance is not None
    assert len(history) < 40_000
    assert history == pictures.history(document, title="shop/returns forest [2024-02]")
    assert pictures.importance({**document, "importance": {}}) is None


def test_examples_hold() -> None:
    result = doctest.testmod(documents)

    assert result.attempted > 0
    assert result.failed == 0
