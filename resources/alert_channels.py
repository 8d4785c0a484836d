"""AlertChannels: sends alerts to the log, to a webhook and to a Slack-compatible hook."""

import logging
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

from ml_assets.errors import AlertError
from ml_assets.interfaces import Alert
from ml_assets.texts import visible_text
from resources.alert_posts import is_loopback, post
from resources.run_environment import ALERT_SLACK, ALERT_WEBHOOK

LIMIT_SECONDS = 10.0
LOG, WEBHOOK, SLACK = "log", "webhook", "slack"
VARIABLES = {WEBHOOK: ALERT_WEBHOOK, SLACK: ALERT_SLACK}
_LINE_END = "\n"
_LOGGER = logging.getLogger("ml_assets.alerts")
_UNSAFE = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "@": "@\u200b"})
"""Slack's own escapes make `<!channel>` and `<url|words>` plain text; Mattermost also reads `@all`, hence the
invisible space."""
_LINK = re.compile(r"\](?=[(\[:])")
"""Where Mattermost would make a link of `[words](url)`, `[words][name]` or `[name]: url`."""


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
        problem = post(self._hooks[channel], document, self._limit)
        if problem:
            raise AlertError(
                f"The alert did not arrive at the channel {channel}: {problem}. Check the URL in {VARIABLES[channel]} "
                f"and try it with: ml-assets alerts test --channel {channel}"
            )


def _checked(channel: str, url: str) -> str:
    wrong = f"The URL in {VARIABLES[channel]} cannot be used for alerts (it is a secret, and not shown): "
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise AlertError(f"{wrong}it is no URL. Expected https://…") from None
    if not url.isascii() or not url.isprintable() or " " in url:
        raise AlertError(f"{wrong}it has a blank or a character that is not ASCII. Expected https://…")
    if not host or not (parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))):
        raise AlertError(f"{wrong}expected https://…, or http:// with 127.0.0.1, [::1] or localhost.")
    return url


def _document(alert: Alert) -> dict[str, Any]:
    told = {"kind": alert.kind, "pipeline": "/".join(alert.pipeline), "title": alert.title, "body": alert.body}
    return {**told, "key": alert.key, "at": datetime.now(UTC).isoformat(timespec="seconds")}


def _slack(alert: Alert) -> dict[str, Any]:
    return {"text": f"*{_harmless(alert.title)}*\n{_harmless(alert.body, keep=_LINE_END)}"}


def _harmless(text: str, *, keep: str = "") -> str:
    """Return a text that a chat shows as it is: without mentions, links under other words, or hidden characters."""
    return _LINK.sub("]\u200b", visible_text(text, keep=keep).translate(_UNSAFE))


def _one_line(text: str) -> str:
    """Return a text without line ends and control characters: nobody writes log lines of their own with it."""
    return "".join(c if c.isprintable() else " " for c in text)
