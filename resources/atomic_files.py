"""Files in a local folder or below an fsspec URL that appear whole or not at all, whoever is killed."""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa
    from fsspec import AbstractFileSystem

Writer = Callable[["pa.NativeFile"], object]
"""Writes a file's content to the sink it is given."""

STALE_SECONDS = 3600
"""Age after which a temporary file can only be what a killed writer left behind."""

_LOCAL_PREFIXES = ("file://", "local://")
_TEMPORARY_SUFFIX = ".tmp"
_ATOMIC_PUT = frozenset({"abfs", "abfss", "adl", "az", "gcs", "gs", "memory", "oci", "oss", "s3", "s3a", "tos"})
"""Protocols of stores where an object appears whole; elsewhere a file is moved into place."""


class AtomicFiles(Protocol):
    """Files by key, a path below the root with `/` between its parts."""

    def url(self, key: str) -> str:
        """Return where the file lies, with its protocol when it is not local."""
        ...

    def size(self, key: str) -> int | None:
        """Return the file's size in bytes, or None when it does not exist."""
        ...

    def read(self, key: str) -> bytes:
        """Return the content; raises FileNotFoundError."""
        ...

    def open(self, key: str) -> Any:
        """Return a seekable binary file that pyarrow reads, to be closed; raises FileNotFoundError."""
        ...

    def publish(self, key: str, write: Writer) -> int:
        """Write a file, put it in the place of an older one at once, and return its size in bytes."""
        ...

    def folders_with(self, name: str, below: str) -> list[str]:
        """Return the names of the folders directly below one that hold a file of this name."""
        ...

    def files(self, below: str) -> list[str]:
        """Return the paths of all files in a folder and its folders, relative to it; temporary ones too."""
        ...

    def remove(self, key: str) -> None:
        """Remove a file, and its folder when that is empty then; nothing happens when it does not exist."""
        ...

    def clean(self, folder: str) -> None:
        """Remove temporary files older than `STALE_SECONDS` from a folder."""
        ...


def files_below(root: str, storage_options: Mapping[str, Any]) -> AtomicFiles:
    """Return the files below a root as `local_folder` or fsspec understands it; no input or output."""
    folder = local_folder(root)
    return LocalFiles(folder) if folder else RemoteFiles(root, storage_options)


def local_folder(root: str) -> Path | None:
    """Return the full path that a local root means, or None when it is the URL of another file system.

    >>> local_folder("file:///srv/assets"), local_folder("s3://bucket/assets")
    (PosixPath('/srv/assets'), None)
    """
    path = next((root.removeprefix(prefix) for prefix in _LOCAL_PREFIXES if root.startswith(prefix)), root)
    return None if "://" in path or "::" in path else Path(path).absolute()


@dataclass(frozen=True)
class LocalFiles:
    """Files in a local folder: written beside their place, flushed to the disk, then renamed."""

    root: Path

    def url(self, key: str) -> str:
        """Return the full path."""
        return str(self.root / key)

    def size(self, key: str) -> int | None:
        """Return the file's size in bytes, or None."""
        try:
            return (self.root / key).stat().st_size
        except (FileNotFoundError, NotADirectoryError):
            return None

    def read(self, key: str) -> bytes:
        """Return the content."""
        return (self.root / key).read_bytes()

    def open(self, key: str) -> "pa.NativeFile":
        """Return the open file."""
        import pyarrow as pa

        return pa.OSFile(str(self.root / key), "rb")

    def publish(self, key: str, write: Writer) -> int:
        """Write beside the place, flush, rename, and flush the folder's entry."""
        import pyarrow as pa

        target = self.root / key
        _make_folder(target.parent)
        temporary = target.with_name(_temporary_name(target.name))
        try:
            with pa.OSFile(str(temporary), "wb") as sink:
                write(sink)
            _flush(temporary)
            n_bytes = temporary.stat().st_size
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        _flush(target.parent)
        return n_bytes

    def folders_with(self, name: str, below: str) -> list[str]:
        """Return the names of the folders that hold such a file."""
        try:
            with os.scandir(self.root / below) as entries:
                return [entry.name for entry in entries if Path(entry.path, name).is_file()]
        except FileNotFoundError:
            return []

    def files(self, below: str) -> list[str]:
        """Return the files' paths relative to the folder."""
        root = self.root / below
        found = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
        return [path.relative_to(root).as_posix() for path in found]

    def remove(self, key: str) -> None:
        """Remove the file, and an empty folder."""
        path = self.root / key
        path.unlink(missing_ok=True)
        with suppress(OSError):  # it holds other files, or has gone
            path.parent.rmdir()

    def clean(self, folder: str) -> None:
        """Remove what killed writers left."""
        for name in os.listdir(self.root / folder):  # noqa: PTH208 - names alone are needed
            if _is_stale(name):
                (self.root / folder / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class RemoteFiles:
    """Files on an fsspec file system, which is looked up at each use: many of them do not survive a fork.

    What the file system's own library raises, such as botocore's ClientError, becomes an OSError.
    """

    root: str
    storage_options: Mapping[str, Any]

    def url(self, key: str) -> str:
        """Return the address with its protocol."""
        with self._at(key) as (file_system, path):
            return str(file_system.unstrip_protocol(path))

    def size(self, key: str) -> int | None:
        """Return the object's size in bytes, or None."""
        with self._at(key) as (file_system, path):
            file_system.invalidate_cache(_parent(path))
            try:
                return int(file_system.info(path)["size"])
            except FileNotFoundError:
                return None

    def read(self, key: str) -> bytes:
        """Return the content."""
        with self._at(key), self.open(key) as file:
            return bytes(file.read())

    def open(self, key: str) -> Any:
        """Return the open file; pyarrow asks for the ranges it needs, so fsspec reads no further ahead."""
        with self._at(key) as (file_system, path):
            return file_system.open(path, "rb", cache_type="none")

    def publish(self, key: str, write: Writer) -> int:
        """Put the object at once, or move it into place where a put can be seen half done."""
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        write(sink)
        content = sink.getvalue().to_pybytes()
        with self._at(key) as (file_system, path):
            if _puts_atomically(file_system):
                file_system.pipe_file(path, content)
            else:
                name = _temporary_name(PurePosixPath(path).name)
                temporary = f"{_parent(path)}/{name}"
                file_system.makedirs(_parent(path), exist_ok=True)
                file_system.pipe_file(temporary, content)
                file_system.mv(temporary, path)
        return len(content)

    def folders_with(self, name: str, below: str) -> list[str]:
        """Return the names of the folders that hold such an object, from one listing of all below."""
        with self._at(below) as (file_system, path):
            file_system.invalidate_cache(path)
            found = (PurePosixPath(file).relative_to(path).parts for file in file_system.find(path))
            return [parts[0] for parts in found if parts[1:] == (name,)]

    def files(self, below: str) -> list[str]:
        """Return the objects' paths relative to the folder, from one listing."""
        with self._at(below) as (file_system, path):
            file_system.invalidate_cache(path)
            return [PurePosixPath(file).relative_to(path).as_posix() for file in file_system.find(path)]

    def remove(self, key: str) -> None:
        """Remove the object; object stores have no folders, and others keep an empty one."""
        with self._at(key) as (file_system, path):
            with suppress(FileNotFoundError):
                file_system.rm_file(path)
            file_system.invalidate_cache(_parent(path))

    def clean(self, folder: str) -> None:
        """Remove what killed writers left, where there can be such files."""
        with self._at(folder) as (file_system, path):
            if not _puts_atomically(file_system):
                file_system.invalidate_cache(path)
                for file in file_system.ls(path, detail=False):
                    if _is_stale(PurePosixPath(file).name):
                        file_system.rm_file(file)

    @contextmanager
    def _at(self, key: str) -> Iterator[tuple["AbstractFileSystem", str]]:
        """Give the file system, which fsspec caches, and the key's path in it."""
        import fsspec

        try:
            file_system, path = fsspec.url_to_fs(self.root, **self.storage_options)
            yield file_system, f"{path.rstrip('/')}/{key}"
        except Exception as error:
            # Each library has errors of its own, and none is imported here. Python's own are mistakes, not refusals.
            if isinstance(error, OSError) or type(error).__module__ == "builtins":
                raise
            raise OSError(f"{type(error).__name__}: {error}") from error


def _puts_atomically(file_system: "AbstractFileSystem") -> bool:
    protocol = file_system.protocol
    return not _ATOMIC_PUT.isdisjoint((protocol,) if isinstance(protocol, str) else protocol)


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _temporary_name(name: str) -> str:
    """Return a name that no other writer uses and that says when it was made."""
    return f".{name}.{int(time.time())}.{uuid.uuid4().hex}{_TEMPORARY_SUFFIX}"


def _is_stale(name: str) -> bool:
    """Return whether a name is one of `_temporary_name` made long ago."""
    if not (name.startswith(".") and name.endswith(_TEMPORARY_SUFFIX)):
        return False
    made = name.split(".")[-3:-2]
    return bool(made) and made[0].isdecimal() and time.time() - int(made[0]) > STALE_SECONDS


def _make_folder(folder: Path) -> None:
    """Make a folder and its parents so that they outlast a power failure."""
    if not folder.is_dir():
        _make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _flush(folder.parent)


def _flush(path: Path) -> None:
    """Wait until the disk has a file's content, or a folder's entries."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
