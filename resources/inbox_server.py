"""An HTTP endpoint for events: whoever has the token says that something arrived, and its run is submitted at once."""

import asyncio
import json
import logging
import os
import re
import secrets
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from ml_assets.delivery.boxes import is_partition
from ml_assets.delivery.push import Push
from ml_assets.delivery.settings import FILES
from ml_assets.errors import InboxError, MlAssetsError
from ml_assets.interfaces import Event, PipelinePath
from ml_assets.retraining.pauses import paused
from ml_assets.sources import LandingZone
from resources.inbox_requests import Notice, PostedEvent, PostedPlace, read_body

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse

SHORTEST_TOKEN = 24
LARGEST_BODY = 64_000
"""Bytes."""
BODY_SECONDS = 8.0
"""For all of a body; less than `READ_SECONDS` of a connection, so that whoever is slow is told."""
KEEP_ALIVE_SECONDS = 2
MOST_AT_ONCE = 200
"""Connections and requests; more are answered with 503."""
RETRY_SECONDS = 60
MOST_LOOKS = 10
"""How often a file that is not complete yet is looked at again; then the sensor finds it."""
HTTP = "http"
_log = logging.getLogger(__name__)


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


def build_app(pushes: Sequence[Push], token: str | None) -> "Starlette":
    """Return the application.

    Args:
        pushes: One for each code location.
        token: What callers must send as `Authorization: Bearer …`.

    Raises:
        MlAssetsError: If there is no token, or a short one.
    """
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    if token is None or len(token) < SHORTEST_TOKEN:
        raise MlAssetsError(
            f"The endpoint needs a token of at least {SHORTEST_TOKEN} characters in ML_ASSETS_INBOX_TOKEN, and starts "
            'with none else. Make one with `python -c "import secrets; print(secrets.token_urlsafe(32))"`.'
        )
    endpoint = Endpoint(pushes, token)

    async def healthz(_: "Request") -> "JSONResponse":
        return JSONResponse({"ok": True})

    return Starlette(
        routes=[
            Route("/v1/events", endpoint.post, methods=["POST"]),
            Route("/healthz", healthz, methods=["GET"]),
        ]
    )


class Endpoint:
    """Answers posts; the runs are submitted behind the answer, one after the other."""

    def __init__(self, pushes: Sequence[Push], token: str) -> None:
        self._pushes = {path: push for push in pushes for path in push.submission.pipelines}
        self._token = token.encode()
        self._tasks: set[asyncio.Task[None]] = set()
        self._submitting = asyncio.Lock()

    async def post(self, request: "Request") -> "JSONResponse":
        """Answer one post."""
        from starlette.responses import JSONResponse

        try:
            self._require_token(request)
            body = await _json_body(request)
            status, answer = await self._take(read_body(body))
        except Refusal as refusal:
            status, answer = refusal.status, {"error": str(refusal)}
        except InboxError as error:
            status, answer = 422, {"error": str(error)}
        except MlAssetsError:
            _log.exception("an event could not be taken up")
            status, answer = 503, {"error": "The event was not taken up; send it again later."}
        headers = {"Retry-After": str(RETRY_SECONDS)} if status in (429, 503) else {}
        if status == 401:
            headers = {"WWW-Authenticate": "Bearer"}
        if status in (401, 408, 413):  # what is left of the body is not waited for
            headers["Connection"] = "close"
        return JSONResponse(answer, status_code=status, headers=headers)

    def _require_token(self, request: "Request") -> None:
        kind, _, given = request.headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), self._token):
            raise Refusal(401, "Send the inbox's token as `Authorization: Bearer …`.")

    async def _take(self, posted: PostedEvent | PostedPlace | Notice) -> tuple[int, dict[str, Any]]:
        if isinstance(posted, PostedEvent):
            return await self._take_event(posted)
        if isinstance(posted, PostedPlace):
            return await self._take_place(posted.path, posted.place, look=1)
        answers = []
        for place in posted.places:
            for path in await asyncio.to_thread(self._owners, place):
                status, answer = await self._take_place(path, place, look=1)
                if status != 404:
                    answers.append({"place": place, "status": status, **answer})
        worst = max((a["status"] for a in answers if a["status"] != 422), default=200)
        return worst, {"events": answers}

    def _owners(self, place: str) -> list[PipelinePath]:
        """Return the pipelines that a file is of by its name, of all code locations."""
        pushes = {id(push): push for push in self._pushes.values()}
        return [path for push in pushes.values() for path in push.owners(place)]

    async def _take_event(self, posted: PostedEvent) -> tuple[int, dict[str, Any]]:
        push = self._push(posted.path)
        if not is_partition(push.submission.pipelines[posted.path].spec, posted.partition):
            raise Refusal(422, f"{posted.pipeline} has no partition {posted.partition!r}.")
        event = Event(
            source=HTTP, key=posted.key, pipeline=posted.path, partition=posted.partition, payload=posted.payload
        )
        receipt = await asyncio.to_thread(push.take_up, event, now=_now())
        if receipt.refused:
            return _over_the_rate()
        if receipt.repeated:
            return 200, {"repeated": True}
        answer = {"number": receipt.new[0].number} | await self._pause(posted.path)
        settings = await asyncio.to_thread(push.settings, posted.path)
        self._later(self._deliver(posted.path, settings.wait_after(HTTP)))
        return 202, answer

    async def _take_place(self, path: PipelinePath, place: str, *, look: int) -> tuple[int, dict[str, Any]]:
        push = self._push(path)
        landing = push.services.landing
        became = await asyncio.to_thread(push.take_file, path, place, now=_now())
        if became.fate == "received" and became.event is not None:
            settings = await asyncio.to_thread(push.settings, path)
            self._later(self._deliver(path, settings.wait_after(FILES)))
            return 202, {"number": became.event.number} | await self._pause(path)
        if became.fate == "waiting":
            if look < MOST_LOOKS:
                self._later(self._look_again(path, place, look + 1))
            return 202, {"waiting": below(landing, became.reason)}
        if became.fate == "refused":
            return _over_the_rate()
        if became.fate == "buried" and became.event is not None:  # its own reason is about folders of this machine
            wrong = str(became.event.event.payload.get("reason", ""))
            aside = f"It could not be put into quarantine; dead letter {became.event.number} says why."
            return 422, {"error": f"{below(landing, wrong)} {aside}", "fate": became.fate}
        if became.fate == "quarantined":
            return 422, {"error": below(landing, became.reason), "fate": became.fate}
        if became.fate in ("not_ours", "gone"):
            return 404, {"error": became.reason}
        in_vain = became.fate == "unchanged" and became.reason
        return 200, {"repeated": True} | ({"given_up": became.reason} if in_vain else {})

    async def _pause(self, path: PipelinePath) -> dict[str, str]:
        """Return why an event waits though it was taken up, when its pipeline is paused."""
        pause = await asyncio.to_thread(paused, self._push(path).services.ledger, path)
        return {} if pause is None else {"waiting": f"{pause}."}

    async def _look_again(self, path: PipelinePath, place: str, look: int) -> None:
        """Look at a file that may be complete by now."""
        settings = await asyncio.to_thread(self._push(path).settings, path)
        await asyncio.sleep(max(0.1, settings.settle.total_seconds()))
        await self._take_place(path, place, look=look)

    async def _deliver(self, path: PipelinePath, wait: timedelta) -> None:
        await asyncio.sleep(wait.total_seconds())
        push = self._push(path)
        async with self._submitting:
            if changed := await asyncio.to_thread(push.submission.changed):
                _log.warning("The code changed (%s): runs are left to the sensor until this is restarted.", changed[0])
                return
            run_ids = await asyncio.to_thread(push.deliver, path, now=_now())
        for run_id in run_ids:
            _log.info("submitted run %s of %s", run_id, "/".join(path))

    def _push(self, path: PipelinePath) -> Push:
        if path not in self._pushes:
            known = ", ".join(sorted("/".join(p) for p in self._pushes)) or "none"
            raise Refusal(404, f"No pipeline {'/'.join(path)} starts by events here; those that do: {known}.")
        return self._pushes[path]

    def _later(self, work: Any) -> None:
        """Do something behind the answer; when it fails, the sensor does it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("A run was not pushed; the sensor will submit it.", exc_info=error)


def serve(app: "Starlette", *, host: str, port: int, ready: Any = None) -> None:
    """Serve until SIGINT or SIGTERM.

    Args:
        app: The application.
        host: Address to listen on.
        port: Port, or 0 for a free one.
        ready: Called with the real port once the socket listens.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise MlAssetsError(
                f"{host}:{port} cannot be listened on: {error.strerror}. Name another --port."
            ) from error
        listening.listen(128)
        if ready is not None:
            ready(listening.getsockname()[1])
        make_server(app).run(sockets=[listening])


def make_server(app: "Starlette") -> "uvicorn.Server":
    """Return the server of an application; it ends on SIGINT and SIGTERM, or when `should_exit` is set."""
    import uvicorn

    from resources.inbox_connections import TimedConnection

    # The access log is off: a proxy in front has one, and no header may reach a log.
    return uvicorn.Server(
        uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            http=TimedConnection,
            ws="none",
            limit_concurrency=MOST_AT_ONCE,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=10,
        )
    )


def below(landing: LandingZone, text: str) -> str:
    """Return a text with places in the landing zone named from there: callers need not know this machine's folders."""
    roots, local = {landing.root.rstrip("/")}, landing.local_path("")
    if local is not None:
        roots |= {str(local.absolute()), os.path.realpath(local)}
    for root in sorted((root for root in roots if root.startswith("/") or "://" in root), key=len, reverse=True):
        text = text.replace(f"{root}/", "")
        text = re.sub(rf"{re.escape(root)}(?![\w.-])", "the landing zone", text)
    return text


def _now() -> datetime:
    return datetime.now(UTC)


def _over_the_rate() -> tuple[int, dict[str, Any]]:
    return 429, {"error": "Too many new events of this pipeline within a minute; send it again later."}


async def _json_body(request: "Request") -> Any:
    from starlette.requests import ClientDisconnect

    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > LARGEST_BODY:
        raise Refusal(413, f"The body is larger than {LARGEST_BODY} bytes.")
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > LARGEST_BODY:
                    raise Refusal(413, f"The body is larger than {LARGEST_BODY} bytes.")
    except ClientDisconnect as error:
        raise Refusal(400, "The body was not complete.") from error
    except TimeoutError as error:
        raise Refusal(408, f"The body was not complete within {BODY_SECONDS:g} s; send it again.") from error
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"The body is not JSON: {error}") from error
