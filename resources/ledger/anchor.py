"""Anchors: where every stream of the ledger ended, kept as files out of the database's reach."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from ml_assets.chain import anchor_document, anchored_heads
from ml_assets.errors import LedgerError
from ml_assets.interfaces import ChainHead
from resources.atomic_files import files_below, local_folder

_NAME = re.compile(r"heads-\d{4}-\d{2}-\d{2}\.json")


@dataclass(frozen=True)
class AnchorFiles:
    """An `AnchorStore` of one JSON file a day in a folder or below an fsspec URL.

    Making one does no input or output.

    Attributes:
        url: Folder or fsspec URL, without a password.
        storage_options: Arguments for the fsspec file system, such as keys; never shown.
    """

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        _refuse_password(self.url)

    def write(self, heads: Mapping[str, ChainHead], now: datetime) -> str:
        """Write the day's anchor, whole or not at all, and return the address of its file; see `write_anchor`."""
        return write_anchor(self.url, heads, now, self.storage_options)

    def read(self) -> dict[str, Any] | None:
        """Return the newest anchor's document, or None when there is none; see `read_anchor`."""
        return read_anchor(self.url, self.storage_options)


def write_anchor(
    url: str, heads: Mapping[str, ChainHead], now: datetime, storage_options: Mapping[str, Any] | None = None
) -> str:
    """Write the day's anchor, whole or not at all, and return the address of its file.

    An anchor takes the place of the same day's; those of other days are kept. Two that are written in the same
    moment leave one of the two.

    Args:
        url: Folder or fsspec URL.
        heads: Last row of every stream.
        now: Time zone aware; its day in UTC names the file.
        storage_options: Arguments for the fsspec file system.

    Raises:
        LedgerError: If the newest anchor knows a longer stream (the ledger was cut off since) or a stream that
            has other rows, or the place cannot be read or written.
    """
    options = storage_options or {}
    newest = read_anchor(url, options)
    if newest is not None:
        _refuse_less(url, anchored_heads(newest), heads)
    document = anchor_document(heads) | {"anchored_at": now.astimezone(UTC).isoformat(timespec="seconds")}
    content = json.dumps(document, indent=2, allow_nan=False).encode()
    name = f"heads-{now.astimezone(UTC):%Y-%m-%d}.json"
    files = files_below(url, options)
    try:
        files.publish(name, lambda sink: sink.write(content))
    except (OSError, ImportError, ValueError) as error:
        raise _unusable("written", url, error) from error
    return files.url(name)


def read_anchor(url: str, storage_options: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """Return the newest anchor's document, or None when there is none.

    Raises:
        LedgerError: If the place cannot be read, or the newest file is no JSON document.
    """
    options = storage_options or {}
    _refuse_password(url)
    try:
        names = _names(url, options)
        if not names:
            return None
        content = files_below(url, options).read(names[-1])
    except (OSError, ImportError, ValueError) as error:
        raise _unusable("read", url, error) from error
    try:
        document = json.loads(content)
    except ValueError as error:
        raise LedgerError(
            f"The anchor {names[-1]} in {url} is not JSON ({error}). Expected what `ml-assets ledger anchor` "
            "writes; restore the file from a copy, and look at who changed it."
        ) from error
    anchored_heads(document)
    return document


def _names(url: str, storage_options: Mapping[str, Any]) -> list[str]:
    """Return the names of the anchors' files, oldest first."""
    import fsspec

    file_system, path = fsspec.url_to_fs(str(local_folder(url) or url), **storage_options)
    file_system.invalidate_cache(path)
    try:
        found = [PurePosixPath(str(file)).name for file in file_system.ls(path, detail=False)]
    except FileNotFoundError:
        return []
    return sorted(name for name in found if _NAME.fullmatch(name))


def _refuse_less(url: str, anchored: Mapping[str, ChainHead], heads: Mapping[str, ChainHead]) -> None:
    for stream, before in anchored.items():
        now = heads.get(stream, ChainHead(position=0, row_hash=""))
        if now.position < before.position or (now.position == before.position and now.row_hash != before.row_hash):
            raise LedgerError(
                f"No anchor was written to {url}: the newest one there knows {stream} with {before.position} rows, "
                f"the last with the hash {before.row_hash[:12]}…; the ledger now has {now.position}, the last with "
                f"{now.row_hash[:12] or 'none'}…. Rows were cut off or rewritten, or this is another ledger: "
                f"run `ml-assets ledger verify --anchor {url}`."
            )


def _refuse_password(url: str) -> None:
    if re.search(r"://[^/]*:[^/]*@", url):
        raise LedgerError("The anchors' URL holds a password; let the file system's own environment hold it instead.")
    if not url or url.startswith("~"):
        raise LedgerError(f"The anchors' place is {url!r}; expected the path of a folder, or a URL.")


def _unusable(what: str, url: str, error: Exception) -> LedgerError:
    cause = " ".join(str(error).split())
    return LedgerError(
        f"The anchors in {url} cannot be {what} ({type(error).__name__}: {cause}). Expected a folder or an fsspec "
        "URL such as s3://bucket/anchors that this process may use, with the file system's package installed."
    )
