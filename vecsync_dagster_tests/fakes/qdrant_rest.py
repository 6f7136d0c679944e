"""A small Qdrant server on loopback: the real REST protocol over the client's own in-memory engine.

    with QdrantRest() as server:
        client = QdrantClient(url=server.url)
        server.fail(status=429, times=2, retry_after=1)

Like the real one it answers 404 / 400 / 409, refuses a payload operation that names a missing point after
having applied the rest of it, and applies a write that does not `wait` only later (here: `settle`).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import ValidationError
from qdrant_client import QdrantClient, models

from vecsync_dagster_tests.fakes.qdrant_routes import Refused, Route, find_route

__all__ = ["QdrantRest", "Seen"]


class Seen(NamedTuple):
    """A request that arrived, faults included. `path` is without the query."""

    method: str
    path: str


@dataclass
class _Fault:
    """`left` more requests whose method and path ("PUT /collections/c/points") contain `path_contains` suffer it."""

    left: int
    path_contains: str = ""
    status: int | None = None
    retry_after: float | str | None = None
    hang_s: float = 0.0
    cut: bool = False
    stall: bool = False
    message: str = "fault on demand"
    spares: bytes | None = None


class QdrantRest:
    """`api_key`: every request but `GET /` must carry it.

    `requests`: what arrived, in order. `indexes`: (collection, payload key) -> schema, which the in-memory
    engine itself does not keep. `max_body`: a larger request is answered with `too_large`, 400 as the server does
    itself, 413 as a proxy before it does. `body_sizes`, `answer_sizes`: of all requests.
    """

    def __init__(self, api_key: str | None = None, max_body: int = 32 * 2**20) -> None:
        self.requests: list[Seen] = []
        self.body_sizes: list[int] = []
        self.answer_sizes: list[int] = []
        self.max_body = max_body
        self.too_large = 400
        self.indexes: dict[tuple[str, str], models.PayloadFieldSchema | None] = {}
        self._api_key = api_key
        self._engine = QdrantClient(":memory:")
        self._one_at_a_time = threading.Lock()  # the in-memory engine knows no threads
        self._faults: list[_Fault] = []
        self._queued: list[Callable[[], object]] = []
        self._ending = threading.Event()
        self._http = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()
        self._engine.close()

    def fail(
        self,
        *,
        status: int,
        times: int = 1,
        retry_after: float | str | None = None,
        path_contains: str = "",
        message: str = "fault on demand",
        spares: bytes | None = None,
    ) -> None:
        """Answer the next `times` requests with `status`, without doing anything; not those that contain `spares`."""
        fault = _Fault(times, path_contains, status, retry_after, message=message, spares=spares)
        self._faults.append(fault)

    def hang(self, seconds: float, times: int = 1, path_contains: str = "") -> None:
        """Answer the next `times` requests `seconds` late."""
        self._faults.append(_Fault(times, path_contains, hang_s=seconds))

    def cut_after_write(self, times: int = 1, path_contains: str = "") -> None:
        """Do the next `times` writes, then close their connection without an answer."""
        self._faults.append(_Fault(times, path_contains, cut=True))

    def stall(self, times: int = 1, path_contains: str = "") -> None:
        """Only queue the next `times` writes of points although they wait, as a server that runs out of time."""
        self._faults.append(_Fault(times, path_contains, stall=True))

    def recover(self) -> None:
        """Forget all faults: from now on every request is answered."""
        with self._one_at_a_time:
            self._faults.clear()

    def settle(self) -> None:
        """Apply what was queued."""
        with self._one_at_a_time:
            while self._queued:
                self._queued.pop(0)()

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> _Answer | None:
        """What to send back; None: close the connection instead."""
        url = urlsplit(target)
        self.requests.append(Seen(method, url.path))
        self.body_sizes.append(len(body))
        if len(body) > self.max_body:
            return _refusal(self.too_large, f"Payload error: JSON payload ({len(body)} bytes) is larger than allowed")
        route = find_route(method, url.path)
        fault = self._next_fault(f"{method} {url.path}", body, writes=route is not None and route.writes)
        if fault is not None and fault.hang_s:
            self._ending.wait(fault.hang_s)
        if fault is not None and fault.status is not None:
            return _refusal(fault.status, fault.message, fault.retry_after)
        if self._api_key is not None and url.path != "/" and headers.get("api-key") != self._api_key:
            return _refusal(401, "Must provide an API key or an Authorization bearer token")
        if route is None:
            return _refusal(404, "no such endpoint")
        status = None if parse_qs(url.query).get("wait") == ["true"] else models.UpdateStatus.ACKNOWLEDGED
        if fault is not None and fault.stall:
            status = models.UpdateStatus.WAIT_TIMEOUT
        answer = self._apply(route, body, queued_as=status)
        return None if fault is not None and fault.cut else answer

    def _next_fault(self, request: str, body: bytes, *, writes: bool) -> _Fault | None:
        with self._one_at_a_time:
            for fault in self._faults:
                if fault.spares is not None and fault.spares in body:
                    continue
                if fault.left > 0 and fault.path_contains in request and (writes or not (fault.cut or fault.stall)):
                    fault.left -= 1
                    return fault
        return None

    def _apply(self, route: Route, body: bytes, *, queued_as: models.UpdateStatus | None) -> _Answer:
        try:
            request = route.parse(body)
            with self._one_at_a_time:
                if route.may_wait and queued_as is not None:
                    self._queued.append(lambda: route.run(self._engine, request))
                    queued = models.UpdateResult(operation_id=0, status=queued_as)
                    result: object = queued
                    if isinstance(request, models.UpdateOperations):
                        result = [queued] * len(request.operations)
                else:
                    result = route.run(self._engine, request)
            if isinstance(request, models.CreateFieldIndex):
                self.indexes[route.name, request.field_name] = request.field_schema
        except ValidationError as error:
            return _refusal(400, f"Format error in JSON body: {error.error_count()} errors")
        except Refused as error:
            return _refusal(error.status, str(error))
        if route.bare:
            return _Answer(200, result)
        return _Answer(200, {"result": result, "status": "ok", "time": 0.0})


@dataclass(frozen=True)
class _Answer:
    status: int
    content: object
    retry_after: float | str | None = None


def _refusal(status: int, message: str, retry_after: float | str | None = None) -> _Answer:
    return _Answer(status, {"status": {"error": message}, "time": 0.0}, retry_after)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up waiting is what faults are for; nothing to tell."""


def _handler(server: QdrantRest) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_request(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            headers = {key.lower(): value for key, value in self.headers.items()}
            answer = server.answer(self.command, self.path, headers, body)
            if answer is None:
                self.close_connection = True
                return
            content = json.dumps(answer.content, default=_jsonable).encode()
            server.answer_sizes.append(len(content))
            self.send_response(answer.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            if answer.retry_after is not None:
                self.send_header("retry-after", str(answer.retry_after))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = handle_request  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Quiet."""

    return Handler


def _jsonable(value: Any) -> Any:
    return value.model_dump(mode="json")
