"""Memory that runs of one machine share: what is free, who gets it next, and that the dead hold nothing."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.executors import machine_memory
from ml_assets.executors.machine_memory import MachineMemory

ROOT = Path(__file__).parents[2]
TOTAL = 1000


class Run:
    """A run as the executor plays it: its first step that does not fit stands in line, and is asked for again."""

    def __init__(self, folder: Path, total: int = TOTAL) -> None:
        self.memory = MachineMemory(folder, total)
        self.held: list[int] = []

    def wants(self, mib: int) -> bool:
        """Ask for a step's memory; return whether it starts."""
        fits = mib <= self.memory.free()
        self.memory.wait(None if fits else mib)
        descriptor = self.memory.take(mib) if fits else None
        self.held += [] if descriptor is None else [descriptor]
        return descriptor is not None

    def end(self) -> None:
        """End the step that started first."""
        os.close(self.held.pop(0))

    def leave(self) -> None:
        self.memory.leave()
        while self.held:
            self.end()


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[list[Run]]:
    found = [Run(tmp_path / "claims") for _ in range(3)]
    yield found
    for run in found:
        run.leave()


def test_what_one_run_holds_another_does_not_get(runs: list[Run]) -> None:
    one, other, _ = runs
    assert one.wants(600)
    assert other.memory.free() == 400
    assert not other.wants(500)
    one.end()
    assert other.wants(500)


def test_a_large_step_is_not_overtaken_by_the_small_ones_of_other_runs(runs: list[Run]) -> None:
    small, large, third = runs
    assert small.wants(300)
    assert not large.wants(1000)
    assert not small.wants(100)  # though 700 are free
    assert not third.wants(50)
    small.end()
    assert not small.wants(100)
    assert large.wants(1000)
    large.end()
    assert small.wants(100)
    assert third.wants(50)


def test_small_steps_go_beside_a_large_one_that_waits_where_they_leave_what_it_waits_for(runs: list[Run]) -> None:
    one, large, small = runs
    assert one.wants(600)
    assert not large.wants(500)
    assert not small.wants(100)
    one.end()
    assert small.wants(100)  # 900 are left for it
    assert large.wants(500)


def test_who_no_longer_wants_memory_keeps_nobody_waiting(runs: list[Run]) -> None:
    one, large, small = runs
    assert one.wants(300)
    assert not large.wants(1000)
    large.memory.leave()
    assert small.wants(100)


def test_a_step_that_waits_for_something_else_meanwhile_keeps_its_age_and_nobody_waiting(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_memory, "_TURN_SECONDS", 0.1)
    one, large, small = runs
    assert one.wants(300)
    assert not large.wants(1000)
    one.end()
    large.memory.wait(None)  # there is enough, and its slot of a pool is not free
    assert not small.wants(100)
    time.sleep(0.2)
    large.memory.wait(None)
    assert small.wants(100)
    assert not small.wants(950)
    assert not large.wants(1000)
    small.end()
    assert not small.wants(950)  # it came later
    assert large.wants(1000)


def test_a_run_that_is_stopped_keeps_nobody_waiting(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "_ASLEEP_SECONDS", 0.2)
    one, large, small = runs
    assert one.wants(300)
    assert not large.wants(1000)
    assert not small.wants(100)
    time.sleep(0.3)
    assert small.wants(100)


def test_a_run_that_says_that_it_waits_keeps_its_place(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_memory, "_ASLEEP_SECONDS", 1.0)
    monkeypatch.setattr(machine_memory, "_SAY_SECONDS", 0.1)
    one, large, small = runs
    assert one.wants(300)
    for _ in range(8):
        assert not large.wants(1000)
        assert not small.wants(100)
        time.sleep(0.2)


def test_the_memory_of_a_process_that_is_killed_is_free_and_a_child_of_it_keeps_none(tmp_path: Path) -> None:
    program = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from ml_assets.executors.machine_memory import MachineMemory\n"
        "memory = MachineMemory(Path(sys.argv[1]), 1000)\n"
        "assert memory.take(700) is not None\n"
        "memory.wait(500)\n"
        "os.execv(sys.executable, [sys.executable, '-c', 'pass']) if len(sys.argv) > 2 else None\n"
        "print('held', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    memory = MachineMemory(tmp_path, TOTAL)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            assert memory.free() == 0  # 700 are held, and 500 awaited
        finally:
            process.send_signal(signal.SIGKILL)
    assert memory.free() == TOTAL
    held = memory.take(1000)
    assert held is not None
    assert len(list(tmp_path.iterdir())) == 2  # what is held, and the lock: what the dead left is swept away
    os.close(held)
    # descriptors do not outlive the program that a process turns into
    assert subprocess.run([*command, "exec"], cwd=ROOT, timeout=60, check=False).returncode == 0
    assert memory.free() == TOTAL


def test_processes_never_hold_more_than_there_is(tmp_path: Path) -> None:
    """Six processes take and give back as fast as they can; each looks whether all that is held fits."""
    program = (
        "import os, random, sys, time\n"
        "from pathlib import Path\n"
        "from ml_assets.executors.machine_memory import MachineMemory\n"
        "folder = Path(sys.argv[1])\n"
        "memory, taken, chance = MachineMemory(folder / 'claims', 1000), 0, random.Random(sys.argv[2])\n"
        "end = time.monotonic() + 4\n"
        "while time.monotonic() < end:\n"
        "    mib = chance.choice([100, 300, 600, 1000])\n"
        "    while (hold := memory.take(mib)) is None and time.monotonic() < end:\n"
        "        memory.wait(mib)\n"
        "        time.sleep(0.002)\n"
        "    if hold is None:\n"
        "        break\n"
        "    mine = folder / f'{sys.argv[2]}-{mib}'\n"
        "    mine.touch()\n"
        "    assert sum(int(path.name.split('-')[1]) for path in folder.glob('?-*')) <= 1000\n"
        "    time.sleep(0.005)\n"
        "    mine.unlink()\n"
        "    os.close(hold)\n"
        "    taken += 1\n"
        "print(taken)\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", program, str(tmp_path), str(n)], cwd=ROOT, stdout=subprocess.PIPE)
        for n in range(6)
    ]
    answers = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 6
    assert min(int(answer) for answer in answers) > 3


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(1, TOTAL)), min_size=1, max_size=40), st.randoms())
@settings(max_examples=60, deadline=None)
def test_every_step_starts_in_the_end_and_nothing_is_given_twice(
    asked: list[tuple[int, int]], chance: random.Random
) -> None:
    """Whatever three runs ask for and in whatever order they look: while none can start, one is on its way."""
    with tempfile.TemporaryDirectory() as folder:
        found = [Run(Path(folder)) for _ in range(3)]
        todo = {n: [mib for who, mib in asked if who == n] for n in range(3)}
        going: list[tuple[int, int]] = []  # run and size, the oldest of a run first
        while any(todo.values()):
            before = len(going)
            for n in chance.sample(range(3), 3):
                while todo[n] and found[n].wants(todo[n][0]):
                    going.append((n, todo[n].pop(0)))
                assert sum(mib for _, mib in going) <= TOTAL
            if len(going) == before or chance.random() < 0.5:
                assert going, "nothing runs, and nothing can start"
                n, _ = chance.choice(going)
                found[n].end()
                going.remove(next(one for one in going if one[0] == n))
        for run in found:
            run.leave()
