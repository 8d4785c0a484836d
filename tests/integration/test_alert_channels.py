"""AlertChannels against a real HTTP server: what arrives, what counts as arrived, and what is never shown."""

import json
import logging
import socket
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from ml_assets.alerting import keep, send_pending
from ml_assets.errors import AlertError
from ml_assets.interfaces.alerts import Notifier
from ml_assets.testing.alerts import FakeAlerts, alert
from ml_assets.testing.notifier import NotifierSuite
from resources.alert_channels import AlertChannels
from resources.alert_posts import THREAD_NAME

HOOK_PATH = "T00/B00/s3cr3t"
NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


@dataclass
class Hook:
    """A server that takes alerts.

    Attributes:
        statuses: What it answers next, 200 when it is empty; "trickle" for an answer that never ends.
        got: (path, document) of each request.
    """

    statuses: list[int | str] = field(default_factory=list)
    got: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{HOOK_PATH}"


@pytest.fixture
def hook() -> Iterator[Hook]:
    made, closing = Hook(), threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            made.got.append((self.path, json.loads(self.rfile.read(length))))
            status = made.statuses.pop(0) if made.statuses else 200
            if status == "trickle":
                self.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
                while not closing.wait(0.05):
                    try:
                        self.wfile.write(b"x")
                    except OSError:
                        return
                return
            self.send_response(int(status), f"no {HOOK_PATH}")
            self.send_header("Location", f"http://127.0.0.1:{made.port}/elsewhere")
            self.end_headers()

        def log_message(self, *args: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
            del args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    made.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield made
    closing.set()
    server.shutdown()
    thread.join(120)
    server.server_close()


class TestAlertChannels(NotifierSuite):
    @pytest.fixture
    def notifier(self, hook: Hook) -> Notifier:
        return AlertChannels(webhook=hook.url, slack=hook.url)


def refused(channels: AlertChannels, channel: str = "webhook") -> str:
    """Return why sending failed, and assert that no secret is in it or in what is logged of it."""
    with pytest.raises(AlertError) as caught:
        channels.send(channel, alert())
    shown = "".join(traceback.format_exception(caught.value)) + repr(channels)
    assert "s3cr3t" not in shown
    return str(caught.value)


def test_a_webhook_gets_the_alert_as_json(hook: Hook) -> None:
    AlertChannels(webhook=hook.url).send("webhook", alert())
    ((path, document),) = hook.got
    assert path == f"/{HOOK_PATH}"
    at = datetime.fromisoformat(document.pop("at"))
    assert abs(datetime.now(UTC) - at) < timedelta(minutes=1)
    assert document == {
        "kind": "dead_letter",
        "pipeline": "flights/arrival_delay",
        "title": alert().title,
        "body": alert().body,
        "key": "dead-letter/17",
    }


def test_slack_gets_text_that_mentions_nobody(hook: Hook) -> None:
    AlertChannels(slack=hook.url).send("slack", alert(title="<!channel> & <@U1>", body="ask @all"))
    ((_, document),) = hook.got
    assert document.keys() == {"text"}
    assert "<" not in document["text"]
    assert "&lt;!channel&gt; &amp; &lt;" in document["text"]
    assert "@all" not in document["text"]


def test_slack_gets_nothing_hidden_and_no_link_under_other_words(hook: Hook) -> None:
    title = "dead\u202eletter\x1b[2J\nof *shop*"
    body = "<https://evil.example|the dossier>\n[the dossier](https://evil.example) [a][b]\n[b]: https://evil.example"
    AlertChannels(slack=hook.url).send("slack", alert(title=title, body=body))
    ((_, document),) = hook.got
    first, *lines = document["text"].split("\n")
    assert first == r"*dead\u202eletter\x1b[2J\nof *shop**"
    assert lines[0] == "&lt;https://evil.example|the dossier&gt;"
    assert len(lines) == 3, "the lines of a message stay"
    assert not any(link in document["text"] for link in ("](", "][", "]:"))


def test_an_alert_that_failed_first_arrives_once(hook: Hook) -> None:
    hook.statuses = [500]
    channels, alerts = AlertChannels(webhook=hook.url), FakeAlerts()
    keep(alerts, ["webhook"], [alert()], NOW)
    outcomes = [
        send_pending(alerts, channels, [alert().pipeline], NOW + timedelta(seconds=10 * tick)) for tick in range(6)
    ]
    assert [(o.messages, len(o.failures)) for o in outcomes] == [(0, 1), (0, 0), (0, 0), (1, 0), (0, 0), (0, 0)]
    assert len(hook.got) == 2
    assert "status 500" in outcomes[0].failures[0]


def test_a_redirect_is_not_followed(hook: Hook) -> None:
    hook.statuses = [307]
    assert "status 307, a redirect" in refused(AlertChannels(webhook=hook.url))
    hook.statuses = [302]
    assert "status 302, a redirect" in refused(AlertChannels(webhook=hook.url))
    assert [path for path, _ in hook.got] == [f"/{HOOK_PATH}"] * 2


def test_an_answer_that_trickles_ends_at_the_limit(hook: Hook) -> None:
    hook.statuses = ["trickle"]
    begun = time.monotonic()
    assert "did not answer within 0.5 s" in refused(AlertChannels(webhook=hook.url, limit_seconds=0.5))
    assert time.monotonic() - begun < 5
    assert not posting(), "nor does it keep a thread"


def posting() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == THREAD_NAME]


def test_a_handshake_that_trickles_ends_at_the_limit_too() -> None:
    closing = threading.Event()

    def trickle(listening: socket.socket) -> None:
        taken, _ = listening.accept()
        with taken:
            taken.sendall(b"\x16\x03\x03\x40\x00")  # a record of TLS with 16 kB, which never come
            while not closing.wait(0.05):
                try:
                    taken.sendall(b"x")
                except OSError:
                    return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=trickle, args=(listening,))
        thread.start()
        try:
            url = f"https://127.0.0.1:{listening.getsockname()[1]}/{HOOK_PATH}"
            assert "did not answer within 0.5 s" in refused(AlertChannels(webhook=url, limit_seconds=0.5))
            assert not posting()
        finally:
            closing.set()
            thread.join(120)


def test_the_connection_is_closed_when_the_answer_is_there_and_its_body_is_not_waited_for() -> None:
    ends: list[bytes] = []

    def answer(listening: socket.socket) -> None:
        taken, _ = listening.accept()
        with taken:
            taken.settimeout(10)
            taken.recv(65_536)
            taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
            while taken.recv(65_536):
                continue
            ends.append(b"")

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        begun = time.monotonic()
        AlertChannels(webhook=f"http://127.0.0.1:{listening.getsockname()[1]}/").send("webhook", alert())
        thread.join(5)
    assert ends == [b""]
    assert time.monotonic() - begun < 4


def test_a_server_that_is_not_there_is_an_error_with_the_next_step(hook: Hook) -> None:
    url = hook.url.replace(str(hook.port), "1")
    why = refused(AlertChannels(slack=url), "slack")
    assert "refused" in why
    assert "ml-assets alerts test --channel slack" in why


@pytest.mark.parametrize(
    "url",
    [
        f"http://example.com/{HOOK_PATH}",
        f"ftp://127.0.0.1/{HOOK_PATH}",
        f"https:///{HOOK_PATH}",
        f"https://[::/{HOOK_PATH}",
        f"https://example.com:x/{HOOK_PATH}",
        f"https://example.com/{HOOK_PATH}\r\nX: y",
        f"http://localhost.evil.org/{HOOK_PATH}",
    ],
)
def test_only_https_or_this_machine_and_the_url_is_never_shown(url: str) -> None:
    with pytest.raises(AlertError, match="ML_ASSETS_ALERT_SLACK") as caught:
        AlertChannels(slack=url)
    assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


def test_the_log_gets_one_line(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="ml_assets.alerts"):
        AlertChannels().send("log", alert(body="one\nERROR forged"))
    assert [r.getMessage() for r in caplog.records] == [
        f"[dead_letter] {alert().title}. one ERROR forged (dead-letter/17)"
    ]
