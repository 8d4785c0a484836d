"""The Dagster job `decide`: records a statement that somebody signed elsewhere, for who has no command line here."""

from datetime import UTC, datetime

import dagster as dg

from ml_assets.approvals.giving import submit
from ml_assets.approvals.statements import Statement
from ml_assets.errors import MlAssetsError

JOB = "decide"


class SignedStatement(dg.Config):
    """What to record.

    Attributes:
        statement: The line that `ml-assets approvals approve … --print` (or `reject … --print`) wrote.
    """

    statement: str


@dg.op(required_resource_keys={"ledger", "policy"}, description="Verifies a signed statement and records it.")
def record_statement(context: dg.OpExecutionContext, config: SignedStatement) -> None:
    """Verify and record; the rules are those of the command line, and the worker holds no private key."""
    resources = context.resources
    try:
        statement = Statement.decode(config.statement)
        standing = submit(resources.ledger, resources.policy, statement, now=datetime.now(UTC))
    except MlAssetsError as error:
        raise dg.Failure(description=str(error), allow_retries=False) from error
    missing = f"{standing.missing} more needed" if standing.missing else "nothing more is needed"
    context.log.info(f"{statement.person} said {statement.action!r} of {statement.place}; {missing}.")


def build_decide_job() -> dg.JobDefinition:
    """Return the job; paste the statement into its Launchpad."""

    @dg.job(
        name=JOB,
        description="Approve or reject a waiting candidate with a statement that you signed with your own key: "
        "`ml-assets approvals approve TEAM/PIPELINE PARTITION --reason … --print` writes it.",
        # One op in the run's own process: nothing here is worth a process of its own.
        executor_def=dg.in_process_executor,
    )
    def decide() -> None:
        record_statement()

    return decide
