"""Looks up the compute profiles that a pipeline names, and refuses what policy does not give its team."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from ml_assets.compute import settled
from ml_assets.errors import SpecError
from ml_assets.interfaces import ComputeProfile, ComputeRules, StepResources
from ml_assets.reading import wording
from ml_assets.reading.findings import Document, Findings
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.spec import ComputeSpec, PipelineSpec
from ml_assets.yaml_positions import YamlPath


def settle_compute(loaded: LoadedPipeline, rules: Callable[[], ComputeRules]) -> LoadedPipeline:
    """Return the pipeline with what each variant gets; the rules are read only if it asks for what policy gives.

    Raises:
        SpecError: As `with_compute`.
        PolicyError: If the rules cannot be read.
    """
    return with_compute(loaded, rules()) if needs_rules(loaded.spec) else loaded


def needs_rules(spec: PipelineSpec) -> bool:
    """Return whether a description asks for anything that policy gives: a profile, or GPUs."""
    return any(v.compute.profile is not None or v.compute.gpus for v in spec.variants.values())


def with_compute(loaded: LoadedPipeline, rules: ComputeRules) -> LoadedPipeline:
    """Return the pipeline with what each variant gets by the rules.

    Raises:
        SpecError: If a variant names a profile that is unknown or not its team's, or asks for more than it has, or
            searches by more trials at once than it has cores.
    """
    findings = Findings(document=Document(file=str(loaded.file), line=loaded.line))
    found: dict[str, StepResources] = {}
    for name, variant in loaded.spec.variants.items():
        look = _Look(spec=variant.compute, path=("variants", name, "compute"), team=loaded.spec.team, rules=rules)
        known = len(findings.problems)
        found[name] = look.resources(findings)
        cores = found[name].cores
        if len(findings.problems) == known and variant.search is not None and variant.search.parallel > cores:
            what = f"{variant.search.parallel} trials at once on {wording.count(cores, 'core')}"
            hint = f"set parallel to {cores}, or name a profile with more cores: `ml-assets compute list`"
            findings.add(("variants", name, "search", "parallel"), what, "at most the variant's cores", hint)
    if findings.problems:
        raise SpecError(findings.problems)
    return replace(loaded, compute=found)


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
