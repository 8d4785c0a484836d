"""What a step takes of its worker's memory, what it gets after a kill, and who says that memory was the cause."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ml_assets.compute import CORES_TAG, MEMORY_TAG, OOM_MEMORY_TAG
from ml_assets.executors.demands import Demands, Share
from ml_assets.executors.memory_kills import MemoryKills, killed, started_again
from ml_assets.executors.pods import StepDemand, WorkerSize

WORKER = WorkerSize(cores=4, memory_mib=4096)


def _step(**tags: int | str) -> Any:
    names = {"cores": CORES_TAG, "memory": MEMORY_TAG, "sizes": OOM_MEMORY_TAG}
    return SimpleNamespace(key="fit", tags={names[name]: str(value) for name, value in tags.items()})


@pytest.mark.parametrize(
    ("tags", "share"),
    [
        ({}, Share(cores=1, memory_mib=0)),
        ({"cores": 2, "memory": 2048}, Share(cores=2, memory_mib=2048)),
        ({"cores": 9, "memory": 9999}, Share(cores=4, memory_mib=4096)),
    ],
    ids=["nothing-said", "less", "more-than-there-is"],
)
def test_a_step_takes_what_it_asks_for_and_at_most_all(tags: dict[str, int], share: Share) -> None:
    assert Demands(WORKER, has_cluster=False).share(_step(**tags)) == share


def test_unknown_memory_is_not_counted() -> None:
    assert Demands(WorkerSize(cores=1), has_cluster=False).share(_step(memory=9999)) == Share(cores=1)


@pytest.mark.parametrize("has_cluster", [False, True])
@pytest.mark.parametrize(
    ("tags", "alone", "with_cluster"),
    [
        ({"memory": 1024}, None, None),
        ({"memory": 1024, "sizes": "2048,8192"}, 2048, 2048),
        ({"memory": 2048, "sizes": "2048,8192"}, 8192, 8192),
        ({"memory": 4096, "sizes": "8192"}, None, 8192),
        ({"memory": 8192, "sizes": "8192"}, None, None),
        ({"sizes": "1024"}, 1024, 1024),
    ],
    ids=["no-sizes", "the-next", "all-there-is", "had-all-there-is", "had-the-largest", "asked-for-none"],
)
def test_a_killed_step_gets_more_memory_where_that_changes_something(
    tags: dict[str, Any], alone: int | None, with_cluster: int | None, has_cluster: bool
) -> None:
    demands = Demands(WORKER, has_cluster=has_cluster)
    assert demands.more_memory(_step(**tags)) == (with_cluster if has_cluster else alone)


def test_what_was_raised_counts_from_then_on() -> None:
    demands, step = Demands(WORKER, has_cluster=True), _step(cores=2, memory=1024, sizes="2048,8192")
    assert demands.raised_memory(step) is None
    demands.raise_memory(step, 2048)
    assert (demands.share(step), demands.raised_memory(step)) == (Share(cores=2, memory_mib=2048), 2048)
    assert not demands.wants_pod(step)
    demands.raise_memory(step, 8192)
    assert demands.wants_pod(step)
    assert demands.more_memory(step) is None


def _limited(folder: Path, kills: int) -> None:
    (folder / "memory.max").write_text("1073741824\n")
    (folder / "memory.events").write_text(f"low 0\nhigh 0\nmax 7\noom 2\noom_kill {kills}\noom_group_kill 0\n")


def _limited_version_1(folder: Path, kills: int) -> None:
    (folder / "memory").mkdir(exist_ok=True)
    (folder / "memory" / "memory.limit_in_bytes").write_text("1073741824\n")
    (folder / "memory" / "memory.oom_control").write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")


def _machine(folder: Path, kills: int) -> None:
    (folder / "vmstat").write_text(f"nr_free_pages 12\noom_kill {kills}\nnuma_hit 3\n")


@pytest.mark.parametrize("write", [_limited, _limited_version_1, _machine])
def test_each_kill_explains_one_end(tmp_path: Path, write: Any) -> None:
    write(tmp_path, 3)
    kills = MemoryKills(tmp_path, tmp_path / "vmstat")
    assert not kills.claim()
    write(tmp_path, 5)
    assert [kills.claim() for _ in range(3)] == [True, True, False]


def test_a_container_does_not_count_what_happens_on_its_machine(tmp_path: Path) -> None:
    _limited(tmp_path, 0)
    _machine(tmp_path, 0)
    kills = MemoryKills(tmp_path, tmp_path / "vmstat")
    _machine(tmp_path, 1)
    assert not kills.claim()
    _limited(tmp_path, 1)
    assert kills.claim()


def test_a_kill_of_long_ago_explains_no_end(tmp_path: Path) -> None:
    _machine(tmp_path, 3)
    kills = MemoryKills(tmp_path, tmp_path / "vmstat")
    _machine(tmp_path, 4)  # another program of the machine
    for _ in range(3):  # a look is due, and another one after it
        kills.forget()
        kills._next_look = 0.0
    _machine(tmp_path, 5)
    kills.forget()  # it is new to this look, and the step's end may still be on its way
    assert [kills.claim() for _ in range(2)] == [True, False]


def test_looks_in_quick_succession_forget_nothing(tmp_path: Path) -> None:
    _machine(tmp_path, 3)
    kills = MemoryKills(tmp_path, tmp_path / "vmstat")
    _machine(tmp_path, 4)
    for _ in range(10):
        kills.forget()
    assert kills.claim()


@pytest.mark.parametrize(("share_mib", "told"), [(4096, True), (8192, False), (None, False)])
def test_a_step_that_starts_again_is_told_when_there_is_less_than_it_asks_for(
    share_mib: int | None, told: bool
) -> None:
    said = started_again("fit", StepDemand(memory_mib=2048), 8192, share_mib)
    assert "it asks for 2048 MiB. It starts again with 8192 MiB" in said
    assert ("The worker has 4096 MiB: it gets all of that." in said) is told


def test_without_a_count_nothing_is_known(tmp_path: Path) -> None:
    assert not MemoryKills(tmp_path, tmp_path / "vmstat").claim()


def test_this_machine_counts() -> None:
    kills = MemoryKills()
    assert all(path.is_file() for path in kills._files)
    assert not kills.claim()


@pytest.mark.parametrize(("for_memory", "cause"), [(True, "The kernel ended it"), (False, "That is most often")])
def test_a_killed_step_is_told_its_memory_and_what_to_do(for_memory: bool, cause: str) -> None:
    said = killed("fit", StepDemand(memory_mib=1024), WORKER, for_memory=for_memory)
    assert said.startswith("The process of step fit was terminated by signal 9 (SIGKILL). " + cause)
    for words in ("it asks for 1024 MiB", "share 4096 MiB", "raise `memory_gib`", "lower ML_ASSETS_MEMORY_MIB"):
        assert words in said
