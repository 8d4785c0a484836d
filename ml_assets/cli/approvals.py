"""`ml-assets approvals`: what waits for people, and what they say of it."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ml_assets.approvals.giving import (
    give,
    give_with_retry,
    records_head,
    require_acceptable,
    submit,
    waiting_decision,
)
from ml_assets.approvals.signing import Signer, sign_statement
from ml_assets.approvals.standing import Standing, standing, with_launchers
from ml_assets.approvals.statements import Action, Statement, subject_digest, subject_of
from ml_assets.cli.arguments import current_project, make_signer, pipeline_path, pipeline_paths
from ml_assets.cli.project import Project
from ml_assets.cli.tables import add_row, make_console
from ml_assets.errors import ApprovalError, LedgerConflictError, RegistryError
from ml_assets.interfaces import Decision
from ml_assets.stages.champions import latest_by_partition
from ml_assets.stages.dossiers import DOSSIER_TAG
from ml_assets.stages.step import Services

_AS = click.option("--as", "person", metavar="NAME", help="Who says it; needed when you have several keys.")
_REASON = click.option("--reason", required=True, help="Why, in a sentence.")
_KEY = click.option(
    "--key", type=click.Path(path_type=Path, dir_okay=False), help="Key file; NAME.pem among your keys."
)
_DAYS = click.option(
    "--days",
    type=click.FloatRange(min=0, min_open=True),
    help="For how many days it counts; as long as the policy allows.",
)
_PRINT = click.option("--print", "only_print", is_flag=True, help="Print the signed statement instead of recording it.")


@click.group()
def approvals() -> None:
    """Show what waits for approval, and approve or reject it."""


@approvals.command("list")
@click.argument("pipeline", metavar="[TEAM/PIPELINE]", required=False)
def list_waiting(pipeline: str | None) -> None:
    """Show everything that waits for approval."""
    project, console = current_project(), make_console()
    services, now = project.profile.services(), datetime.now(UTC)
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for column in ("what waits", "since", "until", "given", "why"):
        table.add_column(column, overflow="fold", no_wrap=column != "why")
    for path in pipeline_paths(project, pipeline):
        for decision in latest_by_partition(services.ledger.decisions(path)).values():
            if decision.outcome == "awaiting_approval":
                add_row(table, *_waiting_row(services, decision, now))
    if table.row_count:
        console.print(table)
    else:
        console.print("Nothing waits for approval.")


@approvals.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.argument("partition")
def show(pipeline: str, partition: str) -> None:
    """Show the last decision on PARTITION: what changed, what an approval is bound to, and who said what."""
    project, console = current_project(), make_console()
    services, path = project.profile.services(), pipeline_path(project, pipeline)
    decision = latest_by_partition(services.ledger.decisions(path)).get(partition)
    if decision is None:
        raise ApprovalError("no_decision", f"Nothing was decided on {pipeline} [{partition}] yet.")
    for line in _decision_lines(decision, _dossier(services, decision)):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    tests = decision.evidence.get("material", [])
    if tests:
        table = Table(header_style="bold", box=SIMPLE_HEAD)
        for column in ("difference", "changed", "counts", "what was found"):
            table.add_column(column, overflow="fold")
        for test in tests:
            add_row(table, test["name"], _yes(test["changed"]), _yes(test["counts"]), test["sentence"])
        console.print(table)
    for line in _spoken_lines(services, decision):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


@approvals.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.argument("partition")
@_AS
@_REASON
@_KEY
@_DAYS
@_PRINT
def approve(
    pipeline: str,
    partition: str,
    person: str | None,
    reason: str,
    key: Path | None,
    days: float | None,
    *,
    only_print: bool,
) -> None:
    """Approve the candidate of PARTITION that waits."""
    project = current_project()
    words = _Words(project, pipeline, partition, "approve", reason, days)
    words.say(make_signer(project, person, key), only_print=only_print)


@approvals.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.argument("partition")
@_AS
@_REASON
@_KEY
@_PRINT
def reject(
    pipeline: str, partition: str, person: str | None, reason: str, key: Path | None, *, only_print: bool
) -> None:
    """Reject the candidate of PARTITION that waits; one rejection is enough."""
    project = current_project()
    words = _Words(project, pipeline, partition, "reject", reason, None)
    words.say(make_signer(project, person, key), only_print=only_print)


@approvals.command("submit")
@click.argument("text")
def submit_text(text: str) -> None:
    """Record TEXT, a statement that `approve --print` or `reject --print` printed."""
    services = current_project().profile.services()
    statement = Statement.decode(text)
    try:
        given = submit(services.ledger, services.policy, statement, now=datetime.now(UTC))
    except LedgerConflictError as error:
        raise ApprovalError(
            "misplaced",
            f"Another record of {'/'.join(statement.pipeline)} came in since the statement was signed, so it fits its "
            "place in the chain no more. Sign again.",
        ) from error
    click.echo(_outcome(statement, given))


class _Words:
    """What somebody wants to say of a waiting decision."""

    def __init__(
        self, project: Project, pipeline: str, partition: str, action: Action, reason: str, days: float | None
    ) -> None:
        self._services = project.profile.services()
        self._path = pipeline_path(project, pipeline)
        self._policy = self._services.policy.effective(self._path)
        self._people = self._services.policy.people()
        self._decision = waiting_decision(self._services.ledger, self._path, partition)
        self._action: Action = action
        self._reason = reason
        self._days = self._policy.number("approval.valid_days") if days is None else days

    def say(self, signer: Signer, *, only_print: bool) -> None:
        """Record it, or print it after the same checks."""
        ledger = self._services.ledger
        if only_print:
            statement = self._signed(signer, records_head(ledger, self._path))
            require_acceptable(
                ledger,
                statement,
                decision=self._decision,
                policy=self._policy,
                people=self._people,
                now=datetime.now(UTC),
            )
            click.echo(statement.encode())
            return
        statement, given = give_with_retry(
            ledger, self._path, lambda previous: self._signed(signer, previous), self._give
        )
        click.echo(_outcome(statement, given))

    def _give(self, statement: Statement) -> tuple[Statement, Standing]:
        return statement, give(
            self._services.ledger,
            statement,
            decision=self._decision,
            policy=self._policy,
            people=self._people,
            now=datetime.now(UTC),
        )

    def _signed(self, signer: Signer, previous: str) -> Statement:
        return sign_statement(
            signer,
            action=self._action,
            pipeline=self._path,
            partition=self._decision.partition,
            subject=subject_of(self._decision),
            reason=self._reason,
            issued_at=datetime.now(UTC),
            valid_for=timedelta(days=self._days),
            previous=previous,
        )


def _waiting_row(services: Services, decision: Decision, now: datetime) -> list[str]:
    given = _standing(services, decision, now)
    until = f"{given.expires_at:%m-%d %H:%M}" + ("\n(closed)" if given.closed else "")
    return [
        f"{'/'.join(decision.pipeline)}\n{decision.partition}, version {decision.model_version or '–'}",
        f"{decision.recorded_at:%m-%d %H:%M}" if decision.recorded_at else "–",
        until,
        f"{len(given.approvals)} of {given.needed}",
        "\n".join(_why(decision)) or decision.reason,
    ]


def _standing(services: Services, decision: Decision, now: datetime) -> Standing:
    """Return how a decision stands now or, when it was carried out, stood then."""
    promoted = decision.outcome == "promoted" and decision.recorded_at is not None
    return standing(
        with_launchers(decision, services.ledger.decisions(decision.pipeline)),
        services.ledger.records(decision.pipeline),
        services.policy.effective(decision.pipeline),
        services.policy.people(),
        at=decision.recorded_at if promoted and decision.recorded_at else now,
        after_promotion=promoted,
    )


def _why(decision: Decision) -> Sequence[str]:
    """Return the differences that made people necessary."""
    return [test["sentence"] for test in decision.evidence.get("material", []) if test["changed"] and test["counts"]]


def _dossier(services: Services, decision: Decision) -> str:
    """Return where the version's newest dossier lies; empty when nothing was registered, or it cannot be asked."""
    if decision.model_version is None:
        return ""
    try:
        version = services.model_registry.version(decision.model_name, decision.model_version)
    except RegistryError:
        return ""
    return version.tags.get(DOSSIER_TAG, "")


def _decision_lines(decision: Decision, dossier: str) -> Iterator[str]:
    yield f"{'/'.join(decision.pipeline)} [{decision.partition}]: {decision.outcome.replace('_', ' ')}"
    yield decision.reason
    launchers = ", ".join(name or "somebody unknown" for name in decision.launched_by) or "somebody unknown"
    yield f"decided by {decision.decided_by}, launched by {launchers}"
    if dossier:
        yield f"dossier: {dossier}"
    yield ""
    subject = subject_of(decision)
    width = max(map(len, subject))
    yield f"An approval is bound to (digest {subject_digest(subject)[:12]}…):"
    yield from (f"  {name:<{width}}  {value or '–'}" for name, value in subject.items())


def _spoken_lines(services: Services, decision: Decision) -> Iterator[str]:
    if decision.outcome == "promoted" and not decision.evidence.get("approval_reasons"):
        yield "It needed no approval."
        return
    given = _standing(services, decision, datetime.now(UTC))
    yield f"{len(given.approvals)} of {given.needed} approvals, until {given.expires_at:%Y-%m-%d %H:%M} UTC" + (
        " (closed)" if given.closed else ""
    )
    for approval in given.approvals:
        until = f"{approval.expires_at:%Y-%m-%d %H:%M} UTC"
        yield f"  {approval.person} approved at {approval.given_at:%Y-%m-%d %H:%M}, until {until}: {approval.reason}"
    if given.rejected_by:
        yield f"  {given.rejected_by} rejected it"
    for refused in given.not_counted:
        yield f"  does not count ({refused.word}): {refused.sentence}"


def _outcome(statement: Statement, given: Standing) -> str:
    name, partition = "/".join(statement.pipeline), statement.partition
    if statement.action == "reject":
        return f"{statement.person} rejected {statement.place}. The champion stays."
    head = f"{statement.person} approved {statement.place}, {len(given.approvals)} of {given.needed}."
    if not given.complete:
        people = "person" if given.missing == 1 else "people"
        return f"{head} {given.missing} more {people} must approve until {given.expires_at:%Y-%m-%d %H:%M} UTC."
    return (
        f"{head} It is promoted within seconds where the daemon runs (`ml-assets dev`); without one, "
        f"`ml-assets backfill {name} --from {partition} --to {partition}` promotes it."
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
