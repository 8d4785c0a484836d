"""What the bars of the command line count, and how they name the stages that stopped."""

import pytest

from ml_assets.cli.progress import _is_worker, _stage


@pytest.mark.parametrize(
    ("step", "stage", "is_worker"),
    [
        ("flights__arrival_delay__models__forest", "models/forest", False),
        ("flights__arrival_delay__models__forest.fit", "models/forest", False),
        ("flights__arrival_delay__models__forest.worker_12", "models/forest", True),
        ("flights__arrival_delay__models__worker_1", "models/worker_1", False),
        ("flights__arrival_delay__models__worker_1.fit", "models/worker_1", False),
        ("flights/arrival_delay/models/forest", "models/forest", False),
    ],
)
def test_a_step_belongs_to_a_stage_and_a_worker_only_helps(step: str, stage: str, *, is_worker: bool) -> None:
    assert _stage(step) == stage
    assert _is_worker(step) is is_worker
