"""Cost of a trial beside its training, against plain Optuna: `python -m tests.benchmarks.bench_search`.

The same objective, sampler and number of trials, once by `optuna.optimize` on Optuna's own storage, once by a search
as stages run it: rounds stored whole, a process for each trial, results told in order. Both write to SQLite; the
objective only computes a number, so that all time is overhead. Seconds are CPU and wall, of both the process and its
children. The same search is also shared by two workers, each with one trial at a time: their wall time is what they
wait for each other. Then a sequential search is killed five times and the work that was done twice is counted.

Optuna's storage is measured twice: as it is, and with the process for each trial that a crash-proof search needs
anyway.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_assets.interfaces import StudyPlan, Trial, TrialResult
from ml_assets.search.evaluating import Search
from ml_assets.search.helping import Helper
from ml_assets.search.leading import run_search
from ml_assets.search.processes import Progress
from ml_assets.search_space import is_active
from ml_assets.testing.studies_suite import objective, small_plan
from resources.studies import SqlStudies
from resources.studies.sampling import distribution, from_optuna, quiet_optuna
from tests.integration.search_world import PARTS, interrupted, parts_done, plan_named, random_kills

FORK = multiprocessing.get_context("fork")


def measured(function: Callable[[], Any], trials: int) -> tuple[float, float]:
    """Return (CPU, wall) milliseconds a trial."""
    before, started = _cpu(), time.perf_counter()
    function()
    return 1000 * (_cpu() - before) / trials, 1000 * (time.perf_counter() - started) / trials


def _cpu() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def by_optuna(url: str, plan: StudyPlan, trials: int, *, forked: bool) -> None:
    """Run the objective with nothing but Optuna."""
    import optuna

    def evaluate(trial: optuna.Trial) -> float:
        params: dict[str, Any] = {}
        for parameter in plan.space:
            if is_active(parameter, params):
                found = trial._suggest(parameter.name, distribution(parameter))
                params[parameter.name] = from_optuna(parameter, found)
        return _in_a_process(params) if forked else objective(params)

    sampler = optuna.samplers.TPESampler(seed=plan.seed)
    study = optuna.create_study(storage=url, sampler=sampler, direction=plan.direction)
    study.optimize(evaluate, n_trials=trials)


def _in_a_process(params: dict[str, Any]) -> float:
    reader, writer = FORK.Pipe(duplex=False)
    process = FORK.Process(target=lambda: writer.send(objective(params)))
    process.start()
    value = reader.recv()
    process.join()
    return value


def by_search(url: str, plan: StudyPlan, trials: int, *, slots: int | None = None) -> None:
    """Run the objective as a stage's search does, with whoever runs the same."""

    def evaluate(trial: Trial, known: Sequence[Trial], progress: Progress) -> TrialResult:
        return TrialResult(state="completed", value=objective(dict(trial.params)))

    studies = SqlStudies(url)
    search = Search(
        plan=plan, trials=trials, slots=slots or plan.parallel, threads=1, time_limit=None, evaluate=evaluate
    )
    with studies.lead(plan, Helper(search)) as study:
        run_search(studies, study, search)


def by_workers(url: str, plan: StudyPlan, trials: int) -> None:
    """Run the objective as a search with one worker for each trial of a round does."""
    arguments: dict[str, Any] = {"args": (url, plan, trials), "kwargs": {"slots": 1}}
    workers = [FORK.Process(target=by_search, **arguments) for _ in range(plan.parallel)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise SystemExit("a worker of the search failed")


def recomputed(folder: Path, trials: int, kills: int) -> float:
    """Return how many trials' worth of work was done twice for each kill of a sequential search."""
    (folder / "work").mkdir()
    plan = plan_named("bench")
    points = random_kills(7, trials, kills)
    killed = interrupted(f"sqlite:///{folder}/kills.db", folder / "work", plan, trials, kills=points)
    done = parts_done(folder / "work")
    return (len(done) - len(set(done))) / PARTS / killed


def main() -> None:
    """Print milliseconds a trial, the ratio, and the recomputed work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    quiet_optuna()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for number in range(2):  # the first time imports and makes the tables
            rows = {
                "optuna": measured(
                    lambda n=number: by_optuna(
                        f"sqlite:///{folder}/a{n}.db", small_plan(), options.trials, forked=False
                    ),
                    options.trials,
                ),
                "optuna, a process each": measured(
                    lambda n=number: by_optuna(
                        f"sqlite:///{folder}/b{n}.db", small_plan(), options.trials, forked=True
                    ),
                    options.trials,
                ),
                "search": measured(
                    lambda n=number: by_search(f"sqlite:///{folder}/c{n}.db", small_plan(), options.trials),
                    options.trials,
                ),
                "search, 2 at once": measured(
                    lambda n=number: by_search(f"sqlite:///{folder}/d{n}.db", small_plan(parallel=2), options.trials),
                    options.trials,
                ),
                "search, 2 workers": measured(
                    lambda n=number: by_workers(f"sqlite:///{folder}/e{n}.db", small_plan(parallel=2), options.trials),
                    options.trials,
                ),
            }
        for label, (cpu, wall) in rows.items():
            print(f"{label:24} {cpu:7.1f} ms CPU a trial   {wall:7.1f} ms wall")  # noqa: T201
        ratio = rows["search"][0] / rows["optuna"][0]
        like = rows["search"][0] / rows["optuna, a process each"][0]
        print(f"CPU ratio to plain Optuna: {ratio:.2f}; with a process for each trial: {like:.2f}")  # noqa: T201
        again = recomputed(folder, 14, options.kills)
        print(f"recomputed after {options.kills} kills: {again:.2f} trials a kill")  # noqa: T201


if __name__ == "__main__":
    main()
