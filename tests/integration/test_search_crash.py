"""A search that is killed again and again is trial for trial the one that nothing disturbed."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ml_assets.errors import LedgerError, StoreError, StudyError
from ml_assets.interfaces import Trial, TrialResult
from ml_assets.search import evaluating
from ml_assets.search.evaluating import MAX_DEATHS, Search
from ml_assets.search.leading import forget_failure, run_search
from ml_assets.search.processes import Progress
from ml_assets.search.trials import propose
from resources.studies import SqlStudies
from tests.integration.search_world import (
    PARTS,
    interrupted,
    lead,
    parts_done,
    plan_named,
    random_kills,
    shown,
)

TRIALS = 14


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def urls(request: pytest.FixtureRequest, tmp_path: Path) -> list[str]:
    """Two ledgers: one for the search that nothing disturbs, one for the other."""
    if request.param == "postgres":
        return [request.getfixturevalue("postgres_database"), f"sqlite:///{tmp_path}/calm.db"]
    return [f"sqlite:///{tmp_path}/ledger.db", f"sqlite:///{tmp_path}/calm.db"]


def folders(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("stormy", "calm"):
        (tmp_path / name).mkdir()
    return tmp_path / "stormy", tmp_path / "calm"


@pytest.mark.slow
@pytest.mark.parametrize(("pruner", "seed"), [("none", 1), ("median", 2), ("successive_halving", 3), ("hyperband", 4)])
def test_a_sequential_search_killed_five_times_is_the_undisturbed_one(
    urls: list[str], tmp_path: Path, pruner: str, seed: int
) -> None:
    stormy, calm = folders(tmp_path)
    plan = plan_named("sequential", pruner=pruner)
    lead(urls[1], calm, plan, TRIALS)
    total = len(parts_done(calm))
    kills = [(at * total // (TRIALS * PARTS), who) for at, who in random_kills(seed, TRIALS)]

    killed = interrupted(urls[0], stormy, plan, TRIALS, kills=kills)

    assert killed == 5
    assert shown(urls[0], plan) == shown(urls[1], plan)
    done = parts_done(stormy)
    recomputed = (len(done) - len(set(done))) / PARTS
    assert set(done) == set(parts_done(calm))
    assert recomputed / killed < 1


@pytest.mark.slow
@pytest.mark.parametrize("parallel", [2, 3])
def test_results_of_a_parallel_search_do_not_depend_on_who_was_faster(
    urls: list[str], tmp_path: Path, parallel: int
) -> None:
    stormy, calm = folders(tmp_path)
    plan = plan_named("parallel", parallel=parallel, pruner="median")
    lead(urls[1], calm, plan, TRIALS, seconds=0.0)

    lead(urls[0], stormy, plan, TRIALS, slots=parallel, seconds=0.03, delays=True)

    assert shown(urls[0], plan) == shown(urls[1], plan)


@pytest.mark.slow
def test_a_parallel_search_that_is_killed_is_the_undisturbed_one(urls: list[str], tmp_path: Path) -> None:
    stormy, calm = folders(tmp_path)
    plan = plan_named("parallel and killed", parallel=2)
    lead(urls[1], calm, plan, TRIALS)

    kills = [(15, "leader"), (42, "worker"), (66, "leader"), (93, "worker"), (120, "leader")]
    assert interrupted(urls[0], stormy, plan, TRIALS, kills=kills, slots=2) == 5

    assert shown(urls[0], plan) == shown(urls[1], plan)
    done = parts_done(stormy)
    assert (len(done) - len(set(done))) / PARTS < 2 * 5  # a leader takes both trials of a round with it


@pytest.mark.slow
def test_more_trials_extend_a_search_as_if_it_had_been_longer_from_the_start(urls: list[str], tmp_path: Path) -> None:
    stormy, calm = folders(tmp_path)
    plan = plan_named("extended", parallel=3, pruner="median")
    lead(urls[1], calm, plan, TRIALS, seconds=0.0)

    for trials in (4, 7, TRIALS):
        lead(urls[0], stormy, plan, trials, seconds=0.0)
        assert shown(urls[0], plan) == shown(urls[1], plan)[:trials]
    assert len(parts_done(stormy)) == len(parts_done(calm))


def test_a_complete_search_is_not_run_again(urls: list[str], tmp_path: Path) -> None:
    stormy, _ = folders(tmp_path)
    plan = plan_named("complete")
    lead(urls[0], stormy, plan, 3, seconds=0.0)
    done = parts_done(stormy)

    lead(urls[0], stormy, plan, 3, seconds=0.0)
    lead(urls[0], stormy, plan, 2, seconds=0.0)

    assert parts_done(stormy) == done


def test_a_trial_whose_process_dies_again_and_again_fails_and_the_search_goes_on(urls: list[str]) -> None:
    plan = plan_named("deadly")

    def evaluate(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        if trial.number == 1:
            os.kill(os.getpid(), 9)
        return TrialResult(state="completed", value=float(trial.number))

    studies = SqlStudies(urls[0])
    search = Search(plan=plan, trials=4, slots=1, threads=1, time_limit=None, evaluate=evaluate)
    with studies.lead(plan) as study:
        found = run_search(studies, study, search)

    assert [trial.state for trial in found.trials] == ["completed", "failed", "completed", "completed"]
    dead = found.trials[1]
    assert dead.deaths == MAX_DEATHS
    assert dead.result is not None
    assert dead.result.reason == "its process was ended by SIGKILL, perhaps for lack of memory, for the 3rd time"
    assert found.best.number == 0


def test_a_search_of_which_more_than_half_fails_fails_with_the_reasons_and_begins_anew(urls: list[str]) -> None:
    plan = plan_named("failing")

    def evaluate(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        raise ValueError(f"C must be positive, got {-1 - trial.number // 2}")

    studies = SqlStudies(urls[0])
    search = Search(plan=plan, trials=6, slots=1, threads=1, time_limit=None, evaluate=evaluate)
    expected = r"failed: 4 of its 6 trials failed because of:\n  ValueError: C must be positive, got -1\n  .* got -2\n"
    for attempt in ("first", "second"):
        with studies.lead(plan) as study:
            forget_failure(study, attempt)
            assert study.trials() == []
            with pytest.raises(StudyError, match=expected):
                run_search(studies, study, search, attempt=attempt)
            with pytest.raises(StudyError, match=expected):  # a second worker of the attempt fails with it
                forget_failure(study, attempt)
            with pytest.raises(StudyError, match=expected):  # so does one of another attempt that helped
                forget_failure(study, "another", helped=True)
            with pytest.raises(StudyError, match=expected):
                run_search(studies, study, search, attempt="one that came to help")
            assert len(study.trials()) == 4


def test_no_round_begins_after_the_time_limit_also_of_a_later_process(urls: list[str]) -> None:
    plan = plan_named("hurried", parallel=2)

    def evaluate(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        time.sleep(0.3)
        return TrialResult(state="completed", value=float(trial.number))

    studies = SqlStudies(urls[0])
    search = Search(plan=plan, trials=50, slots=2, threads=1, time_limit=0.5, evaluate=evaluate)
    counts = []
    for _ in range(2):
        with studies.lead(plan) as study:
            found = run_search(studies, study, search)
        assert found.out_of_time
        counts.append(len(found.trials))

    assert counts[0] == counts[1]
    assert counts[0] in {2, 4}
    with studies.lead(plan) as study:
        longer = run_search(studies, study, replace(search, time_limit=None, trials=counts[0] + 1))
    assert not longer.out_of_time
    assert len(longer.trials) == counts[0] + 1


def test_the_time_of_a_resumed_round_counts(urls: list[str]) -> None:
    plan = plan_named("resumed and hurried")

    def evaluate(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        time.sleep(0.3)
        return TrialResult(state="completed", value=float(trial.number))

    studies = SqlStudies(urls[0])
    with studies.lead(plan) as study:
        study.add(propose(studies, plan, [], 1), claimed=1)  # whoever asked for it died
    search = Search(plan=plan, trials=50, slots=1, threads=1, time_limit=0.2, evaluate=evaluate)
    with studies.lead(plan) as study:
        found = run_search(studies, study, search)

    assert (len(found.trials), found.resumed, found.out_of_time) == (1, 1, True)


def test_a_database_that_is_away_for_a_moment_ends_no_trial(urls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    plan, asked = plan_named("away"), []

    def away() -> None:
        asked.append(True)
        raise LedgerError("Keeping the lead of a search failed: the server closed the connection")

    def evaluate(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        time.sleep(0.1)
        return TrialResult(state="completed", value=1.0)

    monkeypatch.setattr(evaluating, "KEEP_SECONDS", 0.02)
    studies = SqlStudies(urls[0])
    search = Search(plan=plan, trials=2, slots=1, threads=1, time_limit=None, evaluate=evaluate)
    with studies.lead(plan) as study:
        monkeypatch.setattr(study, "keep", away)
        found = run_search(studies, study, search)

    assert asked
    assert [trial.state for trial in found.trials] == ["completed", "completed"]


def test_a_trial_whose_store_does_not_answer_is_tried_again(urls: list[str], tmp_path: Path) -> None:
    plan = plan_named("unreliable")

    def evaluate(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        if not (tmp_path / "tried").exists():
            (tmp_path / "tried").touch()
            raise StoreError("the checkpoints cannot be read: no route to host")
        return TrialResult(state="completed", value=1.0)

    studies = SqlStudies(urls[0])
    search = Search(plan=plan, trials=1, slots=1, threads=1, time_limit=None, evaluate=evaluate)
    with studies.lead(plan) as study:
        found = run_search(studies, study, search)

    assert (found.best.deaths, found.best.state) == (1, "completed")


def test_folds_that_were_finished_are_not_evaluated_again(urls: list[str], tmp_path: Path) -> None:
    plan = plan_named("folded")

    def evaluate(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        for index in range(len(trial.folds), 3):
            with (tmp_path / "folds").open("a") as file:
                file.write(f"{index}\n")
            if index == 2 and trial.deaths == 0:
                os.kill(os.getpid(), 9)
            progress.fold(index, index / 3)
        return TrialResult(state="completed", value=1.0)

    studies = SqlStudies(urls[0])
    search = Search(plan=plan, trials=1, slots=1, threads=1, time_limit=None, evaluate=evaluate)
    with studies.lead(plan) as study:
        found = run_search(studies, study, search)

    assert found.best.folds == (0.0, 1 / 3, 2 / 3)
    assert (tmp_path / "folds").read_text().split() == ["0", "1", "2", "2"]
