"""Where a ledger lies: the accepted URLs, and how they are shown without a password."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from ml_assets.errors import LedgerError

_SERVER = re.compile(
    r"(?P<scheme>postgres(?:ql)?(?:\+psycopg2)?)://"
    r"(?:(?P<user>[^:/?#@]*)(?::(?P<password>[^/?#@]*))?@)?"
    r"(?P<place>(?:\[[0-9a-fA-F:.]+\]|[^:/?#@\[\]]*)(?::[0-9]+)?/[^/?#@]+)"
    r"(?:\?(?P<options>[^#]*))?"
)
_ACCEPTED = "sqlite:///folder/ledger.db or postgresql://user:password@host:5432/database"


@dataclass(frozen=True, kw_only=True)
class LedgerAddress:
    """One ledger's place.

    Attributes:
        url: For SQLAlchemy, with the driver; holds the password and is never shown.
        shown: The same place for messages: without password and options.
        file: The database file, absolute, or None for a server.
    """

    url: str = field(repr=False)
    shown: str
    file: Path | None = None


def parse_address(url: str) -> LedgerAddress:
    """Check a ledger's URL without any I/O.

    Raises:
        LedgerError: If it is not one of the two accepted forms. The message does not repeat the URL: what
            cannot be parsed cannot be cleared of its password either.
    """
    if url.startswith("sqlite:"):
        return _sqlite_address(url)
    match = _SERVER.fullmatch(url)
    if match is None:
        scheme = url.partition(":")[0] if re.match(r"[a-z0-9+]{1,20}://", url) else "no known scheme"
        raise LedgerError(
            f"The ledger's URL (its scheme: {scheme}) cannot be read. Expected {_ACCEPTED}. "
            "Percent-encode @ : / ? # inside user or password, such as %40 for @."
        )
    rest = url.partition("://")[2]
    user = f"{match['user']}@" if match["user"] else ""
    return LedgerAddress(url=f"postgresql+psycopg2://{rest}", shown=f"postgresql://{user}{match['place']}")


def _sqlite_address(url: str) -> LedgerAddress:
    path = url.removeprefix("sqlite:///")
    if path == url or path in {"", ":memory:"} or path.startswith("file:") or "?" in path:
        raise LedgerError(
            f"The ledger's URL {url!r} does not name a file. Expected sqlite:/// and a path without options, "
            "such as sqlite:///folder/ledger.db. (In memory nothing outlives a step; tests take FakeLedger.)"
        )
    # Absolute at once: a later change of the working folder must not lead to another ledger.
    file = Path(path).absolute()
    return LedgerAddress(url=f"sqlite:///{file}", shown=f"sqlite:///{file}", file=file)
