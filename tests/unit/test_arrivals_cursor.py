"""The cursor loses no file, forgets none that is left, and stays small whatever the number of files."""

from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from ml_assets.arrivals.folders import Listed
from ml_assets.arrivals.listing import Cursor, Scan, _compared, _watched
from ml_assets.arrivals.pattern import ArrivalPattern
from tests.unit.test_arrivals_pattern import pattern

NOW = datetime(2024, 5, 1, tzinfo=UTC)
PATTERN: ArrivalPattern = pattern()


def look(files: dict[str, int], cursor: Cursor) -> Scan:
    """Return the scan of a folder of name → version."""
    listed = [Listed(name, 10, version, str(version), "file") for name, version in files.items()]
    return _compared(listed, {"": 1}, PATTERN, cursor, NOW)


def names(scan: Scan) -> set[str]:
    return {candidate.name for candidate in scan.candidates}


FOLDERS = st.dictionaries(st.sampled_from([f"f{i}" for i in range(60)]), st.integers(0, 3), max_size=60)


@settings(max_examples=80, deadline=None)
@given(steps=st.lists(st.tuples(FOLDERS, st.randoms(use_true_random=False)), min_size=1, max_size=6))
def test_each_version_comes_until_it_was_dealt_with(steps: list[tuple[dict[str, int], object]]) -> None:
    cursor, dealt = Cursor(), set[tuple[str, int]]()
    for files, random in steps:
        scan = look(files, Cursor.read(cursor.text))
        due = {(name, version) for name, version in files.items() if (name, version) not in dealt}
        assert {name for name, _ in due} <= names(scan)
        chosen = [c for c in scan.candidates if random.random() < 0.5]  # type: ignore[attr-defined]
        dealt = (dealt & set(files.items())) | {(c.name, c.mtime_ns) for c in chosen}
        cursor = cursor.after(scan, chosen)


def test_nothing_comes_twice_once_all_was_dealt_with() -> None:
    files = {f"f{i}": 1 for i in range(500)}
    scan = look(files, Cursor())
    cursor = Cursor().after(scan, scan.candidates)

    assert names(scan) == set(files)
    assert not look(files, cursor).candidates
    assert not cursor.pending


def test_one_or_two_new_files_of_many_come_alone() -> None:
    files = {f"f{i}": 1 for i in range(10_000)}
    scan = look(files, Cursor())
    cursor = Cursor().after(scan, scan.candidates)

    assert names(look(files | {"late": 0}, cursor)) == {"late"}
    assert names(look(files | {"late": 0, "later": 5}, cursor)) == {"late", "later"}
    rewritten = names(look(files | {"f7": 2}, cursor))
    assert "f7" in rewritten
    assert len(rewritten) < 60


def test_a_cursor_is_small_for_any_number_of_files_and_folders() -> None:
    files = {f"f{i}": 1 for i in range(30_000)}
    scan = look(files, Cursor())
    half = Cursor().after(scan, scan.candidates[::2])
    folders = _watched({f"a-long-folder-name/{i:06d}": i for i in range(5000)}, NOW)
    cursor = Cursor(buckets=half.buckets, done=half.done, folders=folders, looked_at=NOW, n_files=30_000)

    assert half.pending
    assert len(cursor.text.encode()) < 20_000
    assert Cursor.read(cursor.text) == cursor
    assert "a-long-folder-name/004999" in folders  # those that changed last


def test_progress_is_made_when_each_look_deals_with_a_few_of_many() -> None:
    files = {f"f{i}": 1 for i in range(5_000)}
    cursor, seen = Cursor(), set[str]()
    for _ in range(4):
        scan = look(files, cursor)
        few = scan.candidates[:8]
        assert not seen & {c.name for c in few}
        seen |= {c.name for c in few}
        cursor = cursor.after(scan, few)


def test_what_is_no_cursor_begins_anew() -> None:
    for text in (None, "", "17", "[]", "{}", '{"buckets": "x"}', "2024-01-01"):
        assert Cursor.read(text) == Cursor()


def test_a_folder_that_changed_just_now_is_looked_at_once_more() -> None:
    changed = int((NOW - timedelta(seconds=1)).timestamp() * 1e9)

    assert _watched({"": changed}, NOW) == {"": 0}
    assert _watched({"": changed}, NOW + timedelta(seconds=5)) == {"": changed}
