"""Which bytes a partition was made of: a document beside its rows, so that the same file is not ingested again."""

from ml_assets.digest import document_digest
from ml_assets.errors import StoreError
from ml_assets.interfaces import DataStore, PipelinePath, StoredPartition
from ml_assets.sources import SourceFile


def write_source_file(data_store: DataStore, stored: StoredPartition, file: SourceFile) -> StoredPartition:
    """Store url, size and digest of the file that a version of `raw_data` was made of, and return what was stored."""
    document = {"url": file.url, "size": file.size, "sha256": file.sha256, "data_version": stored.data_version}
    asset = (*stored.asset[:-1], "source_file")
    return data_store.write_document(asset, stored.partition, document, data_version=document_digest(document))


def made_of(data_store: DataStore, path: PipelinePath, partition: str) -> str | None:
    """Return the digest of the file that the current rows of a partition were made of.

    None when there are no rows, or nobody knows: a replaced stage made them, or a process was killed between the
    rows and the document. Then the file counts as new, which costs a run and loses nothing.
    """
    rows = data_store.describe((*path, "raw_data"), partition)
    if rows is None:
        return None
    try:
        document = data_store.read_document((*path, "source_file"), partition)
    except StoreError:
        return None
    return document["sha256"] if document.get("data_version") == rows.data_version else None
