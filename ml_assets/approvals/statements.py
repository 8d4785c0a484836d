"""What a person says of one decision or gate: bound to digests, a place in the chain and an expiry."""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, Self, get_args

from ml_assets.digest import canonical_json, document_digest
from ml_assets.errors import ApprovalError
from ml_assets.interfaces import Decision, PipelinePath, Verdict

Action = Literal["approve", "reject", "waive"]

FORMAT = "ml-assets statement 1"
"""First word of what is signed, so that a signature made for anything else never counts here."""

MAX_REASON, MAX_TEXT, MAX_SUBJECT, MAX_ENCODED = 2_000, 500, 16, 150_000

_DIGEST = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(r"([0-9a-f]{128})?")
_CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_TEXTS = ("action", "person", "pipeline", "partition", "reason", "issued_at", "expires_at", "previous", "key")
_FIELDS = frozenset({"format", "subject", "signature", *_TEXTS})
_BOUND = ("data_version", "model_version", "model_digest", "evaluation_digest", "policy_digest")


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What one person says, and the signature under it.

    Attributes:
        action: "approve" or "reject" of a decision, "waive" of a failed gate.
        person: Who says it.
        pipeline: (team, pipeline).
        partition: Dagster's partition key of what it is about.
        subject: What exactly it is about: names and digests; see `subject_of` and `subject_of_gate`.
        reason: Why, at most 2,000 characters.
        issued_at: When it was signed; with a time zone.
        expires_at: From when it no longer counts; with a time zone.
        previous: Hash of the last record of the pipeline's stream "records" when it was signed: 64 hexadecimal
            digits. It is the statement's place in the chain, so that a copy of the record elsewhere does not count.
        key: Public key it was signed with: 64 hexadecimal digits.
        signature: Ed25519 signature of `payload()`: 128 hexadecimal digits; empty before it is signed.
    """

    action: Action
    person: str
    pipeline: PipelinePath
    partition: str
    subject: Mapping[str, str]
    reason: str
    issued_at: datetime
    expires_at: datetime
    previous: str
    key: str
    signature: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "subject", dict(self.subject))
        problems = list(_problems(self))
        if problems:
            raise _malformed("; ".join(problems))

    @property
    def place(self) -> str:
        """Return "team/pipeline [partition]", for messages."""
        return f"{'/'.join(self.pipeline)} [{self.partition}]"

    def payload(self) -> bytes:
        """Return what is signed: canonical JSON of everything but the signature."""
        return canonical_json(self._content()).encode()

    def to_body(self) -> dict[str, Any]:
        """Return the statement as JSON-ready values."""
        return {**self._content(), "signature": self.signature}

    @classmethod
    def from_body(cls, body: Any) -> Self:
        """Return the statement that a record's body holds.

        Raises:
            ApprovalError: "malformed" when anything is missing, unknown, of another type, or written differently
                from how `to_body` writes it.
        """
        problem = next(_body_problems(body), None)
        if problem:
            raise _malformed(problem)
        values = {name: body[name] for name in _TEXTS if name not in {"pipeline", "issued_at", "expires_at"}}
        statement = cls(
            **values,
            pipeline=tuple(body["pipeline"].split("/")),
            subject=body["subject"],
            issued_at=_instant(body["issued_at"]),
            expires_at=_instant(body["expires_at"]),
            signature=body["signature"],
        )
        if statement.to_body() != dict(body) or not statement.signature:
            raise _malformed("it is not written as the library writes it, or has no signature")
        return statement

    def encode(self) -> str:
        """Return the statement as one line of text that can be pasted into a form."""
        return base64.urlsafe_b64encode(canonical_json(self.to_body()).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> Self:
        """Return the statement of one line of text; raises ApprovalError ("malformed") as `from_body` does."""
        line = text.strip()
        if len(line) > MAX_ENCODED:
            raise _malformed(f"the text has {len(line):,} characters; expected at most {MAX_ENCODED:,}")
        try:
            body = json.loads(base64.b64decode(line + "=" * (-len(line) % 4), altchars=b"-_", validate=True))
        except (binascii.Error, ValueError, RecursionError) as error:
            raise _malformed("the text is no encoded statement; paste the whole line as it was printed") from error
        statement = cls.from_body(body)
        if statement.encode() != line:
            raise _malformed("the text is not written as the library writes it")
        return statement

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "action": self.action,
            "person": self.person,
            "pipeline": "/".join(self.pipeline),
            "partition": self.partition,
            "subject": dict(self.subject),
            "reason": self.reason,
            "issued_at": written(self.issued_at),
            "expires_at": written(self.expires_at),
            "previous": self.previous,
            "key": self.key,
        }


def subject_of(decision: Decision) -> dict[str, str]:
    """Return what an approval of a decision is bound to; when any of it changes, the approval is void."""
    return {
        "asset": "/".join((*decision.pipeline, "promotion")),
        "partition": decision.partition,
        "data_version": decision.data_version,
        "model_name": decision.model_name,
        "model_version": decision.model_version or "",
        "model_digest": decision.model_digest,
        "evaluation_digest": decision.evaluation_digest,
        "policy_digest": decision.policy_digest,
        "compared_digest": document_digest(
            {"champion": decision.champion_version}
            | {name: decision.evidence.get(name) for name in ("challenge", "fingerprint")}
        ),
    }


def subject_of_gate(verdict: Verdict) -> dict[str, str]:
    """Return what a waiver of a gate is bound to: the gate of exactly one data version."""
    return {
        "asset": "/".join(verdict.asset),
        "partition": verdict.partition,
        "data_version": verdict.data_version,
        "check": verdict.check,
    }


def subject_digest(subject: Mapping[str, str]) -> str:
    """Return the digest under which the ledger finds statements on a subject: 64 hexadecimal digits."""
    return document_digest(dict(subject))


def unbound_fields(subject: Mapping[str, str]) -> list[str]:
    """Return what a decision's subject leaves empty, so that nothing could be bound to it."""
    return [name for name in _BOUND if not subject.get(name)]


def written(at: datetime) -> str:
    """Return an instant as statements write it: UTC, with microseconds."""
    try:
        return at.astimezone(UTC).isoformat(timespec="microseconds")
    except OverflowError as error:
        raise _malformed("an instant lies outside of the calendar") from error


def _problems(statement: Statement) -> Iterator[str]:
    """Yield what keeps a statement from being signed or read."""
    if statement.action not in get_args(Action):
        yield f"its action is {statement.action!r}; expected {', '.join(get_args(Action))}"
    if not statement.reason.strip():
        yield "it has no reason; say in a sentence why"
    for name, text, most in (
        ("person", statement.person, MAX_TEXT),
        ("partition", statement.partition, MAX_TEXT),
        ("pipeline", "/".join(statement.pipeline), MAX_TEXT),
        ("reason", statement.reason, MAX_REASON),
    ):
        yield from _text_problems(name, text, most)
    if len(statement.pipeline) != 2 or any(not part or "/" in part for part in statement.pipeline):
        yield f"its pipeline is {statement.pipeline!r}; expected a team and a name"
    if not 0 < len(statement.subject) <= MAX_SUBJECT:
        yield f"its subject has {len(statement.subject)} entries; expected 1 to {MAX_SUBJECT}"
    for name, text in statement.subject.items():
        yield from _text_problems("subject", name, MAX_TEXT)
        yield from _text_problems(f"subject.{name}", text, MAX_TEXT)
    if statement.issued_at.utcoffset() is None or statement.expires_at.utcoffset() is None:
        yield "an instant has no time zone"
    elif statement.expires_at <= statement.issued_at:
        yield "it ends before it begins"
    for name, text, form in (
        ("previous", statement.previous, _DIGEST),
        ("key", statement.key, _DIGEST),
        ("signature", statement.signature, _SIGNATURE),
    ):
        if not form.fullmatch(text):
            yield f"its {name} is not {128 if name == 'signature' else 64} lower-case hexadecimal digits"


def _text_problems(name: str, text: str, most: int) -> Iterator[str]:
    if len(text) > most:
        yield f"its {name} has {len(text):,} characters; expected at most {most:,}"
    if _CONTROL.search(text) or (name != "reason" and "\n" in text):
        yield f"its {name} holds control characters"
    if not text and name != "reason" and not name.startswith("subject."):  # that there is no reason is told already
        yield f"its {name} is empty"


def _body_problems(body: Any) -> Iterator[str]:
    """Yield what keeps a body from being taken apart; it is never quoted: anybody may have written it."""
    if not isinstance(body, Mapping):
        yield f"it is a {type(body).__name__}; expected a mapping"
        return
    if set(body) != _FIELDS:
        missing, unknown = sorted(_FIELDS - set(body)), len(set(body) - _FIELDS)
        yield f"it lacks {', '.join(missing) or 'nothing'} and has {unknown} unknown fields"
        return
    if body["format"] != FORMAT:
        yield f"its format is not {FORMAT!r}"
    for name in (*_TEXTS, "signature"):
        if not isinstance(body[name], str):
            yield f"its {name} is a {type(body[name]).__name__}; expected text"
    subject = body["subject"]
    if not isinstance(subject, Mapping) or not all(isinstance(t, str) for pair in subject.items() for t in pair):
        yield "its subject is not a mapping of text to text"


def _instant(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise _malformed("an instant is not written as 2026-11-25T00:00:00.000000+00:00") from error


def _malformed(problem: str) -> ApprovalError:
    return ApprovalError("malformed", f"The statement cannot be read: {problem}.")
