"""How often to ask a database again, and how long to bear its refusals, so that one that is away ends no search."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ml_assets.errors import LedgerError

PATIENCE_SECONDS = 45.0
"""How long: less than a process may be silent without losing its trials."""

_SHORTEST_PAUSE_SECONDS = 0.05
_PAUSE_SHARE = 0.1


def pause_seconds(quiet: float, *, longest: float) -> float:
    """Return how long to wait before asking again: a tenth of the time for which there has been nothing new.

    So nobody waits much longer than what was waited for took, and what takes long is not asked for often.

    Args:
        quiet: For how many seconds there has been nothing new.
        longest: The result is no larger, in seconds.

    >>> [pause_seconds(quiet, longest=5.0) for quiet in (0.0, 2.0, 600.0)]
    [0.05, 0.2, 5.0]
    """
    return min(max(_SHORTEST_PAUSE_SECONDS, _PAUSE_SHARE * quiet), longest)


class Patience:
    """Passes over refusals of the database, until there have been nothing else for `PATIENCE_SECONDS`."""

    def __init__(self) -> None:
        self._refused_since: float | None = None

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Leave the block when the database refuses; who asks goes on with what was known.

        Raises:
            LedgerError: If it has refused for too long.
        """
        try:
            yield
        except LedgerError:
            now = time.monotonic()
            self._refused_since = now if self._refused_since is None else self._refused_since
            if now - self._refused_since > PATIENCE_SECONDS:
                raise
        else:
            self._refused_since = None
