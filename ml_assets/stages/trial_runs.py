"""The tracker's run that the trials of a stage's search are nested in, each once, whatever dies in between."""

from collections.abc import Mapping
from dataclasses import dataclass

from ml_assets.interfaces import Study, StudyPlan, Trial, TrialRun
from ml_assets.stages.step import Step


@dataclass(frozen=True, kw_only=True)
class TrialRuns:
    """The run that trials are nested in: one that an interrupted step left open, or a new one.

    Attributes:
        step: The step.
        study: Its study.
        variant: The variant's name.
        metric: What the trials' values are.
        run_id: The tracker's.
        recorded: Trials that stand below another run already, since they belong to an earlier one of this stage.
    """

    step: Step
    study: Study
    variant: str
    metric: str
    run_id: str
    recorded: int

    @classmethod
    def begin(
        cls,
        step: Step,
        study: Study,
        plan: StudyPlan,
        variant: str,
        metric: str,
        tags: Mapping[str, str],
    ) -> "TrialRuns":
        """Start a run for the stage, or go on with the one that an interrupted run of it left open.

        Args:
            step: The step.
            study: Its study, led by this process.
            plan: The study's plan.
            variant: The variant's name.
            metric: What the trials' values are.
            tags: Of the run.
        """
        facts = study.facts()
        run_id = step.services.model_registry.start_run(
            "/".join(step.path),
            f"{step.time} {variant}",
            tags={**tags, "search_study": plan.name},
            continues=facts.get("run_id", ""),
            once=("search_study", "dagster_run_id"),
        )
        if run_id != facts.get("run_id"):
            study.note("run_id", run_id)
        return cls(
            step=step,
            study=study,
            variant=variant,
            metric=metric,
            run_id=run_id,
            recorded=int(facts.get("recorded", 0)),
        )

    def told(self, trial: Trial) -> None:
        """Record a told trial; one that is there stays as it is."""
        if trial.number < self.recorded or trial.result is None:
            return
        result = trial.result
        run = TrialRun(
            number=trial.number,
            name=f"trial {trial.number}",
            state=result.state,
            params={**trial.params, "seed": self.step.spec.training.seed},
            metrics={} if result.value is None else {self.metric: result.value},
            reports=result.reports,
            tags={"partition": self.step.partition, "variant": self.variant}
            | ({"reason": result.reason} if result.reason else {}),
            seconds=result.seconds,
        )
        self.step.services.model_registry.log_trials(self.run_id, [run])

    def finish(self, trials: int) -> None:
        """Note that all trials are recorded, so that another run of the stage does not record them again."""
        if trials > self.recorded:
            self.study.note("recorded", trials)

    def fail(self) -> None:
        """End the run: its search failed."""
        self.step.services.model_registry.fail_run(self.run_id)
