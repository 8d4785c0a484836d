"""`ml-assets compute`: which compute profiles there are, and what each step of a pipeline gets, where and why."""

from collections.abc import Iterator
from dataclasses import dataclass

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ml_assets.cli.backfill import find_pipeline
from ml_assets.cli.project import Project, load_project
from ml_assets.cli.tables import make_console, plain
from ml_assets.compute import gpus_granted, largest
from ml_assets.executors.pods import StepDemand, WorkerSize
from ml_assets.executors.worker_size import available_cores, available_memory_mib
from ml_assets.interfaces import ComputeProfile, ComputeRules, StepResources
from ml_assets.reading.pipeline_file import LoadedPipeline, with_compute
from ml_assets.reading.wording import count, listed, span
from ml_assets.spec import SearchSpec


@click.group()
def compute() -> None:
    """Show compute profiles, and what steps get."""


@compute.command(name="list")
@click.option("--team", help="Only the profiles that this team may use.")
def list_profiles(team: str | None) -> None:
    """Show the profiles of policies/compute.yaml: what they give, what an hour costs, who may use them."""
    project = load_project()
    if team is not None:
        project.location(team)
    rules = project.profile.services().policy.compute()
    profiles = rules.profiles if team is None else rules.profiles_of(team)
    if not profiles:
        place = rules.file or f"{project.profile.policy_url.rstrip('/')}/compute.yaml, which is not there"
        whose = "" if team is None else f" that team {team} may use"
        click.echo(f"There are no compute profiles{whose}; they stand in {place}.")
        return
    make_console().print(_profiles_table(rules, list(profiles.values()), [x.name for x in project.locations]))


def _profiles_table(rules: ComputeRules, profiles: list[ComputeProfile], teams: list[str]) -> Table:
    table = Table(title=f"Compute profiles of {rules.file}", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    table.add_column("profile", no_wrap=True)
    for column in ("cores", "GiB", "GPUs"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column(f"{rules.currency}/h", justify="right", no_wrap=True)
    for column in ("limits", "who may use it"):
        table.add_column(column)
    known = sorted({*teams, *rules.teams})
    for profile in profiles:
        users = [team for team in known if profile.name in rules.profiles_of(team)]
        who = "every team" if users == known else listed(users) if users else "nobody"
        gpus = f"{profile.gpus} {profile.gpu_type or ''}".strip() if profile.gpus else "–"
        cells = (profile.name, str(profile.cores), f"{profile.memory_gib:g}", gpus, f"{profile.price_per_hour:.2f}")
        table.add_row(*map(plain, (*cells, "; ".join(_limits(profile)), who)))
    return table


def _limits(profile: ComputeProfile) -> Iterator[str]:
    if profile.time_limit is not None:
        yield f"at most {span(profile.time_limit)}"
    if profile.retry_memory_gib:
        yield f"up to {profile.most_memory_gib:g} GiB"
    if profile.spot:
        yield "spot"
    elif profile.on_spot.price_per_hour is not None:
        yield f"{profile.on_spot.price_per_hour:.2f}/h on spot"
    if profile.priority is not None:
        yield f"priority {profile.priority}"


@compute.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
def explain(pipeline: str) -> None:
    """Show what each step of TEAM/PIPELINE gets, where it would run from here, what an hour costs, and why."""
    project = load_project()
    rules = project.profile.services().policy.compute()
    loaded = with_compute(find_pipeline(project, pipeline), rules)
    here = _here(project)
    table = Table(title=f"{pipeline}: {here.words}", title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for column in ("step", "profile", "gets"):
        table.add_column(column, no_wrap=column != "gets")
    table.add_column("where")
    table.add_column(f"{rules.currency}/h", justify="right", no_wrap=True)
    table.add_column("why")
    for name, resources, why in _steps(loaded, rules):
        place, reason = here.place(resources)
        price = "–" if resources.price_per_hour is None else f"{resources.price_per_hour:.2f}"
        cells = (name, resources.profile or "–", _sizes(resources), place, price)
        table.add_row(*map(plain, (*cells, "; ".join(filter(None, (why, reason))))))
    make_console().print(table)


def _steps(loaded: LoadedPipeline, rules: ComputeRules) -> Iterator[tuple[str, StepResources, str]]:
    """Yield name, resources and origin of each step."""
    for name, resources in loaded.compute.items():
        variant = loaded.spec.variants[name]
        idle = resources.gpus and variant.train is None and variant.estimator.startswith("sklearn.")
        unused = "; scikit-learn uses no GPU" if idle else _shared(variant.search, resources)
        line = loaded.line(("variants", name, "compute"))
        place = f"{loaded.file.name}:{line}" if line else loaded.file.name
        if resources.profile is not None:
            profile = rules.profiles[resources.profile]
            own = sorted(variant.compute.model_fields_set - {"profile"})
            changed = f", with {listed(own)} of its own" if own else ""
            why = f"{place} names the profile of {profile.file}:{profile.line}{changed}{unused}"
        elif variant.compute.model_fields_set:
            why = f"{place} says so, without a profile{unused}"
        else:
            why = "the default"
        yield f"models/{name}", resources, why
    yield "candidate", largest(list(loaded.compute.values())), "fits the best variant again: the largest of theirs"
    yield "each other step", StepResources(currency=rules.currency), "the default"


def _shared(search: SearchSpec | None, resources: StepResources) -> str:
    """Return that trials at once have no GPU each, where that is so; else nothing."""
    at_once = 1 if search is None else -(-search.parallel // search.workers)
    if at_once == 1 or not resources.gpus:
        return ""
    return f"; its {at_once} trials at once share {count(resources.gpus, 'GPU')} and its memory"


@dataclass(frozen=True, kw_only=True)
class Here:
    """What this machine and its cluster have for steps.

    Attributes:
        worker: What a run's worker has for the steps that it forks.
        gpus: GPUs of the machine.
        cluster: Whether steps may have pods.
    """

    worker: WorkerSize
    gpus: int
    cluster: bool

    @property
    def words(self) -> str:
        """Return it in words."""
        more = ", and a cluster for what does not fit" if self.cluster else ""
        return f"{count(self.worker.cores, 'core')} and {count(self.gpus, 'GPU')} here{more}"

    def place(self, resources: StepResources) -> tuple[str, str]:
        """Return where a step runs, and why there."""
        memory = round(resources.memory_gib * 1024)
        lacking = self.worker.lacks(StepDemand(cores=resources.cores, memory_mib=memory, gpus=resources.gpus))
        if self.cluster and lacking is not None:
            return "a pod of its own", f"asks for {lacking}"
        if resources.gpus and not gpus_granted(resources.gpus, self.gpus):
            if resources.gpu_required:
                return "nowhere: refused", f"cannot run without {count(resources.gpus, 'GPU')}"
            return "here, on the CPU", f"asks for {count(resources.gpus, 'GPU')}, which is more than there are"
        there = self.worker.cores
        narrow = "" if resources.cores <= there else f"uses {there} of its {resources.cores} cores"
        return (f"here, on {count(resources.gpus, 'GPU')}" if resources.gpus else "here"), narrow


def _here(project: Project) -> Here:
    profile = project.profile
    worker = WorkerSize(
        cores=profile.cores or available_cores(), memory_mib=profile.memory_mib or available_memory_mib()
    )
    return Here(worker=worker, gpus=profile.services().machine.gpus, cluster=profile.cluster is not None)


def _sizes(resources: StepResources) -> str:
    parts = [count(resources.cores, "core"), f"{resources.memory_gib:g} GiB"]
    if resources.gpus:
        parts.append(f"{count(resources.gpus, 'GPU')}{f' ({resources.gpu_type})' if resources.gpu_type else ''}")
    if resources.time_limit is not None:
        parts.append(f"at most {span(resources.time_limit)}")
    return ", ".join([*parts, *(["spot"] if resources.spot else [])])
