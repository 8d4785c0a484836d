"""A signal to stop is told from a failure of the step, whatever became of it on its way."""

from collections.abc import Callable

import pytest
from dagster import DagsterExecutionInterruptedError
from dagster._utils.error import serializable_error_info_from_exc_info

from ml_assets.executors.pod_worker import is_interrupt


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
