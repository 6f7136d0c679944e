"""Slack, by an incoming webhook."""

from __future__ import annotations

from typing import Final

import orjson

from vecsync_dagster.alerts.base import insistently
from vecsync_dagster.alerts.http import post
from vecsync_dagster.alerts.message import Message
from vecsync_dagster.config.alerts import SlackConfig
from vecsync_dagster.config.values import resolve

__all__ = ["SlackChannel"]

_LONGEST: Final = 35_000  # Slack cuts a text at 40,000 characters


class SlackChannel:
    name = "slack"

    def __init__(self, config: SlackConfig, *, attempts: int, timeout_s: float) -> None:
        self._config = config
        self._attempts = attempts
        self._timeout_s = timeout_s

    def send(self, message: Message) -> None:
        url = resolve(self._config.url, "alerts.slack.url")
        body = orjson.dumps({"text": _escaped(message.text)[:_LONGEST]})
        insistently(self._attempts, lambda: post(self.name, url, body, {}, self._timeout_s))


def _escaped(text: str) -> str:
    """Slack's three control characters: without this a tenant's key could mention people (<!channel>)."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
