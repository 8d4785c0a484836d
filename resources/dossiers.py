"""DossierFiles: the HTML pages of decisions in a folder or below an fsspec URL."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_assets.errors import StoreError
from resources.atomic_files import files_below, local_folder

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class DossierFiles:
    """A `DossierStore` with the pages at `<url>/<team>/<pipeline>/<name>.html`.

    A page appears whole or not at all, and one of the same name is replaced. Making a store does no input or
    output.

    Attributes:
        url: A folder, or a URL such as "s3://bucket/dossiers". Passwords belong in `storage_options`.
        storage_options: Arguments for the fsspec file system, such as keys; never shown.
    """

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        if re.search(r"://[^/]*:[^/]*@", self.url):
            raise StoreError("The dossiers' URL holds a password; pass it in storage_options instead.")
        if not self.url or self.url.startswith("~"):
            raise StoreError(f"The place of dossiers is {self.url!r}; expected the path of a folder, or a URL.")
        # Absolute at once: a later change of the working folder must not scatter the pages.
        object.__setattr__(self, "url", str(local_folder(self.url) or self.url))

    def write(self, pipeline: tuple[str, str], name: str, html: str) -> str:
        """Write one self-contained page atomically and return its path or URL.

        Args:
            pipeline: Team and pipeline.
            name: Of the page, without a suffix: letters, digits, ".", "_" and "-", no "." in front.
            html: The page, written in UTF-8.

        Raises:
            StoreError: If a name has other characters, or the page cannot be written.
        """
        parts = (*pipeline, name)
        if wrong := [part for part in parts if not _NAME.fullmatch(part)]:
            raise StoreError(
                f"A dossier cannot have {', '.join(map(repr, wrong))} in its address; expected letters, digits, "
                "'.', '_' and '-', and no '.' in front."
            )
        key = f"{'/'.join(parts)}.html"
        content = html.encode()
        try:
            files = files_below(self.url, self.storage_options)
            files.publish(key, lambda sink: sink.write(content))
            return files.url(key)
        except (OSError, ImportError, ValueError) as error:
            raise StoreError(
                f"The dossier {key} cannot be written below {self.url}: {error}. Correct the place of dossiers, or "
                "its permissions; the decision itself is in the ledger."
            ) from error
