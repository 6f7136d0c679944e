"""One request for embeddings: sent within the limits, tried again, checked, its errors mapped to ours."""

from __future__ import annotations

import atexit
import base64
import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from http import HTTPStatus

import anyio
import httpx2
import numpy as np
import stamina
from aiolimiter import AsyncLimiter
from anyio.from_thread import start_blocking_portal
from numpy.typing import NDArray
from openai import APIError, APIStatusError, AsyncOpenAI
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vecsync_dagster.config.models import OpenAIProvider as OpenAIConfig
from vecsync_dagster.embedding.base import Embedded
from vecsync_dagster.embedding.openai_dialect import NOT_THERE, Form, dialect_of, may_be_the_request
from vecsync_dagster.embedding.openai_errors import limit_wait, mapped, retry_wait
from vecsync_dagster.embedding.vectors import check_vectors
from vecsync_dagster.errors import (
    EmbeddingMisconfigured,
    EmbeddingRejected,
    EmbeddingUnavailable,
    VecsyncError,
)
from vecsync_dagster.request_logs import urls_unlogged

__all__ = ["Remote"]

_CONNECT_TIMEOUT_S = 5.0
_FIRST_WAIT_S = 2.0
_LONGEST_WAIT_S = 60.0
_LOOK_AGAIN_S = 0.02
_PROBE = "vecsync"
_REFUSES = ("error", "detail", "message")


@dataclass(slots=True)
class _Spent:
    """What one request for texts took, with those that were refused, tried again, or asked for a short text alone.
    `once`: it may take no other attempt."""

    once: bool = False
    api_calls: int = 0
    tokens: int = 0


class Remote:
    """The event loop, in a thread of its own, in which the client and its limits live."""

    def __init__(self, config: OpenAIConfig, key: str, base_url: str, dimensions: int) -> None:
        self._config = config
        self._dimensions = dimensions
        self._client = AsyncOpenAI(
            api_key=key,
            base_url=base_url,
            max_retries=0,
            timeout=httpx2.Timeout(config.timeout_s, connect=min(_CONNECT_TIMEOUT_S, config.timeout_s)),
        )
        self._dialect = dialect_of(base_url, config.model, config.dimensions)
        self._slots = anyio.CapacityLimiter(config.parallel_requests)
        self._rate = AsyncLimiter(config.requests_per_minute, 60)
        self._lock = threading.Lock()
        self._closed = False
        self._under_way: set[Future[Embedded]] = set()
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal(name="vecsync-openai"))
        # Without this a process that forgets to close hangs at its end: the loop's thread is gone by the time
        # the portal is collected, and the portal waits for it.
        atexit.register(self.close)

    @property
    def most_texts(self) -> int:
        """How many texts a request may have, as configured and as the server turned out to take."""
        return min(self._config.texts_per_request, self._dialect.most_texts or self._config.texts_per_request)

    def embed(self, texts: Sequence[str], tokens: int, *, once: bool = False) -> Future[Embedded]:
        """Sends one request as soon as there is a slot; the future holds the vectors or an Embedding* error. `once`:
        it is not tried again, unless the server limits the rate.

        It is cancelled if `close` comes first; afterwards EmbeddingUnavailable is raised here.
        """
        with self._lock:
            if self._closed:
                raise EmbeddingUnavailable(f"openai {self._config.model}: closed", closed=True)
            future = self._portal.start_task_soon(self._embed, list(texts), tokens, once)
            self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def close(self) -> None:
        """Ends the loop and cancels the requests that are under way."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        atexit.unregister(self.close)
        # Before the client closes: otherwise they would go on to their next attempt with a closed client.
        for future in list(self._under_way):
            future.cancel()
        self._portal.call(self._client.close)
        self._stack.close()

    async def _embed(self, texts: list[str], tokens: int, once: bool) -> Embedded:
        spent = _Spent(once=once)
        async with self._slots:
            try:
                vectors = await self._in_any_form(texts, tokens, spent)
            except VecsyncError as error:
                if isinstance(error, EmbeddingRejected):
                    self._dialect.refused(texts)
                error.api_calls = spent.api_calls
                raise
        return Embedded(vectors, spent.tokens, spent.api_calls)

    async def _in_any_form(self, texts: list[str], tokens: int, spent: _Spent) -> NDArray[np.float32]:
        form = self._dialect.form
        try:
            return await self._in_form(form, texts, tokens, spent)
        except (EmbeddingRejected, EmbeddingMisconfigured, EmbeddingUnavailable) as error:
            if not may_be_the_request(error, form):
                raise
            other = await self._find_form(error, form, spent)
            # Vectors of another size are no refusal: now that a short text's have the right one, they are asked again.
            if other == form and "received" not in error.fields:
                if not isinstance(error, EmbeddingMisconfigured):
                    raise
                if error.fields["status"] == HTTPStatus.OK:  # which says nothing of whether it would pass
                    with suppress(EmbeddingMisconfigured):
                        return await self._in_form(form, texts, tokens, spent)
                told = "openai {model}: status {status}, while others are answered".format(**error.fields)
                raise EmbeddingRejected(told, **error.fields) from None
        return await self._in_form(other, texts, tokens, spent)

    async def _find_form(self, error: VecsyncError, refused: Form, spent: _Spent) -> Form:
        """The first form in which the server answers a short text; `refused` itself means: it was about the texts, or
        an outage."""
        outage = isinstance(error, EmbeddingUnavailable)
        status = error.fields["status"]
        # Others that look for it are threads of their own, and this one's loop has more to do than to wait.
        while not self._dialect.finding.acquire(blocking=False):
            await anyio.sleep(_LOOK_AGAIN_S)
        try:
            known = self._dialect.proven and not isinstance(error, EmbeddingMisconfigured)
            if known or self._dialect.form != refused:
                return self._dialect.form
            if not self._dialect.hopeless(status):
                for form in self._dialect.candidates(status):
                    if await self._answers(form, spent, once=outage):
                        return form
                self._dialect.gave_up(status)
        finally:
            self._dialect.finding.release()
        if outage:
            return refused
        if status in NOT_THERE:
            raise error  # it says so itself
        settings = "`model`, `base_url`" + (" or `dimensions`" if self._config.dimensions else "")
        raise EmbeddingMisconfigured(
            f"{error}: the server refuses this request with any text; check {settings}", **error.fields
        )

    async def _answers(self, form: Form, spent: _Spent, *, once: bool) -> bool:
        """Whether the server answers a short text in that form; `once`: failing is no answer either."""
        try:
            await self._in_form(form, [_PROBE], 1, spent, once=once)
        except EmbeddingRejected:
            return False
        except EmbeddingUnavailable:
            if not once:
                raise
            return False
        except EmbeddingMisconfigured as misconfigured:
            if "received" in misconfigured.fields:
                raise
            return False
        return True

    async def _in_form(
        self, form: Form, texts: list[str], tokens: int, spent: _Spent, *, once: bool = False
    ) -> NDArray[np.float32]:
        """Tried again while the error is transient; with `once` only where the server limits the rate."""
        async for attempt in stamina.retry_context(
            on=limit_wait if once or spent.once else retry_wait,
            attempts=self._config.attempts,
            timeout=None,
            wait_initial=_FIRST_WAIT_S,
            wait_max=_LONGEST_WAIT_S,
        ):
            with attempt:
                body = await self._send(form, texts, spent)
                vectors, billed = self._read(body, len(texts))
                self._dialect.accepted(form, texts)
                spent.tokens += tokens if billed is None else billed
                return vectors
        raise AssertionError("stamina returns or raises")

    def _body(self, form: Form, texts: list[str]) -> dict[str, object]:
        body: dict[str, object] = {"input": texts, "model": self._config.model}
        if form.dimensions:
            body["dimensions"] = self._config.dimensions
        if form.encoding is not None:
            body["encoding_format"] = form.encoding
        return body

    async def _send(self, form: Form, texts: list[str], spent: _Spent) -> bytes:
        async with self._rate:
            spent.api_calls += 1
            try:
                # Not `embeddings.create`: it always asks for base64 where no format is named.
                with urls_unlogged():
                    response = await self._client.post(
                        "/embeddings", cast_to=httpx2.Response, body=self._body(form, texts)
                    )
            except APIStatusError as error:
                # Not chained: a server's message may repeat the text or a part of the key.
                raise mapped(error, self._config.model, self._config.api_key.env) from None
            except APIError as error:
                raise mapped(error, self._config.model, self._config.api_key.env) from error
        return response.content

    def _read(self, body: bytes, texts: int) -> tuple[NDArray[np.float32], int | None]:
        """Vectors in the order of the texts, and the tokens billed where the server says so."""
        name = f"openai {self._config.model}"
        answer = self._answer(body)
        items = answer.in_order()
        try:
            rows = [item.vector() for item in items]
        except ValueError as error:
            raise EmbeddingUnavailable(
                f"{name}: the answer's vectors cannot be decoded", model=self._config.model, status=200
            ) from error
        sizes = {len(row) for row in rows}
        if [item.index for item in items] != list(range(texts)) or len(sizes) != 1:
            raise EmbeddingUnavailable(
                f"{name}: {len(rows)} vectors for {texts} texts, or of several sizes", model=self._config.model
            )
        # Known to be the setting where it never was right: later on it is an answer like any other nonsense.
        if self._config.dimensions and not self._dialect.proven and not sizes & {0, self._dimensions}:
            [size] = sizes
            raise EmbeddingMisconfigured(
                f"{name}: the server does not heed `dimensions`, and its vectors have {size}: set `dimensions: {size}`",
                model=self._config.model,
                status=200,
                received=size,
            )
        try:
            return check_vectors(np.stack(rows), texts, self._dimensions, name), answer.billed()
        except (EmbeddingRejected, EmbeddingUnavailable) as error:
            error.tokens = answer.billed() or 0
            raise

    def _answer(self, body: bytes) -> _Answer:
        try:
            return _Answer.model_validate_json(body)
        except ValueError as error:
            if _is_refusal(body):
                raise EmbeddingMisconfigured(
                    f"openai {self._config.model}: an error with status 200", model=self._config.model, status=200
                ) from None
            raise EmbeddingUnavailable(
                f"openai {self._config.model}: the answer does not hold embeddings ({len(body)} bytes)",
                model=self._config.model,
            ) from error


def _is_refusal(body: bytes) -> bool:
    try:
        answer = json.loads(body)
    except ValueError:
        return False
    return isinstance(answer, dict) and not answer.get("data") and any(map(answer.get, _REFUSES))


class _Item(BaseModel):
    index: int | None = None
    embedding: str | list[float]

    def vector(self) -> NDArray[np.float32]:
        """Raises ValueError if the text is not base64 of floats. Some servers leave its padding out."""
        if isinstance(self.embedding, str):
            padded = self.embedding + "=" * (-len(self.embedding) % 4)
            return np.frombuffer(base64.b64decode(padded, validate=True), "<f4")
        return np.array(self.embedding, np.float32)


class _Usage(BaseModel):
    prompt_tokens: int = Field(ge=0, lt=1 << 31)


class _Answer(BaseModel):
    model_config = ConfigDict(hide_input_in_errors=True)

    data: list[_Item]
    usage: object = None

    def billed(self) -> int | None:
        """None where the server does not say it, or in a way of its own: the vectors are good all the same."""
        try:
            return _Usage.model_validate(self.usage).prompt_tokens
        except ValidationError:
            return None

    def in_order(self) -> list[_Item]:
        """By index; where the server gives none at all, as they come."""
        if all(item.index is None for item in self.data):
            for position, item in enumerate(self.data):
                item.index = position
        return sorted(self.data, key=lambda item: -1 if item.index is None else item.index)
