"""FakeLedger keeps the promises of a ledger, and its chains show whatever is done to the rows."""

import json
import threading
from collections.abc import Callable
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.chain import anchor_document, anchored_heads, check_anchor, row_hash
from ml_assets.errors import LedgerError
from ml_assets.interfaces import NO_HASH, ChainProblem, Ledger
from ml_assets.ledger_rows import KINDS, Kind, Row
from ml_assets.testing.ledger import PIPELINE, FakeLedger, LedgerSuite, decision, record, verdict

N_ROWS = 6


class TestFakeLedger(LedgerSuite):
    @pytest.fixture
    def ledger(self) -> Ledger:
        return FakeLedger()


def filled() -> FakeLedger:
    ledger = FakeLedger()
    for n in range(N_ROWS):
        ledger.record_verdicts([verdict(check=f"c{n}", evidence={"n": n})])
        ledger.record_decision(decision(run_id=f"run-{n}", launched_by=("ada",)))
        ledger.append(record(subject=str(n), body={"n": n}))
    return ledger


def places(problems: list[ChainProblem]) -> list[tuple[int, str]]:
    """Return position and first word of each problem."""
    return [(p.position, p.problem.partition(":")[0]) for p in problems]


kinds = st.sampled_from(KINDS)
positions = st.integers(0, N_ROWS - 1)


@given(kind=kinds, index=positions, data=st.data())
def test_a_change_of_any_column_of_any_row_is_found(kind: Kind, index: int, data: st.DataObject) -> None:
    ledger = filled()
    row = deepcopy(ledger.tables[kind][index])
    column = data.draw(st.sampled_from(sorted(set(row) - {"position", "stream"})))
    row[column] = changed(row[column])
    ledger.tables[kind][index] = row

    found = {problem.position for problem in ledger.verify()}
    assert found
    assert found <= {index + 1, index + 2}


def changed(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return f"{value}."
    if isinstance(value, dict | list):
        return [json.dumps(value)]
    return value + timedelta(microseconds=1)


@given(kind=kinds, first=st.integers(0, N_ROWS - 2), last=st.integers(0, N_ROWS - 2))
def test_rows_that_are_removed_before_the_last_are_found(kind: Kind, first: int, last: int) -> None:
    first, last = sorted((first, last))
    ledger = filled()
    del ledger.tables[kind][first : last + 1]

    assert places(ledger.verify()) == [(first + 1, "removed")]


@given(kind=kinds, one=positions, other=positions)
def test_rows_that_change_places_are_found_and_their_places_told(kind: Kind, one: int, other: int) -> None:
    ledger = filled()
    rows = ledger.tables[kind]
    rows[one], rows[other] = ({**rows[b], "position": a + 1} for a, b in ((one, other), (other, one)))

    problems = ledger.verify()
    moved = [] if one == other else sorted([one + 1, other + 1])
    assert places(problems) == [(n, "order changed") for n in moved]
    assert [p.problem.rpartition(" ")[2] for p in problems] == [str(n) for n in reversed(moved)]


@given(kind=kinds, one=positions, other=positions)
def test_contents_that_change_places_below_their_hashes_are_found(kind: Kind, one: int, other: int) -> None:
    ledger = filled()
    rows = ledger.tables[kind]
    chain = ("position", "previous_hash", "row_hash")
    rows[one], rows[other] = ({**rows[b], **{c: rows[a][c] for c in chain}} for a, b in ((one, other), (other, one)))

    assert places(ledger.verify()) == ([] if one == other else [(n + 1, "order changed") for n in sorted((one, other))])


@given(kind=kinds, index=positions)
def test_a_row_that_is_inserted_and_the_rest_renumbered_is_found(kind: Kind, index: int) -> None:
    ledger = filled()
    rows = ledger.tables[kind]
    forged = {**rows[index], "reason": "forged", "row_hash": "0" * 64}
    rows[index:] = [forged, *({**row, "position": row["position"] + 1} for row in rows[index:])]

    expected = [(index + 1, "inserted"), *((n, "order changed") for n in range(index + 2, N_ROWS + 2))]
    assert places(ledger.verify()) == expected


@given(kind=kinds, index=st.integers(0, N_ROWS - 2))
def test_a_row_that_is_removed_and_the_rest_renumbered_is_found(kind: Kind, index: int) -> None:
    ledger = filled()
    rows = ledger.tables[kind]
    rows[index:] = [{**row, "position": row["position"] - 1} for row in rows[index + 1 :]]

    problems = ledger.verify()
    assert places(problems) == [(n, "order changed") for n in range(index + 1, N_ROWS)]
    assert [p.problem.endswith("the row that was recorded here is missing") for p in problems] == [
        True,
        *([False] * (N_ROWS - index - 2)),
    ]


def hashed_again(row: Row, **changes: Any) -> Row:
    """Return a row changed by somebody who knows how rows are hashed."""
    changed = {**row, **changes}
    place = {name: changed.pop(name) for name in ("stream", "position", "previous_hash")}
    del changed["row_hash"]
    return {**changed, **place, "row_hash": row_hash(changed, **place)}


@given(kind=kinds, index=st.integers(0, N_ROWS - 2))
def test_a_row_that_is_changed_and_hashed_again_does_not_fit_the_next(kind: Kind, index: int) -> None:
    ledger = filled()
    rows = ledger.tables[kind]
    rows[index] = hashed_again(rows[index], recorded_at=rows[index]["recorded_at"] + timedelta(days=1))

    (problem,) = ledger.verify()
    assert (problem.position, problem.problem) == (
        index + 1,
        f"changed and hashed again: row {index + 2} continues another hash than this row has",
    )


def test_two_rows_at_one_position_are_a_fork() -> None:
    ledger = filled()
    rows = ledger.tables["decisions"]
    rows.append(hashed_again(rows[2], reason="another decision"))

    (problem,) = ledger.verify()
    assert problem == ChainProblem(
        stream="decisions/flights/arrival_delay",
        position=3,
        problem="inserted or forked: 2 rows hold this position (sequences 2, 6)",
    )


def test_a_sound_row_in_a_foreign_stream_is_found() -> None:
    ledger = filled()
    rows = ledger.tables["decisions"]
    place = {"position": N_ROWS + 1, "previous_hash": rows[-1]["row_hash"]}
    rows.append(hashed_again(rows[-1], pipeline="cancellation", **place))

    (problem,) = ledger.verify()
    assert (problem.position, problem.problem) == (
        N_ROWS + 1,
        "inserted: by its content this row belongs to decisions/flights/cancellation",
    )
    assert ledger.verify(("flights", "cancellation")) == []


def test_a_first_row_that_begins_no_chain_is_found() -> None:
    ledger = FakeLedger()
    ledger.append(record())
    ledger.tables["records"][0] = hashed_again(ledger.tables["records"][0], previous_hash="f" * 64)

    assert places(ledger.verify()) == [(1, "inserted")]


def cut_off(ledger: FakeLedger) -> None:
    del ledger.tables["decisions"][-2:]


def emptied(ledger: FakeLedger) -> None:
    ledger.tables["decisions"].clear()


def rewritten(ledger: FakeLedger) -> None:
    rows, previous = ledger.tables["decisions"], NO_HASH
    for index, row in enumerate(rows):
        rows[index] = hashed_again(row, previous_hash=previous, reason="never refused")
        previous = rows[index]["row_hash"]


@pytest.mark.parametrize(
    ("tamper", "problem"),
    [
        (cut_off, "cut off: the anchor knows 6 rows; now the stream ends at row 4"),
        (emptied, "cut off: the anchor knows 6 rows; now the stream ends at row 0"),
        (rewritten, "rewritten: the anchor knows this row with the hash "),
    ],
)
def test_what_the_chain_cannot_show_its_anchor_does(tamper: Callable[[FakeLedger], None], problem: str) -> None:
    ledger = filled()
    document = json.loads(json.dumps(anchor_document(ledger.heads())))
    tamper(ledger)

    assert ledger.verify() == []
    (found,) = check_anchor(document, ledger)
    assert (found.stream, found.position) == ("decisions/flights/arrival_delay", 6)
    assert found.problem.startswith(problem)
    assert check_anchor(document, ledger, PIPELINE) == [found]
    assert check_anchor(document, ledger, ("flights", "cancellation")) == []


@pytest.mark.parametrize(
    "document", [{}, {"format": 1}, {"format": 1, "streams": {"a": 1}}, {"format": 1, "streams": []}, {"format": 2}]
)
def test_a_document_that_is_no_anchor_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(LedgerError, match="anchor"):
        anchored_heads(document)


def test_a_write_does_not_wait_forever() -> None:
    ledger, inside, done = FakeLedger(wait_seconds=0.1), threading.Event(), threading.Event()

    def hold() -> None:
        with ledger.exclusive(PIPELINE):
            inside.set()
            done.wait(120)

    holder = threading.Thread(target=hold)
    holder.start()
    inside.wait(120)
    with pytest.raises(LedgerError, match=r"Recording a decision failed: it waited 0\.1 seconds"):
        ledger.record_decision(decision())
    done.set()
    holder.join()
