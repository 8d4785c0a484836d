"""Silences Dagster's notices about the preview and beta interfaces that the assets use on purpose."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg


@contextmanager
def quiet_previews() -> Iterator[None]:
    """Build definitions without a notice for each asset; Dagster is pinned to the release that was tested."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        warnings.simplefilter("ignore", dg.BetaWarning)
        yield
