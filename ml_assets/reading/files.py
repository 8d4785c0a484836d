"""Reads text files that a pipeline's description names, and says plainly why one cannot be read."""

import os
from pathlib import Path

from ml_assets.reading import wording


class UnreadableError(Exception):
    """A file cannot be read; the text continues its name ("does not exist"), `hint` says what was meant."""

    def __init__(self, reason: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(reason)


def read_text(file: Path) -> str:
    """Return the content of a UTF-8 file.

    Raises:
        UnreadableError: If there is none, or it is a folder, not readable or not UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UnreadableError("does not exist", hint=similar_file(file)) from None
    except UnicodeDecodeError as error:
        raise UnreadableError(f"is not UTF-8 text (byte {error.start})") from error
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise UnreadableError(f"cannot be read: {reason}") from error


def is_file(path: Path) -> bool:
    """Return whether there is a file; a name that no file can have has none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def similar_file(file: Path) -> str:
    """Return "did you mean …?" with a file beside the missing one, or nothing."""
    try:
        names = [path.name for path in file.parent.iterdir() if path.is_file()]
    except (OSError, ValueError):
        return ""
    return wording.did_you_mean(file.name, names)
