"""Forking after OpenMP: the answer beforehand, and that it is the right one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ml_assets.fork_safety import fork_is_safe

COMPUTED = {
    "nothing": "pass",
    "one thread": "with ThreadpoolController().limit(limits=1): trees()",
    "OpenBLAS": "numpy.ones((600, 600)) @ numpy.ones((600, 600))",
    "Arrow": "pyarrow.table({'a': [1] * 100_000}).group_by('a').aggregate([('a', 'sum')])",
    "OpenMP": "trees()",
    "OpenMP in another thread": "thread = Thread(target=trees); thread.start(); thread.join()",
}
PROGRAM = """
import multiprocessing, os, sys
from threading import Thread
import numpy, pyarrow
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import ThreadpoolController
from ml_assets.fork_safety import fork_is_safe

X = numpy.random.default_rng(0).random((2000, 4))

def trees():
    HistGradientBoostingClassifier(max_iter=3).fit(X, X[:, 0] > 0.5)

def alone():
    ThreadpoolController().limit(limits=1)
    trees()

def ends(work, seconds):
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(seconds)
    ended = process.exitcode == 0
    process.kill()
    process.join()
    return ended

os.environ.pop("OMP_NUM_THREADS", None)
{computed}
safe = fork_is_safe({look})
print(safe, ends(trees, 60 if safe else 3), ends(alone, 60))
"""


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="OpenMP starts no threads on one core")
@pytest.mark.parametrize("what", COMPUTED)
def test_the_answer_is_what_forked_children_then_meet(what: str) -> None:
    look = 3 if what == "OpenMP" else 60  # no comes after this time, yes as soon as the machine lets it
    program = PROGRAM.format(computed=COMPUTED[what], look=look)
    root = Path(__file__).parents[2]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=250, check=False)
    safe = str(what != "OpenMP")
    assert (run.stdout.split(), run.stderr) == ([safe, safe, "True"], "")


@pytest.mark.parametrize("look_seconds", [0.0, 60.0], ids=["given-up", "answered"])
def test_nothing_is_left_of_the_look(monkeypatch: pytest.MonkeyPatch, look_seconds: float) -> None:
    import sklearn.ensemble  # noqa: F401 - brings an OpenMP library

    children, fork = [], os.fork

    def remembered() -> int:
        children.append(fork())
        return children[-1]

    monkeypatch.setattr(os, "fork", remembered)
    before = set(Path("/proc/self/fd").iterdir())
    fork_is_safe(look_seconds)
    assert [Path(f"/proc/{child}").exists() for child in children] == [False]
    assert set(Path("/proc/self/fd").iterdir()) <= before  # what other tests left may be collected meanwhile
