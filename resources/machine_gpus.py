"""Which NVIDIA GPUs this process can use: from the driver's own list, without starting anything on them."""

import shutil
import subprocess
from itertools import takewhile
from pathlib import Path

from ml_assets.errors import MlAssetsError

DRIVER_LIST = Path("/proc/driver/nvidia/gpus")
_ASK_SECONDS = 20.0
"""nvidia-smi wakes a driver that sleeps, which takes some seconds."""


def usable_gpus(given: str | None, visible: str | None, *, driver_list: Path = DRIVER_LIST) -> tuple[str, ...]:
    """Return the GPUs as CUDA names them, in order.

    Args:
        given: `ML_ASSETS_GPUS`: how many of them steps may use; None or empty for all.
        visible: `CUDA_VISIBLE_DEVICES`: which there are, where somebody has chosen already; None where nobody has.
        driver_list: Folder in which the driver has an entry for each GPU.

    Raises:
        MlAssetsError: If `given` is no whole number.
    """
    if given and not (given.isascii() and given.isdigit()):
        raise MlAssetsError(
            f"ML_ASSETS_GPUS is {given!r}; expected a whole number, such as 0, or nothing for all there are."
        )
    if visible is not None:
        names = (name.strip() for name in visible.split(","))
        ids = tuple(takewhile(lambda name: name not in ("", "-1"), names))  # CUDA, too, stops at the first invalid one
        return ids[: int(given)] if given else ids
    count = int(given) if given else _counted(driver_list)
    return tuple(str(number) for number in range(count))


def _counted(driver_list: Path) -> int:
    """Return how many GPUs the driver has; a container sees those it was given."""
    if driver_list.is_dir():
        return len(list(driver_list.iterdir()))
    program = shutil.which("nvidia-smi")  # where the driver keeps no such list, as in WSL
    if program is None:
        return 0
    try:
        asked = subprocess.run(  # noqa: S603 - the driver's own program
            [program, "-L"], capture_output=True, text=True, timeout=_ASK_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):  # a driver that does not answer has no GPU to give
        return 0
    return sum(line.startswith("GPU ") for line in asked.stdout.splitlines()) if asked.returncode == 0 else 0
