"""Many workers share one study: nothing is done twice, any of them may die, and what is found is the same."""

import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from ml_assets.errors import LedgerError, StudyLostError
from ml_assets.interfaces import StudyPlan, Trial, TrialResult
from ml_assets.search.evaluating import ALONE_AFTER, MAX_FRUITLESS, Search
from ml_assets.search.helping import Helper
from ml_assets.search.leading import run_search
from ml_assets.search.processes import Progress
from ml_assets.search.trials import propose
from resources.studies import SqlStudies, leases, sql_desk
from resources.studies.leases import Holder
from resources.studies.sql_desk import SqlDesk
from resources.studies.sql_study import SqlStudy
from tests.integration.launched_runs import wait_until
from tests.integration.search_world import FORK, PARTS, Work, WorkLog, lead, parts_done, plan_named, shown
from tests.integration.test_search_crash import folders, urls

__all__ = ["urls"]

TRIALS = 12
TIME_LIMIT_SECONDS = 500


def take_part(url: str, folder: Path, plan: StudyPlan, *, slots: int = 1, seconds: float = 0.02) -> None:
    """Search with whoever searches the same, and leave behind how many trials this process evaluated."""
    studies = SqlStudies(url)
    evaluate = Work(folder=folder, studies=studies, plan=plan, seconds=seconds)
    search = Search(plan=plan, trials=TRIALS, slots=slots, threads=1, time_limit=None, evaluate=evaluate)
    helper = Helper(search)
    with studies.lead(plan, helper) as study:
        run_search(studies, study, search)
    (folder / f"helped-{os.getpid()}").write_text(str(helper.evaluated))


def at_once(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
    return TrialResult(state="completed", value=float(trial.number))


def begin(count: int, *args: Any, **kwargs: Any) -> list[Any]:
    workers = [FORK.Process(target=take_part, args=args, kwargs=kwargs) for _ in range(count)]
    for worker in workers:
        worker.start()
    return workers


def end(workers: Sequence[Any]) -> None:
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    try:
        for worker in workers:
            worker.join(max(0.0, deadline - time.monotonic()))
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


@pytest.mark.slow
@pytest.mark.parametrize(("parallel", "count"), [(3, 3), (4, 2)])
def test_workers_share_a_study_and_find_what_one_finds(
    urls: list[str], tmp_path: Path, parallel: int, count: int
) -> None:
    shared, calm = folders(tmp_path)
    plan = plan_named("shared", parallel=parallel, pruner="median")
    lead(urls[1], calm, plan, TRIALS, seconds=0.0)

    # A trial takes longer than a helper that found nothing pauses, so that each round has some for it.
    workers = begin(count, urls[0], shared, plan, seconds=0.1)
    end(workers)

    assert [worker.exitcode for worker in workers] == [0] * count
    assert shown(urls[0], plan) == shown(urls[1], plan)
    assert sorted(parts_done(shared)) == sorted(parts_done(calm))  # each part once
    helped = [int(file.read_text()) for file in shared.glob("helped-*")]
    assert len(helped) == count
    assert sum(helped) >= TRIALS // parallel  # at least one trial of a round was not the leader's


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_workers_that_are_killed_and_replaced_change_nothing(urls: list[str], tmp_path: Path, seed: int) -> None:
    stormy, calm = folders(tmp_path)
    plan = plan_named("shared and killed", parallel=3)
    lead(urls[1], calm, plan, TRIALS)
    drawn = random.Random(seed)  # noqa: S311 - who and when, no secrets

    workers = begin(3, urls[0], stormy, plan, seconds=0.1)
    kills = sorted(drawn.sample(range(5, TRIALS * PARTS // 2), 5))  # whoever is killed has work before it
    deadline = time.monotonic() + TIME_LIMIT_SECONDS
    try:
        while kills:
            assert time.monotonic() < deadline, "the search did not get on"
            if len(parts_done(stormy)) >= kills[0]:
                victim = drawn.choice([worker for worker in workers if worker.is_alive()])
                os.kill(victim.pid, signal.SIGKILL)
                workers += begin(1, urls[0], stormy, plan)
                kills.pop(0)
            time.sleep(0.005)
    finally:
        end(workers)

    assert sorted(worker.exitcode for worker in workers) == [-signal.SIGKILL] * 5 + [0] * 3
    assert shown(urls[0], plan) == shown(urls[1], plan)
    done = parts_done(stormy)
    assert set(done) == set(parts_done(calm))
    assert (len(done) - len(set(done))) / PARTS < 5  # less than one trial a kill


def test_a_worker_that_was_silent_for_too_long_hands_nothing_in(
    urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, studies = plan_named("silent"), SqlStudies(urls[0])
    with studies.lead(plan) as study:
        study.add([Trial(number=0, params={})])
        monkeypatch.setattr(leases, "LEASE", timedelta(seconds=-1))  # as if it were long ago
        silent = SqlDesk(studies._tables, plan, Holder.of_this_process())
        assert silent.claim() is not None
        monkeypatch.undo()
        taken = study.claim()
        assert taken is not None
        assert (taken.number, taken.resumes, taken.fruitless) == (0, 1, 1)
        with pytest.raises(StudyLostError, match="trial 0 is not its own any more"):
            silent.record(0, TrialResult(state="completed", value=1.0))
        study.record(0, TrialResult(state="completed", value=2.0))
        (kept,) = study.trials()
        assert kept.result == TrialResult(state="completed", value=2.0)


def test_a_leader_waits_for_what_others_evaluate_and_takes_over_when_they_have_gone(urls: list[str]) -> None:
    plan, studies = plan_named("gone", parallel=2), SqlStudies(urls[0])
    claimed = FORK.Event()
    helped: list[int] = []

    def helper() -> None:  # takes a trial of the first round, never hands it in, and goes after a second
        desk = SqlDesk(studies._tables, plan, Holder.of_this_process())
        while (trial := desk.claim()) is None:
            time.sleep(0.01)
        helped.append(trial.number)
        claimed.set()
        time.sleep(1.0)
        desk.leave()

    def evaluate(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        claimed.wait(300)  # or the leader would be through with the round before the helper came
        return at_once(trial, known, progress)

    search = Search(plan=plan, trials=4, slots=1, threads=1, time_limit=None, evaluate=evaluate)
    thread = threading.Thread(target=helper, daemon=True)
    with studies.lead(plan) as study:
        thread.start()
        found = run_search(studies, study, search)
    thread.join(120)

    assert [trial.resumes for trial in found.trials].count(1) == len(helped) == found.resumed == 1
    assert [trial.state for trial in found.trials] == ["completed"] * 4


def test_a_helper_that_lost_one_of_its_trials_goes_on_with_the_others(
    urls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, studies = plan_named("one of two", parallel=3), SqlStudies(urls[0])
    hand_in, lost = SqlDesk.record, []

    def record(desk: SqlDesk, number: int, result: TrialResult) -> None:
        if type(desk) is SqlDesk and not lost:  # the leader is more than that
            lost.append(number)
            raise StudyLostError("it was silent for too long")
        hand_in(desk, number, result)

    def helps(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        (tmp_path / f"helps-{trial.number}").touch()
        time.sleep(0.5)
        return at_once(trial, known, progress)

    def leads(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        wait_until(lambda: len(list(tmp_path.glob("helps-*"))) >= 2, "the helper's two trials", seconds=40)
        return at_once(trial, known, progress)

    monkeypatch.setattr(SqlDesk, "record", record)
    search = Search(plan=plan, trials=3, slots=2, threads=1, time_limit=None, evaluate=helps)

    def help_and_lead() -> None:
        with SqlStudies(urls[0]).lead(plan, Helper(search)) as study:
            run_search(studies, study, search)

    thread = threading.Thread(target=help_and_lead, daemon=True)
    with studies.lead(plan) as study:
        thread.start()
        found = run_search(studies, study, replace(search, slots=1, evaluate=leads))
    thread.join(120)

    assert lost
    assert not thread.is_alive()
    assert [trial.state for trial in found.trials] == ["completed"] * 3


def test_a_result_that_comes_after_the_leader_had_one_is_lost_and_says_so(
    urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, studies = plan_named("late"), SqlStudies(urls[0])
    with studies.lead(plan) as study:
        study.add([Trial(number=0, params={})], claimed=1)
        late = SqlDesk(studies._tables, plan, Holder.of_this_process())
        monkeypatch.setattr(sql_desk, "is_free", lambda *_: True)  # as if the leader had been silent
        assert late.claim() is not None
        monkeypatch.undo()
        study.tell({0: TrialResult(state="completed", value=1.0)})
        with pytest.raises(StudyLostError, match="trial 0 is not its own any more"):
            late.record(0, TrialResult(state="completed", value=2.0))


def test_fewer_trials_than_an_earlier_leader_had_begun(urls: list[str]) -> None:
    plan, studies = plan_named("fewer", parallel=4), SqlStudies(urls[0])
    with studies.lead(plan) as study:
        study.add(propose(studies, plan, [], 4), claimed=4)  # whoever asked for them died
    search = Search(plan=plan, trials=2, slots=4, threads=1, time_limit=None, evaluate=at_once)
    with studies.lead(plan) as study:
        fewer = run_search(studies, study, search)
        assert [trial.resumes for trial in study.trials()] == [1, 1, 0, 0]
    with studies.lead(plan) as study:
        all_of_them = run_search(studies, study, replace(search, trials=4))

    assert [trial.state for trial in fewer.trials] == ["completed"] * 2
    assert [trial.state for trial in all_of_them.trials] == ["completed"] * 4
    assert (all_of_them.kept, all_of_them.resumed) == (2, 2)


@pytest.mark.parametrize("asked", ["claim", "running", "_take"])
def test_a_database_that_is_away_while_workers_ask_ends_no_search(
    urls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str
) -> None:
    plan, studies = plan_named("shared and away", parallel=3), SqlStudies(urls[0])
    owner: Any = {"claim": SqlDesk, "running": SqlStudy, "_take": SqlStudies}[asked]
    ask, away = getattr(owner, asked), []

    def often_away(*args: Any, **kwargs: Any) -> Any:
        answer = ask(*args, **kwargs)  # committed, but nobody hears of it
        if threading.current_thread() is not threading.main_thread() or asked != "_take":
            away.append(asked)
            if len(away) % 3 == 2:
                if asked == "claim" and answer is not None:
                    args[0]._mine.discard(answer.number)  # it is kept after the commit
                raise LedgerError("the server closed the connection")
        return answer

    def helps(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        (tmp_path / f"helps-in-round-{trial.number // 3}").touch()
        time.sleep(0.4)
        return at_once(trial, known, progress)

    def leads(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        wait_until((tmp_path / f"helps-in-round-{trial.number // 3}").exists, "a helper", seconds=60)
        return at_once(trial, known, progress)

    monkeypatch.setattr(owner, asked, often_away)
    search = Search(plan=plan, trials=6, slots=1, threads=1, time_limit=None, evaluate=helps)
    ends: list[int] = []

    def help_and_lead() -> None:
        with SqlStudies(urls[0]).lead(plan, Helper(search)) as study:
            ends.append(len(run_search(studies, study, search).trials))

    thread = threading.Thread(target=help_and_lead, daemon=True)
    with studies.lead(plan) as study:
        thread.start()
        found = run_search(studies, study, replace(search, evaluate=leads))
    thread.join(120)

    assert len(away) >= 2
    assert ends == [6]
    assert [trial.state for trial in found.trials] == ["completed"] * 6


@pytest.mark.slow
def test_a_trial_that_takes_its_whole_worker_down_is_tried_alone_and_then_fails(
    urls: list[str], tmp_path: Path
) -> None:
    plan, studies = plan_named("deadly to all", parallel=2), SqlStudies(urls[0])
    notes = WorkLog(tmp_path)

    def evaluate(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        notes.note(f"{trial.number} begins")
        if trial.number == 1:
            beside = min(trial.fruitless + 1, ALONE_AFTER)  # as often its neighbour has begun, this time too
            wait_until(lambda: notes.lines().count("0 begins") >= beside, "its neighbour", seconds=50)
            time.sleep(0.1)
            os.kill(os.getppid(), signal.SIGKILL)  # as when the kernel ends all of a pod
        if trial.number == 0 and trial.fruitless < ALONE_AFTER:
            time.sleep(50)  # its neighbour comes before
        time.sleep(0.5)
        notes.note(f"{trial.number} ends")
        return at_once(trial, known, progress)

    search = Search(plan=plan, trials=4, slots=2, threads=1, time_limit=None, evaluate=evaluate)

    def run() -> None:
        with studies.lead(plan, Helper(search)) as study:
            run_search(studies, study, search)

    codes = []
    while not codes or codes[-1] != 0:
        assert len(codes) <= MAX_FRUITLESS, "the trial is tried for ever"
        process = FORK.Process(target=run)
        process.start()
        process.join(300)
        codes.append(process.exitcode)

    assert codes == [-signal.SIGKILL] * MAX_FRUITLESS + [0]
    with studies.lead(plan) as study:
        trials = study.trials()
    assert [trial.state for trial in trials] == ["completed", "failed", "completed", "completed"]
    dead = trials[1].result
    assert dead is not None
    assert "was gone 6 times in a row before it got any further, at last while it was evaluated alone" in dead.reason
    # Its neighbour suffered as long as it ran beside it, and was done as soon as it ran alone.
    assert trials[0].resumes == ALONE_AFTER
    assert notes.lines().count("0 ends") == 1


def test_a_trial_that_has_got_on_is_not_alone_any_more(urls: list[str], tmp_path: Path) -> None:
    plan, studies = plan_named("got on", parallel=2), SqlStudies(urls[0])
    with studies.lead(plan) as study:
        study.add(propose(studies, plan, [], 2))
    for _ in range(ALONE_AFTER + 1):  # who takes it dies
        with studies.lead(plan) as study:
            assert study.claim(below=1) is not None

    def evaluate(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        (tmp_path / f"begins-{trial.number}").touch()
        if trial.number == 0:
            progress.resumed(0, 5)
        deadline = time.monotonic() + 20
        while not (tmp_path / f"begins-{1 - trial.number}").exists():
            if time.monotonic() > deadline:
                raise ValueError("it was alone until the end")
            time.sleep(0.01)
        return TrialResult(state="completed", value=1.0)

    search = Search(plan=plan, trials=2, slots=2, threads=1, time_limit=None, evaluate=evaluate)
    with studies.lead(plan) as study:
        found = run_search(studies, study, search)

    assert [trial.state for trial in found.trials] == ["completed", "completed"]


def test_what_was_told_is_read_once_and_a_study_that_began_anew_is_noticed(
    urls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from optuna.storages import RDBStorage

    plan, studies = plan_named("read once", parallel=2), SqlStudies(urls[0])
    read, counts = RDBStorage._get_trials, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        found = read(*args, **kwargs)
        counts.append(len(found))
        return found

    with studies.lead(plan) as study:
        desk = SqlDesk(studies._tables, plan, Holder.of_this_process())
        for first in (0, 2):
            study.add([Trial(number=first, params={}), Trial(number=first + 1, params={})], claimed=2)
            study.tell({first: TrialResult(state="completed", value=1.0)})
            assert [trial.state for trial in desk.trials()][first:] == ["completed", "running"]
            study.tell({first + 1: TrialResult(state="completed", value=2.0)})
        monkeypatch.setattr(RDBStorage, "_get_trials", counted)
        assert desk.trials() == desk.trials() == study.trials()
        assert counts == [1, 0, 4]  # the leader has read none before
        study.restart()
        assert desk.trials() == study.trials() == []
        study.add([Trial(number=0, params={})])
        assert [trial.state for trial in desk.trials()] == ["running"]


def test_one_process_at_a_time_is_inside_and_a_dead_one_keeps_nobody_out(urls: list[str], tmp_path: Path) -> None:
    plan, studies = plan_named("inside"), SqlStudies(urls[0])

    def stay(name: str, seconds: float) -> None:
        with studies.one_at_a_time(plan), (tmp_path / "log").open("a") as file:
            file.write(f"{name} in\n")
            file.flush()
            time.sleep(seconds)
            file.write(f"{name} out\n")

    both = [FORK.Process(target=stay, args=(name, 0.3)) for name in ("a", "b")]
    for process in both:
        process.start()
    end(both)
    log = (tmp_path / "log").read_text().split("\n")[:-1]
    assert log in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])

    (tmp_path / "log").unlink()
    dies = FORK.Process(target=stay, args=("dies", 60.0))
    dies.start()
    deadline = time.monotonic() + 20
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    dies.kill()
    dies.join()
    stay("next", 0.0)
    assert (tmp_path / "log").read_text().split("\n")[1:-1] == ["next in", "next out"]
