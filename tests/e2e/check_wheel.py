"""Installs a built wheel into an empty environment and says whether it brings `ml_assets` alone.

The environment borrows the project's installed dependencies (`.pth`), so that nothing is downloaded again.
"""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path


def main(wheel: Path, folder: Path) -> None:
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    packages = sorted(name for name in names if not name.endswith(".dist-info"))
    assert packages == ["ml_assets"], f"the wheel has the top-level names {packages}; expected ml_assets alone"

    venv.create(folder, with_pip=False, clear=True)
    python = folder / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    )
    subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", site, wheel], check=True
    )
    # The dependencies' folder is appended after our own and without running its .pth files: the editable
    # install's link to the tree stays out.
    code = (
        "import sys; sys.path.append(sys.argv[1]); import importlib.util as u, ml_assets;"
        "from ml_assets.components import TrainingPipeline;"
        "assert ml_assets.__file__.startswith(sys.argv[2]), ml_assets.__file__;"
        "assert u.find_spec('resources') is None and u.find_spec('sensors') is None;"
        "print('the wheel imports:', TrainingPipeline.__name__)"
    )
    subprocess.run([python, "-I", "-c", code, sysconfig.get_path("purelib"), str(site)], check=True, cwd=folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
