"""A pipeline whose situation a test makes up, looked at tick by tick on a clock of the test's own."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from ml_assets.digest import document_digest
from ml_assets.reading.pipeline_file import check_pipeline
from ml_assets.retraining.attempts import History
from ml_assets.retraining.gathering import newest_training
from ml_assets.retraining.pauses import paused
from ml_assets.retraining.runs import TrainingRun
from ml_assets.retraining.situation import Period, Situation, Watched
from ml_assets.retraining.turn import Start, Turn, take_turn
from ml_assets.spec import PipelineSpec
from ml_assets.stages.step import Services, Step
from ml_assets.testing.ledger import FakeLedger, decision
from ml_assets.testing.run_history import FakeRuns
from tests.components.shop import FEATURES, services, shop

PATH = ("shop", "returns")
BEGIN = datetime(2026, 11, 1, tzinfo=UTC)
FAILED = TrainingRun(run_id="", state="failed", reason="models/logistic: the fit did not converge.", core_hours=0.1)
LOST = TrainingRun(run_id="", state="lost", reason="the run's process was killed")
DONE = TrainingRun(run_id="", state="succeeded", core_hours=0.1)


def period(**changes: Any) -> Period:
    """Return a period that a model can be trained for."""
    given: dict[str, Any] = {
        "key": "2024-03",
        "inputs": "a" * 64,
        "window": ("2024-01", "2024-02"),
        "labels": 900,
        "labels_known_at": BEGIN - timedelta(days=1),
        "new_labels": 5000,
    }
    return Period(**given | changes)


def decayed(evidence: str = "e1", partition: str = "DE|2024-03") -> Watched:
    """Return what the performance stage says of a partition that decayed."""
    return Watched(partition=partition, verdict="decayed", words="log_loss rose by 0.1", evidence=evidence)


def drifted(evidence: str = "d1", partition: str = "DE|2024-03") -> Watched:
    """Return what the drift stage says of a partition that drifted."""
    return Watched(
        partition=partition, verdict="drift", words="amount moved, with 60% of the importance", evidence=evidence
    )


def situation(**changes: Any) -> Situation:
    """Return a situation in which nothing speaks for or against a retraining but new labels."""
    return Situation(**{"pipeline": PATH, "enabled": True, "period": period()} | changes)


@dataclass(kw_only=True)
class World:
    """The shop without data, and an engine without processes.

    Attributes:
        step: A step of the pipeline over fakes.
        runs: The engine.
        now: The clock.
        parts: Given the number of the tick, returns what `situation` is to be changed in.
        turns: What every tick came to.
        requests: Every start that was asked for, repeats too.
    """

    step: Step
    runs: FakeRuns
    parts: Callable[[int], dict[str, Any]]
    now: datetime = BEGIN
    turns: list[Turn] = field(default_factory=list)
    requests: list[Start] = field(default_factory=list)

    @property
    def ledger(self) -> FakeLedger:
        """Return the ledger."""
        assert isinstance(self.step.services.ledger, FakeLedger)
        return self.step.services.ledger

    @property
    def starts(self) -> list[datetime]:
        """Return when runs were started."""
        times = {
            record.body["run_key"]: record.recorded_at
            for record in self.ledger.records(PATH, kind="automation")
            if record.body.get("run_key")
        }
        return [at for start in self.runs.started if (at := times[start.run_key]) is not None]

    def tick(self, *, submit: bool = True) -> Turn:
        """Look once, at the clock's time; with `submit` the engine takes what is asked for."""
        # A new step: one step decides by one policy.
        step = Step(pipeline=self.step.pipeline, services=self.step.services, partition="", run_id="")
        turn = take_turn(step, self.runs, self.now, look=self._look)
        self.turns.append(turn)
        if turn.start is not None:
            self.requests.append(turn.start)
            if submit:
                self.runs.submit(turn.start)
        return turn

    def ticks(self, count: int, wait: timedelta) -> None:
        """Look `count` times, with the clock going on in between."""
        for _ in range(count):
            self.tick()
            self.now += wait

    def _look(self, step: Step, history: History, now: datetime) -> Situation:
        del now
        training = newest_training(step.services.ledger.decisions(PATH))
        held = paused(step.services.ledger, PATH)
        return situation(history=history, training=training, pause=held, **self.parts(len(self.turns)))


def make_world(
    folder: Path,
    *,
    ending: TrainingRun | Callable[[Start], TrainingRun] = DONE,
    parts: Callable[[int], dict[str, Any]] = lambda _: {},
    **settings: Any,
) -> World:
    """Return a world; every run ends as `ending` says."""
    world: Services = services(folder, **settings)
    (folder / "features.py").write_text(FEATURES, encoding="utf-8")
    component = shop()
    spec = PipelineSpec(**{name: getattr(component, name) for name in PipelineSpec.model_fields})
    step = Step(pipeline=check_pipeline(spec, folder), services=world, partition="", run_id="")
    runs = FakeRuns(ending=ending if callable(ending) else lambda _: ending)
    return World(step=step, runs=runs, parts=parts)


def refusing(world: World) -> Callable[[Start], TrainingRun]:
    """Return an ending in which every run refuses its candidate."""

    def end(start: Start) -> TrainingRun:
        number = len(world.runs.started)
        world.ledger.record_decision(
            decision(
                pipeline=PATH,
                partition=start.period,
                outcome="refused",
                reason="log_loss is worse than the baseline's.",
                run_id=f"run-{number}",
                model_digest=document_digest({"model": number}),
                recorded_at=world.now,
            )
        )
        return DONE

    return end
