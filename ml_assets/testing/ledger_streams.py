"""StreamSuite: which stream a record is appended to, and that automation makes no signature stale."""
# ruff: noqa: D102 - the names of the tests are the sentences

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pytest

from ml_assets.approvals.giving import records_head, submit
from ml_assets.approvals.signing import sign_statement
from ml_assets.approvals.standing import Standing
from ml_assets.approvals.statements import Statement, subject_of
from ml_assets.chain import anchor_document, check_anchor
from ml_assets.errors import LedgerConflictError
from ml_assets.interfaces import NO_HASH, ChainHead, Ledger, Person, PublicKey, RecordKind
from ml_assets.testing.ledger_examples import PIPELINE, decision, record
from ml_assets.testing.policy_source import LONG_AGO, FakePolicySource, person

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

RECORDS, AUTOMATION = "records/flights/arrival_delay", "automation/flights/arrival_delay"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Reviewer:
    """A person who signs with a key that follows from the name."""

    person: str

    @cached_property
    def private(self) -> "Ed25519PrivateKey":
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(self.person.encode()).digest())

    @property
    def key(self) -> str:
        return self.private.public_key().public_bytes_raw().hex()

    def sign(self, payload: bytes) -> bytes:
        return self.private.sign(payload)

    def as_person(self) -> Person:
        return person(self.person, keys=(PublicKey(value=self.key, effective_from=LONG_AGO),))


class Waiting:
    """A ledger with a decision that waits for two reviewers."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.reviewers = {name: Reviewer(name) for name in ("olga", "pavel")}
        people = {name: reviewer.as_person() for name, reviewer in self.reviewers.items()}
        self.policy = FakePolicySource({"approval.needed": 2}, people)
        digest = self.policy.effective(PIPELINE).digest
        ledger.record_decision(
            decision(
                outcome="awaiting_approval",
                model_digest="a" * 64,
                evaluation_digest="b" * 64,
                policy_digest=digest,
                policy_version=digest,
                launched_by=("lena",),
                recorded_at=NOW - timedelta(hours=1),
            )
        )

    def signed(self, name: str) -> Statement:
        """Return an approval for the end of the chain, as `approvals approve --print` makes it."""
        (waits,) = self.ledger.decisions(PIPELINE)
        return sign_statement(
            self.reviewers[name],
            action="approve",
            pipeline=PIPELINE,
            partition=waits.partition,
            subject=subject_of(waits),
            reason="The slices look right.",
            issued_at=NOW,
            valid_for=timedelta(days=1),
            previous=records_head(self.ledger, PIPELINE),
        )

    def give(self, statement: Statement) -> Standing:
        return submit(self.ledger, self.policy, statement, now=NOW)


class StreamSuite:
    """What every ledger does; subclass it and provide a fixture `ledger` that is empty for each test."""

    @pytest.mark.parametrize("kind", ["automation", "pause"])
    def test_an_automation_record_in_between_does_not_make_a_signed_approval_stale(
        self, ledger: Any, kind: RecordKind
    ) -> None:
        waiting = Waiting(ledger)
        first = ledger.append(record(kind=kind, subject="first"))
        olgas, pavels = waiting.signed("olga"), waiting.signed("pavel")
        ledger.append(record(kind=kind, subject="in between"))

        assert waiting.give(olgas).missing == 1
        with pytest.raises(LedgerConflictError):  # here a record of people came in between
            waiting.give(pavels)
        assert waiting.give(waiting.signed("pavel")).complete

        assert first.previous_hash == olgas.previous == NO_HASH
        assert [r.kind for r in ledger.records(PIPELINE)] == [kind, kind, "approval", "approval"]
        assert ledger.verify() == ledger.verify(PIPELINE) == []

    def test_records_of_both_streams_are_read_in_the_order_of_recording(self, ledger: Any) -> None:
        late, early = datetime(2014, 1, 1, tzinfo=UTC), datetime(2013, 1, 1, tzinfo=UTC)
        kinds: list[RecordKind] = ["automation", "approval", "pause", "automation", "alias", "incident", "pause"]
        kept = [
            ledger.append(record(kind=kind, subject=str(n % 2), recorded_at=early if n > 3 else late))
            for n, kind in enumerate(kinds)
        ]

        assert ledger.records(PIPELINE) == kept
        assert ledger.records(PIPELINE, subject="0") == kept[::2]
        assert ledger.records(PIPELINE, kind="pause") == [kept[2], kept[6]]
        assert [r.stream for r in kept] == [AUTOMATION, RECORDS, AUTOMATION, AUTOMATION, RECORDS, RECORDS, AUTOMATION]
        with ledger.exclusive(PIPELINE) as view:
            assert view.records(PIPELINE) == kept
            view.append(record(kind="automation"), after=kept[6].row_hash)
            view.append(record(kind="waiver"), after=kept[5].row_hash)

    @pytest.mark.parametrize("pipeline", [("flights", "*"), ("*", "*")])
    def test_a_record_may_be_of_every_pipeline_and_is_in_a_stream_of_its_own(
        self, ledger: Any, pipeline: tuple[str, str]
    ) -> None:
        own = ledger.append(record())
        kept = ledger.append(record(pipeline=pipeline, kind="pause", subject="pause"), after=NO_HASH)
        with ledger.exclusive(pipeline) as view:
            lifted = view.append(record(pipeline=pipeline, kind="pause", subject="resume"), after=kept.row_hash)

        assert ledger.records(pipeline) == [kept, lifted]
        assert ledger.records(PIPELINE) == [own]
        stream = f"automation/{pipeline[0]}/{pipeline[1]}"
        assert list(ledger.heads(pipeline)) == [stream]
        assert ledger.verify() == ledger.verify(pipeline) == []
        assert check_anchor(anchor_document(ledger.heads()), ledger) == []
        longer = anchor_document({stream: ChainHead(position=3, row_hash="f" * 64)})
        assert [problem.stream for problem in check_anchor(longer, ledger, pipeline)] == [stream]
