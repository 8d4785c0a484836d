"""What of a cluster installation does not fit the project: teams, priorities, and steps that no quota lets run."""

from collections.abc import Iterator, Mapping
from typing import Any

from ml_assets.cli.chart_values import ChartValues
from ml_assets.cli.project import Project
from ml_assets.errors import Problem, SpecError
from ml_assets.interfaces import ComputeProfile, ComputeRules, StepResources
from ml_assets.reading import wording
from ml_assets.reading.placement import read_placed_pipeline
from ml_assets.yaml_positions import YamlPath

_UNITS = {"cores": "cores", "memoryGib": "GiB of memory", "gpus": "GPUs"}


def fit_problems(values: ChartValues, project: Project, rules: ComputeRules) -> list[Problem]:
    """Return what would keep a team from being loaded or a step from ever running.

    Args:
        values: Values without problems of form.
        project: The project that is deployed.
        rules: Its compute profiles.
    """
    return [
        *_team_problems(values, project),
        *_priority_problems(values, rules),
        *_step_problems(values, project, rules),
    ]


def fit_warnings(values: ChartValues, rules: ComputeRules) -> list[Problem]:
    """Return what is allowed and will surprise somebody: profiles that no quota fits, programs of another image."""
    return [*_profile_warnings(values, rules), *_image_warnings(values)]


def _team_problems(values: ChartValues, project: Project) -> Iterator[Problem]:
    listed = [entry["name"] for entry in values.merged["teams"]]
    locations = {location.name: location.module for location in project.locations}
    for index, entry in enumerate(values.merged["teams"]):
        name, place = entry["name"], ("teams", index, "name")
        if name not in locations:
            unlisted = [location for location in locations if location not in listed]
            hint = wording.did_you_mean(name, unlisted) or f"`ml-assets deploy new-team {name}` adds what is missing"
            yield values.problem(place, f"the team {name!r}, which workspace.yaml lacks", "a code location", hint)
        elif entry.get("module", locations[name]) != locations[name]:
            module = ("teams", index, "module")
            yield values.problem(module, f"the module {entry['module']!r}", f"{locations[name]}, as in workspace.yaml")
    for name in sorted(set(locations) - set(listed)):
        hint = f"`ml-assets deploy new-team {name}` adds it"
        yield values.problem(("teams",), f"no entry for the code location {name!r}", "one for each code location", hint)


def _priority_problems(values: ChartValues, rules: ComputeRules) -> Iterator[Problem]:
    known = {entry["name"] for entry in values.merged["priorityClasses"]}
    for name, profile in rules.profiles.items():
        if profile.priority is not None and profile.priority not in known:
            yield values.problem(
                ("priorityClasses",),
                f"no priority class {profile.priority!r}, which the compute profile {name!r} names",
                "one of that name: without it Kubernetes makes no pod for such a step",
            )


def _step_problems(values: ChartValues, project: Project, rules: ComputeRules) -> Iterator[Problem]:
    """Yield each step of a pipeline that asks for more than its team's namespace will ever give."""
    teams = values.teams()
    for location in project.locations:
        for file in sorted((project.team_folder(location) / "defs").glob("*/defs.yaml")):
            try:
                loaded = read_placed_pipeline(file, lambda: rules)
            except SpecError as error:
                yield from error.problems
                continue
            for variant, resources in loaded.compute.items() if location.name in teams else ():
                who = f"{location.name}/{loaded.spec.name} variant {variant!r}"
                place = _place(values, location.name)
                for limit, unit, most in _excesses(_asked(resources), teams[location.name]):
                    amount = _asked(resources)[unit]
                    yield values.problem(
                        (*place, limit, unit),
                        f"{most:g} {_UNITS[unit]}, and {who} asks for {amount:g}",
                        f"at least {amount:g}: its pod would never be made",
                    )


def _profile_warnings(values: ChartValues, rules: ComputeRules) -> Iterator[Problem]:
    """Yield each profile that does not fit where it may be used, once for all teams with the same limit."""
    found: dict[tuple[str, str, str, float], list[str]] = {}
    for team, entry in values.teams().items():
        for name, profile in rules.profiles_of(team).items():
            for limit, unit, most in _excesses(_offered(profile), entry):
                found.setdefault((name, limit, unit, most), []).append(team)
    for (name, limit, unit, most), teams in found.items():
        who = wording.listed(teams)
        yield values.problem(
            (*_place(values, teams[0]), limit, unit),
            f"{most:g} {_UNITS[unit]}, and {who} may use the compute profile {name!r}",
            f"{_offered(rules.profiles[name])[unit]:g}, or `profiles` of {who} in compute.yaml without it",
        )


def _image_warnings(values: ChartValues) -> Iterator[Problem]:
    wanted = f"{values.merged['image']['repository']}:{values.merged['image'].get('tag')}"
    for program in ("dagsterWebserver", "dagsterDaemon"):
        image = values.merged["dagster"][program]["image"]
        found = f"{image['repository']}:{image['tag']}"
        if found != wanted and not values.merged["image"].get("digest"):
            yield values.problem(
                ("dagster", program, "image"), found, f"{wanted}, the image of the teams' code; both in one release"
            )


def _excesses(asked: Mapping[str, float], entry: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """Yield (limit, unit, amount) of each limit of a team that is below what is asked for."""
    for limit in ("quota", "largestStep"):
        for unit, amount in asked.items():
            most = entry[limit].get(unit)
            if most is not None and amount > most:
                yield limit, unit, most


def _asked(resources: StepResources) -> dict[str, float]:
    return {"cores": resources.cores, "memoryGib": resources.memory_gib, "gpus": resources.gpus}


def _offered(profile: ComputeProfile) -> dict[str, float]:
    return {"cores": profile.cores, "memoryGib": profile.most_memory_gib, "gpus": profile.gpus}


def _place(values: ChartValues, team: str) -> YamlPath:
    names = [entry["name"] for entry in values.merged["teams"]]
    return ("teams", names.index(team))
