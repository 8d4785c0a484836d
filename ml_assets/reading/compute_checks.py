"""Looks up the compute profiles that a pipeline names, and refuses what policy does not give its team."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ml_assets.compute import settled
from ml_assets.errors import PolicyError
from ml_assets.interfaces import ComputeProfile, ComputeRules, StepResources
from ml_assets.reading import wording
from ml_assets.reading.draft import Draft
from ml_assets.reading.findings import Findings
from ml_assets.spec import ComputeSpec
from ml_assets.yaml_positions import YamlPath

RulesReader = Callable[[], ComputeRules]


def check_compute(draft: Draft, findings: Findings, rules: RulesReader | None) -> dict[str, StepResources]:
    """Record what is wrong in `variants.<variant>.compute`, and return what each sound variant gets.

    Args:
        draft: The description.
        findings: Takes the problems; those that are there already are of other parts of the file.
        rules: Reads what policy gives, only if a variant asks for that; None to leave profiles alone.

    Raises:
        PolicyError: If the rules cannot be read. When anything else is wrong, that is to be told first.
    """
    specs = {name: spec for name in _variants(draft) if (spec := draft.at("variants", name, "compute")) is not None}
    for name, spec in specs.items():
        if spec.profile is None and spec.gpu_type is not None and not spec.gpus:
            _add_idle_type(("variants", name, "compute"), spec.gpu_type, findings)
    team = draft.at("team")
    asks = any(spec.profile is not None or spec.gpus for spec in specs.values())
    if rules is None or team is None or not asks:
        return {name: settled(spec) for name, spec in specs.items()}
    try:
        given = rules()
    except PolicyError:
        if findings.problems:
            return {}
        raise
    return {
        name: _looked_up(
            draft, name, _Look(spec=spec, path=("variants", name, "compute"), team=team, rules=given), findings
        )
        for name, spec in specs.items()
    }


def _variants(draft: Draft) -> list[str]:
    return list(draft.spec.variants) if draft.present("variants") else []


def _add_idle_type(path: YamlPath, gpu_type: str, findings: Findings) -> None:
    findings.add((*path, "gpu_type"), f"{gpu_type} without GPUs", "gpus of at least 1 beside it")


def _looked_up(draft: Draft, name: str, look: "_Look", findings: Findings) -> StepResources:
    known, search = len(findings.problems), ("variants", name, "search")
    found = look.resources(findings)
    parallel, workers = draft.at(*search, "parallel"), draft.at(*search, "workers") or 1
    if parallel is None or look.spec.profile is None or len(findings.problems) > known:
        return found  # without a profile the cores stand in the file, and search_checks looks at them
    at_once = -(-parallel // workers)
    if at_once > found.cores:
        what = f"{at_once} trials at once on {wording.count(found.cores, 'core')}"
        hint = f"set parallel to {found.cores * workers}, or name a profile with more cores: `ml-assets compute list`"
        findings.add((*search, "parallel"), what, "at most the variant's cores", hint)
    return found


@dataclass(frozen=True, kw_only=True)
class _Look:
    """One variant's request against the rules."""

    spec: ComputeSpec
    path: YamlPath
    team: str
    rules: ComputeRules

    def resources(self, findings: Findings) -> StepResources:
        """Return what the variant gets; what it may not have goes to the findings."""
        if self.spec.profile is None:
            self._without_profile(findings)
            return settled(self.spec, currency=self.rules.currency)
        profile = self._profile(self.spec.profile, findings)
        if profile is None:
            return settled(self.spec, currency=self.rules.currency)
        for field, found, expected in self._excesses(profile):
            hint = "ask for less, or name another profile: `ml-assets compute list`"
            findings.add((*self.path, field), found, expected, hint)
        return settled(self.spec, profile, currency=self.rules.currency)

    def _without_profile(self, findings: Findings) -> None:
        if self.spec.gpus and self.rules.profiles:
            allowed = [p.name for p in self.rules.profiles_of(self.team).values() if p.gpus]
            expected = (
                f"a profile that has some: {wording.listed(allowed)}"
                if allowed
                else "none: the team has no profile with GPUs"
            )
            findings.add((*self.path, "gpus"), f"{self.spec.gpus} without a profile", expected, _where(self.rules))

    def _profile(self, name: str, findings: Findings) -> ComputeProfile | None:
        allowed = self.rules.profiles_of(self.team)
        if name in allowed:
            return allowed[name]
        path = (*self.path, "profile")
        hint = wording.did_you_mean(name, allowed) or _where(self.rules)
        expected = wording.one_of(allowed, hint) if allowed else "no profile: there is none for this team"
        known = name in self.rules.profiles
        found = f"the compute profile {wording.quoted(name)}, which team {self.team} may not use"
        findings.add(path, found if known else f"there is no compute profile {wording.quoted(name)}", expected, hint)
        return None

    def _excesses(self, profile: ComputeProfile) -> Iterator[tuple[str, str, str]]:
        """Yield (field, what stands there, what the profile allows) of everything beyond the profile."""
        given = self.spec.model_fields_set
        of = f"the profile {profile.name}'s ({profile.file}:{profile.line})"
        limits: dict[str, Any] = {
            "cores": profile.cores,
            "memory_gib": profile.most_memory_gib,
            "gpus": profile.gpus,
            "time_limit": profile.time_limit,
        }
        for field, limit in limits.items():
            asked = getattr(self.spec, field)
            if field in given and limit is not None and asked is not None and asked > limit:
                yield field, _shown(asked), f"at most {_shown(limit)}, {of}"
        if self.spec.gpu_type is not None and not (self.spec.gpus if "gpus" in given else profile.gpus):
            yield "gpu_type", f"{self.spec.gpu_type} without GPUs", f"no type, or a number of GPUs within {of}"
        for field in ("gpu_type", "image", "priority"):
            asked, own = getattr(self.spec, field), getattr(profile, field)
            # Without an image of its own a profile leaves the choice; a priority is always the profile's to give.
            free = own is None and field != "priority"
            if asked is not None and not free and asked != own:
                yield field, wording.quoted(asked), f"{'none' if own is None else wording.quoted(own)}, {of}"
        if "spot" in given and profile.spot and not self.spec.spot:
            yield "spot", "false", f"true, {of}"
        for label, value in self.spec.node_selector.items():
            if profile.node_selector.get(label, value) != value:
                found = f"{label}: {value}"
                yield "node_selector", found, f"{label}: {profile.node_selector[label]}, {of}; no node has both"
        for toleration in self.spec.tolerations:
            if toleration.model_dump(exclude_none=True) not in [dict(t) for t in profile.tolerations]:
                yield "tolerations", f"the taint {toleration.key or 'of any name'}", f"only taints that are {of}"


def _shown(amount: float | timedelta) -> str:
    return wording.span(amount) if isinstance(amount, timedelta) else f"{amount:g}"


def _where(rules: ComputeRules) -> str:
    place = rules.file or "compute.yaml of the policies, which is not there"
    return f"profiles, and who may use them, stand in {place}"
