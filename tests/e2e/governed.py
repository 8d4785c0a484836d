"""A state folder under a policy tree of its own, in which test reviewers may decide; it can be put back as it was."""

import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from resources.ledger import SqlLedger
from tests.e2e.programs import ML_ASSETS, ROOT, environment, ml_assets, processes_of, wait_for

NAME, PATH = "flights/arrival_delay", ("flights", "arrival_delay")
MODEL = "flights.arrival_delay"
REVIEWERS = ("anna", "olga")
PEOPLE = """owner: ml-platform
people:
"""


@dataclass(frozen=True, kw_only=True)
class Governed:
    """A state, a policy tree and the reviewers' keys, below one folder.

    Attributes:
        folder: Where they lie.
        printed: What `access new-key` printed for each reviewer.
    """

    folder: Path
    printed: dict[str, str] = field(default_factory=dict)

    @property
    def state(self) -> Path:
        """Return the folder of everything that is made."""
        return self.folder / "state"

    @property
    def policies(self) -> Path:
        """Return the policy tree."""
        return self.folder / "policies"

    @property
    def keys(self) -> Path:
        """Return the folder of private keys."""
        return self.folder / "keys"

    @property
    def settings(self) -> Mapping[str, str]:
        """Return the variables under which the tree and the keys are used."""
        return {"ML_ASSETS_POLICIES": str(self.policies), "ML_ASSETS_KEYS": str(self.keys)}

    def found(self) -> None:
        """Copy the project's policies, and enter reviewers with keys as `access new-key` makes and prints them."""
        shutil.copytree(ROOT / "policies", self.policies)
        text = PEOPLE
        for person in REVIEWERS:
            self.printed[person] = self.say("access", "new-key", person, "--no-passphrase").stdout
            lines = self.printed[person].splitlines()
            text += "\n".join(line for line in lines if line.startswith("  ")) + "\n"
        (self.policies / "people.yaml").write_text(text, encoding="utf-8")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end."""
        return ml_assets(self.state, *arguments, settings=self.settings)

    def say(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line to its end, which must be a good one."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line in a process group of its own."""
        return subprocess.Popen(
            [ML_ASSETS, *arguments],
            cwd=ROOT,
            env=environment(self.state, self.settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def save(self, name: str) -> None:
        """Keep state and policies as they are under a name; no process may be using them."""
        wait_for("an end of all processes", lambda: not processes_of(self.state), timeout_seconds=60)
        for part in (self.state, self.policies):
            shutil.copytree(part, self.folder / "saved" / name / part.name)

    def restore(self, name: str) -> None:
        """Put state and policies back as they were saved, at the same place: MLflow's addresses are absolute."""
        wait_for("an end of all processes", lambda: not processes_of(self.state), timeout_seconds=60)
        for part in (self.state, self.policies):
            if part.exists():
                shutil.rmtree(part)
            shutil.copytree(self.folder / "saved" / name / part.name, part)

    def ledger(self) -> SqlLedger:
        """Return the ledger, opened anew: its file may have been put back since."""
        return SqlLedger(f"sqlite:///{self.state}/ledger.db")

    def outcomes(self) -> list[tuple[str, str]]:
        """Return (partition, outcome) of every decision, oldest first."""
        return [(d.partition, d.outcome) for d in self.ledger().decisions(PATH)]

    def aliases(self) -> dict[str, str]:
        """Return the version under each alias, as it stands in MLflow's database."""
        database = self.state / "mlflow" / "mlflow.db"
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
            rows = opened.execute("SELECT alias, version FROM registered_model_aliases WHERE name = ?", [MODEL])
            return {alias: str(version) for alias, version in rows}


def killed_when(process: subprocess.Popen[str], state: Path, what: str, happened: Callable[[], bool]) -> None:
    """Kill a program's whole process group at the moment that something has happened, and wait until nothing is left.

    Raises:
        AssertionError: If the program ended before it happened.
    """
    checks: set[int] = set()
    try:
        wait_for(what, lambda: process.poll() is not None or happened(), timeout_seconds=900, every_seconds=0.01)
        assert process.poll() is None, f"it ended before {what}"
        checks = serving_checks(state)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
    wait_for("an end of all steps", lambda: not processes_of(state), timeout_seconds=60)
    # A serving check has a session of its own, and ends by itself.
    wait_for("an end of it", lambda: not any(Path(f"/proc/{pid}").exists() for pid in checks), timeout_seconds=150)


def serving_checks(state: Path) -> set[int]:
    """Return the processes in which steps of a state folder serve a model: the middle of a promotion."""
    ours, found = set(processes_of(state)), set()
    for folder in Path("/proc").iterdir():
        try:
            if not folder.name.isdigit() or b"serving_probe" not in (folder / "cmdline").read_bytes():
                continue
            parent = int((folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
        except (FileNotFoundError, PermissionError, ProcessLookupError):  # it ended, or is not ours
            continue
        if parent in ours:
            found.add(int(folder.name))
    return found
