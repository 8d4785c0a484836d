"""Landing scripts started twice at once: both succeed, every file is whole, nothing is left over."""

import subprocess
import sys
from pathlib import Path

import pytest

CALLS = {
    "flights": "from deployments.flights.land import land; land(Path(sys.argv[1]), ['2013-01'])",
    "births": "from deployments.births.land import land; land(Path(sys.argv[1]), ['1969', '1970'])",
}


@pytest.mark.parametrize("team", sorted(CALLS))
def test_two_at_once(team: str, tmp_path: Path) -> None:
    code = f"import sys; from pathlib import Path; {CALLS[team]}"
    root = Path(__file__).resolve().parents[2]
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=root) for _ in range(2)]

    assert [process.wait(timeout=300) for process in both] == [0, 0]
    files = list((tmp_path / team).iterdir())
    assert files
    assert not [file for file in files if file.suffix == ".part"]
    assert all(file.stat().st_size > 0 for file in files)
