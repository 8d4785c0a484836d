"""A gate for the trials of a search: it stands where the test needs it, on a machine of any speed."""

import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "TRIAL_GATE"
"""Environment variable of pods: the folder of the gate."""
ESTIMATOR = "tests.kubernetes.gated_boosting.GatedBoostingClassifier"
"""An estimator whose trials pass the gate."""


@dataclass(frozen=True)
class Gate:
    """Notes which host begins a trial, and has trials wait: all from some number on, or a host for another one.

    Args:
        folder: Where the notes lie.
    """

    folder: Path

    def hold_at(self, count: int) -> None:
        """Have whoever begins another trial wait once so many have begun."""
        self._write("limit", str(count))

    def open(self) -> None:
        """Let all go on that wait because of `hold_at`."""
        (self.folder / "limit").unlink()

    def share(self) -> None:
        """Have every host evaluate two trials at least, if it evaluates any: the others wait for it."""
        self._write("shared", "")

    def begun(self) -> list[str]:
        """Return the host of every trial that has begun, in order; one that waits has begun too."""
        file = self.folder / "begun"
        return file.read_text().splitlines() if file.exists() else []

    def pass_by(self, host: str) -> None:
        """Note that a host begins a trial, and wait as long as it has to."""
        self.folder.mkdir(exist_ok=True)
        note = os.open(self.folder / "begun", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(note, f"{host}\n".encode())
        os.close(note)
        lines = self.begun()
        last = len(lines) - 1 - lines[::-1].index(host)  # the note of just now: a host has one trial at a time
        before = Counter(lines[: last + 1])
        while not self._may_pass(host, before):
            time.sleep(0.02)

    def _may_pass(self, host: str, before: Counter[str]) -> bool:
        begun, limit = Counter(self.begun()), self.folder / "limit"
        try:
            if begun.total() > int(limit.read_text()):
                return False
        except FileNotFoundError:
            pass
        if not (self.folder / "shared").exists():
            return True
        own = before[host]
        if own <= 2:
            return any(count >= own for other, count in begun.items() if other != host)
        # A host that came meanwhile may be at the other trial of this round: it is waited for in the next one.
        return all(begun[other] > 1 for other, count in before.items() if count == 1)

    def _write(self, name: str, text: str) -> None:
        self.folder.mkdir(exist_ok=True)
        draft = self.folder / f"{name}.part"
        draft.write_text(text)
        draft.replace(self.folder / name)
