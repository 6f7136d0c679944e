"""`alerts` in vecsync.yaml: what is told, to whom, and how often."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, get_args
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from vecsync_dagster.config.values import Duration, EnvRef, EnvText, Model, Text

__all__ = ["ALERT_KINDS", "AlertKind", "AlertsConfig", "EmailConfig", "Severity", "SlackConfig", "WebhookConfig"]

AlertKind = Literal[
    "check_failure",
    "run_failure",
    "source_failure",
    "tenants_lost",
    "cost_limit",
    "permanent_failure",
    "reconciliation",
]
ALERT_KINDS: tuple[AlertKind, ...] = get_args(AlertKind)
Severity = Literal["warning", "error"]

_PORTS = {"none": 25, "starttls": 587, "tls": 465}


class SlackConfig(Model):
    """A Slack incoming webhook. Its URL is a secret."""

    url: EnvRef


class EmailConfig(Model):
    """A mail server. `tls`: starttls (the default) and tls check its certificate; none is for a server on this
    machine. `port` None: the usual one of that kind (587, 465, 25)."""

    host: Text
    port: Annotated[int, Field(ge=1, le=65_535)] | None = None
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: EnvText | None = None
    password: EnvRef | None = None
    sender: Annotated[Text, Field(alias="from")]
    to: Annotated[tuple[Text, ...], Field(min_length=1)]

    @property
    def port_used(self) -> int:
        return self.port or _PORTS[self.tls]

    @field_validator("sender")
    @classmethod
    def _sender(cls, sender: str) -> str:
        return _address(sender)

    @field_validator("to")
    @classmethod
    def _to(cls, to: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_address(one) for one in to)

    @model_validator(mode="after")
    def _both(self) -> EmailConfig:
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password go together")
        return self


class WebhookConfig(Model):
    """Any HTTP endpoint. `secret` signs what is sent (HMAC-SHA256 over timestamp and body)."""

    url: EnvText
    secret: EnvRef


class AlertsConfig(Model):
    """Without a channel nothing is told; nor, but by `vecsync alerts`, where `enabled` is false. `cool_down`: a
    problem that lasts is told again no sooner than this. `cost_usd_per_run`: a run that paid more is told. `ui_url`:
    where Dagster's UI is, for links to runs. `attempts` and `timeout_s` are those of one sending; what could not be
    sent is sent again later."""

    enabled: bool = True
    slack: SlackConfig | None = None
    email: EmailConfig | None = None
    webhook: WebhookConfig | None = None
    kinds: Annotated[tuple[AlertKind, ...], Field(min_length=1)] = ALERT_KINDS
    min_severity: Severity = "error"
    cool_down: Duration = timedelta(hours=1)
    cost_usd_per_run: Annotated[float, Field(ge=0)] | None = None
    ui_url: Text | None = None
    attempts: Annotated[int, Field(ge=1, le=10)] = 3
    timeout_s: Annotated[float, Field(gt=0, le=60)] = 5.0

    @property
    def channels(self) -> tuple[str, ...]:
        """The names of the configured channels."""
        return tuple(name for name in ("slack", "email", "webhook") if getattr(self, name) is not None)

    @field_validator("ui_url")
    @classmethod
    def _ui_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise ValueError("not a URL like https://dagster.example.com")
        return url


def _address(address: str) -> str:
    if "@" not in address.strip("@") or any(letter.isspace() or not letter.isprintable() for letter in address):
        raise ValueError("not an e-mail address")
    return address
