"""Which GPUs a process finds, and what is said of steps that ask for more."""

import os
from pathlib import Path

import pytest

from ml_assets.compute import GPU_REQUIRED_TAG, GPUS_TAG
from ml_assets.errors import MlAssetsError
from ml_assets.executors.gpus import MachineGpus, MissingGpusError, require_gpus, without_gpus
from resources.machine_gpus import usable_gpus


@pytest.fixture
def driver_list(tmp_path: Path) -> Path:
    folder = tmp_path / "gpus"
    for address in ("0000:01:00.0", "0000:02:00.0"):
        (folder / address).mkdir(parents=True)
    return folder


def fake_program(folder: Path, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("given", "visible", "found"),
    [
        (None, None, ("0", "1")),
        ("", None, ("0", "1")),
        ("0", None, ()),
        ("1", None, ("0",)),
        ("4", None, ("0", "1", "2", "3")),
        (None, "2, 3", ("2", "3")),
        (None, "", ()),
        (None, "-1", ()),
        (None, "1,-1,0", ("1",)),
        ("1", "GPU-5a,GPU-7b", ("GPU-5a",)),
    ],
)
def test_which_gpus_there_are(
    driver_list: Path, given: str | None, visible: str | None, found: tuple[str, ...]
) -> None:
    assert usable_gpus(given, visible, driver_list=driver_list) == found


@pytest.mark.parametrize("given", ["two", "-1", "1.5"])
def test_a_count_that_is_no_number_is_refused(given: str) -> None:
    with pytest.raises(MlAssetsError, match=r"ML_ASSETS_GPUS is .*; expected a whole number"):
        usable_gpus(given, None)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 'GPU 0: Tesla T4 (UUID: GPU-1)'; echo 'GPU 1: Tesla T4 (UUID: GPU-2)'", ("0", "1")),
        ("echo 'No devices were found'", ()),
        ("echo 'GPU 0: x'; exit 9", ()),
    ],
)
def test_where_the_driver_has_no_list_its_program_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: tuple[str, ...]
) -> None:
    fake_program(tmp_path, script)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    assert usable_gpus(None, None, driver_list=tmp_path / "none") == found


def test_a_machine_without_a_driver_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert usable_gpus(None, None, driver_list=tmp_path / "none") == ()


def test_a_step_with_too_few_gpus_is_told_that_it_runs_without() -> None:
    warning = without_gpus("train", {GPUS_TAG: "2"}, 1)

    assert warning is not None
    assert warning.startswith('Step "train" asks for 2 GPUs and this machine has 1 for steps: it runs on the CPU')
    assert without_gpus("train", {GPUS_TAG: "2"}, 2) is None
    assert without_gpus("train", {}, 0) is None


def test_a_run_whose_step_cannot_do_without_is_refused() -> None:
    steps = [("a", {GPUS_TAG: "2", GPU_REQUIRED_TAG: "true"}), ("b", {GPUS_TAG: "2"}), ("c", None)]

    with pytest.raises(MissingGpusError, match=r"This machine has 1 GPU for steps.*cannot run without: a \(2\)\."):
        require_gpus(steps, 1)
    require_gpus(steps, 2)


def test_a_step_sees_the_gpus_that_it_holds_and_no_other() -> None:
    gpus = MachineGpus(ids=("2", "3", "5"), held=lambda _: (0, 2))

    assert gpus.visible("train", {GPUS_TAG: "2"}) == "2,5"
    assert gpus.visible("train", {GPUS_TAG: "4"}) == ""  # too many: it runs without
    unbound = MachineGpus(ids=("2", "3", "5"), held=lambda _: ())  # a storage without pools
    assert unbound.visible("train", {GPUS_TAG: "2"}) == "2,3"
    assert MachineGpus(ids=("2",), held=lambda _: ()).visible("load", {}) == ""
    assert MachineGpus(ids=None, held=lambda _: ()).visible("load", {}) is None
