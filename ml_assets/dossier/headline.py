"""The top of the page: what was decided, and at a glance why."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from ml_assets.dossier.bars import Bar, common_scale
from ml_assets.dossier.facts import DossierFacts, evidence_of
from ml_assets.dossier.words import NOTHING, count, instant, interval_words, percent, plain, signed

ASKING = ("promoted", "awaiting_approval", "rejected", "rolled_back")
"""Outcomes of decisions that may have asked people."""
LONG_REASON = 220
"""Characters from which a reason is set in smaller type."""


@dataclass(frozen=True, kw_only=True)
class Badge:
    """A word with a colour and a sign, so that neither colour nor sign alone carries it.

    Attributes:
        word: Such as "Promoted".
        kind: Colour: "good", "wait", "bad" or "calm".
        sign: One character.
    """

    word: str
    kind: str
    sign: str


OUTCOMES: Mapping[str, Badge] = {
    "promoted": Badge(word="Promoted", kind="good", sign="✓"),
    "kept": Badge(word="Champion kept", kind="calm", sign="="),
    "undecided": Badge(word="Undecided", kind="wait", sign="?"),
    "refused": Badge(word="Refused", kind="bad", sign="✕"),
    "awaiting_approval": Badge(word="Awaiting approval", kind="wait", sign="…"),
    "rejected": Badge(word="Rejected", kind="bad", sign="✕"),
    "rolled_back": Badge(word="Rolled back", kind="wait", sign="↺"),
}
CHALLENGES: Mapping[str, Badge] = {
    "promote": Badge(word="Passed", kind="good", sign="✓"),
    "keep": Badge(word="Not passed", kind="bad", sign="✕"),
    "undecided": Badge(word="Undecided", kind="wait", sign="?"),
}
UNKNOWN = Badge(word="Not recorded", kind="calm", sign="–")


def badge(known: Mapping[str, Badge], word: Any) -> Badge:
    """Return the badge of a word; of one that is not known the word itself."""
    if not word:
        return UNKNOWN
    return known.get(str(word)) or Badge(word=str(word), kind="calm", sign="·")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A vertical line on a plot, with its label: `anchor` is "start", "middle" or "end"."""

    at: float
    label: str
    kind: str
    anchor: str


@dataclass(frozen=True, kw_only=True)
class Card:
    """One answer at a glance.

    Attributes:
        title: The question, in a word or two.
        badge: The answer.
        text: One sentence.
        href: Section with the details.
        bar: Interval to draw, if any.
        marks: Lines to draw with it.
        label: What the drawing shows, in words.
    """

    title: str
    badge: Badge
    text: str
    href: str
    bar: Bar | None = None
    marks: tuple[Mark, ...] = ()
    label: str = ""


def launchers(names: tuple[str, ...]) -> str:
    """Return who launched runs, in words; an empty name is an unknown launcher."""
    return ", ".join(name or "an unknown launcher" for name in names) or "not recorded"


def headline(facts: DossierFacts) -> dict[str, Any]:
    """Return what the page starts with."""
    decision, spec = facts.decision, facts.spec
    version = "not registered" if decision.model_version is None else f"version {decision.model_version}"
    label = f"{spec.label} ({spec.task}{f', {spec.unit}' if spec.unit else ''})"
    return {
        "pipeline": "/".join(decision.pipeline),
        "partition": decision.partition,
        "version": version,
        "badge": badge(OUTCOMES, decision.outcome),
        "reason": decision.reason,
        "long": len(decision.reason) > LONG_REASON,
        "description": spec.description,
        "facts": [
            ("Decided", instant(decision.recorded_at)),
            ("By", decision.decided_by or "not recorded"),
            ("Launched by", launchers(decision.launched_by)),
            ("Model", f"{decision.model_name}, {version}"),
            ("Champion before", f"version {decision.champion_version}" if decision.champion_version else "none"),
            ("Predicts", label),
            ("Owners", ", ".join(spec.owners) or NOTHING),
            ("Business unit", spec.business_unit or NOTHING),
            ("Product", spec.product or NOTHING),
            ("Data classification", spec.classification or NOTHING),
            ("Regulations", ", ".join(spec.regulations) or "none"),
            ("Training window, seed", f"{spec.training_window}, {spec.seed}"),
        ],
    }


def cards(facts: DossierFacts) -> list[Card]:
    """Return the answers at a glance: challenge, serving, material change, approvals."""
    return [_challenge_card(facts), _serving_card(facts), _material_card(facts), _approval_card(facts)]


def _challenge_card(facts: DossierFacts) -> Card:
    challenge = evidence_of(facts.decision, "challenge")
    if not challenge:
        return Card(title="Challenge", badge=UNKNOWN, text="No comparison came to this decision.", href="#metrics")
    improvement, reference = challenge.get("improvement"), plain(challenge.get("reference"))
    bar, marks = challenge_plot(challenge)
    words = interval_words(improvement, sign="+")
    text = f"{plain(challenge.get('metric'))} over the {reference}: {words} at {percent(challenge.get('confidence'))}"
    return Card(
        title="Challenge",
        badge=badge(CHALLENGES, challenge.get("outcome")),
        text=text,
        href="#metrics",
        bar=bar,
        marks=marks,
        label=f"Improvement in {text}; " + ", ".join(f"line at {mark.label}" for mark in marks),
    )


def challenge_plot(challenge: Mapping[str, Any]) -> tuple[Bar | None, tuple[Mark, ...]]:
    """Return the improvement's bar, and the lines at zero and, against a champion, at the allowed loss."""
    margin, improvement = challenge.get("margin"), challenge.get("improvement")
    allowed = challenge.get("reference") == "champion" and isinstance(margin, int | float)
    lines = [(0.0, "0", "zero")]
    if allowed and margin:
        lines.append((-float(margin), f"margin {signed(-float(margin), 4).rstrip('0')}", "margin"))
    scale = common_scale([improvement], *(value for value, _, _ in lines))
    marks = tuple(Mark(at=(at := scale.at(v)), label=label, kind=kind, anchor=_anchor(at)) for v, label, kind in lines)
    return scale.bar(improvement), marks


def _anchor(at: float) -> str:
    return "start" if at < 20 else "end" if at > 80 else "middle"


def _serving_card(facts: DossierFacts) -> Card:
    serving = evidence_of(facts.decision, "serving")
    if not serving:
        return Card(title="Serving", badge=UNKNOWN, text="Not loaded in a clean process.", href="#lineage")
    problems = list(serving.get("problems") or ())
    if problems:
        found = Badge(word=count(len(problems), "problem"), kind="bad", sign="✕")
        return Card(title="Serving", badge=found, text="; ".join(map(str, problems)), href="#lineage")
    text = (
        f"{count(serving.get('n_rows'), 'row')} scored in a clean process, "
        f"{milliseconds(serving.get('latency_ms'))} for 1,000 rows, {megabytes(serving.get('n_bytes'))}"
    )
    return Card(title="Serving", badge=CHALLENGES["promote"], text=text, href="#lineage")


def milliseconds(duration_ms: Any) -> str:
    """Return a duration such as "21.4 ms"."""
    return f"{duration_ms:,.1f} ms" if isinstance(duration_ms, int | float) else NOTHING


def megabytes(n_bytes: Any) -> str:
    """Return a size such as "1.25 MB"."""
    return f"{n_bytes / 1e6:,.2f} MB" if isinstance(n_bytes, int | float) else NOTHING


def _material_card(facts: DossierFacts) -> Card:
    tests = facts.decision.evidence.get("material") or ()
    if not tests:
        return Card(title="Material change", badge=UNKNOWN, text="Not tested.", href="#material")
    counting = [test for test in tests if test.get("changed") and test.get("counts")]
    if not counting:
        text = f"None of {len(tests)} tests found a difference that asks for approval."
        return Card(title="Material change", badge=Badge(word="No", kind="good", sign="✓"), text=text, href="#material")
    text = f"{len(counting)} of {len(tests)} tests: " + "; ".join(plain(test.get("sentence")) for test in counting)
    return Card(title="Material change", badge=Badge(word="Yes", kind="wait", sign="!"), text=text, href="#material")


def approvals_given(facts: DossierFacts) -> int:
    """Return how many approvals count."""
    return sum(bool(a.get("counts")) for a in facts.approvals if a.get("action") == "approve")


def approvals_needed(facts: DossierFacts) -> int:
    """Return how many people had to approve: 0 when the decision asked nobody, whatever the policy would ask for."""
    decision, needed = facts.decision, evidence_of(facts.decision, "approval").get("needed")
    if decision.outcome not in ASKING or not isinstance(needed, int | float) or not math.isfinite(needed):
        return 0
    reasons = decision.evidence.get("approval_reasons")
    if reasons is None:
        reasons = [
            test for test in decision.evidence.get("material") or () if test.get("changed") and test.get("counts")
        ]
    return math.ceil(needed) if reasons or facts.approvals or decision.outcome == "awaiting_approval" else 0


def approvals_until(facts: DossierFacts) -> datetime | str | None:
    """Return until when people may approve, or None when it was not recorded."""
    decision, asked = facts.decision, evidence_of(facts.decision, "approval")
    if asked.get("expires_at") is not None:
        return asked["expires_at"]
    days = asked.get("valid_days")
    if decision.outcome != "awaiting_approval" or decision.recorded_at is None or not isinstance(days, int | float):
        return None
    return decision.recorded_at + timedelta(days=days)


def approvers(facts: DossierFacts) -> str:
    """Return who may approve, and until when where that is known, such as "model_reviewer, until 2026-12-02 …"."""
    until, roles = approvals_until(facts), plain(evidence_of(facts.decision, "approval").get("roles"))
    return roles if until is None else f"{roles}, until {instant(until)}"


def _approval_card(facts: DossierFacts) -> Card:
    given, needed = approvals_given(facts), approvals_needed(facts)
    if not needed:
        found = Badge(word="Not needed", kind="calm", sign="–")
        return Card(title="Approvals", badge=found, text="The decision asked nobody.", href="#approvals")
    rejected = [plain(a.get("person")) for a in facts.approvals if a.get("action") == "reject" and a.get("counts")]
    if rejected:
        found, text = Badge(word="Rejected", kind="bad", sign="✕"), f"By {', '.join(rejected)}."
    else:
        complete = given >= needed
        found = Badge(word=f"{given} of {needed}", kind="good" if complete else "wait", sign="✓" if complete else "…")
        text = f"By {approvers(facts)}."
    return Card(title="Approvals", badge=found, text=text, href="#approvals")
