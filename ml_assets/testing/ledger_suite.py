"""LedgerSuite: what every ledger does with verdicts and decisions, beside what ChainSuite and StreamSuite ask of it."""
# ruff: noqa: D102 - the names of the tests are the sentences

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from ml_assets.errors import LedgerError
from ml_assets.interfaces import AssetPath, Ledger
from ml_assets.testing.ledger_chains import ChainSuite
from ml_assets.testing.ledger_examples import ASSET, PIPELINE, decision, verdict
from ml_assets.testing.ledger_streams import StreamSuite


class LedgerSuite(ChainSuite, StreamSuite):
    """What every ledger does; subclass it and provide a fixture `ledger` that is empty for each test."""

    def test_a_verdict_comes_back_as_it_was_recorded(self, ledger: Ledger) -> None:
        at = datetime(2013, 2, 1, 12, 30, 15, 123456, tzinfo=UTC)
        evidence = {"auc": 0.1 + 0.2, "n": 12, "ok": True, "none": None}
        given = verdict(evidence=evidence, policy_digest="f" * 64, recorded_at=at)

        ledger.record_verdicts([given])

        assert ledger.verdicts(ASSET) == [given]

    def test_a_decision_comes_back_as_it_was_recorded(self, ledger: Ledger) -> None:
        at = datetime(2013, 2, 1, tzinfo=UTC)
        given = decision(
            evidence={"difference": {"low": -0.01, "high": 0.03}},
            model_digest="a" * 64,
            evaluation_digest="b" * 64,
            policy_digest="c" * 64,
            decided_by="ada",
            launched_by=("grace", "", "ada"),
            recorded_at=at,
        )

        ledger.record_decision(given)

        assert ledger.decisions(PIPELINE) == [given]

    def test_versions_of_a_decision_may_be_none(self, ledger: Ledger) -> None:
        ledger.record_decision(decision(outcome="refused", model_version=None, champion_version=None))

        (found,) = ledger.decisions(PIPELINE)
        assert (found.model_version, found.champion_version) == (None, None)

    def test_the_ledger_sets_the_time_when_none_is_given(self, ledger: Ledger) -> None:
        before = datetime.now(UTC)
        ledger.record_verdicts([verdict()])
        ledger.record_decision(decision())
        after = datetime.now(UTC)

        for found in (ledger.verdicts(ASSET)[0].recorded_at, ledger.decisions(PIPELINE)[0].recorded_at):
            assert found is not None
            assert before <= found <= after
            assert found.tzinfo is UTC

    def test_times_are_kept_as_instants_in_utc(self, ledger: Ledger) -> None:
        at = datetime(2013, 2, 1, 1, 0, tzinfo=timezone(timedelta(hours=5, minutes=30)))

        ledger.record_verdicts([verdict(recorded_at=at)])
        ledger.record_decision(decision(recorded_at=at))

        for found in (ledger.verdicts(ASSET)[0].recorded_at, ledger.decisions(PIPELINE)[0].recorded_at):
            assert found is not None
            assert found.isoformat() == "2013-01-31T19:30:00+00:00"

    def test_a_time_without_zone_is_refused(self, ledger: Ledger) -> None:
        naive = datetime(2013, 2, 1)  # noqa: DTZ001 the mistake under test

        with pytest.raises(LedgerError, match="2013-02-01T00:00:00 without a time zone"):
            ledger.record_verdicts([verdict(recorded_at=naive)])
        with pytest.raises(LedgerError, match="2013-02-01T00:00:00 without a time zone"):
            ledger.record_decision(decision(recorded_at=naive))

    def test_order_is_the_order_of_recording(self, ledger: Ledger) -> None:
        late, early = datetime(2014, 1, 1, tzinfo=UTC), datetime(2013, 1, 1, tzinfo=UTC)
        ledger.record_verdicts([verdict(check=f"c{n}", recorded_at=late) for n in range(12)])
        ledger.record_verdicts([verdict(check="c12", recorded_at=early)])
        for n in range(3):
            ledger.record_decision(decision(run_id=f"run-{n}"))

        assert [found.check for found in ledger.verdicts(ASSET)] == [f"c{n}" for n in range(13)]
        assert [found.run_id for found in ledger.decisions(PIPELINE)] == ["run-0", "run-1", "run-2"]

    def test_the_same_verdict_twice_is_two_rows(self, ledger: Ledger) -> None:
        ledger.record_verdicts([verdict(), verdict()])
        ledger.record_verdicts([verdict()])

        assert len(ledger.verdicts(ASSET)) == 3

    def test_filters(self, ledger: Ledger) -> None:
        rows = [
            verdict(check=f"{p}{d}{v}", partition=p, data_version=d, policy_version=v)
            for p in "ab"
            for d in "12"
            for v in "xy"
        ]
        ledger.record_verdicts(rows)

        def found(*args: Any, **kwargs: Any) -> list[str]:
            return [row.check for row in ledger.verdicts(ASSET, *args, **kwargs)]

        assert len(found()) == 8
        assert found("a") == ["a1x", "a1y", "a2x", "a2y"]
        assert found("b", data_version="2") == ["b2x", "b2y"]
        assert found("b", data_version="2", policy_version="y") == ["b2y"]
        assert found(policy_version="x") == ["a1x", "a2x", "b1x", "b2x"]
        assert found(data_version="3") == []
        assert found("") == []

    def test_assets_and_pipelines_are_matched_whole(self, ledger: Ledger) -> None:
        ledger.record_verdicts([verdict(), verdict(asset=("flights", "arrival_delay"))])
        ledger.record_decision(decision())

        assert len(ledger.verdicts(ASSET)) == 1
        assert ledger.verdicts(("flights",)) == []
        assert ledger.verdicts(("flights", "arrival_delay", "raw%data")) == []
        assert ledger.verdicts(("Flights", "arrival_delay", "raw_data")) == []
        assert ledger.decisions(("flights", "arrival")) == []
        assert ledger.decisions(("births", "arrival_delay")) == []

    def test_segments_with_a_dot_or_space_are_kept_apart(self, ledger: Ledger) -> None:
        path = ("team a", "p.1", "models", "größe")
        ledger.record_verdicts([verdict(asset=path)])

        assert [found.asset for found in ledger.verdicts(path)] == [path]

    @pytest.mark.parametrize("asset", [(), ("",), ("a", ""), ("a/b",), ("a", "b/c")])
    def test_an_asset_path_that_is_ambiguous_is_refused(self, ledger: Ledger, asset: AssetPath) -> None:
        with pytest.raises(LedgerError, match=r"asset path .* cannot be stored"):
            ledger.record_verdicts([verdict(asset=asset)])
        with pytest.raises(LedgerError, match=r"asset path .* cannot be stored"):
            ledger.verdicts(asset)

    @pytest.mark.parametrize(
        "text",
        ["", "naïve 東京 🚀", 'it\'s "quoted"; DROP TABLE verdicts; --', "%s %(x)s :x ? \\", "a\n\tb" * 4000],
        ids=["empty", "unicode", "quotes", "placeholders", "long"],
    )
    def test_any_text_is_kept(self, ledger: Ledger, text: str) -> None:
        given = verdict(reason=text, evidence={"text": text, text: [text]})
        ledger.record_verdicts([given])
        ledger.record_decision(decision(reason=text))

        (found,) = ledger.verdicts(ASSET)
        assert (found.reason, found.evidence) == (text, given.evidence)
        assert ledger.decisions(PIPELINE)[0].reason == text

    @pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"], ids=["nul", "surrogate"])
    def test_text_that_databases_cannot_hold_is_refused_outside_evidence(self, ledger: Ledger, text: str) -> None:
        with pytest.raises(LedgerError, match="holds a character that databases cannot store"):
            ledger.record_verdicts([verdict(reason=text)])
        with pytest.raises(LedgerError, match="holds a character that databases cannot store"):
            ledger.record_decision(decision(reason=text))

        ledger.record_verdicts([verdict(evidence={"sample": text})])
        assert ledger.verdicts(ASSET)[0].evidence == {"sample": text}

    def test_numbers_in_evidence_are_exact(self, ledger: Ledger) -> None:
        evidence = {
            "third": 1 / 3,
            "tiny": 5e-324,
            "huge": 1.7976931348623157e308,
            "big": 2**70,
            "zero": -0.0,
        }
        ledger.record_verdicts([verdict(evidence=evidence)])

        found = ledger.verdicts(ASSET)[0].evidence
        assert {name: repr(value) for name, value in found.items()} == {
            name: repr(value) for name, value in evidence.items()
        }

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, datetime(2013, 1, 1, tzinfo=UTC)])
    def test_evidence_that_is_not_json_is_refused(self, ledger: Ledger, value: Any) -> None:
        with pytest.raises(LedgerError, match=r"evidence .*is not JSON"):
            ledger.record_decision(decision(evidence={"x": [value]}))

        assert ledger.decisions(PIPELINE) == []

    def test_verdicts_are_recorded_all_or_none(self, ledger: Ledger) -> None:
        with pytest.raises(LedgerError):
            ledger.record_verdicts([verdict(), verdict(evidence={"x": float("nan")})])

        assert ledger.verdicts(ASSET) == []

    def test_no_verdicts_is_no_mistake(self, ledger: Ledger) -> None:
        ledger.record_verdicts([])

        assert ledger.verdicts(ASSET) == []

    def test_a_record_is_not_changed_by_its_writer_or_reader(self, ledger: Ledger) -> None:
        evidence: dict[str, Any] = {"list": [1]}
        ledger.record_verdicts([verdict(evidence=evidence)])
        evidence["list"].append(2)

        found: dict[str, Any] = dict(ledger.verdicts(ASSET)[0].evidence)
        assert found == {"list": [1]}
        found["list"].append(3)
        assert ledger.verdicts(ASSET)[0].evidence == {"list": [1]}

    def test_threads_lose_nothing(self, ledger: Ledger) -> None:
        def write(thread: int) -> None:
            for n in range(10):
                ledger.record_verdicts([verdict(check=f"{thread}-{n}"), verdict(check=f"{thread}-{n}+")])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(write, range(8)))

        found = [row.check for row in ledger.verdicts(ASSET)]
        assert len(found) == len(set(found)) == 160
        for thread in range(8):
            own = [check for check in found if check.startswith(f"{thread}-")]
            assert own == [f"{thread}-{n}{end}" for n in range(10) for end in ("", "+")]
