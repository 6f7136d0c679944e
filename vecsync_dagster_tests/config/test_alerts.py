"""`alerts` in vecsync.yaml: defaults, and what is said about mistakes."""

from __future__ import annotations

import pytest

from vecsync_dagster.config import parse_config
from vecsync_dagster_tests.config.examples import VALID, message_of

ENV = "write it as {env: NAME}, the name of an environment variable; secrets must not be written in this file"
MAIL = "host: h, from: a@b.example, to: [c@d.example]"


def alerts(text: str) -> str:
    return f"{VALID}alerts: {{{text}}}\n"


def test_there_are_none_by_default() -> None:
    """Without `alerts` there is no channel."""
    assert parse_config(VALID).alerts.channels == ()


def test_all_three_channels() -> None:
    """Channels come in a fixed order; a mail server's port follows from its kind of TLS."""
    config = parse_config(
        alerts(f"webhook: {{url: http://x.example, secret: {{env: S}}}}, email: {{{MAIL}}}, slack: {{url: {{env: U}}}}")
    ).alerts
    assert config.channels == ("slack", "email", "webhook")
    assert config.email is not None
    assert (config.email.port_used, config.email.sender, config.cool_down.total_seconds()) == (587, "a@b.example", 3600)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slack: {url: 'https://hooks.example.com/geheim'}", f"alerts.slack.url: {ENV}"),
        (f"email: {{{MAIL}, user: u, password: geheim}}", f"alerts.email.password: {ENV}"),
        ("webhook: {url: http://x.example, secret: geheim}", f"alerts.webhook.secret: {ENV}"),
        ("webhook: {url: http://x.example}", "alerts.webhook.secret: this required key is missing"),
        (f"email: {{{MAIL}, user: u}}", "alerts.email: user and password go together"),
        (
            "email: {host: h, from: nobody, to: [c@d.example]}",
            "alerts.email.from: not an e-mail address; it is 'nobody'",
        ),
        ("email: {host: h, from: a@b.example, to: []}", "alerts.email.to: at least one is needed"),
        ("email: {host: h, to: [c@d.example]}", "alerts.email.from: this required key is missing"),
        (
            f"email: {{{MAIL}, form: x}}",
            "alerts.email.form: unknown key; did you mean from? valid here: from, host, password, port, tls, to, user",
        ),
        ("ui_url: dagster", "alerts.ui_url: not a URL like https://dagster.example.com; it is 'dagster'"),
        ("ui_url: 'http://d?x=1'", "alerts.ui_url: not a URL like https://dagster.example.com; it is 'http://d?x=1'"),
        ("cool_down: soon", "alerts.cool_down: a duration belongs here: seconds, or like PT10M; it is 'soon'"),
    ],
)
def test_mistakes_are_named(text: str, message: str) -> None:
    """Each mistake names its key, and never repeats a secret."""
    said = message_of(alerts(text))
    assert said == f"vecsync.yaml:9: {message}"
    assert "geheim" not in said
