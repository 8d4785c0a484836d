"""Lets what is asked again and again be refused for a while, so that a database that is away ends no search at once."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from ml_assets.errors import LedgerError

PATIENCE_SECONDS = 45.0
"""How long: less than a process may be silent without losing its trials."""


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
