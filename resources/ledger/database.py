"""One place for everything in the ledger's database: opened on first use, shared by threads, apart in forks."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from resources.ledger.address import parse_address

if TYPE_CHECKING:
    import sqlalchemy as sa

    from resources.ledger.transactions import Transactions

WAIT_SECONDS = 30
"""How long a write waits for the one before it, unless its caller says otherwise."""


class Database:
    """The database of a ledger, its inbox and its alerts; made without any I/O, and without SQLAlchemy.

    Args:
        url: `sqlite:///folder/ledger.db` or `postgresql://user:password@host:5432/database`.
        wait_seconds: How long a write waits for the write or exclusive transaction before it.

    Raises:
        LedgerError: If the URL has another form.
    """

    def __init__(self, url: str, wait_seconds: float) -> None:
        self._address, self._wait_seconds = parse_address(url), wait_seconds
        self._opened: dict[str, Transactions] = {}

    @property
    def shown(self) -> str:
        """Return the place without password and options."""
        return self._address.shown

    def transactions(self) -> "Transactions":
        """Return what this object's threads share; of two that come first at once, both get the same."""
        if not self._opened:
            from resources.ledger.transactions import Transactions

            self._opened.setdefault("one", Transactions(self._address, self._wait_seconds))
        return self._opened["one"]

    def reading(self, action: str) -> "AbstractContextManager[sa.Connection]":
        """Enter a block that sees one state of the database; see `Transactions`."""
        return self.transactions().reading(action)

    def writing(self, action: str, locks: Iterable[str]) -> "AbstractContextManager[sa.Connection]":
        """Enter a transaction that no other one with one of these locks overlaps; see `Transactions`."""
        return self.transactions().writing(action, locks)

    def close(self) -> None:
        """Close this process's idle connections; a later call opens new ones."""
        for transactions in self._opened.values():
            transactions.close()


class SqlStore:
    """One of the stores in a ledger's database; a subclass adds what it reads and writes.

    May be used from many threads, and in forked processes: each process has connections of its own.

    Args:
        url: `sqlite:///folder/ledger.db` or `postgresql://user:password@host:5432/database`; not touched here.
        wait_seconds: How long a write waits for the write or exclusive transaction before it.

    Raises:
        LedgerError: If the URL has another form; by every method, if the database refuses.
    """

    def __init__(self, url: str, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._database = Database(url, wait_seconds)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._database.shown!r})"

    def close(self) -> None:
        """Close this process's idle connections; a later call opens new ones."""
        self._database.close()
