"""The rules of compute as they are now, read at most every few seconds; a broken file does not stop the queue."""

import logging
import time
from collections.abc import Callable

from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import ComputeRules, PolicySource

READ_SECONDS = 5.0

_log = logging.getLogger("ml_assets.queue")


class LiveRules:
    """Rules that are read anew when they are older than `READ_SECONDS`.

    Args:
        policy: Where they are.
        clock: Seconds of a monotonic clock.
    """

    def __init__(self, policy: PolicySource, clock: Callable[[], float] = time.monotonic) -> None:
        self._policy, self._clock = policy, clock
        self._read_at: float | None = None
        self._rules = ComputeRules()
        self._problem = ""

    def now(self) -> ComputeRules:
        """Return the rules; while they cannot be read, those that could be read last, or none."""
        if self._read_at is not None and self._clock() - self._read_at < READ_SECONDS:
            return self._rules
        self._read_at = self._clock()
        try:
            self._rules = self._policy.compute()
        except MlAssetsError as error:
            if str(error) != self._problem:  # told once, not every few seconds
                _log.error("The rules of compute cannot be read; those from before hold on. %s", error)
            self._problem = str(error)
        else:
            self._problem = ""
        return self._rules
