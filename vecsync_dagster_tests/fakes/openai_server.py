"""A small real HTTP server that speaks OpenAI's POST /v1/embeddings and fails on demand.

    with OpenAIServer() as server:
        server.fail("rate_limit", headers={"Retry-After": "7"})   # the next request
        server.fail("server_error", times=3)                      # and the three after it
        ...  base_url=server.base_url ...
        assert server.answered == ["text", ...]                   # what was paid for

Vectors are made from the text alone. Error messages repeat the first text and the key, as real servers' may,
so that a test sees whether they leak.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["Fault", "OpenAIServer", "Partial", "Request", "vector_of"]

Fault = Literal[
    "broken_json",
    "cut",
    "empty",
    "forbidden",
    "hang",
    "html",
    "model_not_found",
    "nan",
    "out_of_order",
    "quota",
    "rate_limit",
    "rejected",
    "server_error",
    "too_few",
    "unauthorized",
    "unavailable",
    "wrong_dimensions",
    "wrong_size",
]

_STATUS: Mapping[str, tuple[int, str, str | None]] = {  # status, code, param
    "forbidden": (403, "unsupported_country_region_territory", None),
    "model_not_found": (404, "model_not_found", None),
    "quota": (429, "insufficient_quota", None),
    "rate_limit": (429, "rate_limit_exceeded", None),
    "rejected": (400, "invalid_input", "input"),
    "server_error": (500, "server_error", None),
    "unauthorized": (401, "invalid_api_key", None),
    "unavailable": (503, "server_overloaded", None),
    "wrong_dimensions": (400, "invalid_value", "dimensions"),
}


def vector_of(text: str, dimensions: int) -> NDArray[np.float32]:
    """The unit vector the server answers for a text, shape (dimensions,)."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).standard_normal(dimensions)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


@dataclass(frozen=True, slots=True)
class Request:
    """One request as it arrived, and what became of it: its fault, or "rejected", or None if all went well."""

    texts: list[str]
    model: str
    dimensions: int | None
    key: str | None
    fault: str | None


@dataclass(slots=True)
class _Reply:
    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Partial:
    """What a server that speaks a part of the API takes, how it refuses the rest, and how it answers.

    `formats`: None stands for a request that names none. `body`: of a refusal, the whole error object in `{message}`.
    `replaces`: parts of the answer. `base64_end`: what stands for each sign of padding.
    """

    formats: tuple[str | None, ...] = ("base64", "float", None)
    takes_dimensions: bool = True
    most_texts: int | None = None
    takes_nothing: bool = False
    status: int = 400
    body: str = '{"error": {"message": "bad request", "type": "invalid_request_error", "param": null, "code": null}}'
    leaves_out: tuple[str, ...] = ()
    replaces: Mapping[str, object] = field(default_factory=dict)
    base64_end: str = "="
    heeds_dimensions: bool = True
    model: str | None = None

    def refuses(self, body: Mapping[str, Any], texts: Sequence[str]) -> bool:
        return (
            self.takes_nothing
            or body.get("encoding_format") not in self.formats
            or ("dimensions" in body and not self.takes_dimensions)
            or (self.most_texts is not None and len(texts) > self.most_texts)
        )


class OpenAIServer:
    """`partial`: what it takes of the API.

    `rejects`: a text that holds this marker makes the server answer 400 for its whole request. `spoils`: one that holds
    this marker makes every request with it end in this fault; of "nan" and "wrong_size" its own vector alone is bad.

    `always_float`: answers lists of floats although base64 was asked for, as some servers do.
    `salt`: with another one it is another model.
    `meet`: a barrier that each request waits at, to prove that requests are under way at the same time.
    """

    def __init__(
        self,
        dimensions: int = 1536,
        rejects: str | None = None,
        *,
        always_float: bool = False,
        partial: Partial = Partial(),
        salt: str = "",
    ) -> None:
        self.partial = partial
        self.salt = salt
        self.dimensions = dimensions
        self.rejects = rejects
        self.spoils: tuple[str, Fault] | None = None
        self.always_float = always_float
        self.meet: threading.Barrier | None = None
        self.most_at_once = 0
        self._lock = threading.Lock()
        self._now = 0
        self._log: list[Request] = []
        self._faults: deque[tuple[Fault | None, Mapping[str, str]]] = deque()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> OpenAIServer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def fail(self, fault: Fault | None, times: int = 1, headers: Mapping[str, str] | None = None) -> None:
        """Let the next `times` requests (after those that were told to fail already) end in `fault`; None:
        answer them properly."""
        with self._lock:
            self._faults.extend([(fault, headers or {})] * times)

    def recover(self) -> None:
        """Forget all faults: from now on every request is answered properly."""
        with self._lock:
            self._faults.clear()

    @property
    def requests(self) -> list[Request]:
        with self._lock:
            return list(self._log)

    @property
    def asked(self) -> list[str]:
        """Every text of every request, in order of arrival, repetitions included."""
        return [text for request in self.requests for text in request.texts]

    @property
    def answered(self) -> list[str]:
        """The texts that were answered with their vectors: what a customer would have paid for."""
        fine = [request for request in self.requests if request.fault in (None, "out_of_order")]
        return [text for request in fine for text in request.texts]

    def handle(self, body: dict[str, Any], key: str | None) -> _Reply | None:
        """The answer to one request; None to cut the connection without one."""
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        with self._lock:
            fault, headers = self._faults.popleft() if self._faults else (None, {})
            rejected = fault is None and any(not text or (self.rejects or "\0") in text for text in texts)
            result: str | None = "rejected" if rejected else fault or self._spoiled(texts)
            if fault is None and self.partial.refuses(body, texts):
                result = "partial"
            self._log.append(Request(texts, body["model"], body.get("dimensions"), key, result))
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        try:
            if self.meet is not None:
                self.meet.wait()
            return self._reply(result, body, texts, key, headers)
        finally:
            with self._lock:
                self._now -= 1

    def _spoiled(self, texts: Sequence[str]) -> Fault | None:
        if self.spoils is None or not any(self.spoils[0] in text for text in texts):
            return None
        return self.spoils[1]

    def _reply(
        self, fault: str | None, body: dict[str, Any], texts: list[str], key: str | None, headers: Mapping[str, str]
    ) -> _Reply | None:
        if fault == "hang":
            self._closing.wait()
        if fault in ("hang", "cut"):
            return None
        if fault == "partial" or (fault == "rejected" and self.partial != Partial()):
            return _Reply(self.partial.status, self.partial.body.encode())
        if fault == "html":
            return _Reply(200, b"<html><body>Please log in</body></html>", "text/html")
        if fault == "broken_json":
            return _Reply(200, b'{"object": "list", "data": [{"ind')
        if fault is not None and fault in _STATUS:
            status, code, param = _STATUS[fault]
            message = f"{fault}: {texts[0]} with key {key}"
            error = {"error": {"message": message, "type": code, "param": param, "code": code}}
            return _Reply(status, json.dumps(error).encode(), headers=headers)
        as_float = self.always_float or body.get("encoding_format") != "base64"
        dimensions = (self.partial.heeds_dimensions and body.get("dimensions")) or self.dimensions
        marker = self.spoils[0] if self.spoils else ""
        answer = _answer(fault, [self.salt + text for text in texts], dimensions, as_float, marker)
        answer["model"] = self.partial.model or body["model"]
        answer.update(self.partial.replaces)
        for item in () if as_float else answer["data"]:
            item["embedding"] = item["embedding"].replace("=", self.partial.base64_end)
        for key in self.partial.leaves_out:
            for part in (answer, answer.get("usage", {}), *answer["data"]):
                part.pop(key, None)
        return _Reply(200, json.dumps(answer).encode())


def _answer(fault: str | None, texts: Sequence[str], dimensions: int, as_float: bool, marker: str) -> dict[str, Any]:
    """`marker`: of the texts whose vectors alone are bad; "" where all have another size, or the last one is NaN."""
    vectors = [vector_of(text, dimensions + (fault == "wrong_size" and marker in text)) for text in texts]
    if fault == "nan":
        for row in [row for row, text in enumerate(texts) if marker and marker in text] or [-1]:
            vectors[row][0] = np.nan
    data = [
        {"object": "embedding", "index": index, "embedding": vector.tolist() if as_float else _base64(vector)}
        for index, vector in enumerate(vectors)
    ]
    if fault == "out_of_order":
        data.reverse()
    kept = {"empty": 0, "too_few": len(data) - 1}.get(fault or "", len(data))
    tokens = sum(len(text.split()) for text in texts)
    return {"object": "list", "data": data[:kept], "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}


def _base64(vector: NDArray[np.float32]) -> str:
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()


def _handler(server: OpenAIServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = (self.headers["Authorization"] or "").removeprefix("Bearer ") or None
            if self.path != "/v1/embeddings":
                self._send(_Reply(404, b'{"error": {"message": "no such path", "code": "unknown_url"}}'))
                return
            reply = server.handle(body, key)
            if reply is None:
                self.close_connection = True
            else:
                self._send(reply)

        def _send(self, reply: _Reply) -> None:
            self.send_response(reply.status)
            headers = {"Content-Type": reply.content_type, "Content-Length": str(len(reply.body)), **reply.headers}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply.body)

        def log_message(self, *args: object) -> None:
            """Silent: tests read `requests`."""

    return Handler
