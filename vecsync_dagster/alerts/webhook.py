"""Any HTTP endpoint, with a signature.

    POST <url>
    X-Vecsync-Id: <the same for the same news>
    X-Vecsync-Timestamp: <seconds since 1970>
    X-Vecsync-Signature: sha256=<hex HMAC-SHA256 of "<timestamp>.<body>" with the secret>

A receiver computes the signature itself, compares in constant time, and refuses a timestamp that is more than
a few minutes old: a message that somebody recorded cannot be sent again.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime

import orjson

from vecsync_dagster.alerts.base import insistently
from vecsync_dagster.alerts.http import post
from vecsync_dagster.alerts.message import Message
from vecsync_dagster.config.alerts import WebhookConfig
from vecsync_dagster.config.values import resolve

__all__ = ["WebhookChannel", "signature"]


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """The value of X-Vecsync-Signature."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


class WebhookChannel:
    name = "webhook"

    def __init__(self, config: WebhookConfig, *, attempts: int, timeout_s: float, now: Callable[[], datetime]) -> None:
        self._config = config
        self._attempts = attempts
        self._timeout_s = timeout_s
        self._now = now

    def send(self, message: Message) -> None:
        url = resolve(self._config.url, "alerts.webhook.url")
        secret = resolve(self._config.secret, "alerts.webhook.secret")
        body = orjson.dumps({"id": message.id, **message.data, "text": message.text})

        def attempt() -> None:
            timestamp = str(int(self._now().timestamp()))
            headers = {
                "X-Vecsync-Id": message.id,
                "X-Vecsync-Timestamp": timestamp,
                "X-Vecsync-Signature": signature(secret, timestamp, body),
            }
            post(self.name, url, body, headers, self._timeout_s)

        insistently(self._attempts, attempt)
