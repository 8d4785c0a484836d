"""Data, material change, approvals, lineage, policy and differences as the page shows them."""

from collections.abc import Mapping
from typing import Any

from ml_assets.dossier.differences import DiffRow, diff_of, policy_words
from ml_assets.dossier.facts import DossierFacts, evidence_of, report_of
from ml_assets.dossier.headline import (
    Badge,
    approvals_given,
    approvals_needed,
    approvers,
    launchers,
    megabytes,
    milliseconds,
)
from ml_assets.dossier.words import count, entries, instant, plain
from ml_assets.interfaces import Setting, Verdict

PASSED = Badge(word="passed", kind="good", sign="✓")
FAILED = Badge(word="failed", kind="bad", sign="✕")
WAIVED = Badge(word="waived", kind="wait", sign="!")
WARNED = Badge(word="warning", kind="wait", sign="!")
GROUPS = {"model": "Model", "metrics": "Metrics", "policy": "Policy settings", "data": "Data versions"}
ALWAYS_USED = {
    "challenge": ("comparison.", "slices."),
    "material": ("material.",),
    "approval": ("approval.",),
    "serving": ("serving.",),
}
"""Part of a decision's evidence → the settings it was made by."""


def data(facts: DossierFacts) -> dict[str, Any]:
    """Return the period and rows, the upstream data versions, and what the gates said."""
    report = report_of(facts.evaluation)
    period = []
    if report is not None:
        if report.first_event and report.last_event:
            period.append(("Period", f"{_event(report.first_event)} to {_event(report.last_event)}"))
        period.append(("Test rows", f"{count(report.n_rows)} in {count(report.n_blocks, 'block')} of time"))
    if "training_rows" in facts.candidate:
        period.append(("Training rows", count(facts.candidate["training_rows"])))
    verdicts = [_verdict(verdict, evidence_of(facts.decision, "waivers")) for verdict in facts.verdicts]
    return {
        "period": period,
        "upstream": sorted(facts.upstream.items()),
        "verdicts": verdicts,
        "closed": sum(verdict["badge"] is FAILED for verdict in verdicts),
    }


def _event(time: str) -> str:
    """Return an event time in words, a day without its midnight."""
    return time.removesuffix("T00:00:00").replace("T", " ")


def _verdict(verdict: Verdict, waivers: Mapping[str, Any]) -> dict[str, Any]:
    """Return one verdict; a waiver stands under the asset, the partition and the gate that it lets pass."""
    asset = f"{'/'.join(verdict.asset)} [{verdict.partition}]"
    waiver = waivers.get(f"{asset} {verdict.check}", "")
    failed = WARNED if verdict.severity == "warning" else WAIVED if waiver else FAILED
    return {
        "asset": asset,
        "check": verdict.check,
        "badge": PASSED if verdict.outcome == "passed" else failed,
        "reason": verdict.reason,
        "waiver": plain(waiver) if waiver and verdict.outcome == "failed" else "",
        "evidence": entries(verdict.evidence),
        "data_version": verdict.data_version,
        "at": instant(verdict.recorded_at),
    }


def material(facts: DossierFacts) -> list[dict[str, Any]]:
    """Return every test of material change with its evidence, also those that found nothing."""
    return [
        {
            "name": plain(test.get("name")).replace("_", " "),
            "badge": _change(bool(test.get("changed")), bool(test.get("counts"))),
            "counts": plain(bool(test.get("counts"))),
            "sentence": plain(test.get("sentence")),
            "evidence": entries(test.get("evidence") or {}),
        }
        for test in facts.decision.evidence.get("material") or ()
    ]


def _change(changed: bool, counts: bool) -> Badge:
    if not changed:
        return Badge(word="same", kind="good", sign="=")
    return Badge(word="changed", kind="wait" if counts else "calm", sign="!")


def approvals(facts: DossierFacts) -> dict[str, Any]:
    """Return what was asked for and what people said."""
    return {
        "needed": approvals_needed(facts),
        "given": approvals_given(facts),
        "approvers": approvers(facts),
        "rows": [
            {
                "person": plain(a.get("person")),
                "action": plain(a.get("action")),
                "at": instant(a.get("at")),
                "reason": plain(a.get("reason")),
                "badge": Badge(word="counts", kind="good", sign="✓")
                if a.get("counts")
                else Badge(word="does not count", kind="calm", sign="–"),
                "why": a.get("why") or "",
            }
            for a in facts.approvals
        ],
    }


def lineage(facts: DossierFacts) -> dict[str, Any]:
    """Return what identifies code, data, model and policy, and the serving check's figures."""
    decision, serving = facts.decision, evidence_of(facts.decision, "serving")
    code = evidence_of(decision, "fingerprint").get("feature_code")
    digests = [
        ("Feature code", code),
        ("Model bytes", decision.model_digest),
        ("Evaluation's data version", decision.data_version),
        ("Evaluation document", decision.evaluation_digest),
        ("Predictions", facts.candidate.get("prediction_digest")),
        ("Gates' policy version", decision.policy_version),
        ("Policy as a whole", decision.policy_digest),
    ]
    return {
        "runs": [
            ("Decided by Dagster run", plain(decision.run_id)),
            ("MLflow run of the model", plain(facts.candidate.get("run_id"))),
            ("Model's address", plain(facts.candidate.get("model_uri"))),
            ("Variant", plain(facts.candidate.get("variant"))),
            ("Launched by", launchers(decision.launched_by)),
            ("Gates judged in runs", ", ".join(sorted({v.run_id for v in facts.verdicts})) or "none"),
        ],
        "digests": [(name, digest or "not recorded") for name, digest in digests],
        "fingerprint": entries(evidence_of(decision, "fingerprint")),
        "serving": None if not serving else _serving(serving),
    }


def _serving(serving: Any) -> dict[str, Any]:
    return {
        "problems": [str(problem) for problem in serving.get("problems") or ()],
        "figures": [
            ("Rows scored", count(serving.get("n_rows"))),
            ("Time to load", f"{plain(serving.get('load_seconds'))} s"),
            ("Latency for 1,000 rows", milliseconds(serving.get("latency_ms"))),
            ("Size", megabytes(serving.get("n_bytes"))),
            ("Largest difference to the evaluated scores", plain(serving.get("largest_difference"))),
            ("Scores of the input example", plain(serving.get("example_scores"))),
            ("Digest of what was loaded", plain(serving.get("model_digest"))),
        ],
    }


def policy(facts: DossierFacts) -> dict[str, Any]:
    """Return the settings the decision was made by, all others, and every level of each."""
    settings, used = facts.policy.settings, used_settings(facts)
    decided = facts.decision.policy_digest
    return {
        "digest": facts.policy.digest,
        "moved": bool(decided) and decided != facts.policy.digest,
        "used": [_setting(settings[name]) for name in sorted(used)],
        "others": [_setting(settings[name]) for name in sorted(settings.keys() - used)],
        "chains": [
            {"name": name, "levels": [_setting(setting) for setting in facts.policy.chains[name]]}
            for name in sorted(used)
            if len(facts.policy.chains.get(name, ())) > 1
        ],
    }


def used_settings(facts: DossierFacts) -> set[str]:
    """Return the names of the policy's settings that the decision was made by."""
    evidence = facts.decision.evidence
    metric = evidence_of(facts.decision, "challenge").get("metric")
    names = {v.check for v in facts.verdicts} | {f"{metric}.{x}" for x in ("margin", "slice_margin", "material_band")}
    starts = tuple(start for part, found in ALWAYS_USED.items() if evidence.get(part) for start in found)
    return {name for name in facts.policy.settings if name in names or (starts and name.startswith(starts))}


def _setting(setting: Setting) -> dict[str, str]:
    return {
        "name": setting.name,
        "value": policy_words(setting),
        "level": setting.level,
        "place": f"{setting.file}:{setting.line}" if setting.line else setting.file,
        "owner": plain(setting.owner),
        "reason": plain(setting.reason),
        "until": "" if setting.expires is None else instant(setting.expires),
    }


def differences(facts: DossierFacts) -> dict[str, Any]:
    """Return what differs from the champion, by group, and what could not be compared."""
    rows = diff_of(facts)
    found: dict[str, list[DiffRow]] = {}
    for row in rows:
        found.setdefault(GROUPS[row.group], []).append(row)
    return {
        "champion": facts.champion and _champion(facts),
        "groups": [{"title": title, "rows": group} for title, group in found.items()],
        "unknown": _unknown(facts),
    }


def _champion(facts: DossierFacts) -> str:
    assert facts.champion is not None  # noqa: S101 - the caller asked
    decision = facts.champion.decision
    return f"version {decision.model_version}, promoted on {decision.partition} ({instant(decision.recorded_at)})"


def _unknown(facts: DossierFacts) -> list[str]:
    """Return what could not be compared, for one side did not record it."""
    champion = facts.champion
    if champion is None:
        return []
    both = [
        ("what the models are made of", *(evidence_of(d.decision, "fingerprint") for d in (champion, facts))),
        ("evaluations", champion.evaluation, facts.evaluation),
        ("data versions", champion.upstream, facts.upstream),
        ("settings of the policy", champion.policy, facts.policy),
    ]
    return [what for what, old, new in both if not old or not new]
