"""AlertsSuite: what every store of alerts does."""
# ruff: noqa: D102 - the names of the tests are the sentences

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ml_assets.errors import AlertError
from ml_assets.interfaces import Alert, AlertStore, RaisedAlert

NOW = datetime(2013, 9, 2, 6, 0, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def alert(**changes: Any) -> Alert:
    """Return an alert to test with, changed in the given fields."""
    fields: dict[str, Any] = {
        "key": "dead-letter/17",
        "kind": "dead_letter",
        "pipeline": ("flights", "arrival_delay"),
        "title": "EWR|2013-08 was given up after 3 runs",
        "body": "The file is empty. Look at it with: ml-assets dead-letters show 17",
    }
    return Alert(**fields | changes)


class AlertsSuite:
    """What every store of alerts does; subclass it and provide a fixture `alerts` that is empty for each test."""

    def test_an_alert_waits_until_it_was_sent(self, alerts: AlertStore) -> None:
        assert alerts.raise_once(alert(), now=NOW)

        kept = RaisedAlert(alert=alert(), created_at=NOW, not_before=NOW)
        assert alerts.pending(now=NOW) == alerts.recent() == [kept]

        alerts.sent("dead-letter/17", now=NOW + MINUTE)
        assert alerts.pending(now=NOW + MINUTE) == []
        (found,) = alerts.recent()
        assert found.sent_at == NOW + MINUTE

    def test_an_alert_is_raised_once_for_ever(self, alerts: AlertStore) -> None:
        assert alerts.raise_once(alert(), now=NOW)
        assert not alerts.raise_once(alert(title="another"), now=NOW + MINUTE)

        alerts.sent("dead-letter/17", now=NOW + 2 * MINUTE)
        assert not alerts.raise_once(alert(), now=NOW + timedelta(days=400))
        assert alerts.pending(now=NOW + timedelta(days=400)) == []
        assert [one.alert.title for one in alerts.recent()] == ["EWR|2013-08 was given up after 3 runs"]

    def test_what_failed_is_put_off(self, alerts: AlertStore) -> None:
        alerts.raise_once(alert(), now=NOW)

        alerts.failed("dead-letter/17", "Connection refused\x00", not_before=NOW + 2 * MINUTE)
        alerts.failed("dead-letter/17", "Time out", not_before=NOW + 5 * MINUTE)

        assert alerts.pending(now=NOW + 4 * MINUTE) == []
        (found,) = alerts.pending(now=NOW + 5 * MINUTE)
        assert (found.attempts, found.last_error) == (2, "Time out")
        assert found.not_before == NOW + 5 * MINUTE

    def test_what_arrived_cannot_fail_or_arrive_again(self, alerts: AlertStore) -> None:
        alerts.raise_once(alert(), now=NOW)
        alerts.sent("dead-letter/17", now=NOW)

        alerts.sent("dead-letter/17", now=NOW + MINUTE)
        alerts.failed("dead-letter/17", "late", not_before=NOW + MINUTE)

        (found,) = alerts.recent()
        assert (found.sent_at, found.attempts, found.last_error) == (NOW, 0, "")

    def test_oldest_first_to_be_sent_and_newest_first_to_be_read(self, alerts: AlertStore) -> None:
        for n in range(5):
            alerts.raise_once(alert(key=str(n)), now=NOW)
        alerts.failed("0", "refused", not_before=NOW + MINUTE)

        assert [one.alert.key for one in alerts.pending(now=NOW, limit=3)] == ["1", "2", "3"]
        assert [one.alert.key for one in alerts.pending(now=NOW + MINUTE)] == ["0", "1", "2", "3", "4"]
        assert [one.alert.key for one in alerts.recent(2)] == ["4", "3"]

    def test_what_nobody_sends_does_not_hide_the_others(self, alerts: AlertStore) -> None:
        gone, other, own = ("old", "gone"), ("shop", "returns"), ("flights", "arrival_delay")
        raised = [("slack", own), ("log", gone), ("LOG", own), ("log", own), ("log", other)]
        for n, (channel, path) in enumerate(raised):
            alerts.raise_once(alert(key=f"{channel}|{n}", pipeline=path), now=NOW)

        def keys(**only: Any) -> list[str]:
            return [one.alert.key for one in alerts.pending(now=NOW, limit=1, **only)]

        assert keys(pipelines=[own, other], channels=["log"]) == ["log|3"]
        assert keys(pipelines=[other]) == ["log|4"]
        assert keys(channels=["log", "l_g"]) == ["log|1"]
        assert keys(channels=["l%", "l_g"]) == keys(channels=[]) == keys(pipelines=[]) == []

    def test_what_was_never_raised_cannot_be_sent(self, alerts: AlertStore) -> None:
        with pytest.raises(AlertError, match="No alert 'x' was raised"):
            alerts.sent("x", now=NOW)
        with pytest.raises(AlertError, match="No alert 'x' was raised"):
            alerts.failed("x", "refused", not_before=NOW)

    @pytest.mark.parametrize("field", ["key", "kind", "title", "body"])
    @pytest.mark.parametrize("text", ["a\x00b", "a\ud800b"], ids=["nul", "surrogate"])
    def test_texts_that_databases_cannot_hold_are_refused(self, alerts: AlertStore, field: str, text: str) -> None:
        with pytest.raises(AlertError, match=f"The {field} of the alert .* databases cannot store"):
            alerts.raise_once(alert(**{field: text}), now=NOW)

        assert alerts.recent() == []

    def test_an_alert_needs_a_key(self, alerts: AlertStore) -> None:
        with pytest.raises(AlertError, match="has no key"):
            alerts.raise_once(alert(key=""), now=NOW)

    def test_of_threads_that_raise_the_same_one_does(self, alerts: AlertStore) -> None:
        with ThreadPoolExecutor(6) as pool:
            new = list(pool.map(lambda _: alerts.raise_once(alert(), now=NOW), range(12)))

        assert sorted(new) == [False] * 11 + [True]
        assert len(alerts.recent()) == 1
