"""What to try next and whether to go on, by Optuna in memory: pure functions of a plan, a trial and those before it.

Optuna's samplers and pruners are made anew for every question, with a seed of the study's seed and the trial's
number, over a study that is built from the trials they may know. So their state needs no storing: it follows from
the stored trials, whichever process asks and however often it was killed.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml_assets.interfaces import Parameter, StudyPlan, Trial
from ml_assets.interfaces import TrialState as State
from ml_assets.search_space import from_cube, is_active

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

LEAST_TRIALS = 4
"""Completed trials from which on the importance of parameters can be told."""

STATES: dict[State, str] = {"running": "RUNNING", "completed": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
"""Optuna's word for each state."""

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC).replace(tzinfo=None)  # Optuna's times are without a zone


def suggest(plan: StudyPlan, number: int, history: Sequence[Trial]) -> dict[str, Any]:
    """Return the parameters of a trial; see `Studies.suggest`."""
    if plan.sampler == "qmc":
        return _sobol(plan, number)
    study = _study(plan, number, history)
    asked = study.ask()
    params: dict[str, Any] = {}
    for parameter in plan.space:
        if is_active(parameter, params):
            # What is private here is public as suggest_float and its like, which take a distribution apart.
            found = asked._suggest(parameter.name, distribution(parameter))  # noqa: SLF001
            params[parameter.name] = from_optuna(parameter, found)
    return params


class OptunaPruning:
    """One running trial and the pruner that watches it; implements `PrunedTrial`."""

    def __init__(self, plan: StudyPlan, trial: Trial, history: Sequence[Trial]) -> None:
        import optuna

        study = _study(plan, trial.number, history)
        self._storage = study._storage  # noqa: SLF001 - the public interface adds no running trials
        self._id = self._storage.create_new_trial(study._study_id, frozen_trial(plan, trial))  # noqa: SLF001
        self._trial = optuna.Trial(study, self._id)
        self._before = set(self._storage.get_trial_system_attrs(self._id))

    def report(self, step: int, value: float) -> bool:
        """Take a value on the way and say whether to end the trial."""
        self._trial.report(value, step)
        return self._trial.should_prune()

    def marks(self) -> dict[str, float]:
        """Return what successive halving keeps of a trial: its value at each rung."""
        found = self._storage.get_trial_system_attrs(self._id)
        return {name: float(value) for name, value in found.items() if name not in self._before}


def importance(plan: StudyPlan, trials: Sequence[Trial]) -> dict[str, float]:
    """Return shares by PED-ANOVA (Watanabe and others, 2023), which draws no random numbers; see `Studies`."""
    import optuna

    completed = [trial for trial in trials if trial.state == "completed"]
    varied = {
        name for name in (p.name for p in plan.space) if len({json.dumps(t.params.get(name)) for t in completed}) > 1
    }
    if len(completed) < LEAST_TRIALS or not varied:
        return {}
    study = _study(plan, len(trials), completed)
    with warnings.catch_warnings():
        # Values that are all equal, and parameters of a single trial: the shares say as much.
        warnings.simplefilter("ignore", UserWarning)
        found = optuna.importance.get_param_importances(study)
    return {name: round(float(share), 6) for name, share in found.items()}


def distribution(parameter: Parameter) -> "BaseDistribution":
    """Return Optuna's form of a parameter. Choices are JSON texts: Optuna takes true for 1, and no lists."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if parameter.kind == "choice":
        return CategoricalDistribution([_label(value) for value in parameter.choices])
    if parameter.kind == "int":
        step = int(parameter.step or 1)
        return IntDistribution(int(parameter.low), int(parameter.high), log=parameter.log, step=step)
    return FloatDistribution(float(parameter.low), float(parameter.high), log=parameter.log, step=parameter.step)


def to_optuna(parameter: Parameter, value: Any) -> Any:
    """Return a value as Optuna keeps it."""
    return _label(value) if parameter.kind == "choice" else value


def from_optuna(parameter: Parameter, value: Any) -> Any:
    """Return a value as it is handed to estimators."""
    if parameter.kind == "choice":
        return json.loads(value)
    return int(value) if parameter.kind == "int" else float(f"{value:.12g}") if parameter.step else float(value)


def frozen_trial(plan: StudyPlan, trial: Trial) -> "FrozenTrial":
    """Return Optuna's form of a trial with all that samplers and pruners look at."""
    from optuna.trial import FrozenTrial, TrialState

    state = TrialState[STATES[trial.state]]
    result = trial.result if trial.state != "running" else None
    space = {parameter.name: parameter for parameter in plan.space}
    return FrozenTrial(
        number=trial.number,
        state=state,
        value=None if result is None else result.value,
        datetime_start=_EPOCH,
        datetime_complete=_EPOCH if state.is_finished() else None,
        params={name: to_optuna(space[name], value) for name, value in trial.params.items()},
        distributions={name: distribution(space[name]) for name in trial.params},
        user_attrs={},
        system_attrs={} if result is None else dict(result.marks),
        intermediate_values={} if result is None else dict(result.reports),
        trial_id=trial.number,
    )


def derived_seed(*parts: object) -> int:
    """Return a seed of 32 bits that depends on all the parts."""
    text = "/".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")


def quiet_optuna() -> None:
    """Have Optuna say only what is wrong."""
    import optuna

    optuna.logging.set_verbosity(logging.ERROR)


def _study(plan: StudyPlan, number: int, history: Sequence[Trial]) -> "optuna.Study":
    """Return a study in memory with what a trial's sampler and pruner may know."""
    import optuna

    quiet_optuna()
    seed = derived_seed(plan.seed, number)
    sampler = {
        "tpe": lambda: optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }.get(plan.sampler, optuna.samplers.RandomSampler)()
    study = optuna.create_study(
        study_name=plan.name, direction=plan.direction, sampler=sampler, pruner=_pruner(plan.pruner)
    )
    for trial in history:
        study._storage.create_new_trial(study._study_id, frozen_trial(plan, trial))  # noqa: SLF001 - running ones too
    return study


def _pruner(name: str) -> "optuna.pruners.BasePruner":
    import optuna

    return {
        "none": optuna.pruners.NopPruner,
        "median": optuna.pruners.MedianPruner,
        "percentile": lambda: optuna.pruners.PercentilePruner(25.0),
        "successive_halving": optuna.pruners.SuccessiveHalvingPruner,
        "hyperband": optuna.pruners.HyperbandPruner,
    }[name]()


def _sobol(plan: StudyPlan, number: int) -> dict[str, Any]:
    """Return a point of a scrambled Sobol sequence; Optuna's own sampler of it takes no conditions."""
    from scipy.stats import qmc

    engine = qmc.Sobol(len(plan.space), scramble=True, rng=derived_seed(plan.seed, "sobol"))
    if number:
        engine.fast_forward(number)
    return from_cube(plan.space, engine.random(1)[0].tolist())


def _label(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
