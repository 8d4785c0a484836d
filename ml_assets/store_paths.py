"""Where a partition lies below the root of a data store: readable, reversible, and never outside the root."""

import re
from collections.abc import Sequence
from urllib.parse import quote, unquote

from ml_assets.errors import StoreError

_MAX_NAME_BYTES = 255
_DATA_VERSION = re.compile(r"[0-9a-f]{64}")


def partition_path(asset: Sequence[str], partition: str) -> str:
    """Return the folder of a partition below the root, with `/` between its parts.

    Letters, digits and `_.-` stay as they are, `|` becomes `~`, and all else is percent-escaped.

    >>> partition_path(("flights", "arrival_delay", "raw_data"), "EWR|2013-01")
    'flights/arrival_delay/raw_data/EWR~2013-01'

    Raises:
        StoreError: If a segment or the partition key is empty, `.`, `..`, too long, or holds `/` or a
            character that cannot be printed.
    """
    return f"{asset_path(asset)}/{_folder_name('the partition key', partition)}"


def asset_path(asset: Sequence[str]) -> str:
    """Return the folder of an asset below the root; raises StoreError as `partition_path`."""
    if isinstance(asset, str) or not asset:
        raise StoreError(f"the asset's path is {asset!r}; expected segments, such as ('flights', 'raw_data')")
    return "/".join(_folder_name(f"a segment of the asset's path {tuple(asset)!r}", part) for part in asset)


def partition_key(folder_name: str) -> str:
    """Return the partition key whose folder has this name.

    >>> partition_key("EWR~2013-01")
    'EWR|2013-01'
    """
    return unquote(folder_name.replace("~", "%7C"))


def check_data_version(data_version: str) -> str:
    """Return the data version; raises StoreError when it is not 64 hexadecimal digits in lower case."""
    if not _DATA_VERSION.fullmatch(data_version):
        raise StoreError(
            f"the data version is {data_version!r}; expected 64 hexadecimal digits in lower case (SHA-256), "
            "as table_digest and document_digest return them"
        )
    return data_version


def _folder_name(what: str, key: str) -> str:
    """Return a key as the name of one folder."""
    problem = ""
    if not key:
        problem = "is empty"
    elif key in (".", ".."):
        problem = "would leave the folder of its asset"
    elif "/" in key or not all(character.isprintable() for character in key):
        problem = "holds a slash or a character that cannot be printed"
    if problem:
        raise StoreError(f"{what} is {key!r}, which {problem}; expected one plain name, such as '2013-01'")
    name = quote(key, safe="").replace("~", "%7E").replace("%7C", "~")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    if len(name) > _MAX_NAME_BYTES:
        raise StoreError(
            f"{what} is {key[:40]!r}…, which takes {len(name)} bytes as the name of a folder; "
            f"expected at most {_MAX_NAME_BYTES}: choose a shorter key"
        )
    return name
