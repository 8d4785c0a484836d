"""The loop that trains an estimator in rounds: saves it on its way, resumes it, and lets somebody watch."""

import json
import math
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from numpy.typing import NDArray

from ml_assets.errors import StoreError, TrainingPruned
from ml_assets.interfaces import Checkpoint
from ml_assets.trainers.state import StateError, dump, load

CHUNKS = 10
"""Most parts that a training is cut into. Where it is cut decides the draws of estimators that are random within."""
PART_SECONDS = 30.0
"""Shortest part of a training that may be cut anywhere: each part costs a start, so that quick ones have few."""

_STATE, _PROGRESS = "estimator.skops", "progress.json"

Watch = Callable[[int, Any], bool]
"""Told (rounds done, estimator as it is), and returns whether to stop."""


class Trainer(Protocol):
    """How one family of estimators is trained in rounds.

    Attributes:
        total: Rounds in all.
        exact: Whether it gives the same model wherever it is cut.
    """

    total: int
    exact: bool

    def advance(self, estimator: Any, X: NDArray, y: NDArray, start: int, stop: int) -> tuple[Any, bool]:
        """Train the rounds from `start` to `stop`; `estimator` is None at the start.

        Returns:
            The estimator, and whether it needs no further rounds.
        """
        ...

    def finish(self, estimator: Any) -> Any:
        """Return the estimator with the parameters that were declared."""
        ...

    def rounds_of(self, estimator: Any) -> int:
        """Return how many rounds a finished estimator has."""
        ...


@dataclass(kw_only=True)
class Course:
    """How a training went.

    Attributes:
        estimator: As far as it came.
        done: Rounds after which it was last saved or stopped.
        finished: Whether no further rounds are needed.
        resumed_from: Rounds that an earlier process had done; None when it began anew.
        notes: What a reader of the result should know, a sentence each.
    """

    estimator: Any = None
    done: int = 0
    finished: bool = False
    resumed_from: int | None = None
    notes: list[str] = field(default_factory=list)


def boundaries(total: int) -> list[int]:
    """Return after which rounds a training is cut evenly: at most `CHUNKS` times.

    >>> boundaries(25)
    [3, 5, 8, 10, 13, 15, 18, 20, 23, 25]
    >>> boundaries(3)
    [1, 2, 3]
    """
    return sorted({-(-total * part // CHUNKS) for part in range(1, CHUNKS + 1)})


def train_in_rounds(
    trainer: Trainer,
    X: NDArray,
    y: NDArray,
    *,
    checkpoint: Checkpoint | None = None,
    watch: Watch | None = None,
    trusted: Collection[str] = (),
    clock: Callable[[], float] = time.monotonic,
) -> Course:
    """Train until the rounds are done, or the estimator or whoever watches stops it.

    A training that is watched, or that would give another model, is cut evenly; any other in parts of a tenth of its
    rounds and of `PART_SECONDS` at least. After each part `watch` is told first and the state is saved then: who
    resumes is told of a part again when it is not known whether that was done. After the last part `watch` cannot
    stop it any more.

    Args:
        trainer: How.
        X: Numbers, shape (n_rows, n_columns).
        y: Labels, shape (n_rows,).
        checkpoint: Where to save, and what to resume from. A state that cannot be saved is a note, not an error.
        watch: Who watches.
        trusted: Types that a saved state may hold beside the known ones.
        clock: Gives the time in seconds.

    Raises:
        TrainingPruned: If `watch` says so.
        StoreError: If the checkpoint's store cannot be reached at the start.
    """
    course = Course() if checkpoint is None else _resume(checkpoint, trainer.total, trusted)
    pace = None if watch is not None or not trainer.exact else math.inf
    while not course.finished:
        started = clock()
        stop = _next_stop(course.done, trainer.total, pace)
        course.estimator, ended = trainer.advance(course.estimator, X, y, course.done, stop)
        pace = None if pace is None else (stop - course.done) / max(clock() - started, 1e-9)
        course.done, course.finished = stop, ended or stop == trainer.total
        if watch is not None and watch(stop, course.estimator) and not course.finished:
            raise TrainingPruned(stop)
        if checkpoint is not None and not _save(checkpoint, course, trusted):
            checkpoint = None
    course.estimator = trainer.finish(course.estimator)
    return course


def _next_stop(done: int, total: int, pace: float | None) -> int:
    """Return after which round the next part ends.

    Args:
        done: Rounds that are done.
        total: Rounds in all.
        pace: Rounds a second in the part before, infinite before the first; None to cut evenly.
    """
    if pace is None:
        return next(stop for stop in boundaries(total) if stop > done)
    wanted = 0 if math.isinf(pace) else int(pace * PART_SECONDS)
    return min(total, done + max(-(-total // CHUNKS), wanted))


def _resume(checkpoint: Checkpoint, total: int, trusted: Collection[str]) -> Course:
    found = checkpoint.load()
    notes = list(checkpoint.problems)
    if found is None:
        return Course(notes=notes)
    step, files = found
    if not 0 < step <= total:
        return Course(notes=[*notes, f"the training began anew: its checkpoint is of round {step} of {total}"])
    try:
        estimator, progress = load(files[_STATE], trusted), json.loads(files[_PROGRESS])
    except (StateError, KeyError, ValueError) as error:
        return Course(notes=[*notes, f"the training began anew: its checkpoint cannot be used: {error}"])
    return Course(estimator=estimator, done=step, finished=bool(progress["finished"]), resumed_from=step, notes=notes)


def _save(checkpoint: Checkpoint, course: Course, trusted: Collection[str]) -> bool:
    """Save the state and return whether that worked; a training does not fail because it cannot be saved."""
    try:
        state = dump(course.estimator, trusted)
        progress = json.dumps({"finished": course.finished}).encode()
        checkpoint.save(course.done, {_STATE: state, _PROGRESS: progress})
    except (StateError, StoreError) as error:
        course.notes.append(f"the training could not be saved on its way: {error}")
        return False
    return True


def names_of(estimator: Any) -> Iterable[str]:
    """Return the names of an estimator's class and its bases, nearest first."""
    return [cls.__name__ for cls in type(estimator).__mro__]
