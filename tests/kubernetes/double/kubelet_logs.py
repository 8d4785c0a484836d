"""The kubelet's HTTP endpoint for logs, which the API server asks.

Lines get the time at which they are read, each its own: nothing knows when they were written.
"""

import ssl
import time
import urllib.parse
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from tests.kubernetes.double.http_server import HttpService, TrackingServer

LogPath = Callable[[str, str, str], Path]
IsRunning = Callable[[str, str], bool]
_LOOK_SECONDS = 0.1


def log_service(log_path: LogPath, is_running: IsRunning, tls: tuple[str, str] | None) -> "LogService":
    """Return the endpoint: where logs are, whether a pod still runs, and a certificate and key for HTTPS."""
    handler = type(
        "BoundLogHandler", (_LogHandler,), {"log_path": staticmethod(log_path), "is_running": staticmethod(is_running)}
    )
    return LogService(handler, tls)


class LogService(HttpService):
    def __init__(self, handler: type[BaseHTTPRequestHandler], tls: tuple[str, str] | None) -> None:
        super().__init__(handler, lambda: None)
        self._tls = tls

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    def make_server(self) -> TrackingServer:
        server = super().make_server()
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._tls)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        return server


class _LogHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    log_path: LogPath
    is_running: IsRunning

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Nobody reads this."""

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        parts = url.path.split("/")
        path = self.log_path(*parts[2:]) if len(parts) == 5 and parts[1] == "containerLogs" else None
        if path is not None and query.get("previous", "").lower() in ("1", "t", "true"):
            path = path.with_suffix(".previous.log")
        if path is None or not path.exists():
            self._send(400, b"container is waiting to start")
            return
        stamp = _stamper(query.get("timestamps", ""))
        data = path.read_bytes()
        lines = data.splitlines(keepends=True)
        if "tailLines" in query:
            lines = lines[-int(query["tailLines"]) :] if int(query["tailLines"]) else []
        body = b"".join(map(stamp, lines))
        if query.get("follow", "").lower() not in ("1", "t", "true"):
            self._send(200, body[: int(query["limitBytes"])] if "limitBytes" in query else body)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self._chunk(body)
        self._follow(path, len(data), stamp, *parts[2:4])
        self.wfile.write(b"0\r\n\r\n")

    def _follow(self, path: Path, position: int, stamp: Callable[[bytes], bytes], namespace: str, pod: str) -> None:
        server = self.server
        assert isinstance(server, TrackingServer)
        while not server.closing.is_set():
            running = self.is_running(namespace, pod)
            with path.open("rb") as log:
                log.seek(position)
                new = log.read()
            if running:
                new = new[: new.rfind(b"\n") + 1]  # half a line waits for its end
            position += len(new)
            self._chunk(b"".join(map(stamp, new.splitlines(keepends=True))))
            if not running:
                return
            time.sleep(_LOOK_SECONDS)

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _send(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _stamper(asked: str) -> Callable[[bytes], bytes]:
    if asked.lower() not in ("1", "t", "true"):
        return lambda line: line
    clock = 0

    def stamp(line: bytes) -> bytes:
        nonlocal clock
        clock = max(clock + 1000, time.time_ns())
        second = datetime.fromtimestamp(clock // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{second}.{clock % 10**9:09d}Z ".encode() + line

    return stamp
