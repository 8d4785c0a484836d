"""Marks that an author puts on a feature function."""

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable)
READS_PAST = "ml_assets_reads_past"


def reads_past(function: F) -> F:
    """Declare that a function uses columns known only after the event, and uses them of earlier rows alone.

    Without this mark a feature that reads such a column (`known: after_event`) is refused, since it would leak
    what is not yet known when a row is scored. The windows and joins of `ml_assets.features` take earlier values only.
    """
    setattr(function, READS_PAST, True)
    return function
