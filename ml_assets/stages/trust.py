"""Whether a promotion may be believed: its chain, its digests, and the signatures it needed.

Pipeline code holds the database's and the registry's credentials, so neither a row that says "promoted" nor an alias
proves anything. A promotion is believed when the ledger's chain is unbroken, the evaluation still has the digest that
was decided on, and either enough people signed for exactly these digests, or nothing was material: that is found
again here, from what the decision and the champion before it recorded, and not read off.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import get_args

from ml_assets.approvals.signing import CLOCK_SKEW
from ml_assets.approvals.standing import standing, with_launchers
from ml_assets.approvals.statements import subject_of
from ml_assets.digest import document_digest
from ml_assets.errors import LedgerError, PolicyError, StoreError
from ml_assets.interfaces import Decision, DecisionOutcome, EffectivePolicy, LedgerView, PipelinePath
from ml_assets.material import material_tests, needs_approval
from ml_assets.stages.champions import latest_by_partition
from ml_assets.stages.recorded_policy import attested_digests, recorded_policy
from ml_assets.stages.step import Services

_UNREADABLE = (TypeError, AttributeError, KeyError, ValueError, OverflowError)
LONGEST_DELEGATION = 100
"""Automatic promotions that are followed back to a signed one."""


@dataclass(frozen=True, kw_only=True)
class Trusted:
    """The champion that may score, and what may not.

    Attributes:
        champion: The newest promotion that is believed, or None.
        refused: A sentence for each newer promotion that is not.
        automatic: Promotions without a signature from the last signed one to the champion.
    """

    champion: Decision | None
    refused: tuple[str, ...] = ()
    automatic: int = 0


def trusted_champion(services: Services, path: PipelinePath, time: str | None) -> Trusted:
    """Return the promotion in force before a period that may be believed.

    Raises:
        LedgerError: If the pipeline's chain is broken; nothing in it can be believed then.
    """
    require_unbroken(services, path)
    return believed(services, services.ledger, path, time)


def require_unbroken(services: Services, path: PipelinePath) -> None:
    """Return when the pipeline's chains are as they were written; raises LedgerError otherwise."""
    problems = services.ledger.verify(path)
    if problems:
        first = problems[0]
        raise LedgerError(
            f"The ledger of {'/'.join(path)} was tampered with: {first.stream}, row {first.position}: "
            f"{first.problem}" + (f" (and {len(problems) - 1} more)" if problems[1:] else "") + ". Nothing is scored "
            f"or promoted until somebody has looked: `ml-assets ledger verify {'/'.join(path)}`."
        )


def believed(services: Services, view: LedgerView, path: PipelinePath, time: str | None) -> Trusted:
    """Return what `trusted_champion` does, of a chain that was verified."""
    history = PromotionHistory(services, view, path)
    refused: list[str] = []
    for index in history.candidates(len(history.decisions), time):
        decision = history.decisions[index]
        problem = history.problem(index) or _document_problem(services, decision)
        if not problem:
            return Trusted(champion=decision, refused=tuple(refused), automatic=history.automatic(index))
        refused.append(f"version {decision.model_version} of {decision.partition} is not believed: {problem}")
    return Trusted(champion=None, refused=tuple(refused))


def problem_of(services: Services, view: LedgerView, decision: Decision) -> str:
    """Return why a promotion is not believed, or an empty text; automatic ones are followed back to a signed one."""
    history = PromotionHistory(services, view, decision.pipeline)
    return history.problem(max(i for i, d in enumerate(history.decisions) if d == decision))


class PromotionHistory:
    """Judges the promotions of one pipeline, each from the rows that were recorded before it."""

    def __init__(self, services: Services, view: LedgerView, path: PipelinePath) -> None:
        self.services, self.view, self.path = services, view, path
        self.decisions = view.decisions(path)
        self._people = services.policy.people()
        self._records = view.records(path)
        self._problems: dict[int, str] = {}
        self._depths: dict[int, int] = {}

    def candidates(self, end: int, time: str | None) -> Iterator[int]:
        """Yield the promotions that may be in force before a period by the first `end` rows, newest partition first.

        Of a partition those since its last row that is no promotion, newest first: what is not believed takes
        nothing away.
        """
        by_partition: dict[str, list[int]] = {}
        for index, decision in enumerate(self.decisions[:end]):
            if (time is not None and decision.partition >= time) or decision.outcome not in get_args(DecisionOutcome):
                continue
            rows = by_partition.setdefault(decision.partition, [])
            if decision.outcome != "promoted":
                rows.clear()
            else:
                rows.append(index)
        for partition in sorted(by_partition, reverse=True):
            yield from reversed(by_partition[partition])

    def automatic(self, index: int) -> int:
        """Return how many promotions without a signature led from the last signed one to a judged row."""
        return self._depths.get(index, 0)

    def problem(self, index: int) -> str:
        """Return why the promotion at a row is not believed, or an empty text."""
        # From the oldest on: each asks only for older ones, so that no number of rows is too deep.
        for i in range(index + 1):
            if self.decisions[i].outcome == "promoted" and i not in self._problems:
                try:
                    self._problems[i] = self._judge(i)
                except _UNREADABLE as error:
                    self._problems[i] = f"what it records cannot be read ({type(error).__name__})"
        return self._problems[index]

    def _judge(self, index: int) -> str:
        decision, latest = self.decisions[index], datetime.now(UTC) + CLOCK_SKEW
        if decision.recorded_at is None or decision.recorded_at > latest:
            return "it is dated in the future"
        # A row is no older than the rows before it, whatever it says.
        dates = [d.recorded_at for d in self.decisions[: index + 1] if d.recorded_at and d.recorded_at <= latest]
        at = max(dates)
        try:
            policy = self.services.policy.effective(self.path, at)
        except PolicyError as error:
            return f"the policy of its time cannot be read: {error}"
        reference, wrong = self._champion_before(index)
        self._depths[index] = self._depths.get(index, 0) + 1
        long = delegation_reasons(self._depths[index])
        reasons = [wrong] if wrong else [*approval_reasons(decision, reference, policy), *long]
        if reasons:
            problem = self._approval_problem(index, at, policy, reasons)
            if not problem:
                self._depths[index] = 0
                return ""
            recorded = None if wrong or long else self._signed_policy(decision, policy, at)
            if recorded is None or approval_reasons(decision, reference, recorded):
                return problem
        return _serving_problem(decision)

    def _signed_policy(self, decision: Decision, policy: EffectivePolicy, at: datetime) -> EffectivePolicy | None:
        """Return the policy that a decision recorded, when people signed for it; a file may have been edited since.

        It never stands against `approval.always`: who sets that wants no promotion without a signature.
        """
        if policy.flag("approval.always"):
            return None
        signed = attested_digests(self._records, self._people, policy, at)
        return recorded_policy(decision) if decision.policy_digest in signed else None

    def _champion_before(self, index: int) -> tuple[Decision | None, str]:
        """Return the champion that was in force when a row was recorded, and what is wrong when it names another."""
        decision = self.decisions[index]
        for earlier in self.candidates(index, decision.partition):
            if not self.problem(earlier):
                self._depths[index] = self._depths.get(earlier, 0)
                found = self.decisions[earlier]
                if found.model_version == decision.champion_version:
                    return found, ""
                named = decision.champion_version or "none"
                return found, f"version {found.model_version} was champion, and it names {named}"
        if decision.champion_version is None:
            return None, ""
        return None, f"it names version {decision.champion_version} as champion, which was none"

    def _approval_problem(self, index: int, at: datetime, policy: EffectivePolicy, reasons: list[str]) -> str:
        decision = self.decisions[index]
        asked = with_launchers(decision, self.decisions)
        given = standing(asked, self._records, policy, self._people, at=at, after_promotion=True)
        if not given.complete:
            why = "; ".join(dict.fromkeys(refusal.sentence for refusal in given.not_counted)) or "nobody signed for it"
            return (
                f"it needs {given.needed} approval{'s' if given.needed != 1 else ''} ({reasons[0]}) and has "
                f"{len(given.approvals)}: {why}"
            )
        last = latest_by_partition(self.decisions[:index]).get(decision.partition)
        if last is None or last.outcome != "awaiting_approval" or subject_of(last) != subject_of(decision):
            return f"it was not waiting for approval any more: it was {'nothing' if last is None else last.outcome}"
        return ""


def delegation_reasons(depth: int) -> list[str]:
    """Return why people must look again when so many promotions, this one among them, followed the last approval."""
    if depth <= LONGEST_DELEGATION:
        return []
    return [f"{LONGEST_DELEGATION} automatic promotions followed the last approval"]


def _serving_problem(decision: Decision) -> str:
    """Return why an automatic promotion was not served before, or an empty text."""
    serving = decision.evidence.get("serving") or {}
    served = not serving.get("problems", True) and serving.get("model_digest") == decision.model_digest
    return "" if served else "it records no serving check of its model"


def approval_reasons(decision: Decision, reference: Decision | None, policy: EffectivePolicy) -> list[str]:
    """Return why people had to approve a promotion, found again from what it and its reference recorded."""
    challenge, own = decision.evidence.get("challenge"), decision.evidence.get("fingerprint")
    if challenge is None or own is None:
        return ["it does not record what it was decided on"]
    before = None if reference is None else reference.evidence.get("fingerprint")
    if reference is not None and before is None:
        return ["the champion before it does not record what it was made of"]
    if reference is not None and challenge["reference"] != "champion":
        return ["it was not compared with the champion"]
    return needs_approval(material_tests(own, before, challenge, policy), policy)


def _document_problem(services: Services, decision: Decision) -> str:
    """Return why the evaluation is not the one that was decided on, or an empty text."""
    asset = (*decision.pipeline, "evaluation")
    try:
        document = services.data_store.read_document(asset, decision.partition, data_version=decision.data_version)
    except StoreError as error:
        return f"its evaluation cannot be read: {error}"
    found = document_digest(document)
    if found != decision.evaluation_digest:
        return (
            f"its evaluation was changed: SHA-256 {found[:12]}, decided on {decision.evaluation_digest[:12] or 'none'}"
        )
    return ""
