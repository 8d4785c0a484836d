"""Reads policies/compute.yaml into the rules of compute, and tells everything that is wrong in it."""

from collections.abc import Mapping
from itertools import pairwise
from typing import TypeVar

from ml_assets.errors import Problem
from ml_assets.interfaces import Ageing, ComputeProfile, ComputeRules, SpotOffer, TeamShare
from ml_assets.policy.compute_schema import (
    AgeingModel,
    AmountsModel,
    ComputeModel,
    ProfileModel,
    SpotModel,
    TeamModel,
)
from ml_assets.policy.schema import name_problem, validated
from ml_assets.reading import wording
from ml_assets.reading.findings import Document, Findings
from ml_assets.spec import TolerationSpec
from ml_assets.spec.model import SpecModel
from ml_assets.yaml_positions import PositionedYaml, YamlPath

PROFILE_PATTERN = r"^[a-z][a-z0-9-]{0,62}$"
TEAM_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"

Model = TypeVar("Model", bound=SpecModel)


def read_compute(document: PositionedYaml, problems: list[Problem]) -> ComputeRules:
    """Return the rules of one file, as far as they are right; what is wrong goes to the problems."""
    findings = Findings(document=Document(file=document.file, line=document.line), problems=problems)
    read = validated(ComputeModel, document.data, (), findings)
    head = read or ComputeModel()
    profiles = {
        name: _profile(name, model, document)
        for name, model in _named(document, "profiles", PROFILE_PATTERN, ProfileModel, findings).items()
    }
    teams = _named(document, "teams", TEAM_PATTERN, TeamModel, findings)
    for name, profile in profiles.items():
        _check_profile(("profiles", name), profile, findings)
    declared = document.data.get("profiles") if isinstance(document.data, dict) else None
    for name, team in teams.items():
        _check_team(("teams", name), team, head.capacity, list(declared or ()), findings)
    _check_reserves(teams, head.capacity, findings)
    if read is not None:
        _check_bounds(teams, head.capacity, findings)
    return ComputeRules(
        currency=head.currency,
        capacity=_amounts(head.capacity),
        profiles=profiles,
        teams={name: _share(team, document.line(("teams", name))) for name, team in teams.items()},
        ageing=_ageing(head.ageing, findings),
        file=document.file,
    )


def _named(
    document: PositionedYaml, field: str, pattern: str, model: type[Model], findings: Findings
) -> dict[str, Model]:
    """Return the entries of a mapping that are right, by name."""
    entries = document.data.get(field) if isinstance(document.data, dict) else None
    found: dict[str, Model] = {}
    for name, body in (entries if isinstance(entries, dict) else {}).items():
        if expected := name_problem(name, pattern):
            findings.add((field, name), f"the name {wording.quoted(name)}", expected)
            continue
        read = validated(model, body, (field, name), findings)
        if read is not None:
            found[name] = read
    return found


def _profile(name: str, model: ProfileModel, document: PositionedYaml) -> ComputeProfile:
    return ComputeProfile(
        name=name,
        cores=model.cores,
        memory_gib=model.memory_gib,
        gpus=model.gpus,
        gpu_type=model.gpu_type,
        price_per_hour=model.price_per_hour,
        node_selector=dict(model.node_selector),
        tolerations=_taints(model.tolerations),
        priority=model.priority,
        time_limit=model.time_limit,
        image=model.image,
        spot=model.spot,
        on_spot=_spot(model.on_spot),
        retry_memory_gib=model.retry_memory_gib,
        file=document.file,
        line=document.line(("profiles", name)),
    )


def _spot(model: SpotModel) -> SpotOffer:
    return SpotOffer(
        price_per_hour=model.price_per_hour,
        node_selector=dict(model.node_selector),
        tolerations=_taints(model.tolerations),
    )


def _taints(tolerations: tuple[TolerationSpec, ...]) -> tuple[Mapping[str, str], ...]:
    return tuple(toleration.model_dump(exclude_none=True) for toleration in tolerations)


def _share(model: TeamModel, line: int) -> TeamShare:
    return TeamShare(
        weight=model.weight,
        reserve=_amounts(model.reserve),
        limit=_amounts(model.limit),
        budget_per_month=model.budget_per_month,
        over_budget=model.over_budget,
        profiles=model.profiles,
        line=line,
    )


def _amounts(model: AmountsModel) -> dict[str, int]:
    return model.model_dump(exclude_none=True)


def _ageing(model: AgeingModel, findings: Findings) -> Ageing:
    if model.step is not None and not model.step:
        findings.add(("ageing", "step"), "no time", "a time above 0, such as 10min")
        return Ageing()
    return Ageing(**model.model_dump(exclude_none=True))


def _check_profile(path: YamlPath, profile: ComputeProfile, findings: Findings) -> None:
    if profile.gpu_type is not None and not profile.gpus:
        findings.add((*path, "gpu_type"), f"{profile.gpu_type} without GPUs", "gpus of at least 1 beside it")
    elif profile.gpu_type is not None and not profile.node_selector:
        hint = "the type alone is only a name: a label of the nodes says where such GPUs are"
        findings.add((*path, "gpu_type"), f"{profile.gpu_type} without node_selector", "a label of its nodes", hint)
    sizes = (profile.memory_gib, *profile.retry_memory_gib)
    if any(later <= earlier for earlier, later in pairwise(sizes)):
        found = wording.listed(f"{size:g}" for size in profile.retry_memory_gib)
        expected = f"sizes that rise from above memory_gib ({profile.memory_gib:g})"
        findings.add((*path, "retry_memory_gib"), found, expected)
    for label, value in profile.on_spot.node_selector.items():
        if profile.node_selector.get(label, value) != value:
            expected = f"another label than the profile's {label}: {profile.node_selector[label]}"
            findings.add((*path, "on_spot", "node_selector", label), value, expected, "no node has both")


def _check_team(
    path: YamlPath, team: TeamModel, capacity: AmountsModel, profiles: list[str], findings: Findings
) -> None:
    for i, name in enumerate(team.profiles or ()):
        if name not in profiles:
            hint = wording.did_you_mean(name, profiles)
            expected = wording.one_of(profiles, hint) if profiles else "no name: the file has no profiles"
            findings.add((*path, "profiles", i), f"there is no profile {wording.quoted(name)}", expected, hint)
    reserve, limit, there_is = _amounts(team.reserve), _amounts(team.limit), _amounts(capacity)
    for resource, kept in reserve.items():
        most = limit.get(resource, kept)
        if kept > most:
            findings.add((*path, "reserve", resource), str(kept), f"at most the team's limit of {most}")
    for resource, most in limit.items():
        if most > there_is.get(resource, most):
            findings.add((*path, "limit", resource), str(most), f"at most the capacity of {there_is[resource]}")


def _check_bounds(teams: Mapping[str, TeamModel], capacity: AmountsModel, findings: Findings) -> None:
    """Refuse a reserve of what has no capacity: nothing can be kept of what is not bounded."""
    there_is = _amounts(capacity)
    for name, team in teams.items():
        for resource, kept in _amounts(team.reserve).items():
            if kept and resource not in there_is:
                found = f"{kept} of {resource}, which have no capacity"
                hint = f"without capacity.{resource} nobody counts them, and nothing is kept"
                findings.add(
                    ("teams", name, "reserve", resource), found, f"capacity.{resource}, or no such reserve", hint
                )


def _check_reserves(teams: Mapping[str, TeamModel], capacity: AmountsModel, findings: Findings) -> None:
    for resource, there_is in _amounts(capacity).items():
        kept = {name: _amounts(team.reserve).get(resource, 0) for name, team in teams.items()}
        if sum(kept.values()) > there_is:
            found = f"reserves of {sum(kept.values())} together"
            findings.add(("capacity", resource), f"{there_is}, with {found}", "at least what is reserved")
