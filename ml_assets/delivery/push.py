"""Submits the runs of events at once, from a process beside Dagster's daemon; the sensor is the net under it."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Protocol

from ml_assets.arrivals import ArrivalPattern, ArrivalSettings, Became, arrive_one
from ml_assets.arrivals.one_file import name_of
from ml_assets.delivery.claiming import claim_batches
from ml_assets.delivery.plan import BatchPlan
from ml_assets.delivery.settings import DeliverySettings
from ml_assets.interfaces import EffectivePolicy, Event, PipelinePath, Receipt
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.retraining.pauses import paused
from ml_assets.stages.step import Services


class RunSubmission(Protocol):
    """Puts runs of one or more code locations into Dagster's queue."""

    @property
    def pipelines(self) -> Mapping[PipelinePath, LoadedPipeline]:
        """Return the pipelines that start by events."""
        ...

    def submit(self, plan: BatchPlan) -> str:
        """Create the run of a claimed batch, put it into the queue and return its id."""
        ...

    def changed(self) -> Sequence[str]:
        """Return the files that are not as they were when the code was loaded."""
        ...


@dataclass(frozen=True, kw_only=True)
class Push:
    """Takes events up and submits their runs.

    Attributes:
        services: The world.
        submission: Where runs are submitted.
    """

    services: Services
    submission: RunSubmission

    def settings(self, path: PipelinePath) -> DeliverySettings:
        """Return what the policy says of a pipeline's events."""
        return DeliverySettings.of(self.services.policy.effective(path))

    @cached_property
    def _patterns(self) -> dict[PipelinePath, ArrivalPattern]:
        return {path: ArrivalPattern.of(loaded.spec) for path, loaded in self.submission.pipelines.items()}

    def owners(self, place: str) -> list[PipelinePath]:
        """Return the pipelines that a file is of by its name; no policy is read for the others, which may be many."""
        landing = self.services.landing
        return [path for path, pattern in self._patterns.items() if name_of(landing, pattern, place) is not None]

    def take_file(
        self, path: PipelinePath, place: str, *, now: datetime, policy: EffectivePolicy | None = None
    ) -> Became:
        """Look at one file, and put it into the inbox when it is good.

        Args:
            path: The pipeline.
            place: The file's URL in the form of `source.url`, or its full path or URL.
            now: The instant, UTC.
            policy: What holds for the pipeline now; it is read when it is not given.
        """
        settings = ArrivalSettings.of(policy or self.services.policy.effective(path))
        return arrive_one(self.services, self.submission.pipelines[path], place, settings=settings, now=now)

    def take_up(self, event: Event, *, now: datetime) -> Receipt:
        """Put one event into the inbox."""
        settings = self.settings(event.pipeline)
        return self.services.inbox.receive([event], dedup=settings.dedup, per_minute=settings.per_minute, now=now)

    def deliver(self, path: PipelinePath, *, now: datetime, clock: Callable[[], float] = time.monotonic) -> list[str]:
        """Submit the runs of a pipeline's ready events and return their ids; none while it is paused."""
        if paused(self.services.ledger, path) is not None:
            return []
        settings, inbox = self.settings(path), self.services.inbox
        spec = self.submission.pipelines[path].spec
        submitted: list[str] = []
        begun = clock()
        # One by one: a claim is leased for a minute, and a hundred submissions may take longer.
        while plans := claim_batches(inbox, spec, settings, now=now + timedelta(seconds=clock() - begun), most=1):
            run_id = self.submission.submit(plans[0])
            inbox.start(plans[0].name, run_id, now=now)
            submitted.append(run_id)
        return submitted
