"""`ml-assets status` tells of files that were put aside, on a disk and in a store."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from ml_assets.arrivals.put_aside import standing_files
from ml_assets.arrivals.quarantine import quarantine_folder
from ml_assets.cli.status import quarantine_line
from ml_assets.errors import SourceError
from ml_assets.sources import LandingZone
from ml_assets.spec import AutomationSpec, PipelineSpec
from ml_assets.testing.inbox import FakeInbox
from tests.components.shop import shop


def spec(*, arrivals: bool = True) -> PipelineSpec:
    component = shop()
    fields: dict[str, Any] = {name: getattr(component, name) for name in PipelineSpec.model_fields}
    return PipelineSpec(**{**fields, "automation": AutomationSpec(arrivals=arrivals)})


@pytest.fixture(params=["disk", "store"])
def landing(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LandingZone]:
    if request.param == "disk":
        yield LandingZone(root=str(tmp_path / "landing"))
        return
    yield LandingZone(root="memory://quarantine-status")
    store = fsspec.filesystem("memory")
    if store.exists("/quarantine-status"):
        store.rm("/quarantine-status", recursive=True)


def put_aside(landing: LandingZone, name: str) -> None:
    file_system, path = landing.locate(f"{quarantine_folder(landing, spec())}/{name}")
    file_system.makedirs(path.rpartition("/")[0], exist_ok=True)
    file_system.pipe(path, b"x")


def test_no_bad_file_is_no_line(landing: LandingZone) -> None:
    assert standing_files(landing, FakeInbox(), spec()) == []
    assert quarantine_line(landing, FakeInbox(), spec()) == ""


def test_bad_files_are_counted_without_what_explains_them(landing: LandingZone) -> None:
    folder = quarantine_folder(landing, spec())
    for name in ("a.csv", "a.csv.reason.json", "b.csv.reason.json", ".half.tmp"):  # b.csv was moved back
        put_aside(landing, name)
    assert quarantine_line(landing, FakeInbox(), spec()) == (
        f"shop/returns: 1 file in quarantine, each beside its reason: {folder}"
    )

    put_aside(landing, "c.csv")

    assert quarantine_line(landing, FakeInbox(), spec()).startswith("shop/returns: 2 files in quarantine")
    assert quarantine_line(landing, FakeInbox(), spec(arrivals=False)) == ""


def test_a_quarantine_that_cannot_be_looked_at_is_told_and_breaks_nothing(tmp_path: Path) -> None:
    landing = LandingZone(root=str(tmp_path))
    folder = Path(quarantine_folder(landing, spec()))
    folder.parent.mkdir(parents=True)
    folder.symlink_to(folder)  # a circle: listing it fails even for root

    with pytest.raises(SourceError, match="cannot be looked at"):
        standing_files(landing, FakeInbox(), spec())
    assert "cannot be looked at" in quarantine_line(landing, FakeInbox(), spec())
