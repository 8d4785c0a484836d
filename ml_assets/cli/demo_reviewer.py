"""The demo's reviewer: a person of this machine's trial, with a key of its own, who approves the first model."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rich.console import Console

from ml_assets.approvals.giving import give_with_retry, submit
from ml_assets.approvals.keys import KeyFileSigner, PersonEntry, add_trial_person, write_new_key
from ml_assets.approvals.signing import sign_statement
from ml_assets.approvals.statements import Statement, subject_of
from ml_assets.cli.project import Project
from ml_assets.interfaces import Decision, PipelinePath
from ml_assets.stages.champions import latest_by_partition

NAME = "demo-reviewer"
REASON = "The demo's first model: its dossier was read, and a first champion is wanted."


@dataclass(frozen=True, kw_only=True)
class DemoReviewer:
    """Approves first models of the demo, and nothing else.

    Attributes:
        project: The project.
        console: Where it says what it does.
    """

    project: Project
    console: Console

    def after_period(self, path: PipelinePath, period: str) -> bool:
        """Approve the period's candidate when it waits for being the first model; return whether it did."""
        services = self.project.profile.services()
        waiting = latest_by_partition(services.ledger.decisions(path)).get(period)
        if waiting is None or waiting.outcome != "awaiting_approval" or waiting.champion_version is not None:
            return False
        if self.project.profile.trial_people is None:
            self.console.print(
                f"[magenta]{period}[/magenta]: the first model waits for approval. The policy tree is yours "
                "(ML_ASSETS_POLICIES), so the demo approves nothing in it.",
                highlight=False,
            )
            return False
        self._approve(waiting)
        return True

    def _approve(self, waiting: Decision) -> None:
        signer, services = self._signer(), self.project.profile.services()
        now = datetime.now(UTC)

        def signed(previous: str) -> Statement:
            return sign_statement(
                signer,
                action="approve",
                pipeline=waiting.pipeline,
                partition=waiting.partition,
                subject=subject_of(waiting),
                reason=REASON,
                issued_at=now,
                valid_for=timedelta(days=1),
                previous=previous,
            )

        give_with_retry(
            services.ledger,
            waiting.pipeline,
            signed,
            lambda statement: submit(services.ledger, services.policy, statement, now=now),
        )
        self.console.print(
            f"[magenta]{waiting.partition}[/magenta]: version {waiting.model_version} is the first model and waits for "
            f"approval. The demo approves it as {NAME}, with a key of its own (key {signer.key[:12]}…, of this machine "
            "only); for yours: ml-assets access new-key NAME.",
            highlight=False,
        )

    def _signer(self) -> KeyFileSigner:
        """Return the reviewer's key, made when there is none, and entered among this machine's people."""
        profile = self.project.profile
        path = profile.state / "keys" / f"{NAME}.pem"
        if not path.exists():
            write_new_key(path, passphrase=None)
        signer = KeyFileSigner(path, person=NAME)
        if NAME not in profile.services().policy.people():
            assert profile.trial_people is not None  # noqa: S101 - asked above
            entry = PersonEntry(
                name=NAME,
                logins=(),
                roles=("model_reviewer",),
                teams=("*",),
                key=signer.key,
                effective_from=datetime.now(UTC).date(),
            )
            add_trial_person(profile.trial_people, entry)
        return signer
