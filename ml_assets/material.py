"""Is a candidate materially different from the champion? Each test with its evidence, also when nothing moved.

What is compared are *fingerprints* (what a model was made of) and the paired comparison on the same rows. Both are
plain documents, so that the same tests can be made again later from what a decision recorded.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ml_assets.interfaces import EffectivePolicy

Fingerprint = Mapping[str, Any]
"""sources: name → address; columns: source column → type; features: names; estimator: class; feature_code: digest;
classification: word; label: column; with a train function also train: its path and code. Beside them, for readers:
preprocessing, params."""


@dataclass(frozen=True, kw_only=True)
class MaterialTest:
    """One test of whether a candidate is materially different.

    Attributes:
        name: Such as "features"; the policy's flag is `material.<name>`.
        changed: Whether it found a difference.
        counts: Whether the policy wants an approval for such a difference.
        sentence: What was found, for a reader.
        evidence: JSON-ready values behind it.
    """

    name: str
    changed: bool
    counts: bool
    sentence: str
    evidence: Mapping[str, Any] = field(default_factory=dict)

    def to_document(self) -> dict[str, Any]:
        """Return the test as JSON-ready values."""
        return {
            "name": self.name,
            "changed": self.changed,
            "counts": self.counts,
            "sentence": self.sentence,
            "evidence": dict(self.evidence),
        }


Found = tuple[bool, str, dict[str, Any]]


def material_tests(
    candidate: Fingerprint,
    champion: Fingerprint | None,
    challenge: Mapping[str, Any],
    policy: EffectivePolicy,
) -> tuple[MaterialTest, ...]:
    """Return every test, in a fixed order.

    Args:
        candidate: What the candidate was made of.
        champion: What the champion was made of; None when there is no champion.
        challenge: `ChallengeResult.to_document()` of the candidate against champion or baseline.
        policy: Says which differences count, how far a metric may move, and which slices are protected.
    """
    found: dict[str, Found] = {"first_model": _first(champion)}
    tests: dict[str, Callable[[Fingerprint], Found]] = {
        "data_source": lambda old: _mapping("data sources", old.get("sources", {}), candidate.get("sources", {})),
        "columns": lambda old: _mapping("source columns", old.get("columns", {}), candidate.get("columns", {})),
        "features": lambda old: _names("features", old.get("features", ()), candidate.get("features", ())),
        "estimator": lambda old: _value("estimator", _learner(old), _learner(candidate)),
        "feature_code": lambda old: _value("feature code", old.get("feature_code"), candidate.get("feature_code")),
        "label": lambda old: _value("label", old.get("label"), candidate.get("label")),
        "classification": lambda old: _value(
            "data classification", old.get("classification"), candidate.get("classification")
        ),
        "metric": lambda _: _metric(challenge, policy),
        "protected_slice": lambda _: _slices(challenge, policy),
    }
    for name, test in tests.items():
        found[name] = (False, "there is no champion to compare with", {}) if champion is None else test(champion)
    return tuple(
        MaterialTest(
            name=name, changed=changed, counts=policy.flag(f"material.{name}"), sentence=sentence, evidence=evidence
        )
        for name, (changed, sentence, evidence) in found.items()
    )


def needs_approval(tests: Sequence[MaterialTest], policy: EffectivePolicy) -> list[str]:
    """Return why people must approve: a sentence for each difference that counts; empty when none does."""
    reasons = [test.sentence for test in tests if test.changed and test.counts]
    if not reasons and policy.flag("approval.always"):
        return ["the policy wants every promotion approved"]
    return reasons


def _first(champion: Fingerprint | None) -> Found:
    if champion is None:
        return True, "it is the first model: there is no champion", {}
    return False, "there is a champion before it", {}


def _mapping(what: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Found:
    added, removed = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    other = sorted(name for name in new.keys() & old.keys() if new[name] != old[name])
    evidence = {
        "added": added,
        "removed": removed,
        "changed": {name: {"was": old[name], "is": new[name]} for name in other},
    }
    return _difference(what, added, removed, other, len(new), evidence)


def _learner(made_of: Fingerprint) -> str:
    """Return the estimator's class, or the train function that fits it and its code."""
    return made_of.get("train") or made_of.get("estimator", "")


def _names(what: str, old: Sequence[str], new: Sequence[str]) -> Found:
    added, removed = sorted(set(new) - set(old)), sorted(set(old) - set(new))
    return _difference(what, added, removed, [], len(new), {"added": added, "removed": removed})


def _difference(
    what: str, added: list[str], removed: list[str], other: list[str], total: int, evidence: dict[str, Any]
) -> Found:
    parts = [
        f"{word} {', '.join(names)}" for word, names in (("new", added), ("gone", removed), ("other", other)) if names
    ]
    if not parts:
        return False, f"the same {total} {what}", evidence
    return True, f"{what}: {'; '.join(parts)}", evidence


def _value(what: str, old: Any, new: Any) -> Found:
    evidence = {"was": old, "is": new}
    if old == new:
        return False, f"the same {what}", evidence
    shown = (str(value)[:12] if what == "feature code" else str(value).rpartition(".")[2] for value in (old, new))
    return True, "another {}: was {}, is {}".format(what, *shown), evidence


def _metric(challenge: Mapping[str, Any], policy: EffectivePolicy) -> Found:
    metric = challenge["metric"]
    improvement = challenge.get("improvement")
    if improvement is None or challenge.get("reference", "champion") != "champion":
        return True, f"{metric} of the champion could not be measured", {}
    return _moved(f"{metric}", improvement["estimate"], f"{metric}.material_band", policy)


def _moved(what: str, estimate: float, setting: str, policy: EffectivePolicy) -> Found:
    if setting not in policy.settings:
        # Without a band nothing can be called small.
        return True, f"{what} moved by {estimate:+.4f}, and the policy sets no {setting}", {"moved": estimate}
    band = policy.number(setting)
    outside = abs(estimate) > band
    sentence = f"{what} moved by {estimate:+.4f}, {'more' if outside else 'no more'} than {band:g}"
    return outside, sentence, {"moved": estimate, "band": band}


def _slices(challenge: Mapping[str, Any], policy: EffectivePolicy) -> Found:
    """Look at the slices the policy protects: a whole column ("origin") or one value ("origin=LGA")."""
    protected = policy.names("material.protected_slices")
    if not protected:
        return False, "the policy protects no slice", {}
    measured = challenge.get("slices", ())
    setting = f"{challenge['metric']}.material_band"
    moved: dict[str, Any] = {}
    seen: set[str] = set()
    for part in measured:
        for name in (part["column"], f"{part['column']}={part['value']}"):
            if name not in protected:
                continue
            seen.add(name)
            place = f"{part['column']}={part['value']}"
            if part["improvement"] is None:
                moved[place] = f"{place} could not be measured: {part['reason']}"
                continue
            changed, sentence, _ = _moved(place, part["improvement"]["estimate"], setting, policy)
            if changed:
                moved[place] = sentence
    for name in sorted(set(protected) - seen):
        moved[name] = f"{name} is protected, and the evaluation has no such slice"
    if moved:
        told = "; ".join(moved[place] for place in sorted(moved))
        return True, f"protected slices moved: {told}", {"protected": list(protected), **moved}
    return False, f"no protected slice moved ({', '.join(protected)})", {"protected": list(protected)}
