"""What is different from the champion: only what differs, old and new."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ml_assets.dossier.facts import ChampionFacts, DossierFacts, evidence_of, report_of
from ml_assets.dossier.words import flattened, interval_words, plain
from ml_assets.evaluation_report import EvaluationReport
from ml_assets.interfaces import EffectivePolicy, Setting

DiffGroup = Literal["model", "metrics", "policy", "data"]
Change = Literal["added", "removed", "changed"]
SETS = ("features",)
"""Entries of a fingerprint whose order says nothing."""


@dataclass(frozen=True, kw_only=True)
class DiffRow:
    """One thing that differs.

    Attributes:
        group: What kind of thing it is.
        name: Such as "params.max_iter" or "features".
        change: Whether the candidate has it anew, no longer, or with another value.
        old: The champion's value in words; empty when it was added.
        new: The candidate's value in words; empty when it was removed.
    """

    group: DiffGroup
    name: str
    change: Change
    old: str
    new: str


def diff_of(facts: DossierFacts) -> tuple[DiffRow, ...]:
    """Return what differs from the champion, by group: model, metrics, policy, data; none without a champion.

    What either side did not record is left out, since nothing is known of its difference.
    """
    champion = facts.champion
    if champion is None:
        return ()
    return (
        *_model_rows(facts, champion),
        *_metric_rows(facts, champion),
        *_policy_rows(facts, champion),
        *_data_rows(facts, champion),
    )


def policy_words(setting: Setting) -> str:
    """Return a setting's value with what else decides about it, such as "0.55 (warning, unwaivable)"."""
    marks = [setting.severity] if setting.severity != "error" else []
    marks += [name for name in ("locked", "unwaivable") if getattr(setting, name)]
    return plain(setting.value) + (f" ({', '.join(marks)})" if marks else "")


def _compared(group: DiffGroup, old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[DiffRow]:
    """Yield a row for each name whose words differ: the new names in their order, then those that are gone."""
    for name, words in new.items():
        if name not in old:
            yield DiffRow(group=group, name=name, change="added", old="", new=words)
        elif old[name] != words:
            yield DiffRow(group=group, name=name, change="changed", old=old[name], new=words)
    for name, words in old.items():
        if name not in new:
            yield DiffRow(group=group, name=name, change="removed", old=words, new="")


def _model_rows(facts: DossierFacts, champion: ChampionFacts) -> Iterator[DiffRow]:
    old, new = (evidence_of(decision, "fingerprint") for decision in (champion.decision, facts.decision))
    if old and new:
        yield from _compared("model", _values(old), _values(new))
        for name in SETS:
            yield from _set_rows(name, old.get(name, ()), new.get(name, ()))
    if champion.candidate and facts.candidate:
        yield from _compared("model", _fitted(champion.candidate), _fitted(facts.candidate))


def _values(fingerprint: Mapping[str, Any]) -> dict[str, str]:
    return flattened({name: value for name, value in fingerprint.items() if name not in SETS})


def _set_rows(name: str, old: Sequence[str], new: Sequence[str]) -> Iterator[DiffRow]:
    for item in sorted(set(new) - set(old)):
        yield DiffRow(group="model", name=name, change="added", old="", new=item)
    for item in sorted(set(old) - set(new)):
        yield DiffRow(group="model", name=name, change="removed", old=item, new="")


def _fitted(candidate: Mapping[str, Any]) -> dict[str, str]:
    return flattened({name: candidate[name] for name in ("variant", "training_rows", "prior") if name in candidate})


def _metric_rows(facts: DossierFacts, champion: ChampionFacts) -> Iterator[DiffRow]:
    report, earlier = report_of(facts.evaluation), report_of(champion.evaluation)
    if report is None:
        return
    if "champion" in report.models:
        old, new = (_metrics(report, model, "on the same rows") for model in ("champion", "candidate"))
        yield from _compared("metrics", old, new)
    if earlier is not None:
        old, new = (_metrics(r, "candidate", "each on its own period") for r in (earlier, report))
        yield from _compared("metrics", old, new)


def _metrics(report: EvaluationReport, model: str, where: str) -> dict[str, str]:
    return {f"{metric}, {where}": interval_words(report.interval(model, metric)) for metric in report.metrics}


def _policy_rows(facts: DossierFacts, champion: ChampionFacts) -> Iterator[DiffRow]:
    if champion.policy is not None:
        yield from _compared("policy", _settings(champion.policy), _settings(facts.policy))
    elif champion.decision.policy_digest and facts.decision.policy_digest:
        old, new = champion.decision.policy_digest, facts.decision.policy_digest
        yield from _compared("policy", {"digest of the policy": old}, {"digest of the policy": new})


def _settings(policy: EffectivePolicy) -> dict[str, str]:
    return {name: policy_words(setting) for name, setting in sorted(policy.settings.items())}


def _data_rows(facts: DossierFacts, champion: ChampionFacts) -> Iterator[DiffRow]:
    if champion.upstream and facts.upstream:
        yield from _compared("data", champion.upstream, facts.upstream)
