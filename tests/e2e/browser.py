"""Drives a headless Chromium by its DevTools protocol: opens pages, waits for what they show, and takes pictures."""

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from tests.e2e.programs import fetch_json, processes_of, wait_for

CHROMIUM = shutil.which("chromium") or ""
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-port=0",
)
LARGEST_MESSAGE_BYTES = 64 * 2**20


@dataclass(kw_only=True)
class Page:
    """One tab of the browser.

    Attributes:
        connection: Its DevTools connection.
        patience_seconds: How long it waits for what a page should show.
    """

    connection: ClientConnection
    patience_seconds: float = 60.0
    _ids: Iterator[int] = field(default_factory=lambda: count(1))

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call a DevTools method and return its result; events that arrive meanwhile are dropped."""
        number = next(self._ids)
        self.connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self.connection.recv(timeout=self.patience_seconds))
            if message.get("id") == number:
                assert "error" not in message, (method, message)
                return message["result"]

    def resize(self, width: int, height: int, *, scale: float = 1.0) -> None:
        """Give the page a size in its own pixels; pictures of it are `scale` times as large."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=False
        )

    def open(self, url: str) -> None:
        """Go to an address; what the page shows comes later."""
        answer = self.call("Page.navigate", url=url)
        assert "errorText" not in answer, (url, answer)

    def value(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def text(self) -> str:
        """Return the text that the page shows."""
        return self.value("document.body ? document.body.innerText : ''") or ""

    def wait_for_text(self, *wanted: str) -> str:
        """Wait until the page shows all of these texts, and return all that it shows."""

        def shown() -> str | None:
            text = self.text()
            return text if all(part in text for part in wanted) else None

        try:
            return wait_for(f"{wanted} on the page", shown, timeout_seconds=self.patience_seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; it shows:\n{self.text()}") from error

    def wait_until(self, what: str, expression: str) -> Any:
        """Wait until a JavaScript expression is true, and return its value."""
        return wait_for(what, lambda: self.value(expression), timeout_seconds=self.patience_seconds)

    def click(self, text: str) -> None:
        """Click the first button, link or tab with exactly this text."""
        found = json.dumps(text)
        self.wait_until(
            f"something to click that reads {text!r}",
            "(() => { const all = [...document.querySelectorAll('button, a, [role=tab]')];"
            f" const one = all.find(e => e.innerText.trim() === {found}); if (one) one.click(); return !!one; }})()",
        )

    def picture(self, file: Path) -> None:
        """Save what the page shows as a PNG, once nothing in it moves any more."""
        taken: list[bytes] = []

        def still() -> bool:
            taken.append(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
            return len(taken) > 1 and taken[-1] == taken[-2]

        wait_for("a still picture", still, timeout_seconds=60, every_seconds=0.4)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(taken[-1])


@contextmanager
def chromium(folder: Path) -> Iterator[Page]:
    """Run Chromium on a profile of its own in an empty folder; at the end nothing of it is left running.

    The folder stands in the environment of all its processes as ML_ASSETS_STATE does in the project's own, so
    that they can be found.
    """
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
        env={**os.environ, "ML_ASSETS_STATE": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = wait_for("Chromium's port", lambda: _port(folder / "DevToolsActivePort"), timeout_seconds=60)
        (target,) = [t for t in fetch_json(f"http://127.0.0.1:{port}/json/list") if t["type"] == "page"]
        with connect(target["webSocketDebuggerUrl"], max_size=LARGEST_MESSAGE_BYTES) as connection:
            page = Page(connection=connection)
            page.call("Page.enable")
            yield page
            page.call("Browser.close")
        process.wait(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    wait_for("an end of all of Chromium", lambda: not processes_of(folder), timeout_seconds=60)


def _port(address: Path) -> str | None:
    """Return the port that Chromium listens on; its file exists, and is empty, for a moment before it is written."""
    lines = address.read_text(encoding="utf-8").splitlines() if address.exists() else []
    return lines[0] if len(lines) == 2 else None
