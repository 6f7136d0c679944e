"""E-mail, by a mail server."""

from __future__ import annotations

import logging
import smtplib
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime

from vecsync_dagster.alerts.base import insistently
from vecsync_dagster.alerts.message import Message
from vecsync_dagster.config.alerts import EmailConfig
from vecsync_dagster.config.values import resolve
from vecsync_dagster.errors import AlertRefused, AlertUnsent

__all__ = ["EmailChannel"]

_log = logging.getLogger(__name__)


class EmailChannel:
    name = "email"

    def __init__(self, config: EmailConfig, *, attempts: int, timeout_s: float, now: Callable[[], datetime]) -> None:
        self._config = config
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._now = now

    def send(self, message: Message) -> None:
        mail = self._mail(message)

        def attempt() -> None:
            with _translated(), self._server() as server:
                refused = server.send_message(mail)
            if refused:  # others have got it: sending it again would not help these
                _log.warning("alerts.email: the server refused %d of %d recipients", len(refused), len(self._config.to))

        insistently(self._attempts, attempt)

    def _mail(self, message: Message) -> EmailMessage:
        mail = EmailMessage()
        mail["Subject"] = message.subject
        mail["From"] = self._config.sender
        mail["To"] = ", ".join(self._config.to)
        mail["Date"] = format_datetime(self._now())
        mail["Message-ID"] = f"<{message.id}@vecsync.invalid>"
        mail["Auto-Submitted"] = "auto-generated"  # so that no answering machine answers
        mail.set_content("\n".join(message.lines) + "\n")
        return mail

    @contextmanager
    def _server(self) -> Iterator[smtplib.SMTP]:
        config = self._config
        if config.tls == "tls":
            server: smtplib.SMTP = smtplib.SMTP_SSL(
                config.host, config.port_used, timeout=self._timeout_s, context=ssl.create_default_context()
            )
        else:
            server = smtplib.SMTP(config.host, config.port_used, timeout=self._timeout_s)
        with server:
            if config.tls == "starttls":
                server.starttls(context=ssl.create_default_context())
            if config.user is not None and config.password is not None:
                user = resolve(config.user, "alerts.email.user")
                server.login(user, resolve(config.password, "alerts.email.password"))
            yield server


@contextmanager
def _translated() -> Iterator[None]:
    """smtplib's errors as ours. What the server said stays out: it may repeat the login or the message."""
    try:
        yield
    except (smtplib.SMTPAuthenticationError, smtplib.SMTPNotSupportedError, ssl.SSLCertVerificationError) as error:
        raise _refused(type(error).__name__) from None
    except smtplib.SMTPRecipientsRefused as error:
        codes = {code for code, _ in error.recipients.values()}
        if all(code >= 500 for code in codes):
            raise _refused(f"all recipients, {max(codes)}") from None
        raise _unsent(f"all recipients, {min(codes)}") from None
    except smtplib.SMTPResponseException as error:
        reason = f"{type(error).__name__} {error.smtp_code}"
        raise (_refused(reason) if error.smtp_code >= 500 else _unsent(reason)) from None
    except (smtplib.SMTPException, OSError) as error:
        raise _unsent(type(error).__name__) from None


def _refused(reason: str) -> AlertRefused:
    return AlertRefused(f"alerts.email: the server refused ({reason})", channel="email")


def _unsent(reason: str) -> AlertUnsent:
    return AlertUnsent(f"alerts.email: the server did not take it ({reason})", channel="email")
