"""`Alerts`: what was seen goes into the ledger, what the ledger says is untold goes to the channels.

The two are apart, so that a channel that is down loses nothing and holds up no other: each has its own record
of what it was told. Sending comes first, the record second: a crash in between repeats a message (with the same
id), and never loses one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import stamina

from vecsync_dagster.alerts.base import Channel
from vecsync_dagster.alerts.message import Message, run_message, test_message
from vecsync_dagster.alerts.slack import SlackChannel
from vecsync_dagster.alerts.smtp import EmailChannel
from vecsync_dagster.alerts.webhook import WebhookChannel
from vecsync_dagster.config.alerts import AlertsConfig
from vecsync_dagster.errors import AlertUnsent, PartitionBusy, VecsyncError
from vecsync_dagster.ledger import SqlLedger
from vecsync_dagster.ledger.alerts import Alert, KnownAlert, Owner
from vecsync_dagster.ledger.part import utc_now

__all__ = ["Alerts", "Delivery", "announce", "build_channels", "send_test"]

_HOLD: Final = "#alerts"  # no entity can be called this
_PATIENCE_S: Final = 30.0


class _Busy(AlertUnsent):
    """Another process is telling this channel."""


@dataclass(slots=True)
class Delivery:
    """What became of a delivery: messages sent, by channel, and why a channel took none."""

    sent: dict[str, int] = field(default_factory=dict)
    errors: dict[str, VecsyncError] = field(default_factory=dict)


def build_channels(config: AlertsConfig, *, now: Callable[[], datetime] = utc_now) -> list[Channel]:
    """The configured channels. Nothing is connected, and no secret is read, before something is sent."""
    attempts, timeout_s = config.attempts, config.timeout_s
    channels: list[Channel] = []
    if config.slack is not None:
        channels.append(SlackChannel(config.slack, attempts=attempts, timeout_s=timeout_s))
    if config.email is not None:
        channels.append(EmailChannel(config.email, attempts=attempts, timeout_s=timeout_s, now=now))
    if config.webhook is not None:
        channels.append(WebhookChannel(config.webhook, attempts=attempts, timeout_s=timeout_s, now=now))
    return channels


def send_test(config: AlertsConfig, *, now: Callable[[], datetime] = utc_now) -> dict[str, VecsyncError | None]:
    """Send a test message to each channel; why it failed, or None where it did not."""
    message = test_message(now())
    return {channel.name: _attempt(channel, message) for channel in build_channels(config, now=now)}


def announce(config: AlertsConfig, raised: Iterable[Alert], *, now: Callable[[], datetime] = utc_now) -> Delivery:
    """Tell every channel of these at once, where there is no ledger to remember it."""
    news = [
        KnownAlert(one, 1, now(), now(), None) for one in raised if one.kind in config.kinds and _is_severe(config, one)
    ]
    delivery = Delivery()
    for channel in build_channels(config, now=now) if news else ():
        error = _attempt(channel, run_message(news, run_id="", ui_url=config.ui_url))
        if error is None:
            delivery.sent[channel.name] = 1
        else:
            delivery.errors[channel.name] = error
    return delivery


class Alerts:
    """The alerts of one configuration, and of one `owner` where several projects share the ledger. Without a channel,
    or where alerts are off, every method does nothing."""

    def __init__(
        self,
        config: AlertsConfig,
        ledger: SqlLedger,
        *,
        owner: Owner | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._owner = owner
        self._now = now
        self._channels = build_channels(config, now=now) if config.enabled else []

    @property
    def is_silent(self) -> bool:
        return not self._channels

    @property
    def opened(self) -> list[KnownAlert]:
        return self._ledger.alerts(self._owner)

    def observe(
        self,
        raised: Iterable[Alert],
        well: Callable[[KnownAlert], bool],
        *,
        run_id: str = "",
        at: datetime | None = None,
    ) -> None:
        """Keep what was seen at the time `at` (now, if none): problems, and which open ones are over. An error that has
        become a warning below `min_severity` is over, too.

        Tells nobody yet: `deliver` does. Raises LedgerUnavailable, LedgerRejected.
        """
        if self._channels:
            seen = [one for one in raised if one.kind in self._config.kinds]
            wanted = [one for one in seen if _is_severe(self._config, one)]
            milder = {one.key for one in seen} - {one.key for one in wanted}

            def is_over(known: KnownAlert) -> bool:
                return well(known) or (known.key in milder and _is_severe(self._config, known.alert))

            self._ledger.observe(wanted, is_over, run_id=run_id, at=at or self._now(), owner=self._owner)

    def deliver(self) -> Delivery:
        """Tell each channel what it has yet to be told, one message for each run. A channel that fails is in
        the answer, keeps what is left for the next call, and holds up no other."""
        delivery = Delivery()
        for channel in self._channels:
            try:
                sent = _patiently(lambda channel=channel: self._deliver(channel))  # type: ignore[misc]
            except VecsyncError as error:
                delivery.errors[channel.name] = error
            else:
                if sent:
                    delivery.sent[channel.name] = sent
        return delivery

    def _deliver(self, channel: Channel) -> int:
        """Messages sent. Held, so that two processes do not say the same at the same time."""
        with self._alone(channel):
            untold = self._ledger.untold(channel.name, self._config.cool_down, self._owner)
            by_run: dict[str, list[KnownAlert]] = {}
            for known in untold:
                by_run.setdefault(known.alert.run_id, []).append(known)
            for run_id, group in by_run.items():
                channel.send(run_message(group, run_id=run_id, ui_url=self._config.ui_url))
                self._ledger.told(channel.name, group)
        return len(by_run)

    @contextmanager
    def _alone(self, channel: Channel) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                stack.enter_context(self._ledger.hold(_HOLD, channel.name))
            except PartitionBusy:
                raise _Busy(f"alerts.{channel.name}: another process is sending", channel=channel.name) from None
            yield


def _is_severe(config: AlertsConfig, one: Alert) -> bool:
    return one.severity == "error" or config.min_severity == "warning"


def _patiently(deliver: Callable[[], int]) -> int:
    """Wait a little where another process is delivering: it may have looked before ours was there."""
    waiting = stamina.RetryingCaller(attempts=None, timeout=_PATIENCE_S, wait_initial=0.2, wait_max=2.0)
    return waiting.on(_Busy)(deliver)


def _attempt(channel: Channel, message: Message) -> VecsyncError | None:
    try:
        channel.send(message)
    except VecsyncError as error:
        return error
    return None
