"""A state folder that the demo has filled, shared by the tests that only look at it or add to it."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.programs import ml_assets


@dataclass(frozen=True, kw_only=True)
class Demo:
    """What `ml-assets demo` did.

    Attributes:
        state: Folder of everything it made.
        printed: Its standard output.
        errors: Its standard error.
        code: Its exit code.
        seconds: Wall time it took.
    """

    state: Path
    printed: str
    errors: str
    code: int
    seconds: float


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    state = tmp_path_factory.mktemp("demo") / "state"
    started = time.monotonic()
    done = ml_assets(state, "demo", "--periods", "3")
    seconds = time.monotonic() - started
    return Demo(state=state, printed=done.stdout, errors=done.stderr, code=done.returncode, seconds=seconds)
