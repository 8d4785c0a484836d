"""A signal to stop is heard, and told from a failure of the step, whatever became of it on its way."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dagster import DagsterExecutionInterruptedError
from dagster._utils.error import serializable_error_info_from_exc_info

from ml_assets.executors.pod_worker import INTERRUPTED, is_interrupt, signal_again

ROOT = Path(__file__).parents[2]
SECONDS = 120


def _signal() -> None:
    raise DagsterExecutionInterruptedError


def _in_a_cause() -> None:
    try:
        _signal()
    except DagsterExecutionInterruptedError as error:
        raise RuntimeError("stopped") from error


def _while_cleaning_up() -> None:
    try:
        _signal()
    finally:
        raise OSError("the connection is gone")


def _a_failure() -> None:
    try:
        {}["a"]
    finally:
        raise ValueError("b")


@pytest.mark.parametrize(
    ("body", "expected"), [(_signal, True), (_in_a_cause, True), (_while_cleaning_up, True), (_a_failure, False)]
)
def test_what_counts_as_a_signal(body: Callable[[], None], expected: bool) -> None:
    with pytest.raises(BaseException) as raised:  # noqa: PT011 - of four kinds
        body()
    error = serializable_error_info_from_exc_info((raised.type, raised.value, raised.tb))
    assert is_interrupt(error) is expected


def test_a_signal_is_heard_while_dagster_is_imported(tmp_path: Path) -> None:
    """Also by the first process of a container, for which a signal without a handler is as one that is ignored."""
    (tmp_path / "dagster.py").write_text("import pathlib, time\npathlib.Path('imports').touch()\ntime.sleep(900)\n")
    ignoring = ["sh", "-c", 'trap "" TERM; exec "$@"', "sh"]
    command = [*ignoring, sys.executable, "-m", "ml_assets.executors.pod_worker"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    with subprocess.Popen(command, cwd=tmp_path, env=environment) as worker:
        try:
            end = time.monotonic() + SECONDS
            while not (tmp_path / "imports").exists():
                assert worker.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(SECONDS) == INTERRUPTED
        finally:
            worker.kill()


@pytest.mark.parametrize(("error", "expected"), [(DagsterExecutionInterruptedError, True), (ValueError, False)])
def test_a_signal_whose_exception_was_dropped_is_given_again(error: type[BaseException], expected: bool) -> None:
    heard, shown = threading.Event(), list[Any]()
    before = signal.signal(signal.SIGTERM, lambda *_: heard.set())
    try:
        dropped = SimpleNamespace(exc_type=error)
        signal_again(shown.append)(dropped)
        assert heard.wait(SECONDS if expected else 0.5) is expected
    finally:
        signal.signal(signal.SIGTERM, before)
    assert shown == [dropped]
