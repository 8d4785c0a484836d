"""Dagster's daemon for one machine: it loads a code location anew when its code changed, not once a minute.

`python -m resources.daemon run -w workspace.yaml` takes the options of `dagster-daemon run`. Dagster's own program
replaces every code server each 60 seconds, whether anything changed or not; with a hundred pipelines that is more than
everything else that it does at rest. This one looks at the files, and also replaces a server that died within seconds.
It takes runs out of the queue by the rules of sharing (`resources/fair_daemon.py`).
"""

import importlib.util
import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from dagster._core.remote_representation.grpc_server_registry import (  # noqa: TID251 - whose servers are looked at
    ServerRegistryEntry,
)
from dagster._daemon.controller import RELOAD_WORKSPACE_INTERVAL, DagsterDaemonController

from resources.fair_daemon import install
from resources.warm_launcher import WarmRunLauncher

CODE = frozenset({".py", ".yaml", ".yml", ".toml"})
NOT_CODE = frozenset({"state", "tests", "docs", "policies", "dist", "build"})
LOOK_SECONDS = 5.0
LONGEST_SECONDS = 3600.0
"""After this time the locations are loaded anew anyway."""
PROJECT = Path(__file__).resolve().parent.parent


class CodeFolders:
    """The code below some folders, and whether it changed since the last look.

    Args:
        folders: Folders to look at, with all below them but hidden ones and `NOT_CODE`.
        files: Files to look at besides, such as a workspace that a cluster mounts elsewhere.
    """

    def __init__(self, folders: Iterable[Path], files: Iterable[Path] = ()) -> None:
        places = sorted({folder.resolve() for folder in folders})
        self._folders = [p for p in places if not any(p.is_relative_to(o) for o in places if o != p)]
        self._files = tuple(files)  # as they are named: Kubernetes changes what a link stands for
        self._seen = frozenset(self._marks())

    def changed(self) -> bool:
        """Whether a file came, went or changed since the last time this was asked."""
        marks = frozenset(self._marks())
        if marks == self._seen:
            return False
        self._seen = marks
        return True

    def _marks(self) -> Iterator[tuple[str, int, int]]:
        for folder in self._folders:
            yield from _marks_below(folder)
        for file in self._files:
            with suppress(FileNotFoundError):
                stat = file.stat()
                yield str(file), stat.st_mtime_ns, stat.st_size


def _marks_below(folder: Path) -> Iterator[tuple[str, int, int]]:
    try:
        entries = list(os.scandir(folder))
    except FileNotFoundError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith((".", "__pycache__")) and entry.name not in NOT_CODE:
                    yield from _marks_below(Path(entry.path))
            elif Path(entry.name).suffix in CODE:
                stat = entry.stat()
                yield entry.path, stat.st_mtime_ns, stat.st_size
        except FileNotFoundError:  # it went between the two looks
            continue


def folders_of(workspace: Path) -> list[Path]:
    """Return the project's folder, and that of each Python module that a workspace names."""
    import yaml

    found = [PROJECT]
    named = yaml.safe_load(workspace.read_text(encoding="utf-8")).get("load_from", [])
    for entry in named:
        module = entry.get("python_module", {})
        name = module if isinstance(module, str) else module.get("module_name", "")
        spec = importlib.util.find_spec(name.partition(".")[0]) if name else None
        found += [Path(place) for place in (spec.submodule_search_locations or [])] if spec is not None else []
    return found


def check_when_needed(controller: Any, last: float, *, code: CodeFolders, state: dict[str, float], check: Any) -> float:
    """Load the locations anew when there is a reason to, and return when that was done last.

    Args:
        controller: Dagster's.
        last: When it was done last, in seconds since the epoch.
        code: What is looked at.
        state: When it was looked at last, on the monotonic clock.
        check: Dagster's own method, which does it once its interval is over.
    """
    if time.monotonic() - state.get("looked", 0.0) < LOOK_SECONDS:
        return last
    if "looked" not in state:
        _warm_up(controller)
    state["looked"] = time.monotonic()
    now = time.time()
    failed = now - last > RELOAD_WORKSPACE_INTERVAL and _failed(controller)
    if code.changed() or _died(controller) or failed or now - last > LONGEST_SECONDS:
        return check(controller, now - RELOAD_WORKSPACE_INTERVAL - 1)
    return last


def _warm_up(controller: Any) -> None:
    """Have the process that runs are forked from import its libraries now, so that the first run does not wait."""
    launcher = controller._instance.run_launcher  # noqa: SLF001
    if isinstance(launcher, WarmRunLauncher):
        launcher.warm_up()


def _died(controller: Any) -> bool:
    """Whether a code server that is in use has ended."""
    registry = controller._grpc_server_registry  # noqa: SLF001 - Dagster has no other way to its servers
    entries = [] if registry is None else list(registry._active_entries.values())  # noqa: SLF001
    servers = [entry.process.server_process for entry in entries if isinstance(entry, ServerRegistryEntry)]
    return any(server.poll() is not None for server in servers)


def _failed(controller: Any) -> bool:
    """Whether a location could not be loaded, as while somebody edits it."""
    context = controller._workspace_process_context  # noqa: SLF001
    return any(
        entry.load_error is not None for entry in context.create_request_context().get_code_location_entries().values()
    )


def main() -> None:
    """Run Dagster's daemon with these looks in place of its interval."""
    from dagster._daemon.cli import main as daemon

    arguments = sys.argv[1:]
    workspace = Path(arguments[arguments.index("-w") + 1]) if "-w" in arguments else PROJECT / "workspace.yaml"
    needed = partial(
        check_when_needed,
        code=CodeFolders(folders_of(workspace), [workspace]),
        state={},
        check=DagsterDaemonController.check_workspace_freshness,
    )

    def check_workspace_freshness(self: DagsterDaemonController, last_workspace_update_time: float) -> float:
        return needed(self, last_workspace_update_time)

    DagsterDaemonController.check_workspace_freshness = check_workspace_freshness
    install()
    daemon()


if __name__ == "__main__":
    main()
