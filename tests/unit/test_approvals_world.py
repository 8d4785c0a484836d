"""A small world to test approvals in: reviewers with keys, a decision that waits, and a ledger."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from ml_assets.approvals.giving import give, records_head
from ml_assets.approvals.signing import Signer, sign_statement
from ml_assets.approvals.standing import Standing, standing
from ml_assets.approvals.statements import Action, Statement, subject_of
from ml_assets.errors import ApprovalError, LedgerConflictError
from ml_assets.interfaces import Decision, EffectivePolicy, Person, PublicKey, Verdict
from ml_assets.testing.ledger import FakeLedger, decision, verdict
from ml_assets.testing.policy_source import FakePolicySource

PIPELINE = ("flights", "arrival_delay")
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KEYS_FROM = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class SessionSigner:
    """A signer whose key is held elsewhere, as behind a web page with sign-in; the key follows from the name."""

    person: str
    holder: str = ""

    @property
    def key(self) -> str:
        return public_key(self.holder or self.person)

    def sign(self, payload: bytes) -> bytes:
        return _private(self.holder or self.person).sign(payload)


@cache
def _private(name: str) -> Any:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())


@cache
def public_key(name: str) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return _private(name).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def reviewer(name: str, **changes: Any) -> Person:
    """Return a reviewer of the flights team whose key is `SessionSigner(name)`'s."""
    key = PublicKey(value=public_key(name), effective_from=KEYS_FROM)
    given = Person(
        name=name,
        logins=(f"{name}@example.com",),
        roles=("model_reviewer",),
        teams=("flights",),
        keys=(key,),
        file="policies/people.yaml",
        line=3,
    )
    return replace(given, **changes)


def people() -> dict[str, Person]:
    """Return two reviewers, somebody who launches runs, one without the role, and one of another team."""
    found = (
        reviewer("olga"),
        reviewer("pavel", teams=("*",)),
        reviewer("lena", logins=("lena@laptop",)),
        reviewer("dora", roles=("analyst",)),
        reviewer("tim", teams=("births",)),
    )
    return {person.name: person for person in found}


@dataclass
class World:
    """A pipeline whose candidates wait for people."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    people: dict[str, Person] = field(default_factory=people)
    ledger: FakeLedger = field(default_factory=FakeLedger)

    @property
    def policy(self) -> EffectivePolicy:
        return FakePolicySource(self.settings).effective(PIPELINE)

    def waiting(self, **changes: Any) -> Decision:
        """Return a decision that waits; it is not recorded."""
        digest = self.policy.digest
        given: dict[str, Any] = {
            "outcome": "awaiting_approval",
            "partition": "2013-03",
            "model_version": "4",
            "model_digest": "a" * 64,
            "evaluation_digest": "b" * 64,
            "policy_digest": digest,
            "policy_version": digest,
            "launched_by": ("lena",),
            "recorded_at": NOW - HOUR,
        }
        return decision(**given | changes)

    def wait(self, **changes: Any) -> Decision:
        """Record a decision that waits, and return it as the ledger has it."""
        self.ledger.record_decision(self.waiting(**changes))
        return self.ledger.decisions(PIPELINE)[-1]

    def sign(
        self,
        signer: Signer,
        about: Decision,
        *,
        action: Action = "approve",
        at: datetime = NOW,
        valid_for: timedelta = 5 * DAY,
        subject: Mapping[str, str] | None = None,
        previous: str | None = None,
    ) -> Statement:
        return sign_statement(
            signer,
            action=action,
            pipeline=about.pipeline,
            partition=about.partition,
            subject=subject or subject_of(about),
            reason="The slices look right.",
            issued_at=at,
            valid_for=valid_for,
            previous=records_head(self.ledger, about.pipeline) if previous is None else previous,
        )

    def give(self, statement: Statement, about: Decision, *, now: datetime = NOW) -> Standing:
        return give(self.ledger, statement, decision=about, policy=self.policy, people=self.people, now=now)

    def approve(self, name: str, about: Decision, *, now: datetime = NOW, **changes: Any) -> Standing:
        return self.give(self.sign(SessionSigner(name), about, at=now, **changes), about, now=now)

    def standing(self, about: Decision, *, at: datetime = NOW, **options: Any) -> Standing:
        return standing(about, self.ledger.records(PIPELINE), self.policy, self.people, at=at, **options)

    def failed(self, **changes: Any) -> Verdict:
        """Record a verdict that closes a gate, and return it as the ledger has it."""
        given = {
            "asset": (*PIPELINE, "evaluation"),
            "partition": "2013-03",
            "check": "roc_auc.floor",
            "outcome": "failed",
            "recorded_at": NOW - HOUR,
        }
        self.ledger.record_verdicts([verdict(**given | changes)])
        return self.ledger.verdicts((*PIPELINE, "evaluation"))[-1]


NOT_TRIED = "–"


@dataclass(frozen=True)
class Outcome:
    """What became of an attack.

    Attributes:
        given: What refused it when it was given; "–" when it went round that check.
        later: What refused it when it was looked at again, though it stood in the ledger.
        stopped: Whether nothing was gained.
    """

    given: str
    later: str
    stopped: bool


@dataclass(frozen=True)
class Attack:
    """One attack: its name and what is done, as the table says it, and the attack itself."""

    name: str
    does: str
    run: Callable[[], Outcome]


def refusal(act: Callable[[], Any]) -> str:
    """Return the word that refuses an act; "accepted" when nothing does."""
    try:
        act()
    except ApprovalError as error:
        return f"`{error.reason}`"
    except LedgerConflictError:
        return "place in the chain taken"
    return "accepted"


def test_in_this_world_a_reviewer_can_approve() -> None:
    world = World()
    waiting = world.wait()

    assert world.approve("olga", waiting).complete
