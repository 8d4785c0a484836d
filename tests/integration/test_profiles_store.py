"""Profiles in a real data store: a damaged file is replaced by the profile of the rows."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from ml_assets.profiles.document import to_document
from ml_assets.stages.profiled import profile_asset, profile_rows, read_profile
from resources.data_store import ParquetDataStore

PATH = ("flights", "arrival_delay")


def test_a_missing_or_damaged_profile_is_written_anew(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    when = np.datetime64("2013-01-01T00:00:00", "us") + np.sort(rng.integers(0, 30 * 86_400, 500)).astype("m8[s]")
    table = pa.table(
        {
            "event_time": pa.array(when, pa.timestamp("us", tz="UTC")),
            "delay": rng.normal(size=500),
            "carrier": pa.array(rng.choice(["UA", "AA"], 500)).dictionary_encode(),
            "departed": pa.array(when.astype("datetime64[s]")),
        }
    )
    store = ParquetDataStore(str(tmp_path))
    rows = store.write((*PATH, "features"), "EWR|2013-01", table)

    def read() -> dict[str, object]:
        found = read_profile(store, PATH, "features", "EWR|2013-01", rows.data_version, timezone="America/New_York")
        return to_document(found)

    expected = to_document(profile_rows(table, "features", timezone="America/New_York"))
    assert read() == expected, "what is stored gives the profile of what was written"
    (file,) = tmp_path.joinpath(*profile_asset(PATH, "features")).rglob(f"{rows.data_version}.json")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert read() == expected
    assert file.read_bytes() == content
