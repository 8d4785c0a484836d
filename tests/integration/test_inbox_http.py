"""The inbox's HTTP endpoint under a real uvicorn: who may post what, and what becomes of it."""

import json
import logging
import socket
import threading
import time
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
from ml_assets.sources import LandingZone
from ml_assets.spec import AutomationSpec
from resources import inbox_connections, inbox_server
from resources.inbox_requests import Notice, read_body
from resources.inbox_server import below, build_app, make_server
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
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
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
        wait_for("the server", lambda: server.started, timeout_seconds=60, every_seconds=0.02)
        return Server(port=listening.getsockname()[1], push=push, submission=submission, landing=landing)

    yield make
    for server, thread, listening in running:
        server.should_exit = True
        thread.join(timeout=120)
        listening.close()
        assert not thread.is_alive()


def submitted(server: Server) -> BatchPlan:
    """Return the one batch that was submitted, once it was."""
    wait_for("a submission", lambda: bool(server.submission.submitted), timeout_seconds=60, every_seconds=0.02)
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
    wait_for("its run", lambda: server.push.services.inbox.batches()[0].run_id == "run-1", timeout_seconds=60)
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


def bad_files(server: Server, elsewhere: Path) -> Iterator[str]:
    """Make bad files whose reasons are about places, and yield the name of each."""
    folder = server.landing / "shop"
    (elsewhere / "secret.csv").write_text("order_id\n1\n")
    (folder / "2024-02_DE.csv").symlink_to(elsewhere / "secret.csv")
    yield "2024-02_DE.csv"
    (folder / "inner").mkdir()
    (folder / "2024-02_FR.csv").symlink_to(folder / "inner")
    yield "2024-02_FR.csv"
    (folder / "2024-03_DE.csv").write_text("order_id\n1\n")
    (server.landing / ".quarantine").rename(server.landing / "aside")
    (server.landing / ".quarantine").write_text("no folder")  # so that nothing can be put aside
    yield "2024-03_DE.csv"


def test_no_answer_tells_where_the_server_keeps_its_files(start: Callable[..., Server], tmp_path: Path) -> None:
    server = start()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    answers = {
        name: server.post({"pipeline": "shop/returns", "place": f"shop/{name}"})[:2]
        for name in bad_files(server, elsewhere)
    }

    assert [(status, answer["fate"]) for status, answer in answers.values()] == [
        (422, "quarantined"),
        (422, "quarantined"),
        (422, "buried"),
    ]
    assert str(tmp_path) not in str(answers)
    said = [answer["error"] for _, answer in answers.values()]
    assert said[0] == "shop/2024-02_DE.csv is a link that leads outside of the landing zone. Land the file itself."
    assert "shop/2024-02_FR.csv is a link to shop/inner, which is no regular file." in said[1]
    assert "shop/2024-03_DE.csv lacks the declared columns" in said[2]
    assert said[2].endswith("It could not be put into quarantine; dead letter 1 says why.")


@pytest.mark.parametrize(
    ("root", "text", "told"),
    [
        (
            "/srv/landing",
            "[Errno 13] Permission denied: '/srv/landing/a/b.csv'",
            "[Errno 13] Permission denied: 'a/b.csv'",
        ),
        ("/srv/landing/", "nothing at /srv/landing: full", "nothing at the landing zone: full"),
        ("/srv/landing", "/srv/landing2/a.csv", "/srv/landing2/a.csv"),
        ("s3://bucket/in", "s3://bucket/in/a.csv and s3://other/a.csv", "a.csv and s3://other/a.csv"),
        ("file:///srv/landing", "file:///srv/landing/a.csv, /srv/landing/b.csv", "a.csv, b.csv"),
    ],
)
def test_places_are_told_from_the_landing_zone(root: str, text: str, told: str) -> None:
    assert below(LandingZone(root=root), text) == told


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
        wait_for("a warning", lambda: "left to the sensor" in caplog.text, timeout_seconds=60, every_seconds=0.02)
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


HEAD = b"POST /v1/events HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer " + TOKEN.encode() + b"\r\n"
JSON_BODY = json.dumps(EVENT).encode()
WHOLE = HEAD + b"Content-Length: %d\r\n\r\n" % len(JSON_BODY) + JSON_BODY


@dataclass
class Trickle:
    """A client that sends a request byte by byte.

    Attributes:
        opened: Its connection.
        answer: What came, once the connection ended.
        seconds: How long that took.
    """

    opened: socket.socket
    answer: bytes = b""
    seconds: float = 0.0

    def send(
        self, data: bytes, *, begun: float | None = None, every_seconds: float = 0.05, most_seconds: float = 40.0
    ) -> None:
        """Send until the other side ends the connection; the time counts from `begun` on."""
        begun = time.monotonic() if begun is None else begun
        self.opened.settimeout(every_seconds)
        for byte in data:
            if time.monotonic() - begun > most_seconds:
                break
            try:
                self.opened.sendall(bytes([byte]))
                if not (got := self.opened.recv(65_536)):
                    break
                self.answer += got
            except TimeoutError:
                continue
            except OSError:
                break
        self.seconds = time.monotonic() - begun


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the deadlines short."""
    monkeypatch.setattr(inbox_server, "BODY_SECONDS", 0.6)
    monkeypatch.setattr(inbox_connections, "READ_SECONDS", 1.0)


@pytest.mark.usefixtures("hurry")
@pytest.mark.parametrize("sent", [b"", HEAD], ids=["nothing", "a head"])
def test_a_request_that_trickles_is_cut_at_the_deadline(start: Callable[..., Server], sent: bytes) -> None:
    server, begun = start(), time.monotonic()
    with socket.create_connection(("127.0.0.1", server.port)) as opened:
        client = Trickle(opened)
        opened.sendall(sent)
        client.send(b"X-Long: " + b"x" * 1000, begun=begun)
    assert client.answer == b""
    assert 0.9 < client.seconds < 20


@pytest.mark.usefixtures("hurry")
def test_a_body_that_trickles_is_refused_and_its_connection_closed(start: Callable[..., Server]) -> None:
    server = start()
    with socket.create_connection(("127.0.0.1", server.port)) as opened:
        client = Trickle(opened)
        opened.sendall(HEAD + b"Content-Length: 60000\r\n\r\n")
        client.send(b" " * 1000)
    assert client.answer.startswith(b"HTTP/1.1 408 ")
    assert b"not complete within 0.6 s" in client.answer
    assert client.seconds < 20
    assert server.push.services.inbox.events() == []


@pytest.mark.usefixtures("hurry")
def test_an_answer_before_the_body_does_not_keep_the_connection_for_it(start: Callable[..., Server]) -> None:
    server = start()
    with socket.create_connection(("127.0.0.1", server.port)) as opened:
        client = Trickle(opened)
        opened.sendall(b"POST /elsewhere HTTP/1.1\r\nHost: here\r\nContent-Length: 60000\r\n\r\n")
        client.send(b" " * 1000)
    assert client.answer.startswith(b"HTTP/1.1 404 ")
    assert client.seconds < 20


def test_a_connection_serves_several_requests_and_is_closed_when_it_rests(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inbox_connections, "READ_SECONDS", 2.5)
    server = start()
    connection = HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.connect()
    assert connection.sock is not None
    kept, answers = connection.sock, []
    for number in range(7):  # longer than one request may take
        connection.request(
            "POST", "/v1/events", json.dumps(EVENT | {"key": f"{number}"}), {"Authorization": f"Bearer {TOKEN}"}
        )
        answer = connection.getresponse()
        answers.append((answer.status, answer.read() and connection.sock is kept))
        time.sleep(0.4)
    assert answers == [(202, True)] * 7
    assert kept.recv(1) == b""
    connection.close()


@pytest.mark.usefixtures("hurry")
def test_an_answer_that_takes_longer_than_the_deadline_arrives(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start()
    take_up = Push.take_up
    monkeypatch.setattr(Push, "take_up", lambda *given, **named: (time.sleep(2), take_up(*given, **named))[1])
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as opened:
        opened.sendall(WHOLE + b"POST /v1")  # the beginning of a further request is no reason to cut it either
        time.sleep(0.2)
        opened.sendall(b"/")
        assert opened.recv(65_536).startswith(b"HTTP/1.1 202 ")


def test_idle_connections_keep_nobody_out(start: Callable[..., Server]) -> None:
    server = start()
    idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(220)]
    try:
        for opened in idle[110:]:
            opened.sendall(HEAD)
        statuses = [server.post(EVENT | {"key": str(number)})[0] for number in range(20)]
    finally:
        for opened in idle:
            opened.close()
    assert statuses == [202] * 20
