"""What a step asks for, and whether the worker of its run has that."""

from pathlib import Path

import pytest

from ml_assets.errors import MlAssetsError
from ml_assets.executors.pods import StepDemand, WorkerSize, demand_of
from ml_assets.executors.worker_size import available_cores, available_memory_mib

WORKER = WorkerSize(cores=2, memory_mib=4096)


@pytest.mark.parametrize(
    ("tags", "lacks"),
    [
        ({}, None),
        ({"ml_assets/cores": "2", "ml_assets/memory_mib": "4096"}, None),
        ({"ml_assets/gpus": "0"}, None),
        ({"ml_assets/gpus": "1"}, "1 GPU"),
        ({"ml_assets/gpus": "4"}, "4 GPUs"),
        ({"ml_assets/cores": "3"}, "3 cores (the run's worker has 2)"),
        ({"ml_assets/memory_mib": "4097"}, "4097 MiB of memory (the run's worker has 4096)"),
    ],
)
def test_a_step_leaves_the_worker_for_what_it_lacks(tags: dict[str, str], lacks: str | None) -> None:
    assert WORKER.lacks(demand_of("fit", tags)) == lacks


def test_memory_without_a_known_bound_is_enough() -> None:
    assert WorkerSize(cores=1).lacks(StepDemand(memory_mib=1 << 30)) is None


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("ml_assets/gpus", "one"),
        ("ml_assets/memory_mib", "0"),
        ("ml_assets/cores", "1.5"),
        ("ml_assets/oom_memory_mib", "32768,many"),
        ("ml_assets/time_limit_seconds", "-1"),
    ],
)
def test_a_tag_that_is_no_number_is_named(tag: str, value: str) -> None:
    with pytest.raises(MlAssetsError, match=rf"step fit: op tag '{tag}' is '{value}'; expected a whole number"):
        demand_of("fit", {tag: value})


def test_the_next_memory_is_the_smallest_that_is_larger() -> None:
    demand = demand_of("fit", {"ml_assets/oom_memory_mib": "65536, 32768"})
    assert [demand.next_memory(killed_at) for killed_at in (None, 16384, 32768, 65536)] == [32768, 32768, 65536, None]


def test_a_container_is_held_to_its_control_group(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000\n")
    (tmp_path / "memory.max").write_text(f"{64 << 20}\n")
    assert (available_cores(tmp_path), available_memory_mib(tmp_path)) == (1, 64)


def test_without_a_limit_the_machine_counts(tmp_path: Path) -> None:
    machine = available_cores(tmp_path), available_memory_mib(tmp_path)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert (available_cores(tmp_path), available_memory_mib(tmp_path)) == machine
    assert min(size or 0 for size in machine) >= 1
