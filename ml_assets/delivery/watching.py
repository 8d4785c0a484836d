"""Takes files up as soon as a folder says that they changed, and submits their runs without waiting for a tick."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ml_assets.arrivals import ArrivalPattern, ArrivalSettings, Cursor, arrive
from ml_assets.delivery.push import Push
from ml_assets.delivery.settings import FILES, DeliverySettings
from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import EffectivePolicy, PipelinePath

LOOK_AGAIN = timedelta(milliseconds=100)
MOST_LOOKS = 600
"""Looks at a file that does not become complete; then it is the sensor's."""
POLL = timedelta(seconds=1)
"""How often a landing zone that tells nothing by itself is listed."""


@dataclass(kw_only=True)
class Watch:
    """Watches the landing folders of one code location; whoever holds it calls `notice` and `step`.

    Attributes:
        push: Takes files up and submits runs.
        say: Told a line for people.
        looks: File → (when to look at it, looks so far).
        due: Pipeline → when to submit its runs.
    """

    push: Push
    say: Callable[[str], None]
    looks: dict[tuple[PipelinePath, str], tuple[datetime, int]] = field(default_factory=dict)
    due: dict[PipelinePath, datetime] = field(default_factory=dict)
    _cursors: dict[PipelinePath, Cursor] = field(default_factory=dict)
    _polled_at: datetime | None = None
    _read_at: datetime | None = None
    _policies: dict[PipelinePath, EffectivePolicy] = field(default_factory=dict)

    @property
    def folders(self) -> dict[PipelinePath, Path | None]:
        """Return the folder of each pipeline that takes files up; None for one that has to be listed."""
        landing = self.push.services.landing
        return {
            path: None if (local := landing.local_path(ArrivalPattern.of(loaded.spec).folder)) is None else Path(local)
            for path, loaded in self.push.submission.pipelines.items()
            if loaded.spec.automation.arrivals
        }

    def notice(self, file: str, *, now: datetime) -> None:
        """Look at a file once it has been unchanged for as long as the policy wants; later when it changes again."""
        for path in self.push.owners(file):
            if self.push.submission.pipelines[path].spec.automation.arrivals:
                self._attempt(path, lambda p: self._look_at(p, file, now))

    def step(self, now: datetime) -> list[str]:
        """Do what is due and return the runs that were submitted; what fails is the sensor's."""
        for (path, file), (at, count) in list(self.looks.items()):
            if at <= now:
                del self.looks[path, file]
                self._attempt(path, lambda p, f=file, n=count: self._look(p, f, n, now))
        if self._polled_at is None or now >= self._polled_at + POLL:
            self._polled_at = now
            for path, folder in self.folders.items():
                if folder is None:
                    self._attempt(path, lambda p: self._poll(p, now))
        submitted: list[str] = []
        for path, at in list(self.due.items()):
            if at <= now:
                del self.due[path]
                self._attempt(path, lambda p: submitted.extend(self._deliver(p, now)))
        return submitted

    def _attempt(self, path: PipelinePath, what: Callable[[PipelinePath], None]) -> None:
        try:
            what(path)
        except Exception as error:  # noqa: BLE001 - a storage, a database or a file system may raise anything
            known = str(error) if isinstance(error, MlAssetsError) else f"{type(error).__name__}: {error}."
            self.say(f"{'/'.join(path)}: {known} The sensor will try again.")

    def _look_at(self, path: PipelinePath, file: str, now: datetime) -> None:
        self.looks[path, file] = (self._complete_at(path, file, now), 1)

    def _policy(self, path: PipelinePath, now: datetime) -> EffectivePolicy:
        """Return what holds for a pipeline; read once at an instant, at which a thousand files may come."""
        if now != self._read_at:
            self._read_at, self._policies = now, {}
        if path not in self._policies:
            self._policies[path] = self.push.services.policy.effective(path)
        return self._policies[path]

    def _complete_at(self, path: PipelinePath, file: str, now: datetime) -> datetime:
        try:
            changed = datetime.fromtimestamp(Path(file).lstat().st_mtime, tz=UTC)
        except OSError:
            return now
        settle = ArrivalSettings.of(self._policy(path, now)).settle
        return max(now, min(changed, now) + settle + timedelta(milliseconds=10))

    def _look(self, path: PipelinePath, file: str, count: int, now: datetime) -> None:
        became = self.push.take_file(path, file, now=now, policy=self._policy(path, now))
        name = f"{'/'.join(path)}: {file}"
        if became.fate == "received" and became.event is not None:
            self.say(f"{name} is event {became.event.number} for [{became.event.event.partition}]")
            self._deliver_later(path, now)
        elif became.fate == "waiting" and count < MOST_LOOKS:
            self.looks[path, file] = (now + LOOK_AGAIN, count + 1)
        elif became.fate == "unchanged" and became.reason:
            self.say(f"{name} starts nothing: {became.reason}")
        elif became.fate in ("quarantined", "buried"):
            moved = became.quarantined
            self.say(f"{name} was refused: {became.reason}" + (f" It is now {moved.moved_to}." if moved else ""))

    def _poll(self, path: PipelinePath, now: datetime) -> None:
        settings = ArrivalSettings.of(self._policy(path, now))
        loaded = self.push.submission.pipelines[path]
        cursor = self._cursors.get(path, Cursor())
        arrived = arrive(self.push.services, loaded, cursor, settings=settings, now=now)
        self._cursors[path] = arrived.cursor
        for taken in arrived.receipt.new:
            self.say(f"{'/'.join(path)}: event {taken.number} for [{taken.event.partition}]")
        if arrived.receipt.new:
            self._deliver_later(path, now)

    def _deliver_later(self, path: PipelinePath, now: datetime) -> None:
        """Submit when the partition's quiet time is over."""
        settings = DeliverySettings.of(self._policy(path, now))
        self.due[path] = max(self.due.get(path, now), now + settings.wait_after(FILES))

    def _deliver(self, path: PipelinePath, now: datetime) -> list[str]:
        run_ids = self.push.deliver(path, now=now)
        for run_id in run_ids:
            self.say(f"{'/'.join(path)}: submitted run {run_id}")
        return run_ids
