"""Where alerts go in tests: a small HTTP server and a real SMTP server on loopback, which fail on demand.

with Inbox() as inbox:            # for Slack and webhooks
    inbox.fail(503, times=2)
    ...  url = inbox.url ...
    assert [post.json for post in inbox.posts] == [...]
with MailServer() as mails:
    mails.fail("451 later")
    ...  host="127.0.0.1", port=mails.port ...
"""

from __future__ import annotations

import json
import ssl
import threading
from asyncio.base_events import Server
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword, Session

__all__ = ["Inbox", "MailServer", "Post"]


@dataclass(frozen=True, slots=True)
class Post:
    """One POST that was taken (answered with 200)."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Inbox:
    """`posts`: what was taken. `refused`: how many were not. The body of an error repeats the request's path.
    `until`: what a post to this path waits for before it is answered."""

    def __init__(self) -> None:
        self.posts: list[Post] = []
        self.refused = 0
        self.until: dict[str, threading.Event] = {}
        self._faults: deque[tuple[int, str | None]] = deque()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_port}/services/s3cr3t"

    def fail(self, status: int, times: int = 1, retry_after: str | None = None) -> None:
        """Answer the next `times` requests with `status`; 0 cuts the connection without an answer."""
        self._faults.extend([(status, retry_after)] * times)

    def recover(self) -> None:
        self._faults.clear()

    def take(self, post: Post) -> tuple[int, str | None]:
        if self._faults:
            self.refused += 1
            return self._faults.popleft()
        self.posts.append(post)
        return 200, None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


def _handler(inbox: Inbox) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if wait := inbox.until.get(self.path):
                wait.wait(10)
            status, retry_after = inbox.take(Post(self.path, dict(self.headers), body))
            if not status:
                self.close_connection = True
                return
            self.send_response(status)
            if retry_after is not None:
                self.send_header("Retry-After", retry_after)
            if status in (301, 302):
                self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(f"{status} at {self.path}".encode())

        def log_message(self, *_: object) -> None:
            pass

    return Handler


class _Controller(Controller):
    def _trigger_server(self) -> None:
        """The library wakes its server by a connection, to the port it was given: here that was 0."""
        assert isinstance(self.server, Server)
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()  # type: ignore[no-untyped-call]


class MailServer:
    """`mails`: what was taken. `login`: the user and password it wants, after STARTTLS; `tls`: offers
    STARTTLS with this context."""

    def __init__(self, *, login: tuple[str, str] | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.mails: list[EmailMessage] = []
        self.recipients: list[list[str]] = []
        self._login = login
        self._faults: deque[str] = deque()
        self._refused: set[str] = set()
        options: dict[str, Any] = {}
        if login is not None:
            options = {"authenticator": self._authenticate, "auth_required": True}
        self._controller = _Controller(self, hostname="127.0.0.1", port=0, tls_context=tls, **options)

    @property
    def port(self) -> int:
        return int(self._controller.port)

    def fail(self, answer: str, times: int = 1) -> None:
        """Answer the next `times` mails with this, like "451 later"."""
        self._faults.extend([answer] * times)

    def refuse(self, recipient: str) -> None:
        self._refused.add(recipient)

    async def handle_RCPT(  # noqa: N802 (the library's name)
        self, _server: object, _session: Session, envelope: Envelope, address: str, _options: object
    ) -> str:
        if address in self._refused:
            return "550 nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: object, _session: Session, envelope: Envelope) -> str:  # noqa: N802
        if self._faults:
            return self._faults.popleft()
        content = envelope.content
        assert isinstance(content, bytes)
        mail = message_from_bytes(content, policy=policy.default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        self.recipients.append(list(envelope.rcpt_tos))
        return "250 OK"

    def _authenticate(
        self, _server: object, _session: object, _envelope: object, _mechanism: str, data: LoginPassword
    ) -> AuthResult:
        given = (data.login.decode(), data.password.decode())
        return AuthResult(success=given == self._login, handled=False)  # the library says 235 or 535

    def __enter__(self) -> Self:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()
