"""The inbox's HTTP endpoint under a real uvicorn: who may post what, and what becomes of it."""

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.delivery.plan import BatchPlan
from ml_assets.delivery.push import Push
from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import Event, PipelinePath
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.retraining.pauses import pause
from ml_assets.spec import AutomationSpec
from resources.inbox_requests import Notice, read_body
from resources.inbox_server import build_app, make_server
from tests.components.shop import Shop, land_orders, services
from tests.e2e.programs import wait_for

TOKEN = "a-token-of-the-tests-that-is-long"  # noqa: S105 - of no real server
PATH: PipelinePath = ("shop", "returns")
EVENT = {"pipeline": "shop/returns", "partition": "DE|2024-01", "key": "delivery 17"}


@dataclass
class NotedSubmission:
    """Submits nothing; notes what it was asked to submit."""

    pipelines: Mapping[PipelinePath, LoadedPipeline]
    submitted: list[BatchPlan] = field(default_factory=list)
    stale: list[str] = field(default_factory=list)

    def submit(self, plan: BatchPlan) -> str:
        """Note a plan and return a run id."""
        self.submitted.append(plan)
        return f"run-{len(self.submitted)}"

    def changed(self) -> list[str]:
        """Return what the test says."""
        return self.stale


@dataclass
class Server:
    """A running endpoint."""

    port: int
    push: Push
    submission: NotedSubmission
    landing: Path

    def post(
        self, body: Any, *, token: str | None = TOKEN, **headers: str
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Post a body, and return status, answer and headers."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = dict(headers) if token is None else {"Authorization": f"Bearer {token}", **headers}
        return self.ask("POST", "/v1/events", raw, sent)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, Any], dict[str, str]]:
        """Send a request, and return status, answer and headers."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            text = answer.read()
            headers = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, json.loads(text) if text.startswith(b"{") else {}, headers
        finally:
            connection.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    running: list[tuple[Any, threading.Thread, socket.socket]] = []

    def make(**policy: Any) -> Server:
        landing = tmp_path / "landing"
        land_orders(landing, ("2024-01",), per_day=3)
        world = services(landing, **{"inbox.debounce_seconds": 0, "arrivals.settle_seconds": 0, **policy})
        with dg.DagsterInstance.ephemeral() as instance:
            shop = Shop(tmp_path, world, instance, automation=AutomationSpec(arrivals=True))
        submission = NotedSubmission(pipelines={PATH: shop.pipeline})
        push = Push(services=world, submission=submission)
        listening = socket.create_server(("127.0.0.1", 0))
        server = make_server(build_app([push], TOKEN))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        running.append((server, thread, listening))
        wait_for("the server", lambda: server.started, timeout_seconds=20, every_seconds=0.02)
        return Server(port=listening.getsockname()[1], push=push, submission=submission, landing=landing)

    yield make
    for server, thread, listening in running:
        server.should_exit = True
        thread.join(timeout=20)
        listening.close()
        assert not thread.is_alive()


def submitted(server: Server) -> BatchPlan:
    """Return the one batch that was submitted, once it was."""
    wait_for("a submission", lambda: bool(server.submission.submitted), timeout_seconds=10, every_seconds=0.02)
    (plan,) = server.submission.submitted
    return plan


def test_an_event_is_taken_up_once_and_its_run_is_submitted(start: Callable[..., Server]) -> None:
    server = start()

    status, answer, _ = server.post(EVENT | {"payload": {"by": "loader"}})

    assert (status, answer) == (202, {"number": 1})
    plan = submitted(server)
    assert plan.partitions == ("DE|2024-01",)
    event = server.push.services.inbox.event(1)
    assert event is not None
    wait_for("its run", lambda: server.push.services.inbox.batches()[0].run_id == "run-1", timeout_seconds=5)
    assert event.event.source == "http"
    assert event.event.payload == {"by": "loader"}
    assert server.post(EVENT)[:2] == (200, {"repeated": True})
    assert len(server.submission.submitted) == 1


def test_a_file_is_looked_at_before_it_is_an_event(start: Callable[..., Server]) -> None:
    server = start()

    status, answer, _ = server.post({"pipeline": "shop/returns", "place": "shop/2024-01_DE.csv"})

    assert (status, answer) == (202, {"number": 1})
    assert submitted(server).partitions == ("DE|2024-01",)
    status, answer, _ = server.post({"pipeline": "shop/returns", "place": "shop/2024-01_DE.csv"})
    assert (status, answer) == (200, {"repeated": True})
    (server.landing / "shop" / "2024-01_FR.csv").write_text("order_id\n1\n")
    status, answer, _ = server.post({"pipeline": "shop/returns", "place": "shop/2024-01_FR.csv"})
    assert (status, answer["fate"]) == (422, "quarantined")
    for place in ("shop/2024-03_DE.csv", "../../etc/passwd", "/etc/passwd", "else/2024-01_DE.csv"):
        assert server.post({"pipeline": "shop/returns", "place": place})[0] == 404, place


def test_a_file_that_is_not_complete_yet_becomes_an_event_by_itself(start: Callable[..., Server]) -> None:
    server = start(**{"arrivals.settle_seconds": 0.3})
    file = server.landing / "shop" / "2024-01_DE.csv"
    file.write_bytes(file.read_bytes())

    status, answer, _ = server.post({"pipeline": "shop/returns", "place": "shop/2024-01_DE.csv"})

    assert status == 202
    assert "waiting" in answer
    assert submitted(server).partitions == ("DE|2024-01",)


def record(key: str, event: str = "s3:ObjectCreated:Put") -> dict[str, Any]:
    return {"eventName": event, "s3": {"bucket": {"name": "landing"}, "object": {"key": key, "eTag": "a1"}}}


def test_a_notice_of_an_object_store_is_of_the_pipelines_files_alone(start: Callable[..., Server]) -> None:
    server = start()
    status, answer, _ = server.post(
        {"Records": [record("else/where+is%2Bit.csv"), record("x", "s3:ObjectRemoved:Delete")]}
    )
    assert (status, answer) == (200, {"events": []})

    assert server.post({"Records": [{}]})[0] == 422
    assert server.post({"Records": "all"})[0] == 422
    assert server.submission.submitted == []


def test_a_notice_names_the_places_that_were_written() -> None:
    records = [record("shop/2024-01_D%26E+1.csv"), record("gone.csv", "s3:ObjectRemoved:Delete")]
    read = read_body({"EventName": "s3:ObjectCreated:Put", "Key": "landing/shop", "Records": records})
    assert read == Notice(places=("s3://landing/shop/2024-01_D&E 1.csv",))


@pytest.mark.parametrize("token", [None, "", "wrong", TOKEN[:-1], TOKEN + "x", "ü"])
def test_nothing_is_taken_without_the_token(start: Callable[..., Server], token: str | None) -> None:
    server = start()
    sent = None if token is None else token.encode().decode("latin-1")
    status, answer, headers = server.post(EVENT, token=sent)
    assert (status, headers["www-authenticate"]) == (401, "Bearer")
    assert TOKEN not in str(answer)
    assert server.push.services.inbox.events() == []


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 50_000, 400, "not JSON"),
        (b"[]", 422, "expected an object"),
        ({}, 422, "pipeline: Field required"),
        (EVENT | {"pipeline": "shop"}, 422, "pipeline: String should match"),
        (EVENT | {"pipeline": "shop/unknown"}, 404, "No pipeline shop/unknown starts by events here"),
        (EVENT | {"partition": "DE|1999-01"}, 422, "shop/returns has no partition 'DE|1999-01'"),
        (EVENT | {"partition": "XX|2024-01"}, 422, "has no partition"),
        (EVENT | {"key": ""}, 422, "key: String should have at least 1"),
        (EVENT | {"key": "a\u0000b"}, 422, "a character that databases cannot store"),
        (EVENT | {"key": 5}, 422, "key: Input should be a valid string"),
        (EVENT | {"payload": []}, 422, "payload: Input should be a valid dictionary"),
        (EVENT | {"more": 1}, 422, "more: Extra inputs are not permitted"),
        (EVENT | {"payload": {"x": "y" * 70_000}}, 413, "larger than 64000 bytes"),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason(
    start: Callable[..., Server], body: Any, status: int, said: str
) -> None:
    server = start()
    found, answer, _ = server.post(body)
    assert found == status, answer
    assert said in answer["error"]
    assert server.push.services.inbox.events() == []


def test_what_is_over_the_rate_may_come_again_later(start: Callable[..., Server]) -> None:
    server = start(**{"inbox.events_per_minute": 1})
    assert server.post(EVENT)[0] == 202
    status, answer, headers = server.post(EVENT | {"key": "another"})
    assert (status, headers["retry-after"]) == (429, "60")
    assert "within a minute" in answer["error"]


def test_events_of_a_paused_pipeline_wait(start: Callable[..., Server]) -> None:
    server = start()
    pause(server.push.services.ledger, PATH, by="lena", reason="Repairs.", now=datetime(2026, 11, 25, 9, tzinfo=UTC))
    status, answer, _ = server.post(EVENT)
    assert status == 202
    assert answer["waiting"] == "lena paused shop/returns on 2026-11-25 09:00 UTC: Repairs."
    assert server.post(EVENT)[:2] == (200, {"repeated": True})
    assert server.submission.submitted == []


def test_runs_are_left_to_the_sensor_once_the_code_changed(
    start: Callable[..., Server], caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    server.submission.stale.append("/project/features.py")
    with caplog.at_level(logging.WARNING, "resources.inbox_server"):
        assert server.post(EVENT)[0] == 202
        wait_for("a warning", lambda: "left to the sensor" in caplog.text, timeout_seconds=10, every_seconds=0.02)
    assert server.submission.submitted == []
    assert TOKEN not in caplog.text


def test_other_ways_lead_nowhere(start: Callable[..., Server]) -> None:
    server = start()
    assert server.ask("GET", "/healthz")[:2] == (200, {"ok": True})
    assert server.ask("GET", "/v1/events")[0] == 405
    assert server.ask("GET", "/docs")[0] == 404


@pytest.mark.parametrize("token", [None, "", "short"])
def test_without_a_good_token_it_does_not_start(token: str | None) -> None:
    with pytest.raises(MlAssetsError, match="needs a token of at least 24 characters in ML_ASSETS_INBOX_TOKEN"):
        build_app([], token)


def test_a_claim_is_leased_from_when_it_is_made_however_long_the_submissions_before_it_took(
    start: Callable[..., Server],
) -> None:
    server, now = start(), datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
    events = [
        Event(source="http", key=partition, pipeline=PATH, partition=partition)
        for partition in ("DE|2024-01", "DE|2024-03", "DE|2024-05")
    ]
    inbox = server.push.services.inbox
    inbox.receive(events, dedup=timedelta(hours=1), now=now)
    seconds = iter([0.0, 0.0, 45.0, 90.0, 135.0])

    server.push.deliver(PATH, now=now + timedelta(minutes=1), clock=lambda: next(seconds))

    leases = [batch.leased_until - now for batch in inbox.batches()]
    assert leases == [timedelta(seconds=120), timedelta(seconds=165), timedelta(seconds=210)]
