"""What people must be told: rows of the ledger, the inbox and the engine as alerts, each with its next command."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

from ml_assets.arrivals.put_aside import PutAside
from ml_assets.inbox_rules import place_of
from ml_assets.interfaces import Alert, Decision, InboxEvent, PipelinePath, Record, Verdict
from ml_assets.retraining.attempts import read_history
from ml_assets.stages.champions import latest_by_partition
from ml_assets.texts import storable_text

MOST_TITLE, MOST_BODY, MOST_KEY = 200, 2000, 500
"""Characters; what is longer is cut, a key with a digest of the whole."""


def gates_failed(
    verdicts: Iterable[Verdict], *, after: datetime, waived: Callable[[Verdict], bool] = lambda _: False
) -> Iterator[Alert]:
    """Yield an alert for each gate that is closed and was judged after an instant.

    Only the newest verdict of an asset's partition and gate counts: what a newer data version has corrected, and
    what a person has waived, needs nobody any more.

    Args:
        verdicts: Of one pipeline, oldest first.
        after: Older verdicts are history.
        waived: Whether somebody lets a failed gate pass now.
    """
    newest = {(v.asset, v.partition, v.check): v for v in verdicts}
    for verdict in newest.values():
        fresh = verdict.recorded_at is not None and verdict.recorded_at > after
        if verdict.outcome == "failed" and verdict.severity == "error" and fresh and not waived(verdict):
            yield _gate_failed(verdict)


def _gate_failed(verdict: Verdict) -> Alert:
    path, stage = (verdict.asset[0], verdict.asset[1]), "/".join(verdict.asset[2:])
    grant = f"ml-assets waivers grant {_name(path)} {stage} '{verdict.partition}' {verdict.check}"
    return _alert(
        "gate_failed",
        path,
        subject=(stage, verdict.partition, verdict.check, verdict.data_version[:16], verdict.policy_version[:16]),
        title=f"gate {verdict.check} of {stage} [{verdict.partition}] is closed",
        body=f"{_sentence(verdict.reason)} Nothing downstream uses data version {verdict.data_version[:12]}. "
        f"Correct the data or the model and make the partition anew; or, where the policy allows it, waive the gate: "
        f"{grant} --reason … --days … (run {verdict.run_id})",
    )


def awaiting_approval(decisions: Sequence[Decision]) -> Iterator[Alert]:
    """Yield an alert for each candidate of a pipeline that waits for people; decisions come oldest first."""
    for partition, decision in sorted(latest_by_partition(decisions).items()):
        if decision.outcome == "awaiting_approval":
            place = f"{_name(decision.pipeline)} '{partition}'"
            bound = decision.evaluation_digest or decision.run_id
            yield _alert(
                "awaiting_approval",
                decision.pipeline,
                subject=(partition, bound[:32], decision.policy_digest[:16]),
                title=f"the candidate for {partition} awaits approval",
                body=f"{_sentence(decision.reason)} Look at it: ml-assets approvals show {place}. Then say yes or no: "
                f"ml-assets approvals approve {place}, or ml-assets approvals reject {place}",
            )


def dead_letters(events: Iterable[InboxEvent]) -> Iterator[Alert]:
    """Yield an alert for each event that was given up; one that is given up again after a replay is new."""
    for kept in events:
        if kept.state == "dead":
            what = place_of(kept.event) or kept.event.key
            yield _alert(
                "dead_letter",
                kept.event.pipeline,
                subject=(str(kept.number), kept.run_id or "no-run"),
                title=f"event {kept.number} for [{kept.event.partition}] is a dead letter",
                body=f"{_sentence(kept.reason)} It came as {what!r} and failed {kept.attempts} "
                f"time{'' if kept.attempts == 1 else 's'}. Look at it: "
                f"ml-assets dead-letters show {kept.number}. Once the cause is mended: "
                f"ml-assets dead-letters replay {kept.number}",
            )


def put_aside(path: PipelinePath, folder: str, files: Iterable[PutAside]) -> Iterator[Alert]:
    """Yield an alert for each bad file in a pipeline's quarantine.

    The same bytes at the same place are told once, until the place had an event in between; of bytes that were not
    read, each file is told.

    Args:
        path: The pipeline.
        folder: Its quarantine.
        files: Those whose place no good file has taken since.
    """
    for file in files:
        place = file.place or file.name
        stays = "" if file.partition is None else f" [{file.partition}] stays as it is until then."
        yield _alert(
            "quarantined",
            path,
            subject=(_digest(place), file.sha256 or _digest(file.name), str(file.after_event)),
            title=f"a file for [{file.partition or 'no partition'}] was put into quarantine",
            body=f"{_sentence(file.reason or 'No reason lies beside it')} It came as {place!r} and is now "
            f"{folder}/{file.name}. Land it anew when it is corrected.{stays} When the file is right, correct the "
            "pipeline's YAML or the policy, and move it back.",
        )


def breaker_opened(path: PipelinePath, records: Iterable[Record]) -> Iterator[Alert]:
    """Yield an alert when a pipeline's retraining breaker is open; records are those of kind "automation"."""
    history = read_history(records)
    guards = [] if history.last is None else history.last["guards"]
    ended = [attempt for attempt in history.attempts if attempt.ending is not None]
    for guard in guards:
        if guard["name"] == "breaker":
            yield _alert(
                "breaker_open",
                path,
                subject=(ended[-1].key if ended else str(guard["until"]),),
                title="retraining is stopped by its breaker",
                body=f"{_sentence(guard['sentence'])} See why: ml-assets automation explain {_name(path)}. "
                f"To try once more before that: ml-assets automation request {_name(path)} --reason …",
            )


def incidents(records: Iterable[Record], *, after: datetime) -> Iterator[Alert]:
    """Yield an alert for each incident after an instant, such as an alias that somebody else had moved."""
    for record in records:
        if record.kind == "incident" and record.recorded_at is not None and record.recorded_at > after:
            yield _alert(
                "incident",
                record.pipeline,
                subject=(record.subject, record.row_hash[:32]),
                title=f"incident with {record.subject}",
                body=f"{_sentence(str(record.body.get('sentence', 'The record says no more')))} See what happened: "
                f"ml-assets history {_name(record.pipeline)}",
            )


def freshness_missed(path: PipelinePath, stage: str, since: datetime) -> Alert:
    """Return the alert that an asset is older than its description allows, since an instant."""
    return _alert(
        "freshness_missed",
        path,
        subject=(stage, since.isoformat()),
        title=f"{stage} is older than `freshness.{stage}` allows",
        body=f"Since {since:%Y-%m-%d %H:%M} UTC the newest materialization of {_name(path)}/{stage} is too old. See "
        f"what waits or failed: ml-assets status {_name(path)}, ml-assets inbox list {_name(path)}",
    )


def folded(alerts: Sequence[Alert]) -> Alert:
    """Return one alert instead of several of one kind and pipeline; it counts them."""
    first = alerts[0]
    listed = "".join(f"\n- {alert.title}" for alert in alerts[:5])
    return _alert(
        first.kind,
        first.pipeline,
        subject=("several", hashlib.sha256("\n".join(a.key for a in alerts).encode()).hexdigest()[:16]),
        title=f"{len(alerts)} alerts of kind {first.kind}",
        body=f"{len(alerts)} at once, the first of them:{listed}\nSee them all: ml-assets alerts list",
    )


def _alert(kind: str, path: PipelinePath, *, subject: Sequence[str], title: str, body: str) -> Alert:
    return Alert(
        key=_cut_key(storable_text("/".join([kind, *path, *subject]))),
        kind=kind,
        pipeline=path,
        title=_cut(storable_text(" ".join(f"{_name(path)}: {title}".split())), MOST_TITLE),
        body=_cut(storable_text(body), MOST_BODY),
    )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _cut_key(key: str) -> str:
    return key if len(key) <= MOST_KEY else f"{key[: MOST_KEY - 33]}~{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def _name(path: PipelinePath) -> str:
    return "/".join(path)
