"""Checkpoints of trainings in a local folder or below any fsspec URL: on the data store, beside its assets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ml_assets.checkpoints import MAX_BYTES, StoredCheckpoint
from ml_assets.errors import StoreError
from resources.atomic_files import AtomicFiles, files_below, local_folder

FOLDER = "_checkpoints"
"""Below the data store's root; no team can have this name, so that no asset lies there."""


@dataclass(frozen=True)
class CheckpointFolder:
    """Implements `ml_assets.interfaces.CheckpointStore`; making one does no input or output.

    Attributes:
        root: The data store's root, a folder or an fsspec URL.
        storage_options: Arguments for the fsspec file system, such as keys; never shown.
        max_bytes: Largest state that is stored.
    """

    root: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)
    max_bytes: int = field(default=MAX_BYTES, kw_only=True)

    def __post_init__(self) -> None:
        folder = local_folder(self.root)
        object.__setattr__(self, "root", str(folder) if folder else self.root)

    def open(self, key: str) -> StoredCheckpoint:
        """Return the checkpoint under a key; raises StoreError when the key could leave its folder."""
        parts = key.split("/")
        if not all(parts) or {".", ".."} & set(parts) or "\\" in key:
            raise StoreError(f"the checkpoint's key is {key!r}; expected names with '/' between them")
        files = files_below(self.root, self.storage_options)
        return StoredCheckpoint(key, _Folder(files, f"{FOLDER}/{key}"), max_bytes=self.max_bytes)


@dataclass(frozen=True)
class _Folder:
    """The `CheckpointFiles` of one key."""

    files: AtomicFiles
    folder: str

    def names(self) -> list[str]:
        return [name for name in self.files.files(self.folder) if "/" not in name]

    def read(self, name: str) -> bytes:
        return self.files.read(f"{self.folder}/{name}")

    def publish(self, name: str, content: bytes) -> None:
        self.files.publish(f"{self.folder}/{name}", lambda sink: sink.write(content))
        self.files.clean(self.folder)

    def remove(self, name: str) -> None:
        self.files.remove(f"{self._parent}/{name[3:]}" if name.startswith("../") else f"{self.folder}/{name}")

    def neighbours(self) -> list[str]:
        own = self.folder.removeprefix(f"{self._parent}/")
        return [f"../{path}" for path in self.files.files(self._parent) if not path.startswith(f"{own}/")]

    @property
    def _parent(self) -> str:
        return self.folder.rpartition("/")[0]
