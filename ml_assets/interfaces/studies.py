"""What is asked of studies: the record of a hyperparameter search that survives every crash, and what to try next."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

TrialState = Literal["running", "completed", "pruned", "failed"]
Direction = Literal["minimize", "maximize"]


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One dimension of a search space.

    Attributes:
        name: Such as estimator.learning_rate.
        kind: "float" and "int" have a range, "choice" has choices.
        low: Lowest value of a range.
        high: Highest value, on the grid of `step` when there is one.
        step: Distance of neighbouring values; None for every number.
        log: Whether equal ratios count alike.
        choices: Plain JSON values.
        when: Parameters declared earlier, with the values for which this one is searched; all must hold.
    """

    name: str
    kind: Literal["float", "int", "choice"]
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """Everything that decides which parameters a study tries; equal plans are the same study.

    Attributes:
        name: Digest of all that decides its content, 64 hexadecimal digits.
        title: For people, such as "flights/arrival_delay forest [2013-02]".
        space: What is varied, in declared order.
        direction: Whether smaller or larger values are better.
        sampler: "tpe", "random", "grid" or "qmc".
        pruner: "none", "median", "percentile", "successive_halving" or "hyperband".
        seed: Of everything random in it.
        parallel: Trials of a round; the sampler knows the results of earlier rounds only.
    """

    name: str
    title: str
    space: tuple[Parameter, ...]
    direction: Direction
    sampler: str = "tpe"
    pruner: str = "none"
    seed: int = 0
    parallel: int = 1


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """How the evaluation of a trial ended.

    Attributes:
        state: "completed", "pruned" or "failed".
        value: The metric; of a pruned trial its last report; None for a failed one.
        reports: Step → value on the way.
        marks: What the pruner keeps of the trial for later ones.
        reason: Why it failed.
        seconds: Wall time of the process that ended it.
    """

    state: TrialState
    value: float | None = None
    reports: Mapping[int, float] = field(default_factory=dict)
    marks: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One set of parameters, and what is known of it.

    Attributes:
        number: From 0, in the order of asking.
        params: Parameter → value; those whose condition does not hold are absent.
        state: "running" until it was told.
        result: As the process gave it; also before it was told, and None while there is none.
        folds: Metric of each inner fold that is finished.
        deaths: How often its process died.
        resumes: How often another process went on with it because the one that evaluated it had gone.
        fruitless: How many of these resumes came one after the other without the trial getting any further.
    """

    number: int
    params: Mapping[str, Any]
    state: TrialState = "running"
    result: TrialResult | None = None
    folds: tuple[float, ...] = ()
    deaths: int = 0
    resumes: int = 0
    fruitless: int = 0


class TrialDesk(Protocol):
    """Where a process that evaluates trials of a study takes them from, and hands in what became of them.

    Whoever claimed a trial is the only one to write to it, until it is finished or its claimant is gone. A method
    raises StudyLostError when somebody else has taken over what it writes to.
    """

    def trials(self) -> list[Trial]:
        """Return all trials, in order of number."""
        ...

    def claim(self, *, below: int | None = None) -> Trial | None:
        """Take the first running trial that nobody evaluates, and has no result; None when there is none now.

        One whose claimant has gone counts as resumed: with its finished folds, and one fruitless resume more. One that
        an earlier desk of this very process had claimed is taken without that.

        Args:
            below: Only a trial with a smaller number; any when absent.
        """
        ...

    def fold(self, number: int, index: int, value: float) -> None:
        """Keep the metric of a claimed trial's finished fold; the folds before it are there."""
        ...

    def advanced(self, number: int, fold: int, step: int) -> bool:
        """Keep from which step of a fold a claimed trial goes on.

        Returns:
            Whether that is further than ever: nothing was fruitless then.
        """
        ...

    def died(self, number: int) -> int:
        """Count one more death of a claimed trial's process, and return how many there were."""
        ...

    def record(self, number: int, result: TrialResult) -> None:
        """Keep how a claimed trial ended, while others of its round still run."""
        ...

    def keep(self) -> None:
        """Say that this process is still there; to be called every few seconds."""
        ...


class Study(TrialDesk, Protocol):
    """A study that this process leads: nobody else adds or finishes trials, and who was replaced cannot any more."""

    def facts(self) -> dict[str, Any]:
        """Return the JSON-ready notes of the study by name."""
        ...

    def note(self, name: str, value: Any) -> None:
        """Keep a JSON-ready note of the study; an earlier one of this name is replaced."""
        ...

    def add(self, trials: Sequence[Trial], *, claimed: int = 0) -> None:
        """Store new trials, all or none, before any of them is evaluated.

        Args:
            trials: Their numbers follow those that are there; only number and params count.
            claimed: How many of them this process claims at once, the first ones.
        """
        ...

    def running(self) -> list[Trial]:
        """Return the trials that were not told yet, in order of number, with the results that others handed in."""
        ...

    def tell(self, results: Mapping[int, TrialResult]) -> None:
        """Finish a round, all of it or nothing: from now on samplers and pruners know these trials.

        Args:
            results: By number, in order.
        """
        ...

    def restart(self) -> None:
        """Forget all trials and notes."""
        ...


class Studies(Protocol):
    """Keeps studies, and computes what to try next from nothing but a plan, a number and the trials before it."""

    def lead(
        self, plan: StudyPlan, meanwhile: Callable[[TrialDesk], bool] | None = None
    ) -> AbstractContextManager[Study]:
        """Lead a study for the block, created when there is none; waits while another living process leads it.

        Args:
            plan: The study.
            meanwhile: Called again and again while another process leads, to evaluate trials of the study with it; it
                returns when there is nothing to claim, and whether there was. The longer there is nothing, the less
                often it is called.

        Raises:
            StudyError: If the place of the studies cannot be used.
        """
        ...

    def one_at_a_time(self, plan: StudyPlan) -> AbstractContextManager[None]:
        """Keep other processes with this study out of the block, whoever leads it; waits for one that is inside.

        It is for what is done in seconds: who is inside for more than a minute, or dies there, keeps nobody out.

        Args:
            plan: The study.
        """
        ...

    def suggest(self, plan: StudyPlan, number: int, history: Sequence[Trial]) -> dict[str, Any]:
        """Return the parameters of a trial: a pure function of its arguments.

        Args:
            plan: The study; its sampler is not "grid".
            number: The trial's number.
            history: All trials before it, in order of number; those of its own round as running.
        """
        ...

    def pruning(self, plan: StudyPlan, trial: Trial, history: Sequence[Trial]) -> "PrunedTrial":
        """Return what decides whether a trial ends early: a pure function of its arguments and the trial's reports.

        Args:
            plan: The study.
            trial: The trial that runs.
            history: All trials before it, in order of number; those of its own round as running.
        """
        ...

    def importance(self, plan: StudyPlan, trials: Sequence[Trial]) -> dict[str, float]:
        """Return each parameter's share in what decides the metric, largest first; empty with too few trials."""
        ...


class PrunedTrial(Protocol):
    """One running trial as its pruner sees it."""

    def report(self, step: int, value: float) -> bool:
        """Take a value on the way, in the order of steps, and say whether to end the trial."""
        ...

    def marks(self) -> dict[str, float]:
        """Return what is to be kept of this trial for the pruner of later ones."""
        ...
