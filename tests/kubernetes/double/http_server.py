"""An HTTP server on a loopback port that it keeps while it refuses connections, and that ends all of its threads."""

import socket
import socketserver
import threading
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

JOIN_SECONDS = 5.0


class TrackingServer(ThreadingHTTPServer):
    """A threading server that knows its connections, so that it can drop them."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, port: int, handler: type[BaseHTTPRequestHandler]) -> None:
        self.closing = threading.Event()
        self._connections: dict[threading.Thread, socket.socket] = {}
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), handler)

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks the name service for the host's name
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self._serve, args=(request, client_address), name="double-http", daemon=True)
        with self._lock:
            self._connections[thread] = request
        thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of connections that break: clients are killed in these tests, and connections dropped."""
        del client_address
        with suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)

    def drop_connections(self) -> list[threading.Thread]:
        with self._lock:
            open_now = dict(self._connections)
        for connection in open_now.values():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        return list(open_now)

    def _serve(self, request: Any, client_address: Any) -> None:
        try:
            self.process_request_thread(request, client_address)
        finally:
            with self._lock:
                self._connections.pop(threading.current_thread(), None)


class HttpService:
    """Serves on one port, with pauses in which connections are refused and the port stays taken.

    Args:
        handler: Handler of requests.
        on_close: Called when serving ends, to wake what the handlers wait for.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler], on_close: Callable[[], None]) -> None:
        # A second socket that is bound but does not listen keeps the port while the server is away.
        self._holder = socket.socket()
        self._holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._holder.bind(("127.0.0.1", 0))
        self.port: int = self._holder.getsockname()[1]
        self._handler, self._on_close = handler, on_close
        self._server: TrackingServer | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    @property
    def serving(self) -> bool:
        return self._server is not None

    def make_server(self) -> TrackingServer:
        return TrackingServer(self.port, self._handler)

    def start(self) -> None:
        with self._lock:
            if self._server is None:
                self._server = self.make_server()
                self._thread = threading.Thread(
                    target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="double-accept", daemon=True
                )
                self._thread.start()

    def stop(self) -> None:
        """Refuse new connections and drop the open ones; `start` serves again."""
        with self._lock:
            server, thread = self._server, self._thread
            if server is None or thread is None:
                return
            server.closing.set()
            server.shutdown()
            server.server_close()
            thread.join(JOIN_SECONDS)
            workers = server.drop_connections()
            self._on_close()
            for worker in workers:
                if worker is not threading.current_thread():
                    worker.join(JOIN_SECONDS)
            self._server = self._thread = None

    def close(self) -> None:
        self.stop()
        self._holder.close()
