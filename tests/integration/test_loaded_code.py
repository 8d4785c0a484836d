"""Changes on disk to what a process has imported are noticed, each in a process of its own that imports and looks."""

import json
import subprocess
import sys
import time
from pathlib import Path

from resources.loaded_code import LoadedCode

PROGRAM = """
import json, sys, time
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/site-packages"]
from resources.loaded_code import LoadedCode
since = time.time_ns()
import project_module
import installed_module
exec(sys.argv[3])
code = LoadedCode.remember(since)
before = code.changed()
exec(sys.argv[2])
print(json.dumps([before, code.changed()]))
"""


def changes(folder: Path, deed: str, while_importing: str = "") -> tuple[list[str], list[str]]:
    """Return what had changed before and after a deed, as paths below the folder."""
    (folder / "site-packages").mkdir()
    (folder / "project_module.py").write_text("ANSWER = 1\n")
    (folder / "site-packages" / "installed_module.py").write_text("ANSWER = 1\n")
    time.sleep(0.05)
    names = "from pathlib import Path; here = Path(sys.argv[1])\n"
    argv = [sys.executable, "-B", "-c", PROGRAM, str(folder), names + deed, names + while_importing]
    done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=300, cwd=Path(__file__).parents[2])
    before, after = json.loads(done.stdout)
    inside = str(folder) + "/"
    return [p.removeprefix(inside) for p in before], [p.removeprefix(inside) for p in after]


def test_nothing_has_changed_when_nothing_was_touched(tmp_path: Path) -> None:
    assert changes(tmp_path, "") == ([], [])


def test_a_file_written_anew_has_changed(tmp_path: Path) -> None:
    deed = "(here / 'project_module.py').write_text('ANSWER = 2')"

    assert changes(tmp_path, deed) == ([], ["project_module.py"])


def test_a_file_taken_away_has_changed(tmp_path: Path) -> None:
    assert changes(tmp_path, "(here / 'project_module.py').unlink()") == ([], ["project_module.py"])


def test_an_older_file_in_its_place_has_changed(tmp_path: Path) -> None:
    deed = "import os; os.utime(here / 'project_module.py', (1e9, 1e9))"

    assert changes(tmp_path, deed) == ([], ["project_module.py"])


def test_a_file_written_while_it_was_imported_counts_as_changed(tmp_path: Path) -> None:
    meanwhile = "(here / 'project_module.py').write_text('ANSWER = 2')"

    assert changes(tmp_path, "", meanwhile) == (["project_module.py"], ["project_module.py"])


def test_another_distribution_changes_the_folder_it_is_installed_in(tmp_path: Path) -> None:
    assert changes(tmp_path, "(here / 'site-packages' / 'new.dist-info').mkdir()") == ([], ["site-packages"])


def test_an_edit_by_hand_in_an_installed_file_is_not_looked_for(tmp_path: Path) -> None:
    deed = "(here / 'site-packages' / 'installed_module.py').write_text('ANSWER = 2')"

    assert changes(tmp_path, deed) == ([], [])


def test_looking_costs_milliseconds() -> None:
    """About a millisecond; the bound is far above it."""
    code = LoadedCode.remember(0)
    started = time.process_time()
    code.changed()
    assert time.process_time() - started < 0.1
