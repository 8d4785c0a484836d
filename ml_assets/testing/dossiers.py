"""FakeDossierStore, and DossierStoreSuite that every store of dossiers passes."""
# ruff: noqa: D102 - the names of the tests are the sentences

import re
from collections.abc import Callable

import pytest

from ml_assets.errors import StoreError
from ml_assets.interfaces import DossierStore


class FakeDossierStore:
    """A store in memory.

    Attributes:
        pages: Address to page, oldest first.
    """

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}

    def write(self, pipeline: tuple[str, str], name: str, html: str) -> str:
        """Keep the page and return its address."""
        for part in (*pipeline, name):
            if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]*", part):
                raise StoreError(f"A dossier cannot have {part!r} in its address")
        address = f"fake://dossiers/{'/'.join(pipeline)}/{name}.html"
        self.pages[address] = html
        return address


class DossierStoreSuite:
    """What every store of dossiers does.

    A subclass provides the fixtures `store`, empty for each test, and `read`, which returns the page at an address.
    """

    PIPELINE = ("flights", "arrival_delay")

    def test_a_page_is_read_at_its_address(self, store: DossierStore, read: Callable[[str], str]) -> None:
        page = "<!doctype html><title>Größe ≥ 1 – ✓</title>\r\n"
        address = store.write(self.PIPELINE, "2013-02.promotion-7", page)
        assert address.endswith("/flights/arrival_delay/2013-02.promotion-7.html")
        assert read(address) == page

    def test_a_page_is_replaced_at_the_same_address(self, store: DossierStore, read: Callable[[str], str]) -> None:
        addresses = [store.write(self.PIPELINE, "2013-02", page) for page in ("a long first page", "short")]
        assert addresses[0] == addresses[1]
        assert read(addresses[0]) == "short"

    def test_pages_of_other_pipelines_are_other_pages(self, store: DossierStore, read: Callable[[str], str]) -> None:
        pipelines = [("flights", "arrival_delay"), ("flights", "departure_delay"), ("births", "arrival_delay")]
        addresses = [store.write(pipeline, "2013-02", "/".join(pipeline)) for pipeline in pipelines]
        assert [read(address) for address in addresses] == ["/".join(pipeline) for pipeline in pipelines]

    @pytest.mark.parametrize("wrong", ["", ".", "..", ".hidden", "a/b", "../x", "a b", "a\\b", "ä", "a\n", "a:b", "a?"])
    def test_a_name_that_could_lead_elsewhere_is_refused(self, store: DossierStore, wrong: str) -> None:
        for pipeline, name in (
            (self.PIPELINE, wrong),
            ((wrong, "arrival_delay"), "2013-02"),
            (("flights", wrong), "2013-02"),
        ):
            with pytest.raises(StoreError, match=f"cannot have {re.escape(repr(wrong))} in its address"):
                store.write(pipeline, name, "<!doctype html>")
