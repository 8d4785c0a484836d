"""A Dagster instance with two teams' assets, whose runs are queued by our run queue and launched by nobody."""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import dagster as dg
from dagster._core.events import DagsterEvent, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.execution.plan.objects import StepSuccessData
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.utils import make_new_run_id
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget, WorkspaceLoadTarget

from ml_assets.compute import op_tags
from ml_assets.interfaces import ComputeRules, StepResources, TeamShare
from ml_assets.testing.policy_source import FakePolicySource
from ml_assets.testing.spend import FakeSpend
from resources.admission import Admission
from resources.fair_daemon import FairQueueDaemon
from resources.run_queue import PromptRunQueue

TEAMS = ("births", "flights")
STAGES = {
    "features": StepResources(),
    "forest": StepResources(cores=4, gpus=1, gpu_required=True, price_per_hour=0.6, profile="gpu-small"),
    "wide": StepResources(cores=8, gpus=4, gpu_required=True, price_per_hour=2.4, profile="gpu-large"),
    "either": StepResources(cores=2, gpus=2, price_per_hour=1.2),
}
OVERRIDES: dict[str, Any] = {
    "run_coordinator": {"module": "resources.run_queue", "class": "PromptRunQueue"},
    "run_launcher": {"module": "dagster._core.test_utils", "class": "MockedRunLauncher"},
}


def rules(teams: Mapping[str, TeamShare] | None = None, **capacity: int) -> ComputeRules:
    """Return rules with eight GPUs unless told otherwise."""
    return ComputeRules(capacity=capacity or {"gpus": 8}, teams=teams or {"flights": TeamShare()})


@dataclass
class World:
    """The instance, and what stands for policy files and ledger."""

    instance: dg.DagsterInstance
    workspace: WorkspaceProcessContext
    rules: ComputeRules
    spend: FakeSpend = field(default_factory=FakeSpend)
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._definitions = dg.Definitions(
            assets=[asset(team, stage) for team in TEAMS for stage in STAGES],
            jobs=[
                dg.define_asset_job(f"{team}_{stage}", [dg.AssetKey([team, "delay", stage])])
                for team in TEAMS
                for stage in STAGES
            ],
        )
        self._templates: dict[tuple[str, str], dg.DagsterRun] = {}
        self.policy = FakePolicySource({}, compute=self.rules)
        self.daemon = FairQueueDaemon(0.5, policy=self.policy, spend=self.spend)
        coordinator = self.instance.run_coordinator
        assert isinstance(coordinator, PromptRunQueue)
        vars(coordinator)["_admission"] = Admission(self.instance, self.policy, self.spend)

    def submit(self, name: str, stage: str = "forest", **tags: str) -> str:
        """Queue a run of "team-anything", and return its id."""
        run = self.make(name, stage, **tags)
        self.instance.run_coordinator.submit_run(SubmitRunContext(run, cast("Any", None)))
        return run.run_id

    def make(self, name: str, stage: str = "forest", **tags: str) -> dg.DagsterRun:
        """Create a run that is not queued yet."""
        team = name.partition("-")[0]
        template = self._templates.get((team, stage)) or self._template(team, stage)
        wanted = {key.replace("__", "/"): value for key, value in tags.items()}
        run = self.instance.add_run(template._replace(run_id=make_new_run_id(), tags=wanted))
        self.names[run.run_id] = name
        return run

    def _template(self, team: str, stage: str) -> dg.DagsterRun:
        """Create a run that is never queued, with its plan; making a plan takes longer than all else."""
        origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(team), "repository"), "job")
        return self._templates.setdefault(
            (team, stage),
            self.instance.create_run_for_job(
                self._definitions.resolve_job_def(f"{team}_{stage}"),
                status=dg.DagsterRunStatus.NOT_STARTED,
                asset_selection={dg.AssetKey([team, "delay", stage])},
                remote_job_origin=origin,
            ),
        )

    def look(self, at: datetime | None = None) -> list[str]:
        """Let the daemon look once, and return the names of the runs that it launched, in order."""
        launched: Any = self.instance.run_launcher
        before = len(launched.queue())
        list(self.daemon.run_iteration(self.workspace, fixed_iteration_time=None if at is None else at.timestamp()))
        return [self.names[run.run_id] for run in launched.queue()[before:]]

    def status(self, name: str) -> dg.DagsterRunStatus:
        """Return the status of a run."""
        return self.run(name).status

    def run(self, name: str) -> dg.DagsterRun:
        """Return a run by name."""
        run = self.instance.get_run_by_id(self.id(name))
        assert run is not None
        return run

    def id(self, name: str) -> str:
        """Return the id of the run of a name."""
        return next(run_id for run_id, known in self.names.items() if known == name)

    def end(self, name: str) -> None:
        """Let a run in progress fail."""
        self.instance.report_run_failed(self.run(name))

    def log(self, name: str) -> str:
        """Return what stands in a run's own log."""
        return "\n".join(entry.user_message or entry.message for entry in self.instance.all_logs(self.id(name)))

    def event(self, name: str, kind: DagsterEventType, at: datetime, step: str | None = None) -> None:
        """Write an event of a run or of one of its steps, as of some time."""
        run = self.run(name)
        data = StepSuccessData(duration_ms=1.0) if kind == DagsterEventType.STEP_SUCCESS else None
        event = DagsterEvent(
            event_type_value=kind.value, job_name=run.job_name, step_key=step, event_specific_data=data
        )
        self.instance.handle_new_event(
            EventLogEntry(
                error_info=None,
                level=20,
                user_message="",
                run_id=run.run_id,
                timestamp=at.timestamp(),
                step_key=step,
                job_name=run.job_name,
                dagster_event=event,
            )
        )


def asset(team: str, stage: str) -> dg.AssetsDefinition:
    """Return an asset with the op tags of its stage."""

    @dg.asset(key=[team, "delay", stage], op_tags=op_tags(STAGES[stage]))
    def made() -> None: ...

    return made


@contextmanager
def world(
    rules_: ComputeRules,
    storages: Mapping[str, Any] | None = None,
    target: WorkspaceLoadTarget = EmptyWorkspaceTarget(),  # noqa: B008 - it holds nothing
    **concurrency: Any,
) -> Iterator[World]:
    """Open a world whose instance lets 100 runs go at once unless told otherwise.

    Args:
        rules_: The rules of sharing.
        storages: The part of dagster.yaml that says where runs, events and schedules are; files when None.
        target: The code locations of its workspace.
        concurrency: Settings under `concurrency`.
    """
    settings = {"runs": {"max_concurrent_runs": 100, **concurrency.pop("runs", {})}, **concurrency}
    storage = {"module": "resources.dagster_storage", "class": "LocalSqliteStorage"}
    with (
        tempfile.TemporaryDirectory() as folder,
        dg.instance_for_test(
            overrides={
                **OVERRIDES,
                "concurrency": settings,
                **(storages or {"storage": {"custom": {**storage, "config": {"base_dir": folder}}}}),
            }
        ) as instance,
        create_test_daemon_workspace_context(target, instance) as workspace,
    ):
        yield World(instance=instance, workspace=workspace, rules=rules_)


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)
