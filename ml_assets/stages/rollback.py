"""Puts the previous champion back, as a decision of its own."""

from dataclasses import dataclass, replace

from ml_assets.errors import MlAssetsError, RegistryError
from ml_assets.interfaces import Decision, PipelinePath
from ml_assets.stages.aliases import Move, sync_aliases
from ml_assets.stages.step import Services
from ml_assets.stages.trust import believed, require_unbroken


class RollbackError(MlAssetsError):
    """There is nothing to roll back, or nothing to roll back to."""


@dataclass(frozen=True, kw_only=True)
class Rollback:
    """What a rollback did.

    Attributes:
        decision: The recorded decision; its version is the one that was champion.
        champion: The promotion in force now, or None.
        moves: Aliases that followed.
        note: Why they did not; empty when they did.
    """

    decision: Decision
    champion: Decision | None
    moves: tuple[Move, ...]
    note: str = ""


def roll_back(
    services: Services,
    path: PipelinePath,
    *,
    reason: str,
    by: str,
    expected: str | None = None,
    without_successor: bool = False,
) -> Rollback:
    """Take the champion back and put the promotion before it in force.

    Args:
        services: The world.
        path: The pipeline.
        reason: Why, for the record.
        by: Who decides.
        expected: Version that must be champion still; of two that see the same failure, the second changes nothing.
        without_successor: Whether to go on when there is no earlier champion: nothing scores then.

    Raises:
        RollbackError: If there is no champion, another one than expected, or no earlier one.
    """
    require_unbroken(services, path)
    name = "/".join(path)
    with services.ledger.exclusive(path) as view:
        champion = believed(services, view, path, None).champion
        if champion is None:
            raise RollbackError(f"{name} has no champion; there is nothing to roll back.")
        if expected is not None and champion.model_version != expected:
            raise RollbackError(
                f"Version {champion.model_version} is champion of {name}, not version {expected}; nothing was changed."
            )
        before = believed(services, view, path, champion.partition).champion
        if before is None and not without_successor:
            raise RollbackError(
                f"{name} has no champion before version {champion.model_version} of {champion.partition}; scoring "
                "would stop. Say --without-successor if that is what you want."
            )
        back = (
            "there is no champion now"
            if before is None
            else f"version {before.model_version} of {before.partition} is champion again"
        )
        view.record_decision(
            replace(
                champion,
                outcome="rolled_back",
                reason=f"{reason} ({back})",
                decided_by=by,
                run_id="",
                recorded_at=None,
            )
        )
        decision = view.decisions(path)[-1]
    moves, note = [], ""
    try:
        moves = sync_aliases(services, path, champion.model_name)
    except RegistryError as error:  # the rollback is recorded, and scoring asks the ledger
        note = f"the registry's aliases follow at the next run: {error}"
    return Rollback(decision=decision, champion=before, moves=tuple(moves), note=note)
