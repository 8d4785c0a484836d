"""The one place where the registry's aliases change: they mirror the ledger, and what somebody else moved is named."""

from dataclasses import dataclass, replace

from ml_assets.errors import RegistryError
from ml_assets.interfaces import Decision, LedgerView, ModelRegistry, PipelinePath, Record
from ml_assets.stages.champions import newest_registered, shadow_before
from ml_assets.stages.step import Services
from ml_assets.stages.trust import believed, require_unbroken

CHAMPION, CHALLENGER, SHADOW = "champion", "challenger", "shadow"
ALIASES = (CHAMPION, CHALLENGER, SHADOW)


@dataclass(frozen=True, kw_only=True)
class Move:
    """One alias that was pointed elsewhere; versions are None where it was or is not set.

    Attributes:
        alias: Its name.
        before: Version it pointed at.
        after: Version it points at now.
        foreign: Whether somebody else had pointed it there, without a decision.
    """

    alias: str
    before: str | None
    after: str | None
    foreign: bool

    @property
    def sentence(self) -> str:
        """Return what happened, for a reader."""
        target = "nothing" if self.after is None else f"version {self.after}"
        if self.foreign:
            return (
                f"alias {self.alias} had been pointed at version {self.before} without a decision; that is refused, "
                f"and it points at {target}"
            )
        return f"alias {self.alias} points at {target}"


def sync_aliases(services: Services, path: PipelinePath, name: str) -> list[Move]:
    """Point the aliases at what the ledger's believed decisions say, and record each move.

    The decision is recorded before; a process that dies in here leaves an alias on the old or on the new version, and
    the next call repairs it. Two that come at once wait for each other.

    Args:
        services: The world.
        path: The pipeline.
        name: Registered model's name.

    Raises:
        LedgerError: If the pipeline's chain is broken: nothing follows what was tampered with.
        RegistryError: If the registry lacks the champion's version.
    """
    registry = services.model_registry
    require_unbroken(services, path)
    with services.ledger.exclusive(path) as view:
        trusted = believed(services, view, path, None)
        moves = _moves(registry, name, _wanted(services, view, path, trusted.champion), _recorded(view, path))
        for move in moves:
            told = trusted.refused if move.alias == CHAMPION else ()
            failed = _carry_out(registry, name, move)
            view.append(_record(path, replace(move, after=move.before) if failed else move, (*told, *failed)))
    return moves


def _carry_out(registry: ModelRegistry, name: str, move: Move) -> list[str]:
    """Move an alias; return what kept it from being moved, such as a version that the registry does not have."""
    try:
        if move.after is None:
            registry.delete_alias(name, move.alias)
        elif move.before != move.after:  # else it points there already: a process died before it could say so
            registry.set_alias(name, move.alias, move.after)
    except RegistryError as error:
        if move.alias == CHAMPION:
            raise
        return [f"it could not be moved: {error}"]
    return []


def _record(path: PipelinePath, move: Move, refused: tuple[str, ...]) -> Record:
    return Record(
        pipeline=path,
        kind="incident" if move.foreign else "alias",
        subject=move.alias,
        body={
            "from": move.before,
            "to": move.after,
            "sentence": "; ".join([move.sentence, *refused]),
        },
    )


def _wanted(
    services: Services, view: LedgerView, path: PipelinePath, champion: Decision | None
) -> dict[str, str | None]:
    decisions = view.decisions(path)
    newest, shadow = newest_registered(decisions), shadow_before(decisions, champion, None)
    enabled = services.policy.effective(path).flag("shadow.enabled")
    return {
        CHAMPION: None if champion is None else champion.model_version,
        CHALLENGER: None if newest is None else newest.model_version,
        SHADOW: shadow.model_version if shadow is not None and enabled else None,
    }


def _recorded(view: LedgerView, path: PipelinePath) -> dict[str, str | None]:
    """Return where each alias was pointed last by this module."""
    moves = [r for r in view.records(path) if r.kind in ("alias", "incident") and r.subject in ALIASES]
    return {record.subject: record.body.get("to") for record in moves}


def _moves(
    registry: ModelRegistry, name: str, wanted: dict[str, str | None], recorded: dict[str, str | None]
) -> list[Move]:
    moves = []
    for alias, after in wanted.items():
        found = registry.version_by_alias(name, alias)
        before = None if found is None else found.version
        if before != after or recorded.get(alias) != after:
            foreign = before not in (None, after, recorded.get(alias))
            moves.append(Move(alias=alias, before=before, after=after, foreign=foreign))
    return moves
