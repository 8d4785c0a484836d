"""ChainSuite: records, hash chains and exclusive transactions, as every ledger has them."""
# ruff: noqa: D102 - the names of the tests are the sentences

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, get_args

import pytest

from ml_assets.chain import anchor_document, check_anchor, row_hash
from ml_assets.errors import LedgerConflictError, LedgerError
from ml_assets.interfaces import NO_HASH, ChainHead, Ledger, RecordKind
from ml_assets.testing.ledger_examples import ASSET, PIPELINE, decision, record, verdict

OTHER = ("flights", "cancellation")
RECORDS, AUTOMATION = "records/flights/arrival_delay", "automation/flights/arrival_delay"


class ChainSuite:
    """What every ledger does; subclass it and provide a fixture `ledger` that is empty for each test."""

    def test_a_record_comes_back_with_its_hashes(self, ledger: Any) -> None:
        at = datetime(2013, 2, 1, 5, 30, tzinfo=timezone(timedelta(hours=5)))
        given = record(body={"by": "ada", "n": [1, 0.1 + 0.2, None]}, recorded_at=at, row_hash="ignored", stream="too")

        returned = ledger.append(given)

        utc = at.astimezone(UTC)
        place = {"stream": RECORDS, "previous_hash": NO_HASH, "row_hash": returned.row_hash}
        expected = replace(given, recorded_at=utc, **place)
        assert returned == expected
        assert ledger.records(PIPELINE) == [expected]
        assert re.fullmatch("[0-9a-f]{64}", returned.row_hash)

    def test_the_hash_of_a_record_is_that_of_its_content_and_place(self, ledger: Any) -> None:
        first = ledger.append(record())
        second = ledger.append(record(kind="waiver", subject="é", body={"b": 1, "a": "\ud800"}))

        content = {"recorded_at": second.recorded_at, "team": "flights", "pipeline": "arrival_delay"}
        content |= {"kind": "waiver", "subject": "é", "body": {"a": "\ud800", "b": 1}}
        assert second.previous_hash == first.row_hash
        assert second.row_hash == row_hash(content, stream=RECORDS, position=2, previous_hash=first.row_hash)

    def test_records_are_found_by_kind_and_subject(self, ledger: Any) -> None:
        for kind, subject in [("approval", "a"), ("waiver", "a"), ("approval", "b"), ("approval", "a")]:
            ledger.append(record(kind=kind, subject=subject))
        ledger.append(record(pipeline=OTHER))

        assert [(r.kind, r.subject) for r in ledger.records(PIPELINE, kind="approval")] == [
            ("approval", "a"),
            ("approval", "b"),
            ("approval", "a"),
        ]
        assert len(ledger.records(PIPELINE, subject="a")) == 3
        assert len(ledger.records(PIPELINE, kind="waiver", subject="a")) == 1
        assert ledger.records(PIPELINE, kind="waiver", subject="b") == []
        assert len(ledger.records(PIPELINE)) == 4
        assert len(ledger.records(OTHER)) == 1

    @pytest.mark.parametrize("kind", get_args(RecordKind))
    def test_every_kind_of_record_is_kept(self, ledger: Any, kind: RecordKind) -> None:
        kept = ledger.append(record(kind=kind))

        assert ledger.records(PIPELINE, kind=kind) == [kept]

    def test_the_mark_changes_with_every_append_and_with_no_reading(self, ledger: Any) -> None:
        marks = [ledger.mark()]
        for append in (
            lambda: ledger.append(record()),
            lambda: ledger.append(record(pipeline=OTHER)),
            lambda: ledger.append(record()),
            lambda: ledger.record_decision(decision()),
            lambda: ledger.record_verdicts([verdict(), verdict(asset=("flights", "cancellation", "raw_data"))]),
            lambda: ledger.record_verdicts([verdict()]),
        ):
            append()
            marks.append(ledger.mark())
            for read in (ledger.heads, ledger.verify, lambda: ledger.records(PIPELINE)):
                read()
            assert ledger.mark() == marks[-1]
        assert len(set(marks)) == len(marks)

        with ledger.exclusive(PIPELINE) as view:
            assert view.mark() == marks[-1]
            view.append(record())
            assert view.mark() not in marks
        assert ledger.mark() not in marks

    def test_the_mark_stays_when_nothing_was_recorded(self, ledger: Any) -> None:
        before = ledger.mark()
        with pytest.raises(LedgerConflictError):
            ledger.append(record(), after="f" * 64)

        def fail() -> None:
            with ledger.exclusive(PIPELINE) as view:
                view.append(record())
                raise RuntimeError("no")

        with pytest.raises(RuntimeError, match="no"):
            fail()
        assert ledger.mark() == before

    def test_a_record_is_appended_only_after_the_one_that_was_seen(self, ledger: Any) -> None:
        first = ledger.append(record(), after=NO_HASH)
        ledger.append(record(pipeline=OTHER))
        second = ledger.append(record(), after=first.row_hash)

        for stale in (NO_HASH, first.row_hash):
            with pytest.raises(LedgerConflictError):
                ledger.append(record(), after=stale)
        assert ledger.records(PIPELINE) == [first, second]

    @pytest.mark.parametrize("pipeline", [("", "a"), ("a", ""), ("a/b", "c"), ("a", "b/c")])
    def test_a_pipeline_whose_streams_were_ambiguous_is_refused(self, ledger: Any, pipeline: Any) -> None:
        for write in (
            lambda: ledger.append(record(pipeline=pipeline)),
            lambda: ledger.record_decision(decision(pipeline=pipeline)),
            lambda: ledger.exclusive(pipeline).__enter__(),
        ):
            with pytest.raises(LedgerError, match="cannot be stored in the ledger"):
                write()
        assert ledger.decisions(pipeline) == ledger.records(pipeline) == []
        assert ledger.heads() == {}

    @pytest.mark.parametrize("body", [{"x": float("nan")}, {"x": {1}}, {"x": datetime(2013, 1, 1, tzinfo=UTC)}])
    def test_a_body_that_is_not_json_is_refused(self, ledger: Any, body: Any) -> None:
        with pytest.raises(LedgerError, match=r"body .*is not JSON"):
            ledger.append(record(body=body))

    def test_numbers_as_keys_are_hashed_as_the_text_they_become(self, ledger: Any) -> None:
        ledger.record_verdicts([verdict(evidence={2: "a", 10: "b"})])

        assert ledger.verdicts(ASSET)[0].evidence == {"2": "a", "10": "b"}
        assert ledger.verify() == []

    def test_every_pipeline_has_its_own_streams(self, ledger: Any) -> None:
        assert ledger.heads() == {}
        ledger.record_verdicts([verdict(), verdict(asset=(*OTHER, "models", "m")), verdict(asset=("alone",))])
        ledger.record_verdicts([verdict(asset=("flights", "arrival_delay"))])
        ledger.record_decision(decision())
        last = ledger.append(record())
        ledger.append(record(kind="pause"))

        heads = ledger.heads()
        assert {name: head.position for name, head in heads.items()} == {
            "automation/flights/arrival_delay": 1,
            "decisions/flights/arrival_delay": 1,
            "records/flights/arrival_delay": 1,
            "verdicts/alone": 1,
            "verdicts/flights/arrival_delay": 2,
            "verdicts/flights/cancellation": 1,
        }
        assert heads[RECORDS] == ChainHead(position=1, row_hash=last.row_hash)
        assert ledger.heads(OTHER) == {"verdicts/flights/cancellation": heads["verdicts/flights/cancellation"]}
        assert ledger.heads(("flights", "none")) == ledger.heads(("", "")) == {}

    def test_the_hash_at_a_position_is_that_of_the_row(self, ledger: Any) -> None:
        for kind, stream in (("approval", RECORDS), ("automation", AUTOMATION)):
            first, second = ledger.append(record(kind=kind)), ledger.append(record(kind=kind))

            assert [ledger.hash_at(stream, n) for n in range(4)] == [None, first.row_hash, second.row_hash, None]
        for stream in ("records/flights/none", "automation/flights/none", "records", "nothing", ""):
            assert ledger.hash_at(stream, 1) is None

    def test_what_was_recorded_verifies(self, ledger: Any) -> None:
        assert ledger.verify() == []
        ledger.record_verdicts([verdict(check=f"c{n}", evidence={"n": n, "z": -0.0, "t": (1,)}) for n in range(30)])
        ledger.record_verdicts([verdict(asset=("alone",)), verdict(asset=(*OTHER, "raw_data"))])
        ledger.record_decision(decision(model_version=None, launched_by=("ada", "\ud800"), evidence={"é": 2**70}))
        ledger.record_decision(decision(recorded_at=datetime(2013, 2, 1, tzinfo=timezone(timedelta(hours=9)))))
        ledger.append(record())
        ledger.append(record(kind="automation"))

        assert ledger.verify() == ledger.verify(PIPELINE) == ledger.verify(OTHER) == []

    def test_an_anchor_holds_while_rows_are_appended(self, ledger: Any) -> None:
        ledger.record_decision(decision())
        ledger.append(record())
        ledger.append(record(kind="automation"))
        document = anchor_document(ledger.heads())
        ledger.record_decision(decision())
        ledger.append(record(kind="automation"))

        assert check_anchor(document, ledger) == check_anchor(document, ledger, PIPELINE) == []

    def test_an_exclusive_transaction_keeps_what_it_appended(self, ledger: Ledger) -> None:
        with ledger.exclusive(PIPELINE) as view:
            view.record_verdicts([verdict()])
            view.record_decision(decision())
            seen = view.append(record(), after=NO_HASH)
            assert (len(view.verdicts(ASSET)), len(view.decisions(PIPELINE))) == (1, 1)
            assert view.records(PIPELINE) == [seen]
            assert view.heads(PIPELINE)[RECORDS].row_hash == seen.row_hash
            assert ledger.decisions(PIPELINE) == []

        assert (len(ledger.verdicts(ASSET)), len(ledger.decisions(PIPELINE))) == (1, 1)
        assert ledger.records(PIPELINE) == [seen]
        assert ledger.verify() == []

    def test_an_exclusive_transaction_that_raises_keeps_nothing(self, ledger: Ledger) -> None:
        def fail() -> None:
            with ledger.exclusive(PIPELINE) as view:
                view.record_decision(decision())
                view.append(record())
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fail()

        assert ledger.decisions(PIPELINE) == ledger.records(PIPELINE) == []
        ledger.record_decision(decision())
        assert ledger.verify() == []

    def test_a_conflict_inside_does_not_end_the_exclusive_transaction(self, ledger: Ledger) -> None:
        with ledger.exclusive(PIPELINE) as view:
            with pytest.raises(LedgerConflictError):
                view.append(record(), after="f" * 64)
            view.record_decision(decision())

        assert len(ledger.decisions(PIPELINE)) == 1

    def test_an_exclusive_transaction_appends_to_its_own_pipeline_alone(self, ledger: Ledger) -> None:
        with ledger.exclusive(PIPELINE) as view:
            with pytest.raises(LedgerError, match="flights/arrival_delay cannot append to decisions/flights/cancel"):
                view.record_decision(decision(pipeline=OTHER))
            with pytest.raises(LedgerError, match="cannot append to verdicts/flights/cancellation"):
                view.record_verdicts([verdict(), verdict(asset=(*OTHER, "raw_data"))])
            with pytest.raises(LedgerError, match="cannot append to records/flights/cancellation"):
                view.append(record(pipeline=OTHER))
            with pytest.raises(LedgerError, match="cannot append to automation/flights/cancellation"):
                view.append(record(pipeline=OTHER, kind="pause"))
            view.record_verdicts([])
            assert view.decisions(OTHER) == []

        assert ledger.heads() == {}

    def test_an_exclusive_transaction_is_not_entered_twice_by_one_thread(self, ledger: Ledger) -> None:
        with ledger.exclusive(PIPELINE) as view:
            for pipeline in (PIPELINE, OTHER):
                with pytest.raises(LedgerError, match="own exclusive transaction of flights/arrival_delay"):
                    ledger.exclusive(pipeline).__enter__()
            with pytest.raises(LedgerError, match=r"Recording a decision .* own exclusive transaction"):
                ledger.record_decision(decision())
            view.record_decision(decision())

        ledger.record_decision(decision())
        assert len(ledger.decisions(PIPELINE)) == 2

    def test_a_view_is_of_no_use_after_its_transaction(self, ledger: Ledger) -> None:
        with ledger.exclusive(PIPELINE) as view:
            pass

        for use in (lambda: view.record_decision(decision()), lambda: view.decisions(PIPELINE), view.heads):
            with pytest.raises(LedgerError, match="exclusive transaction of flights/arrival_delay has ended"):
                use()
        assert ledger.heads() == {}

    def test_a_write_waits_for_another_threads_exclusive_transaction(self, ledger: Ledger) -> None:
        inside, order = threading.Event(), []

        def write() -> None:
            inside.wait(10)
            ledger.record_decision(decision(run_id="outside"))
            order.append("outside")

        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(write)
            with ledger.exclusive(PIPELINE) as view:
                inside.set()
                with pytest.raises(TimeoutError):
                    waiting.result(0.3)
                assert view.decisions(PIPELINE) == []
                view.record_decision(decision(run_id="inside"))
                order.append("inside")
            waiting.result(10)

        assert order == ["inside", "outside"]
        assert [d.run_id for d in ledger.decisions(PIPELINE)] == ["inside", "outside"]

    def test_threads_that_read_check_and_append_exclude_each_other(self, ledger: Ledger) -> None:
        def count(_: int) -> None:
            for _ in range(5):
                with ledger.exclusive(PIPELINE) as view:
                    n = len(view.decisions(PIPELINE))
                    view.record_decision(decision(run_id=str(n)))

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(count, range(4)))

        assert [d.run_id for d in ledger.decisions(PIPELINE)] == [str(n) for n in range(20)]
        assert ledger.verify() == []
