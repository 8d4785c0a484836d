"""Anchors of the ledger's chains as files, and `ml-assets ledger` in a project of its own."""

import json
import sys
import textwrap
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import fsspec
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result

from ml_assets.chain import anchor_document, anchored_heads, check_anchor
from ml_assets.cli.ledger import ledger as command
from ml_assets.errors import LedgerError
from ml_assets.interfaces import ChainHead
from ml_assets.testing.ledger import PIPELINE, decision, record, verdict
from resources.ledger import SqlLedger
from resources.ledger.anchor import AnchorFiles, read_anchor, write_anchor

DAY = datetime(2026, 11, 25, 12, tzinfo=UTC)
STREAM = "decisions/flights/arrival_delay"


def heads(position: int, row_hash: str = "a" * 64) -> dict[str, ChainHead]:
    return {STREAM: ChainHead(position=position, row_hash=row_hash)}


@pytest.fixture(params=["folder", "file", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "memory":
        yield "memory://anchors/of/this"
        fsspec.filesystem("memory").rm("/anchors", recursive=True)
    else:
        yield f"{'file://' if request.param == 'file' else ''}{tmp_path}/anchors/new"


def names(url: str) -> list[str]:
    file_system, path = fsspec.url_to_fs(url)
    return sorted(str(file).rpartition("/")[2] for file in file_system.ls(path, detail=False))


def test_an_anchor_is_read_as_it_was_written(url: str) -> None:
    assert read_anchor(url) is None

    file = write_anchor(url, heads(3), DAY)

    document = read_anchor(url)
    assert document is not None
    assert document == anchor_document(heads(3)) | {"anchored_at": "2026-11-25T12:00:00+00:00"}
    assert anchored_heads(document) == heads(3)
    assert file.endswith("/heads-2026-11-25.json")


def test_one_file_a_day_is_kept_and_the_newest_is_read(url: str) -> None:
    zone = timezone(timedelta(hours=14))
    write_anchor(url, heads(1), DAY)
    write_anchor(url, heads(2), datetime(2026, 11, 26, 1, tzinfo=zone))
    write_anchor(url, heads(3, "b" * 64), DAY + timedelta(days=1))

    assert names(url) == ["heads-2026-11-25.json", "heads-2026-11-26.json"]
    document = read_anchor(url)
    assert document is not None
    assert anchored_heads(document) == heads(3, "b" * 64)
    file_system, path = fsspec.url_to_fs(f"{url}/heads-2026-11-25.json")
    assert json.loads(file_system.cat_file(path))["streams"][STREAM]["position"] == 2


@pytest.mark.parametrize("now", [heads(4), heads(5, "b" * 64), {}, {"records/x/y": ChainHead(position=9, row_hash="")}])
@pytest.mark.parametrize("later", [timedelta(0), timedelta(days=1)])
def test_an_anchor_that_knows_less_is_refused(url: str, now: dict[str, ChainHead], later: timedelta) -> None:
    write_anchor(url, heads(5), DAY)

    with pytest.raises(LedgerError, match=f"knows {STREAM} with 5 rows") as caught:
        write_anchor(url, now, DAY + later)
    assert "Rows were cut off or rewritten, or this is another ledger" in str(caught.value)
    assert names(url) == ["heads-2026-11-25.json"]
    assert anchored_heads(read_anchor(url) or {}) == heads(5)


def test_other_files_are_passed_over(tmp_path: Path) -> None:
    for name in ("heads-9999.json", "notes.txt", ".heads-2027-01-01.json.1.x.tmp"):
        (tmp_path / name).write_text("no anchor")

    assert read_anchor(str(tmp_path)) is None
    write_anchor(str(tmp_path), heads(1), DAY)
    assert read_anchor(str(tmp_path)) is not None


def test_a_damaged_anchor_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "heads-2026-11-25.json").write_text("{")

    with pytest.raises(LedgerError, match=r"The anchor heads-2026-11-25\.json in .* is not JSON"):
        read_anchor(str(tmp_path))
    with pytest.raises(LedgerError, match="is not JSON"):
        write_anchor(str(tmp_path), heads(1), DAY)


def test_a_place_that_cannot_be_used_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(LedgerError, match=r"The anchors in .* cannot be read \(NotADirectoryError"):
        write_anchor(f"{tmp_path}/file/anchors", heads(1), DAY)
    with pytest.raises(LedgerError, match=r"The anchors in nonsense://x cannot be read \(ValueError"):
        read_anchor("nonsense://x")


def test_a_password_in_the_url_is_refused_and_keys_are_not_shown() -> None:
    with pytest.raises(LedgerError, match="holds a password") as caught:
        AnchorFiles("ftp://user:hunter2@host/anchors")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(AnchorFiles("s3://bucket/anchors", storage_options={"secret": "hunter2"}))


def test_an_anchor_shows_what_was_cut_off_a_sql_ledger(tmp_path: Path) -> None:
    ledger = filled(tmp_path)
    anchors = AnchorFiles(str(tmp_path / "anchors"))
    anchors.write(ledger.heads(), DAY)
    tamper(tmp_path, "DELETE FROM decisions WHERE position > 2")

    assert ledger.verify() == []
    (problem,) = check_anchor(anchors.read() or {}, ledger)
    assert (problem.stream, problem.position) == (STREAM, 4)
    assert problem.problem == "cut off: the anchor knows 4 rows; now the stream ends at row 2"


# The command


def filled(folder: Path) -> SqlLedger:
    ledger = SqlLedger(f"sqlite:///{folder}/ledger.db")
    for n in range(4):
        ledger.record_verdicts([verdict(check=str(n))])
        ledger.record_decision(decision(run_id=str(n)))
    ledger.append(record())
    return ledger


def tamper(folder: Path, *statements: str) -> None:
    engine = sa.create_engine(f"sqlite:///{folder}/ledger.db", poolclass=sa.NullPool)
    with engine.begin() as connection:
        for change in ("update", "delete"):
            connection.exec_driver_sql(f"DROP TRIGGER IF EXISTS decisions_no_{change}")
        for statement in statements:
            connection.exec_driver_sql(statement)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose profile has a ledger of nine rows and a place for anchors."""
    (tmp_path / "pyproject.toml").write_text('[tool.ml_assets]\nprofile = "own_profile:profile"\n')
    (tmp_path / "workspace.yaml").write_text("load_from: []\n")
    code = f"""
        from types import SimpleNamespace
        from resources.ledger import SqlLedger
        from resources.ledger.anchor import AnchorFiles

        ANCHORS = {str(tmp_path / "anchors")!r}

        def profile():
            return SimpleNamespace(
                activate=lambda: None,
                services=lambda: SimpleNamespace(ledger=SqlLedger("sqlite:///{tmp_path}/ledger.db")),
                anchors=lambda url=None: AnchorFiles(url or ANCHORS) if url or ANCHORS else None,
            )
    """
    (tmp_path / "own_profile.py").write_text(textwrap.dedent(code))
    filled(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_profile", raising=False)
    return tmp_path


Run = Callable[..., Result]


@pytest.fixture
def run(project: Path) -> Run:
    del project
    return lambda *arguments: CliRunner().invoke(command, arguments)


def test_an_unbroken_ledger_is_told_in_a_line(project: Path, run: Run) -> None:
    before = datetime.now(UTC)
    first = run("verify")
    anchored = run("anchor")
    second = run("verify", "flights/arrival_delay")
    (file,) = (project / "anchors").iterdir()
    today = file.stem.removeprefix("heads-")

    assert today in {f"{at:%Y-%m-%d}" for at in (before, datetime.now(UTC))}
    assert (first.exit_code, anchored.exit_code, second.exit_code) == (0, 0, 0)
    assert first.output.splitlines()[0] == "9 rows in 3 streams, unbroken"
    assert first.output.splitlines()[1].startswith(f"there is no anchor in {project}/anchors yet")
    assert anchored.output == f"9 rows in 3 streams anchored in {project}/anchors/heads-{today}.json\n"
    assert second.output.splitlines()[1].startswith(
        f"nothing is missing that was anchored in {project}/anchors on {today}"
    )


def test_a_pipeline_without_rows_is_no_proof_of_anything(run: Run) -> None:
    result = run("verify", "flights/none")

    assert result.exit_code == 2
    assert "The ledger has no row of flights/none; it has rows of flights/arrival_delay." in result.output


def test_every_problem_is_a_line_and_the_code_is_1(project: Path, run: Run) -> None:
    tamper(project, "UPDATE decisions SET reason = '' WHERE position = 1", "DELETE FROM decisions WHERE position = 3")

    result = run("verify")
    assert result.exit_code == 1
    assert result.output == (
        f"{STREAM} row 1: changed: the content (sequence 1) is not what was recorded, or was inserted\n"
        f"{STREAM} row 3: removed: this row is missing\n"
    )
    assert run("verify", "/".join(PIPELINE)).exit_code == 1
    assert run("verify", "flights/other").exit_code == 2


def test_what_was_cut_off_is_named_and_not_anchored_over(project: Path, run: Run) -> None:
    run("anchor", f"{project}/elsewhere")
    run("anchor")
    tamper(project, "DELETE FROM decisions WHERE position = 4")
    line = f"{STREAM} row 4: cut off: the anchor knows 4 rows; now the stream ends at row 3\n"

    for arguments in (["verify"], ["verify", "--anchor", f"{project}/elsewhere"]):
        result = run(*arguments)
        assert (result.exit_code, result.output) == (1, line)
    refused = run("anchor")
    assert refused.exit_code == 1
    assert refused.output == f"{line}No anchor was written to {project}/anchors.\n"


def test_a_rewritten_row_below_the_anchor_is_not_anchored_over(project: Path, run: Run) -> None:
    run("anchor")
    tamper(project, "UPDATE decisions SET row_hash = previous_hash WHERE position = 4")
    SqlLedger(f"sqlite:///{project}/ledger.db").record_decision(decision())

    refused = run("anchor")
    assert refused.exit_code == 1
    assert f"{STREAM} row 4: rewritten: the anchor knows this row with the hash" in refused.output


def test_an_anchor_that_is_asked_for_must_be_there(project: Path, run: Run) -> None:
    result = run("verify", "--anchor", f"{project}/nowhere")

    assert isinstance(result.exception, LedgerError)
    assert str(result.exception).startswith(f"There is no anchor in {project}/nowhere. Write one with: ")


@pytest.mark.parametrize("name", ["flights", "/x", "x/", "a/b/c"])
def test_a_name_that_is_no_pipeline_is_refused(run: Run, name: str) -> None:
    result = run("verify", name)

    assert result.exit_code == 2
    assert f"{name!r} is no pipeline; expected TEAM/PIPELINE" in result.output


def test_without_a_place_for_anchors_one_must_be_named(project: Path, run: Run) -> None:
    code = (project / "own_profile.py").read_text()
    (project / "own_profile.py").write_text(code + "\nANCHORS = None\n")

    assert run("verify").output == "9 rows in 3 streams, unbroken\n"
    result = run("anchor")
    assert result.exit_code == 2
    assert "The profile has no place for anchors; name a folder or URL" in result.output
    assert run("anchor", f"{project}/named").exit_code == 0
