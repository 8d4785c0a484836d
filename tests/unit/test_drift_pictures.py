import io
from dataclasses import replace

import pytest
from PIL import Image

from ml_assets.drift.pictures import _caption, distributions, effects, shown_columns
from ml_assets.drift.report import Aspect, Bars, ColumnDrift, DriftReport


def column(name: str, *, kind="numeric", psi: float = 0.4, moved: bool = True, bars: Bars | None = None) -> ColumnDrift:
    distribution = Aspect(
        name="distribution", effect=psi, limit=0.2, beyond=psi >= 0.2, p_value=1e-6, p_adjusted=2e-6, moved=moved
    )
    nulls = Aspect(name="nulls", effect=0.1, limit=0.05, beyond=True, p_value=0.2, p_adjusted=0.3, moved=False)
    shares = {"reference": (0.7, 0.3), "current": (0.2, 0.8)}
    return ColumnDrift(
        name=name,
        kind=kind,
        importance=0.25,
        psi=psi,
        distance=0.3,
        distance_limit=0.1,
        wasserstein=0.5,
        null_rates=(0.0, 0.1),
        aspects=(distribution, nulls),
        bars=bars
        or (Bars(edges=(0.0, 1.0, 2.0), **shares) if kind == "numeric" else Bars(labels=("a", "b"), **shares)),
    )


def report(*columns: ColumnDrift) -> DriftReport:
    return DriftReport(
        columns=columns, rows=(100, 50), days=(60, 30), alpha=0.05, importance_limit=0.1, not_compared={}
    )


def size(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png)) as image:
        image.verify()
        return image.size


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_a_picture_grows_with_its_columns(n: int) -> None:
    columns = [column(f"c{i}", kind="category" if i % 2 else "numeric") for i in range(n)]

    width, height = size(distributions(columns, title="EWR|2013-04"))

    assert width == pytest.approx(100 * (3.4 * min(3, n) + 0.2), abs=1)
    assert height == pytest.approx(100 * (2.55 * -(-n // 3) + 0.5), abs=1)


def test_equal_reports_give_equal_bytes_and_others_do_not() -> None:
    one, same, other = (
        report(column("amount", psi=psi), column("country", kind="category")) for psi in (0.4, 0.4, 0.9)
    )

    assert effects(one) == effects(same) != effects(other)
    assert distributions(one.columns) == distributions(same.columns)
    assert len(effects(one)) < 50_000


def test_a_column_without_values_is_drawn_as_such() -> None:
    empty = column("nothing", bars=Bars(reference=(), current=()))

    assert distributions([empty]) != distributions([column("nothing")])


def test_the_moved_columns_are_shown_first_and_alone() -> None:
    quiet, moved = column("quiet", psi=0.5, moved=False), column("moved", psi=0.3)

    assert [c.name for c in shown_columns(report(quiet, moved))] == ["moved"]
    assert [c.name for c in shown_columns(report(quiet, replace(quiet, name="other")))] == ["other", "quiet"]
    assert len(shown_columns(report(*(column(f"c{i}") for i in range(9))))) == 6


def test_a_caption_tells_size_sureness_and_importance() -> None:
    assert _caption(column("amount")) == "PSI 0.4, KS 0.3, nulls 10 %\np < 0.0001, 25 % of importance · moved"
    assert "largest change 0.3" in _caption(column("country", kind="category"))


def test_a_report_without_tests_is_drawn() -> None:
    quiet = column("amount", moved=False)
    untested = replace(quiet, aspects=tuple(replace(a, p_value=None, p_adjusted=None) for a in quiet.aspects))

    assert "not tested" in _caption(untested)
    assert size(effects(report(untested)))[0] == 640
