"""The HTTP face of the API server: reads a request, lets it wait or fail when a test says so, and answers."""

import base64
import json
import select
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.kubernetes.double import validation
from tests.kubernetes.double.api import Api
from tests.kubernetes.double.objects import ApiError, Obj, without_none
from tests.kubernetes.double.rbac import Authorizer, Request, User
from tests.kubernetes.double.routes import Target, discovery, target_of, verb_of
from tests.kubernetes.double.streams import Watch, is_true, open_log

KUBELET_AGENT = "process-kubelet"
"""User-Agent of the double's own kubelet: not audited, not slowed, not failed."""
_REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
Fault = Callable[[str, str], int | None]


@dataclass
class Frontend:
    """What handlers share: the API, who may use it, what was asked, and the faults that tests switch on."""

    api: Api
    authorizer: Authorizer
    schema_version: str | None
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    delay: float = 0.0


def handler_for(frontend: Frontend) -> type[BaseHTTPRequestHandler]:
    """Return a handler class bound to a frontend."""
    return type("BoundHandler", (ApiHandler,), {"frontend": frontend})


class ApiHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    frontend: Frontend

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Requests are in `Frontend.requests`."""

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = lambda self: self._answer()  # noqa: N815 - the base class's names

    def _answer(self) -> None:
        raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        try:
            self._disturb()
            self._route(url.path, query, self._body(raw))
        except ApiError as error:
            self._send(error.code, error.status())
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _body(self, raw: bytes) -> Any:
        if "protobuf" in (self.headers.get("Content-Type") or ""):
            raise ApiError(415, "the double takes JSON only: `kubectl apply -f FILE` instead of `kubectl create KIND`")
        try:
            return json.loads(raw) if raw else None
        except ValueError as error:
            raise ApiError(400, f"the body of the request is no JSON: {error}") from None

    def _disturb(self) -> None:
        if self.headers.get("User-Agent") == KUBELET_AGENT:
            return
        if self.frontend.delay:
            time.sleep(self.frontend.delay)
        for fault in list(self.frontend.faults):
            code = fault(self.command, self.path)
            if code:
                raise ApiError(code, "a fault that the test asked for")

    def _route(self, path: str, query: dict[str, str], body: Any) -> None:
        if path in ("/healthz", "/livez", "/readyz"):
            self._send(200, b"ok", "text/plain")
            return
        user = self.frontend.authorizer.user(self.headers.get("Authorization"))
        page = discovery(path)
        if page is not None:
            self._send(200, page)
            return
        if path == _REVIEW:
            self._send(201, self._review(user, body))
            return
        target = target_of(path)
        verb = verb_of(self.command, target, watch=is_true(query.get("watch")))
        resource = "/".join(filter(None, [target.resource.plural, target.subresource]))
        asked = Request(
            verb=verb, group=target.resource.group, resource=resource, namespace=target.namespace, name=target.name
        )
        self.frontend.authorizer.check(user, asked)
        if verb == "watch":
            self._watch(target, query)
        elif target.subresource == "log":
            self._log(target, query)
        elif verb == "list":
            self._send(200, self._list(target, query))
        else:
            code, answer = self._change(verb, target, query, body)
            self._send(code, answer)

    def _list(self, target: Target, query: dict[str, str]) -> Obj:
        api, resource = self.frontend.api, target.resource
        with api.store.lock:
            revision = api.store.revision
            items = api.list(
                resource.plural,
                resource.group,
                target.namespace,
                query.get("labelSelector", ""),
                query.get("fieldSelector", ""),
            )
        meta: Obj = {"resourceVersion": str(revision)}
        if query.get("continue"):
            after = json.loads(base64.urlsafe_b64decode(query["continue"]))
            items = [item for item in items if _place(item) > tuple(after)]
        limit = int(query.get("limit") or 0)
        if limit and len(items) > limit:
            meta["remainingItemCount"] = len(items) - limit
            items = items[:limit]
            meta["continue"] = base64.urlsafe_b64encode(json.dumps(_place(items[-1])).encode()).decode()
        return {"kind": f"{resource.kind}List", "apiVersion": resource.api_version, "metadata": meta, "items": items}

    def _change(self, verb: str, target: Target, query: dict[str, str], body: Any) -> tuple[int, Obj]:
        api, resource, key = self.frontend.api, target.resource, target.key
        if query.get("dryRun"):
            raise ApiError(400, "the double has no dryRun; create the object and delete it")
        if verb == "get":
            return 200, api.get(key)
        options = body if isinstance(body, dict) else {}
        if verb == "create":
            if not isinstance(body, dict):
                raise ApiError(400, "an object in JSON is expected as the body of the request")
            if target.subresource == "eviction":
                api.evict(key)
                return 201, _success(201)
            if target.subresource == "token":
                return 201, self._token(target, body)
            if resource.namespaced != bool(target.namespace) or target.name:
                raise ApiError(
                    405, f"{resource.plural} are created in {'a namespace' if resource.namespaced else 'no namespace'}"
                )
            whole = without_none({"apiVersion": resource.api_version, "kind": resource.kind, **body})
            validation.check_schema(whole, self.frontend.schema_version)
            return 201, api.create(resource.group, resource.plural, target.namespace, whole)
        status = target.subresource == "status"
        if verb == "update":
            return 200, api.update(key, without_none(options), status=status)
        if verb == "patch":
            content_type = (self.headers.get("Content-Type") or "").partition(";")[0].strip()
            return 200, api.patch(key, content_type, body, status=status)
        grace = query.get("gracePeriodSeconds", options.get("gracePeriodSeconds"))
        wishes: dict[str, Any] = {
            "grace": None if grace is None else int(grace),
            "propagation": query.get("propagationPolicy") or options.get("propagationPolicy"),
        }
        if verb == "delete":
            gone = api.delete(key, uid=(options.get("preconditions") or {}).get("uid"), **wishes)
            if resource.plural == "pods" or gone["metadata"].get("finalizers"):
                return 200, gone
            return 200, _success(
                200, {"name": key.name, "group": key.group, "kind": key.plural, "uid": gone["metadata"]["uid"]}
            )
        for obj in self._list(target, {**query, "limit": "0"})["items"]:
            api.delete(
                target.key._replace(namespace=obj["metadata"].get("namespace") or "", name=obj["metadata"]["name"]),
                **wishes,
            )
        return 200, _success(200)

    def _token(self, target: Target, body: Obj) -> Obj:
        seconds = float((body.get("spec") or {}).get("expirationSeconds") or 3600)
        token = self.frontend.authorizer.issue(target.key, seconds=seconds)
        expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))
        return {
            "kind": "TokenRequest",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": {"name": target.name, "namespace": target.namespace},
            "spec": {"expirationSeconds": int(seconds), **(body.get("spec") or {})},
            "status": {"token": token, "expirationTimestamp": expires},
        }

    def _review(self, user: User, body: Any) -> Obj:
        asked = ((body or {}).get("spec") or {}).get("resourceAttributes") or {}
        resource = "/".join(filter(None, [asked.get("resource", ""), asked.get("subresource", "")]))
        request = Request(
            verb=asked.get("verb", ""),
            group=asked.get("group", ""),
            resource=resource,
            namespace=asked.get("namespace", ""),
            name=asked.get("name", ""),
        )
        allowed = not self.frontend.authorizer.enforced or self.frontend.authorizer.allows(user, request)
        return {**(body or {}), "status": {"allowed": allowed}}

    def _watch(self, target: Target, query: dict[str, str]) -> None:
        watch = Watch(self.frontend.api.store, target, query)
        self._begin_stream("application/json")
        watch.run(self._chunk, self._nobody_listens)
        self.wfile.write(b"0\r\n\r\n")

    def _log(self, target: Target, query: dict[str, str]) -> None:
        request = open_log(self.frontend.api.store, target.key, query)
        try:
            with urllib.request.urlopen(request, timeout=30 if not is_true(query.get("follow")) else None) as answer:  # noqa: S310
                if not is_true(query.get("follow")):
                    self._send(200, answer.read(), "text/plain")
                    return
                self._begin_stream("text/plain")
                while part := answer.read1(65536):
                    self._chunk(part)
                self.wfile.write(b"0\r\n\r\n")
        except urllib.error.HTTPError as error:
            raise ApiError(error.code, error.read().decode(errors="replace")) from None
        except urllib.error.URLError as error:
            raise ApiError(500, f"the kubelet of pod {target.name} does not answer: {error.reason}") from None

    def _nobody_listens(self) -> bool:
        closing = getattr(self.server, "closing", None)
        if closing is not None and closing.is_set():
            return True
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable)  # a client that watches sends nothing: readable means that it hung up

    def _begin_stream(self, content_type: str) -> None:
        self._record(200)
        self.send_response(200)
        self.send_header("Content-Type", content_type)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def _chunk(self, data: bytes) -> None:
        if data:
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _send(self, code: int, body: Obj | bytes, content_type: str = "application/json") -> None:
        self._record(code)
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _record(self, code: int) -> None:
        if self.headers.get("User-Agent") != KUBELET_AGENT:
            self.frontend.requests.append((self.command, self.path, code))


def _place(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace") or "", obj["metadata"]["name"]


def _success(code: int, details: Obj | None = None) -> Obj:
    status: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code}
    return {**status, "details": details} if details else status
