"""What every `Studies` does: a subclass provides the fixture `studies`, empty for each test."""
# ruff: noqa: D102 - the names of the tests are the sentences

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ml_assets.errors import StudyError, StudyLostError
from ml_assets.interfaces import Parameter, Studies, Study, StudyPlan, Trial, TrialResult
from ml_assets.search_space import count_of, is_active, same, value_at

SPACE = (
    Parameter(name="estimator.learning_rate", kind="float", low=0.01, high=1.0, log=True),
    Parameter(name="estimator.leaves", kind="int", low=7, high=63, step=4),
    Parameter(name="estimator.depth", kind="choice", choices=(None, True, 1, "1", [4, 8])),
    Parameter(name="estimator.l2", kind="float", low=0.0, high=1.0, step=0.1, when={"estimator.depth": (1, [4, 8])}),
    Parameter(name="estimator.trees", kind="int", low=1, high=1000, log=True),
)


def small_plan(**changes: Any) -> StudyPlan:
    """Return a plan over every kind of parameter; `changes` replace its fields."""
    plan = StudyPlan(name="ab" * 32, title="shop/returns forest [2024-02]", space=SPACE, direction="minimize", seed=7)
    return replace(plan, **changes)


def objective(params: dict[str, Any]) -> float:
    """Return a value that depends on every parameter."""
    depth = {"None": 0.3, "True": 0.2, "1": 0.1, "[4, 8]": 0.0}[str(params["estimator.depth"])]
    rate = (params["estimator.learning_rate"] - 0.1) ** 2
    return (
        rate
        + depth
        + params["estimator.leaves"] / 100
        + params.get("estimator.l2", 0.5)
        + params["estimator.trees"] / 1e4
    )


def played(studies: Studies, plan: StudyPlan, count: int, steps: int = 9) -> list[Trial]:
    """Return the trials of a study that nothing stores, each reporting on its way."""
    trials: list[Trial] = []
    for number in range(count):
        params = studies.suggest(plan, number, trials)
        trial = Trial(number=number, params=params)
        pruning, reports = studies.pruning(plan, trial, trials), {}
        state = "completed"
        for step in range(1, steps + 1):
            reports[step] = objective(params) * (1 + 1 / step)
            if pruning.report(step, reports[step]) and step < steps:
                state = "pruned"
                break
        result = TrialResult(state=state, value=reports[max(reports)], reports=reports, marks=pruning.marks())
        trials.append(replace(trial, state=state, result=result))
    return trials


class StudiesSuite:
    """Inherit with a fixture `studies`."""

    def test_what_is_stored_comes_back_to_the_next_leader(self, studies: Studies) -> None:
        plan = small_plan()
        params = [studies.suggest(plan, 0, []), {"estimator.depth": [4, 8], "estimator.l2": 0.3}]
        pruned = TrialResult(state="pruned", value=0.7, reports={1: 0.9, 3: 0.7}, marks={"rung": 0.7}, seconds=1.5)
        with studies.lead(plan) as study:
            assert study.trials() == []
            study.add([Trial(number=number, params=each) for number, each in enumerate(params)], claimed=1)
            assert study.claim() == Trial(number=1, params=params[1])
            assert study.claim() is None
            study.fold(0, 0, 0.1)
            study.fold(0, 1, 1 / 3)
            assert [study.died(1), study.died(1)] == [1, 2]
            study.record(1, pruned)
        with studies.lead(plan) as study:
            first, second = study.trials()
            assert first == Trial(number=0, params=params[0], folds=(0.1, 1 / 3))
            assert second == Trial(number=1, params=params[1], result=pruned, deaths=2)
            resumed = study.claim()
            assert resumed == replace(first, resumes=1, fruitless=1)
            assert study.claim() is None
            assert study.running() == [resumed, second]
            completed = TrialResult(state="completed", value=0.2, reports={}, seconds=0.1)
            study.tell({0: completed, 1: pruned})
            study.add([Trial(number=2, params=params[1])])
            failed = TrialResult(state="failed", reason="ValueError: no")
            study.tell({2: failed})
        with studies.lead(plan) as study:
            assert [trial.state for trial in study.trials()] == ["completed", "pruned", "failed"]
            assert [trial.result for trial in study.trials()] == [completed, pruned, failed]

    def test_a_resume_is_fruitless_until_the_trial_gets_further_than_ever(self, studies: Studies) -> None:
        plan = small_plan()
        with studies.lead(plan) as study:
            study.add([Trial(number=0, params={})], claimed=1)

        def resumed(tell: Callable[[Study], object] = lambda _: None) -> Trial:
            with studies.lead(plan) as study:
                trial = study.claim()
                assert trial is not None
                tell(study)
            return trial

        assert [resumed().fruitless for _ in range(2)] == [1, 2]
        assert [resumed(lambda study: study.advanced(0, 0, 3)).fruitless for _ in range(3)] == [3, 1, 2]
        assert [resumed(lambda study: study.advanced(0, 0, 4)).fruitless for _ in range(2)] == [3, 1]
        assert [resumed(lambda study: study.fold(0, 0, 0.5)).fruitless for _ in range(3)] == [2, 1, 1]
        assert resumed().resumes == 11

    def test_who_goes_on_from_a_step_is_told_whether_that_is_further_than_ever(self, studies: Studies) -> None:
        with studies.lead(small_plan()) as study:
            study.add([Trial(number=0, params={})], claimed=1)
            assert [study.advanced(0, *at) for at in ((0, 3), (0, 3), (0, 2), (1, 1))] == [True, False, False, True]

    def test_a_block_of_one_at_a_time_may_be_entered_again_and_needs_no_lead(self, studies: Studies) -> None:
        plan = small_plan()
        with studies.lead(plan), studies.one_at_a_time(plan):
            pass
        with studies.one_at_a_time(plan):
            pass

    def test_notes_are_kept_and_replaced(self, studies: Studies) -> None:
        with studies.lead(small_plan()) as study:
            assert study.facts() == {}
            for seconds in (1.5, 2.5):
                study.note("seconds", seconds)
            study.note("run_id", {"a": [1, None]})
        with studies.lead(small_plan()) as study:
            assert study.facts() == {"seconds": 2.5, "run_id": {"a": [1, None]}}

    def test_studies_are_apart(self, studies: Studies) -> None:
        with studies.lead(small_plan()) as study, studies.lead(small_plan(name="cd" * 32)) as other:
            study.add([Trial(number=0, params={"estimator.leaves": 7})])
            study.note("x", 1)
            assert other.trials() == []
            assert other.facts() == {}

    def test_trials_whose_numbers_do_not_follow_are_refused_all(self, studies: Studies) -> None:
        with studies.lead(small_plan()) as study:
            with pytest.raises(StudyError, match="trial 2 would become number 1"):
                study.add([Trial(number=0, params={}), Trial(number=2, params={})])
            assert study.trials() == []

    def test_restart_forgets_trials_and_notes_and_goes_on(self, studies: Studies) -> None:
        with studies.lead(small_plan()) as study:
            study.add([Trial(number=0, params={"estimator.leaves": 7})])
            study.note("failed", "all")
            study.restart()
            assert study.trials() == []
            assert study.facts() == {}
            study.add([Trial(number=0, params={"estimator.leaves": 11})])
        with studies.lead(small_plan()) as study:
            assert [trial.params for trial in study.trials()] == [{"estimator.leaves": 11}]

    def test_who_does_not_lead_any_more_writes_nothing(self, studies: Studies) -> None:
        with studies.lead(small_plan()) as study:
            study.add([Trial(number=0, params={})])
        with pytest.raises(StudyLostError):
            study.tell({0: TrialResult(state="completed", value=0.1)})
        with pytest.raises(StudyLostError):
            study.keep()
        with studies.lead(small_plan()) as study:
            assert [trial.state for trial in study.trials()] == ["running"]

    @pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
    def test_suggestions_lie_in_the_space_and_conditions_hold(self, studies: Studies, sampler: str) -> None:
        for trial in played(studies, small_plan(sampler=sampler), 24):
            expected = [p.name for p in SPACE if is_active(p, trial.params)]
            assert list(trial.params) == expected
            for parameter in SPACE:
                if parameter.name in trial.params:
                    value, count = trial.params[parameter.name], count_of(parameter)
                    if count is None:
                        assert parameter.low <= value <= parameter.high
                    else:
                        assert any(same(value, value_at(parameter, index)) for index in range(count)), parameter
                        assert parameter.kind != "int" or type(value) is int

    @pytest.mark.parametrize("pruner", ["none", "median", "percentile", "successive_halving", "hyperband"])
    @pytest.mark.parametrize("sampler", ["tpe", "random", "qmc"])
    def test_the_same_history_gives_the_same_trials(self, studies: Studies, sampler: str, pruner: str) -> None:
        plan = small_plan(sampler=sampler, pruner=pruner)
        once = played(studies, plan, 16)
        assert once == played(studies, plan, 16)
        assert once[:9] == played(studies, plan, 9)
        assert [t.params for t in once] != [t.params for t in played(studies, replace(plan, seed=8), 16)]

    def test_importance_is_in_shares_of_one(self, studies: Studies) -> None:
        shares = studies.importance(small_plan(), played(studies, small_plan(), 20))
        assert set(shares) <= {parameter.name for parameter in SPACE}
        assert sum(shares.values()) == pytest.approx(1.0, abs=1e-4)
        assert studies.importance(small_plan(), []) == {}
