"""Pages of decisions on disk and in a store behind fsspec."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from ml_assets.errors import StoreError
from ml_assets.testing.dossiers import DossierStoreSuite
from resources.dossiers import DossierFiles


class TestDossiersInAFolder(DossierStoreSuite):
    @pytest.fixture
    def store(self, tmp_path) -> DossierFiles:
        return DossierFiles(str(tmp_path / "dossiers"))

    @pytest.fixture
    def read(self) -> Callable[[str], str]:
        return lambda address: Path(address).read_bytes().decode()

    def test_nothing_but_the_page_is_left(self, store, tmp_path):
        address = store.write(("flights", "arrival_delay"), "2013-02", "<!doctype html>")
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == [Path(address)]


class TestDossiersBehindFsspec(DossierStoreSuite):
    @pytest.fixture
    def store(self) -> Iterator[DossierFiles]:
        url = f"memory://dossiers-{uuid.uuid4().hex}"
        yield DossierFiles(url)
        files = fsspec.filesystem("memory")
        if files.exists(url):
            files.rm(url, recursive=True)

    @pytest.fixture
    def read(self) -> Callable[[str], str]:
        def content(address: str) -> str:
            with fsspec.open(address, "rb") as file:
                return file.read().decode()

        return content


def test_a_relative_folder_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = DossierFiles("dossiers")
    monkeypatch.chdir("/")
    assert store.write(("a", "b"), "c", "") == str(tmp_path / "dossiers/a/b/c.html")


def test_a_place_that_cannot_be_written_is_explained(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"The dossier a/b/c\.html cannot be written below .*/file: .* in the ledger"):
        DossierFiles(str(tmp_path / "file")).write(("a", "b"), "c", "")
    with pytest.raises(StoreError, match="cannot be written below nowhere://x"):
        DossierFiles("nowhere://x").write(("a", "b"), "c", "")


def test_a_password_in_the_url_is_refused_without_showing_it():
    with pytest.raises(StoreError, match="holds a password") as caught:
        DossierFiles("ftp://someone:secret@host/dossiers")
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(DossierFiles("s3://bucket", storage_options={"secret": "secret"}))


@pytest.mark.parametrize("url", ["", "~/dossiers"])
def test_a_place_that_is_none_is_refused(url):
    with pytest.raises(StoreError, match="expected the path of a folder, or a URL"):
        DossierFiles(url)
