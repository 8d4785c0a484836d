"""One POST to a hook with one deadline for all of it: an answer that trickles keeps neither the caller nor a thread."""

import json
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
    build_opener,
)

THREAD_NAME = "alert post"
_LAST_SECONDS = 1.0
"""How long the thread may take, beyond the deadline, to notice that its connection was cut."""


def post(url: str, document: Mapping[str, Any], limit_seconds: float) -> str:
    """Post JSON; return why it did not arrive, or nothing when the status was 2xx.

    The body of the answer is not read. At the deadline the connection is cut, whatever it is doing. Only the look-up
    of a name cannot be cut; the system's resolver ends it.

    Args:
        url: Where to; never part of what is returned.
        document: What to post.
        limit_seconds: For connecting, TLS, sending and the answer's head together.
    """
    exchange, problems = _Exchange(limit_seconds), list[str]()
    # In a thread: a socket's own limit begins anew with each byte.
    posting = threading.Thread(
        target=lambda: problems.append(_post(url, document, exchange)), name=THREAD_NAME, daemon=True
    )
    posting.start()
    posting.join(limit_seconds)
    ended = not posting.is_alive()
    exchange.cut()
    posting.join(_LAST_SECONDS)
    return problems[0] if ended and problems else f"it did not answer within {limit_seconds:g} s"


def is_loopback(host: str | None) -> bool:
    """Whether a URL's host is this machine."""
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


class _Exchange:
    """The connection of one post, which another thread can cut."""

    def __init__(self, limit_seconds: float) -> None:
        self._end = time.monotonic() + limit_seconds
        self._lock = threading.Lock()
        self._handles: list[socket.socket] = []
        self._is_cut = False

    @property
    def seconds_left(self) -> float:
        """Return how long a socket may wait: a little longer than until the deadline, which shall be what ends it."""
        return max(0.0, self._end - time.monotonic()) + _LAST_SECONDS

    def connect(self, address: tuple[str, int], *_: Any) -> socket.socket:
        """Connect as `socket.create_connection` does, and keep a second handle: TLS takes the first one away."""
        opened = socket.create_connection(address, self.seconds_left)
        with self._lock:
            if self._is_cut:
                opened.close()
                raise TimeoutError
            self._handles.append(opened.dup())
        return opened

    def cut(self) -> None:
        """End the connection, and every one that is still to come."""
        with self._lock:
            self._is_cut = True
            for handle in self._handles:
                with suppress(OSError):  # the other side was faster
                    handle.shutdown(socket.SHUT_RDWR)
                handle.close()


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: what an alert says goes to the URL that was given, and nowhere else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Return nothing, so that the status becomes an error."""
        del args, kwargs


def _post(url: str, document: Mapping[str, Any], exchange: _Exchange) -> str:
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "ml-assets"}
    try:
        request = Request(url, data=json.dumps(document).encode(), headers=headers, method="POST")  # noqa: S310 - checked
        with _opener(url, exchange).open(request, timeout=exchange.seconds_left):
            return ""
    except HTTPError as error:  # its own words may repeat the URL
        error.close()
        return f"it answered with status {error.code}" + (", a redirect" if 300 <= error.code < 400 else "")
    except URLError as error:
        reason = error.reason
        return (reason.strerror or type(reason).__name__) if isinstance(reason, OSError) else "it cannot be reached"
    except (OSError, HTTPException, ValueError) as error:
        return f"the connection failed ({type(error).__name__})"


def _opener(url: str, exchange: _Exchange) -> OpenerDirector:
    """Return an opener whose connections are the exchange's; for this machine no proxy is asked."""

    def cuttable(connection: HTTPConnection) -> HTTPConnection:
        connection._create_connection = exchange.connect  # pyright: ignore[reportAttributeAccessIssue] # noqa: SLF001
        return connection

    class Plain(HTTPHandler):
        def http_open(self, req: Request) -> Any:
            return self.do_open(lambda host, **given: cuttable(HTTPConnection(host, **given)), req)

    class Secure(HTTPSHandler):
        def https_open(self, req: Request) -> Any:
            return self.do_open(lambda host, **given: cuttable(HTTPSConnection(host, **given)), req)

    proxies = [ProxyHandler({})] if is_loopback(urlsplit(url).hostname) else []
    return build_opener(_NoRedirect, Plain, Secure, *proxies)
