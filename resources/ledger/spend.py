"""SqlSpend: what steps cost, in the ledger's database."""

from collections.abc import Sequence
from datetime import datetime

from ml_assets.interfaces.spend import Spend, StepCost
from resources.ledger.database import SqlStore

_LOCK = "spend"


class SqlSpend(SqlStore):
    """A `SpendStore` beside the ledger; made and shared as every `SqlStore`."""

    def record(self, costs: Sequence[StepCost], *, now: datetime) -> int:
        """Keep costs that are not kept yet, and return how many that were; what was kept first stays."""
        if not costs:
            return 0
        with self._database.writing("Recording what steps cost", [_LOCK]) as connection:
            from resources.ledger.spend_statements import insert_costs

            return insert_costs(connection, costs, now)

    def by_team(self, since: datetime, until: datetime, *, currency: str) -> dict[str, Spend]:
        """Return what each team spent on steps that ended from `since` on and before `until`, in one currency."""
        with self._database.reading("Reading what teams spent") as connection:
            from resources.ledger.spend_statements import sum_by_team

            return sum_by_team(connection, since, until, currency)

    def by_pipeline(
        self, team: str, since: datetime, until: datetime, *, currency: str
    ) -> dict[tuple[str, str], Spend]:
        """Return what a team spent in such a time, by pipeline and profile."""
        with self._database.reading("Reading what a team spent") as connection:
            from resources.ledger.spend_statements import sum_by_pipeline

            return sum_by_pipeline(connection, team, since, until, currency)

    def teams(self) -> list[str]:
        """Return the teams that ever spent anything, in any currency, sorted."""
        with self._database.reading("Reading which teams spent anything") as connection:
            from resources.ledger.spend_statements import spending_teams

            return spending_teams(connection)

    def of_runs(self, run_ids: Sequence[str]) -> dict[str, float]:
        """Return what was kept of some runs so far; a run without any cost is left out."""
        if not run_ids:
            return {}
        with self._database.reading("Reading what runs cost") as connection:
            from resources.ledger.spend_statements import sum_of_runs

            return sum_of_runs(connection, run_ids)
