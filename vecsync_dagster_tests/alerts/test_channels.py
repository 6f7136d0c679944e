"""Each channel against a real server on loopback: what arrives, what is tried again, what an error says."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import socket
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from vecsync_dagster.alerts import Alert, KnownAlert, build_channels, check_failed
from vecsync_dagster.alerts.base import Channel
from vecsync_dagster.alerts.http import post
from vecsync_dagster.alerts.message import Message, run_message
from vecsync_dagster.config.alerts import AlertsConfig
from vecsync_dagster.errors import AlertRefused, AlertUnsent, ConfigError
from vecsync_dagster.ledger.check_results import CheckResult
from vecsync_dagster_tests.alerts.conftest import BROKEN, SECRET, email_config, slack_config, webhook_config
from vecsync_dagster_tests.fakes.alert_servers import Inbox, MailServer
from vecsync_dagster_tests.ledger.samples import NOON, Clock

MESSAGE = run_message([KnownAlert(BROKEN, 1, NOON, NOON, None)], run_id="run-1", ui_url="https://dagster.example.com/")
LINK = "https://dagster.example.com/runs/run-1"


def channel(**config: Any) -> Channel:
    [built] = build_channels(AlertsConfig.model_validate(config), now=Clock())
    return built


def test_slack_gets_one_text_with_everything(slack: Inbox) -> None:
    """Entity, partition, check, figures and a link to the run stand in the text."""
    channel(**slack_config()).send(MESSAGE)
    [post] = slack.posts
    assert post.path == "/services/s3cr3t"
    assert post.json == {
        "text": "vecsync: 1 problem in works\n"
        "ERROR works of acme, check identity: store and ledger differ: 2 missing [missing 2]\n"
        f"Run {LINK}"
    }


@pytest.mark.parametrize(
    ("alert", "name", "line"),
    [
        (
            check_failed(CheckResult("works", "counts", False, "the store has 1 point", NOON, "works", "global")),
            "",
            "works of global, check counts: numbers differ: the store has 1 point",
        ),
        (
            check_failed(CheckResult("works", "isolation", False, "1 wrong tenant", NOON, "notes", "t1")),
            "Hoffmann",
            "works, notes of Hoffmann (t1), check isolation: points under a wrong tenant: 1 wrong tenant",
        ),
        (
            check_failed(
                CheckResult(
                    "works", "reconciliation", False, "2 differences: 2 missing of a|b", NOON, facts={"differences": 2}
                )
            ),
            "",
            "works, check reconciliation: store and ledger differ: 2 missing of a|b [differences 2]",
        ),
        (
            check_failed(
                CheckResult(
                    "works", "isolation_of_all", False, "1 difference: 1 wrong_tenant", NOON, facts={"differences": 1}
                )
            ),
            "",
            "works, check isolation_of_all: points under a wrong tenant: 1 wrong_tenant [differences 1]",
        ),
    ],
    ids=["counts", "isolation", "reconciliation", "isolation_of_all"],
)
def test_what_was_compared_and_where_is_said_once(alert: Alert, name: str, line: str) -> None:
    """An entity is not named twice where its collection is called like it; all comparisons are of one kind."""
    known = KnownAlert(alert, 1, NOON, NOON, None, name)
    assert run_message([known], run_id="", ui_url=None).lines == (f"ERROR {line}",)
    assert alert.kind == "reconciliation"


def test_slacks_control_characters_are_escaped(slack: Inbox) -> None:
    """A tenant's key cannot mention people or make a link."""
    channel(**slack_config()).send(Message("1", "a & <!channel>", (), {}))
    assert slack.posts[0].json == {"text": "a &amp; &lt;!channel&gt;"}


def test_a_webhook_is_signed(webhook: Inbox) -> None:
    """The signature is HMAC-SHA256 over timestamp and body; the timestamp is the time of sending."""
    channel(**webhook_config(webhook)).send(MESSAGE)
    [post] = webhook.posts
    timestamp = post.headers["X-Vecsync-Timestamp"]
    assert datetime.fromtimestamp(int(timestamp), UTC) == NOON.replace(microsecond=0)
    expected = hmac.new(SECRET.encode(), f"{timestamp}.".encode() + post.body, hashlib.sha256).hexdigest()
    assert post.headers["X-Vecsync-Signature"] == f"sha256={expected}"
    assert post.headers["Content-Type"] == "application/json"


def test_the_documented_check_of_a_signature_works(webhook: Inbox) -> None:
    """The code that docs/alerts.md gives to receivers accepts our message, and no altered or old one."""
    text = (Path(__file__).parents[2] / "docs" / "alerts.md").read_text(encoding="utf-8")
    [code] = re.findall(r"<!-- example: signature -->\n```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102 (our own documentation)
    config = AlertsConfig.model_validate(webhook_config(webhook))
    for now in (datetime.now(UTC), datetime.now(UTC) - timedelta(hours=1)):
        [built] = build_channels(config, now=lambda now=now: now)  # type: ignore[misc]
        built.send(MESSAGE)
    fresh, old = webhook.posts
    assert names["is_genuine"](SECRET, fresh.headers, fresh.body)
    assert not names["is_genuine"]("other", fresh.headers, fresh.body)
    assert not names["is_genuine"](SECRET, fresh.headers, fresh.body + b" ")
    assert not names["is_genuine"](SECRET, old.headers, old.body)


def test_a_webhook_gets_the_figures_as_data(webhook: Inbox) -> None:
    """A program reads entity, partition, check and figures without parsing text."""
    channel(**webhook_config(webhook)).send(MESSAGE)
    body = webhook.posts[0].json
    assert (body["source"], body["run_id"], body["run_url"], body["id"]) == ("vecsync", "run-1", LINK, MESSAGE.id)
    [alert] = body["alerts"]
    assert (alert["state"], alert["entity"], alert["partition"], alert["check"], alert["figures"]) == (
        "open",
        "works",
        "works|acme",
        "identity",
        {"missing": 2},
    )


def test_a_mail_goes_to_everybody(mails: MailServer) -> None:
    """One mail to all recipients, with a subject, a date and an id of its own."""
    channel(**email_config(mails)).send(MESSAGE)
    [mail] = mails.mails
    assert mails.recipients == [["ops@example.com", "data@example.com"]]
    assert (mail["Subject"], mail["From"]) == ("vecsync: 1 problem in works", "vecsync@example.com")
    assert MESSAGE.id in mail["Message-ID"]
    assert mail["Auto-Submitted"] == "auto-generated"
    assert LINK in mail.get_content()
    assert "2 missing [missing 2]" in mail.get_content()


def test_a_server_that_stumbles_is_asked_again(slack: Inbox, mails: MailServer) -> None:
    """Errors that pass are tried again at once, and the message arrives once."""
    slack.fail(503)
    slack.fail(0)
    channel(**slack_config()).send(MESSAGE)
    mails.fail("451 try later", times=2)
    channel(**email_config(mails)).send(MESSAGE)
    assert (slack.refused, len(slack.posts), len(mails.mails)) == (2, 1, 1)


@pytest.mark.parametrize("status", [0, 408, 429, 500, 503])
def test_a_server_that_is_down_leaves_it_unsent(slack: Inbox, status: int) -> None:
    """After the last attempt the error says that later may help, and holds no secret."""
    slack.fail(status, times=9)
    with pytest.raises(AlertUnsent, match=r"alerts\.slack") as error:
        channel(**slack_config()).send(MESSAGE)
    assert slack.refused == 3
    assert "s3cr3t" not in str(error.value)


@pytest.mark.parametrize("status", [302, 400, 403, 404])
def test_a_refusal_is_not_tried_again(slack: Inbox, status: int) -> None:
    """A wrong URL is said at once; a redirect is not followed, because a POST would lose its body."""
    slack.fail(status, times=9)
    with pytest.raises(AlertRefused, match=str(status)):
        channel(**slack_config()).send(MESSAGE)
    assert slack.refused == 1


def test_a_long_wait_is_left_for_later(slack: Inbox) -> None:
    """Who asks to wait a minute is not asked again meanwhile: the sending must not hold up a tick."""
    slack.fail(429, times=9, retry_after="60")
    with pytest.raises(AlertUnsent) as error:
        channel(**slack_config()).send(MESSAGE)
    assert (slack.refused, error.value.retry_after_s) == (1, 60.0)


def test_the_secret_url_is_never_logged(slack: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    """httpx logs every request with its URL, and Slack's URL is the secret."""
    caplog.set_level(logging.DEBUG)
    slack.fail(503)
    channel(**slack_config()).send(MESSAGE)
    assert slack.posts
    assert "s3cr3t" not in caplog.text


def test_posts_that_overlap_log_no_url(slack: Inbox, caplog: pytest.LogCaptureFixture) -> None:
    """A post that ends uncovers no URL of one that is still under way in another thread."""
    caplog.set_level(logging.DEBUG)
    slack.until["/services/s3cr3t/slow"] = done = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(post, "webhook", f"{slack.url}/slow", b"", {}, 20)
        channel(**slack_config()).send(MESSAGE)
        assert not slow.done()
        done.set()
        slow.result(20)
    assert len(slack.posts) == 2
    assert "s3cr3t" not in caplog.text


def test_what_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong secret in the environment is named by its key, not by its value."""
    for wrong in ("s3cr3t", "ftp://s3cr3t", "http://s3cr3t:x/"):
        monkeypatch.setenv("SLACK_URL", wrong)
        with pytest.raises(AlertRefused, match=r"alerts\.slack") as error:
            channel(**slack_config()).send(MESSAGE)
        assert "s3cr3t" not in str(error.value)


def test_a_query_is_sent_and_a_fragment_refused(slack: Inbox) -> None:
    """A webhook may have its key in the query; what stands behind a # would never leave this machine."""
    post("slack", f"{slack.url}?key={SECRET}", b"{}", {}, 5)
    assert len(slack.posts) == 1
    with pytest.raises(AlertRefused, match=r"^alerts\.slack: the URL has a part behind #") as error:
        post("slack", f"{slack.url}#{SECRET}", b"{}", {}, 5)
    assert SECRET not in str(error.value)
    assert len(slack.posts) == 1


def test_a_variable_that_is_not_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing secret is an error of the configuration."""
    monkeypatch.delenv("SLACK_URL", raising=False)
    with pytest.raises(ConfigError, match=r"alerts\.slack\.url: .*SLACK_URL"):
        channel(**slack_config()).send(MESSAGE)


def test_a_mail_server_wants_a_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """User and password are sent; wrong ones are refused at once, without repeating them."""
    with MailServer(login=("vecsync", "s3cr3t"), tls=certificate(tmp_path)) as mails:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        login = {"tls": "starttls", "user": "vecsync", "password": {"env": "SMTP_PASSWORD"}}
        monkeypatch.setenv("SMTP_PASSWORD", "s3cr3t")
        channel(**email_config(mails, **login)).send(MESSAGE)
        monkeypatch.setenv("SMTP_PASSWORD", "wrong-s3cr3t")
        with pytest.raises(AlertRefused, match="SMTPAuthenticationError") as error:
            channel(**email_config(mails, **login)).send(MESSAGE)
    assert len(mails.mails) == 1
    assert "s3cr3t" not in str(error.value)


def test_a_mail_server_without_tls_gets_nothing(mails: MailServer) -> None:
    """With starttls, which is the default, nothing is sent in the clear."""
    with pytest.raises(AlertRefused, match="SMTPNotSupportedError"):
        channel(**email_config(mails, tls="starttls")).send(MESSAGE)
    assert mails.mails == []


def test_starttls_checks_the_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A trusted certificate is talked to; an unknown one is refused."""
    context = certificate(tmp_path)
    with MailServer(tls=context) as mails:
        with pytest.raises(AlertRefused, match="CertVerification"):
            channel(**email_config(mails, tls="starttls")).send(MESSAGE)
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        channel(**email_config(mails, tls="starttls")).send(MESSAGE)
    assert len(mails.mails) == 1


def test_one_wrong_recipient_does_not_cost_the_others_their_mail(
    mails: MailServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The others get it once, and a warning says that one did not; with none left it is refused."""
    mails.refuse("data@example.com")
    channel(**email_config(mails)).send(MESSAGE)
    assert mails.recipients == [["ops@example.com"]]
    assert "refused 1 of 2 recipients" in caplog.text
    mails.refuse("ops@example.com")
    with pytest.raises(AlertRefused, match="all recipients, 550"):
        channel(**email_config(mails)).send(MESSAGE)


def test_nobody_listens() -> None:
    """A mail server that is not there is an error that later may repair."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = {"host": "127.0.0.1", "port": port, "tls": "none", "from": "a@b.example", "to": ["c@d.example"]}
    with pytest.raises(AlertUnsent, match="ConnectionRefusedError"):
        channel(email=config).send(MESSAGE)


def certificate(folder: Path) -> ssl.SSLContext:
    """A server's context with a new self-signed certificate for 127.0.0.1, which lies in `folder` too."""
    import ipaddress

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    (folder / "certificate.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(folder / "certificate.pem", folder / "key.pem")
    return context
