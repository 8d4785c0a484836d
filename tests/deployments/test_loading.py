"""What loading a code location does to its process: few imports, and a garbage collector left as it was."""

import subprocess
import sys

import pytest

from tests.deployments.code_locations import ROOT, code_locations

HEAVY = {
    "great_expectations",
    "hamilton",
    "matplotlib",
    "mlflow",
    "pandas",
    "pyarrow",
    "sklearn",
    "skops",
    "sqlalchemy",
}
LOCATIONS = [location.module for location in code_locations()]


def printed(code: str) -> str:
    """Run a program in the project's root and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("module", LOCATIONS)
def test_a_location_loads_without_the_libraries_of_its_steps(module: str) -> None:
    assert printed(f"import sys, {module}; print(*sorted({HEAVY} & set(sys.modules)))").split() == []


@pytest.mark.parametrize("switch", ["enable", "disable"])
def test_the_collector_is_left_on_or_off_and_what_was_loaded_is_set_aside(switch: str) -> None:
    code = f"import gc; gc.{switch}(); import {LOCATIONS[0]}; print(gc.isenabled(), gc.get_freeze_count() > 0)"

    on = switch == "enable"
    assert printed(code).split() == [str(on), str(on)]


def test_the_collector_is_on_again_when_a_location_does_not_load() -> None:
    code = (
        "import gc, types\n"
        "from ml_assets.components.team import load_team\n"
        "try: load_team(types.ModuleType('absent'), services=None, executor=None, project_root=None)\n"
        "except Exception as error: print(type(error).__name__, gc.isenabled())\n"
    )

    assert printed(code).split()[-1] == "True"
