"""Arrow's compute functions as one untyped module: they are made at run time, where no type checker sees them."""

from typing import Any


def compute_functions() -> Any:
    """Return `pyarrow.compute`."""
    import pyarrow.compute

    return pyarrow.compute
