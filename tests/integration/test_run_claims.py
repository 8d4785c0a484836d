"""Claims on runs, between processes that are killed and many that ask at once."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from resources.run_claims import RunClaims

HOLD = """
import sys, time
from pathlib import Path
from resources.run_claims import RunClaims
with RunClaims(Path(sys.argv[1])).held(sys.argv[2]) as mine:
    print(mine, flush=True)
    sys.stdin.read()
"""

COUNT = """
import sys
from pathlib import Path
from resources.run_claims import RunClaims
folder, counter = Path(sys.argv[1]), Path(sys.argv[2])
won = 0
while won < 200:
    with RunClaims(folder).held("run") as mine:
        if mine:
            counter.write_text(str(int(counter.read_text()) + 1))  # loses counts unless it is alone
            won += 1
"""


def hold(folder: Path, run_id: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), run_id],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "True\n"
    return process


def test_one_process_holds_a_claim_and_is_named(tmp_path: Path) -> None:
    claims = RunClaims(tmp_path / "claims")
    assert claims.holder("run") is None

    with hold(tmp_path / "claims", "run") as process:
        assert claims.holder("run") == process.pid
        assert claims.holder("another run") is None
        with claims.held("run") as mine:
            assert not mine
        assert claims.holder("run") == process.pid

    assert claims.holder("run") is None
    assert [path.name for path in (tmp_path / "claims").iterdir()] == ["mutex"]


def test_a_killed_process_holds_no_claim(tmp_path: Path) -> None:
    claims = RunClaims(tmp_path)
    with hold(tmp_path, "run") as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert claims.holder("run") is None
        assert (tmp_path / "run.claim").exists()

    with claims.held("run") as mine:
        assert mine
        assert claims.holder("run") == os.getpid()


@pytest.mark.parametrize("run_id", ["../outside", "a/b", "..", "."])
def test_a_run_s_id_does_not_leave_the_folder(tmp_path: Path, run_id: str) -> None:
    claims = RunClaims(tmp_path / "claims")
    with claims.held(run_id) as mine:
        assert mine
        assert claims.holder(run_id) == os.getpid()
        assert [path.name for path in tmp_path.iterdir()] == ["claims"]
        assert len(list((tmp_path / "claims").glob("*.claim"))) == 1


def test_processes_that_take_turns_are_never_two_at_once(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    argv = [sys.executable, "-c", COUNT, str(tmp_path / "claims"), str(counter)]

    def count(_: int) -> int:
        return subprocess.run(argv, check=True, timeout=300, cwd=Path(__file__).parents[2]).returncode

    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(count, range(3))) == [0, 0, 0]
    assert counter.read_text() == "600"


def test_asking_for_the_holder_keeps_nobody_from_a_claim(tmp_path: Path) -> None:
    claims = RunClaims(tmp_path)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(100):
            asking = pool.submit(lambda: [claims.holder("run") for _ in range(20)])
            with claims.held("run") as mine:
                assert mine
            asking.result()


def test_nobody_else_can_open_what_claims_are_made_with(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with RunClaims(tmp_path / "claims").held("run") as mine:
            modes = {
                path.name: path.stat().st_mode & 0o777
                for path in [tmp_path / "claims", *(tmp_path / "claims").iterdir()]
            }
    finally:
        os.umask(before)

    assert mine
    assert modes == {"claims": 0o700, "mutex": 0o600, "run.claim": 0o600}
