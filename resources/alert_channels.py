"""AlertChannels: sends alerts to the log, to a webhook and to a Slack-compatible hook."""

import json
import logging
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from http.client import HTTPException
from ipaddress import ip_address
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, ProxyHandler, Request, build_opener

from ml_assets.errors import AlertError
from ml_assets.interfaces import Alert

LIMIT_SECONDS = 10.0
LOG, WEBHOOK, SLACK = "log", "webhook", "slack"
VARIABLES = {WEBHOOK: "ML_ASSETS_ALERT_WEBHOOK", SLACK: "ML_ASSETS_ALERT_SLACK"}
_LOGGER = logging.getLogger("ml_assets.alerts")
_UNSAFE = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u200b"})
"""Slack's own escapes make `<!channel>` plain text; Mattermost also reads `@all`, hence the invisible space."""


class AlertChannels:
    """A `Notifier`; the log is always one of its channels.

    Args:
        webhook: URL that takes {kind, pipeline, title, body, key, at} as JSON, or None.
        slack: URL that takes {text} as JSON, as Slack and Mattermost do, or None. Both are secrets: never shown.
        limit_seconds: How long one message may take.

    Raises:
        AlertError: If a URL is neither https nor http on this machine.
    """

    def __init__(
        self, *, webhook: str | None = None, slack: str | None = None, limit_seconds: float = LIMIT_SECONDS
    ) -> None:
        given = {WEBHOOK: webhook, SLACK: slack}
        self._hooks = {channel: _checked(channel, url) for channel, url in given.items() if url}
        self._limit = limit_seconds

    def __repr__(self) -> str:
        return f"AlertChannels({', '.join(self.channels)})"

    @property
    def channels(self) -> tuple[str, ...]:
        """Return "log", and the hooks that have a URL."""
        return (LOG, *self._hooks)

    def send(self, channel: str, alert: Alert) -> None:
        """Send an alert over one channel.

        Raises:
            AlertError: If it was not taken with a status of 2xx in time, or there is no such channel.
        """
        if channel == LOG:
            _LOGGER.warning("%s", _one_line(f"[{alert.kind}] {alert.title}. {alert.body} ({alert.key})"))
        elif channel in self._hooks:
            self._post(channel, _slack(alert) if channel == SLACK else _document(alert))
        else:
            raise AlertError(f"There is no channel {channel!r} for alerts; there are {', '.join(self.channels)}.")

    def _post(self, channel: str, document: Mapping[str, Any]) -> None:
        """Post in a thread: a socket's limit begins anew with each byte of an answer that trickles."""
        problems: list[str] = []
        posting = threading.Thread(
            target=lambda: problems.append(_post(self._hooks[channel], document, self._limit)), daemon=True
        )
        posting.start()
        posting.join(self._limit)
        problem = problems[0] if problems else f"it did not answer within {self._limit:g} s"
        if problem:
            raise AlertError(
                f"The alert did not arrive at the channel {channel}: {problem}. Check the URL in {VARIABLES[channel]} "
                f"and try it with: ml-assets alerts test --channel {channel}"
            )


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: what an alert says goes to the URL that was given, and nowhere else."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Return nothing, so that the status becomes an error."""
        del args, kwargs


def _post(url: str, document: Mapping[str, Any], limit: float) -> str:
    """Post JSON; return why it did not arrive, or nothing. The answer's body is not read."""
    headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "ml-assets"}
    try:
        request = Request(url, data=json.dumps(document).encode(), headers=headers, method="POST")  # noqa: S310 - checked
        with _opener(url).open(request, timeout=limit):
            return ""
    except HTTPError as error:  # its own words may repeat the URL
        error.close()
        return f"it answered with status {error.code}" + (", a redirect" if 300 <= error.code < 400 else "")
    except URLError as error:
        reason = error.reason
        return (reason.strerror or type(reason).__name__) if isinstance(reason, OSError) else "it cannot be reached"
    except (OSError, HTTPException, ValueError) as error:
        return f"the connection failed ({type(error).__name__})"


def _opener(url: str) -> OpenerDirector:
    return build_opener(_NoRedirect, *([ProxyHandler({})] if _is_loopback(urlsplit(url).hostname) else []))


def _checked(channel: str, url: str) -> str:
    wrong = f"The URL in {VARIABLES[channel]} cannot be used for alerts (it is a secret, and not shown): "
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise AlertError(f"{wrong}it is no URL. Expected https://…") from None
    if not url.isascii() or not url.isprintable() or " " in url:
        raise AlertError(f"{wrong}it has a blank or a character that is not ASCII. Expected https://…")
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(host))):
        raise AlertError(f"{wrong}expected https://…, or http:// with 127.0.0.1, [::1] or localhost.")
    return url


def _is_loopback(host: str | None) -> bool:
    try:
        return host == "localhost" or ip_address(host or "").is_loopback
    except ValueError:
        return False


def _document(alert: Alert) -> dict[str, Any]:
    told = {"kind": alert.kind, "pipeline": "/".join(alert.pipeline), "title": alert.title, "body": alert.body}
    return {**told, "key": alert.key, "at": datetime.now(UTC).isoformat(timespec="seconds")}


def _slack(alert: Alert) -> dict[str, Any]:
    return {"text": f"*{alert.title.translate(_UNSAFE)}*\n{alert.body.translate(_UNSAFE)}"}


def _one_line(text: str) -> str:
    """Return a text without line ends and control characters: nobody writes log lines of their own with it."""
    return "".join(c if c.isprintable() else " " for c in text)
