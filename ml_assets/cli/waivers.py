"""`ml-assets waivers`: people let one failed gate of one data version pass for a few days."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from rich.box import SIMPLE_HEAD
from rich.table import Table

from ml_assets.approvals.giving import give_with_retry
from ml_assets.approvals.signing import sign_statement
from ml_assets.approvals.statements import Statement, subject_of_gate
from ml_assets.approvals.waivers import check_waiver, grant_waiver
from ml_assets.cli.arguments import current_project, make_signer, pipeline_path, pipeline_paths
from ml_assets.cli.tables import add_row, make_console
from ml_assets.errors import ApprovalError
from ml_assets.interfaces import EffectivePolicy, Person, Record, Verdict
from ml_assets.stages.step import Services, launchers_of


@click.group()
def waivers() -> None:
    """Let a failed gate pass for a few days, and show who did."""


@waivers.command()
@click.argument("pipeline", metavar="TEAM/PIPELINE")
@click.argument("stage")
@click.argument("partition")
@click.argument("gate")
@click.option("--as", "person", metavar="NAME", help="Who says it; needed when you have several keys.")
@click.option("--reason", required=True, help="Why, in a sentence.")
@click.option("--days", required=True, type=click.FloatRange(min=0, min_open=True), help="For how many days.")
@click.option("--key", type=click.Path(path_type=Path, dir_okay=False), help="Key file; NAME.pem among your keys.")
def grant(
    pipeline: str,
    stage: str,
    partition: str,
    gate: str,
    person: str | None,
    reason: str,
    days: float,
    key: Path | None,
) -> None:
    """Let GATE, which failed on STAGE of PARTITION (such as `evaluation 2013-02 roc_auc.floor`), pass for some days.

    It holds for the data version that is there now; other data are judged anew.
    """
    project = current_project()
    services, path = project.profile.services(), pipeline_path(project, pipeline)
    verdict = _current_verdict(services, (*path, *stage.split("/")), partition, gate)
    policy, people = services.policy.effective(path), services.policy.people()
    signer = make_signer(project, person, key)

    def make_statement(previous: str) -> Statement:
        return sign_statement(
            signer,
            action="waive",
            pipeline=path,
            partition=partition,
            subject=subject_of_gate(verdict),
            reason=reason,
            issued_at=datetime.now(UTC),
            valid_for=timedelta(days=days),
            previous=previous,
        )

    def record(statement: Statement) -> Statement:
        return grant_waiver(
            services.ledger,
            statement,
            verdict=verdict,
            policy=policy,
            people=people,
            now=datetime.now(UTC),
            launched_by=launchers_of(services.ledger, verdict),
        )

    given = give_with_retry(services.ledger, path, make_statement, record)
    click.echo(
        f"{given.person} lets {gate} of {pipeline}/{stage} [{partition}], data version {verdict.data_version[:12]}, "
        f"pass until {given.expires_at:%Y-%m-%d %H:%M} UTC. Then it is closed again."
    )


@waivers.command("list")
@click.argument("pipeline", metavar="[TEAM/PIPELINE]", required=False)
def list_waivers(pipeline: str | None) -> None:
    """Show every waiver, and whether it counts now."""
    project, console = current_project(), make_console()
    services = project.profile.services()
    people = services.policy.people()
    table = Table(header_style="bold", box=SIMPLE_HEAD)
    for column in ("asset", "gate", "data version", "by", "until", "state", "reason"):
        table.add_column(column, overflow="fold")
    for path in pipeline_paths(project, pipeline):
        policy = services.policy.effective(path)
        for record in services.ledger.records(path, kind="waiver"):
            add_row(table, *_row(record, policy, people))
    if table.row_count:
        console.print(table)
    else:
        console.print("Nothing is waived.")


def _row(record: Record, policy: EffectivePolicy, people: Mapping[str, Person]) -> list[str]:
    try:
        check_waiver(record, policy, people, at=datetime.now(UTC))
        state = "counts"
    except ApprovalError as error:
        state = f"does not count ({error.reason}): {error}"
    try:
        statement = Statement.from_body(record.body)
    except ApprovalError:
        return ["–", "–", "–", "–", "–", state, "–"]
    subject = statement.subject
    return [
        f"{subject.get('asset', '–')} [{statement.partition}]",
        subject.get("check", "–"),
        subject.get("data_version", "–")[:12],
        statement.person,
        f"{statement.expires_at:%Y-%m-%d %H:%M}",
        state,
        statement.reason,
    ]


def _current_verdict(services: Services, asset: tuple[str, ...], partition: str, gate: str) -> Verdict:
    """Return a gate's last verdict on the data version that is there now."""
    stored = services.data_store.describe(asset, partition)
    place = f"{'/'.join(asset)} [{partition}]"
    if stored is None:
        raise ApprovalError("not_failed", f"{place} has not been materialized, so that no gate of it has failed.")
    latest = {
        verdict.check: verdict
        for verdict in services.ledger.verdicts(asset, partition, data_version=stored.data_version)
    }
    if gate not in latest:
        known = ", ".join(sorted(latest)) or "no gate"
        raise ApprovalError(
            "not_failed",
            f"{place} (data version {stored.data_version[:12]}) has no verdict of {gate!r}; "
            f"it has verdicts of {known}.",
        )
    return latest[gate]
