"""The logs of `ml-assets dev` do not grow without bound, and their writers go on undisturbed."""

import subprocess
import sys
from pathlib import Path

from ml_assets.cli.dev import begin_anew


def test_a_log_that_is_too_long_begins_anew_under_its_writers_hand(tmp_path: Path) -> None:
    log = tmp_path / "daemon.log"
    with log.open("ab") as sink:
        writer = subprocess.Popen(
            [sys.executable, "-c", "for line in open(0): print('said', line, end='', flush=True)"],
            stdin=subprocess.PIPE,
            stdout=sink,
            text=True,
        )
    assert writer.stdin is not None
    sizes = []
    for number in range(3):
        before = log.stat().st_size
        writer.stdin.write(f"{number} {'x' * 100}\n")
        writer.stdin.flush()
        while log.stat().st_size < before + 100:
            assert writer.poll() is None
        begin_anew(log, 150)
        sizes.append(log.stat().st_size)
    writer.stdin.close()
    assert writer.wait(timeout=30) == 0

    assert sizes == [108, 0, 108]
    assert log.read_text(encoding="utf-8").startswith("said 2 ")
    kept = (tmp_path / "daemon.log.1").read_text(encoding="utf-8")
    assert [line[:6] for line in kept.splitlines()] == ["said 0", "said 1"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["daemon.log", "daemon.log.1"]
