"""`vecsync ui`: Dagster's webserver and daemon over the same configuration and state."""

from __future__ import annotations

import fcntl
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Annotated, NoReturn

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.beside import Beside
from vecsync_dagster.cli.options import ConfigOption, config_path
from vecsync_dagster.cli.signals import INTERRUPTED, handled
from vecsync_dagster.errors import ConfigError, VecsyncError

if TYPE_CHECKING:
    from vecsync_dagster.config import Config

__all__ = ["ui"]

GRACE_S = 1.0
"""For Dagster's processes to end by themselves. Nothing is lost with those that do not: a sync that is killed goes on
with the next run."""
STARTS = 5
WITHIN_S = 600.0
"""So often within so long is Dagster started when it ends by itself, as it does where its daemon or webserver dies."""
_COLOURS = re.compile(rb"\x1b\[[0-9;]*m")
_QUIET = "ignore:Function `dev_command` is superseded"


def ui(
    ctx: typer.Context,
    config: ConfigOption = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port of the web page.")] = 3000,
    host: Annotated[str, typer.Option(help="The address to listen on; the page has no login.")] = "127.0.0.1",
) -> None:
    """Open Dagster's UI on the same state: assets, partitions, runs, checks, schedules.

    Runs the webserver and the daemon (which runs schedules and sensors) until Ctrl-C; and `vecsync watch` beside them
    where a source tells of changes by triggers or change streams (`automation.watch.enabled`).
    """
    file = config_path(ctx, config).resolve()
    from vecsync_dagster.assets.recording import prepare_instance
    from vecsync_dagster.config.loading import load_config

    settings = load_config(file)
    _require_free(host, port)
    home = prepare_instance(settings)
    with _locked(home, if_alone=partial(_end_orphans, settings)) as lock:
        _serve(file, home, host, port, lock, _listener(settings, file, home))


@contextmanager
def _locked(home: Path, *, if_alone: Callable[[], None]) -> Iterator[int]:
    """A file that every `vecsync ui` of this instance has locked until it has ended, and so has the Dagster that one
    leaves behind. `if_alone` is called first where there is no other; one that begins meanwhile waits for it."""
    descriptor = os.open(home / "ui.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            if_alone()
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield descriptor
    finally:
        os.close(descriptor)


def _end_orphans(settings: Config) -> None:
    """What an earlier `vecsync ui` was doing when it ended."""
    from vecsync_dagster.assets.recording import end_orphans, is_ours, open_instance

    if not is_ours():
        return
    with open_instance(settings) as instance:
        ended = end_orphans(instance)
    if ended:
        were = "run was" if ended == 1 else "runs were"
        output.note(f"{ended} {were} cut short when `vecsync ui` last ended")


def _listener(settings: Config, file: Path, home: Path) -> Beside | None:
    """What syncs changes at once, beside the sensors that look every now and then."""
    from vecsync_dagster.cli.waking import told_by

    if not settings.automation.watch.enabled:
        return None
    try:
        told = list(told_by(settings))
    except VecsyncError as error:
        output.warn(f"nobody listens to changes, they are found by looking: {error.code}: {error}")
        return None
    if not told:
        return None
    output.note(f"listening to the changes of {', '.join(told)}")
    command = [sys.executable, "-m", "vecsync_dagster.cli", "watch", "--events-only", "--until-stdin-ends"]
    return Beside([*command, "--config", str(file)], _environment(file, home))


def _serve(file: Path, home: Path, host: str, port: int, lock: int, listener: Beside | None) -> NoReturn:
    output.note(f"Dagster's UI: http://{host}:{port} (it may take a minute to start; Ctrl-C ends it)")
    code = _kept_up(_command(host, port), _environment(file, home), lock, listener)
    if listener is not None:
        listener.end(GRACE_S)
    with suppress(OSError):  # the terminal may be closed
        sys.stderr.flush()
    os._exit(code)  # taking down all that Dagster has imported takes longer than the rest


def _kept_up(command: list[str], environment: dict[str, str], lock: int, listener: Beside | None = None) -> int:
    starts: deque[float] = deque(maxlen=STARTS)
    while True:
        starts.append(time.monotonic())
        if _run(command, environment, lock, listener):
            return INTERRUPTED
        if len(starts) == STARTS and time.monotonic() < starts[0] + WITHIN_S:
            output.warn(f"Dagster ended by itself, {STARTS} times within {WITHIN_S / 60:g} minutes: it stays down")
            return 1
        output.warn("Dagster ended by itself: it is started again")


def _command(host: str, port: int) -> list[str]:
    workspace = str(files("vecsync_dagster").joinpath("workspace.yaml"))
    return [sys.executable, "-m", "dagster", "dev", "-w", workspace, "-h", host, "-p", str(port)]


def _environment(config: Path, home: Path) -> dict[str, str]:
    warnings = ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), _QUIET]))
    return {**os.environ, "DAGSTER_HOME": str(home), "VECSYNC_CONFIG": str(config), "PYTHONWARNINGS": warnings}


def _require_free(host: str, port: int) -> None:
    """Raises ConfigError if nobody could listen there: Dagster would say so late, among much else."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            # As servers do; without it a port that was just left would look taken.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another one with --port or --host", port=port
        ) from error


def _run(command: list[str], environment: dict[str, str], lock: int, listener: Beside | None) -> bool:
    """Run until it ends; returns whether it was asked to. It has its own session, so that a signal reaches it once:
    through us; and so that all of it can be ended if it does not end by itself. It holds the `lock` as well: should we
    be killed, it goes on."""
    asked_at: float | None = None
    pipe = None if sys.stderr.isatty() else subprocess.PIPE
    with subprocess.Popen(  # noqa: S603 (our own words)
        command,
        env=environment,
        cwd=Path(environment["VECSYNC_CONFIG"]).parent,  # Dagster warns of a dagster.yaml where it is started
        start_new_session=True,
        stdout=pipe,
        stderr=subprocess.STDOUT if pipe else None,
        pass_fds=(lock,),
    ) as process:
        if process.stdout is not None:
            threading.Thread(target=_copy_plain, args=(process.stdout,), daemon=True).start()

        def pass_on(number: int, _frame: FrameType | None) -> None:
            nonlocal asked_at
            asked_at = asked_at or time.monotonic()
            process.send_signal(signal.SIGTERM if number == signal.SIGHUP else number)
            if listener is not None:
                listener.ask()

        closed = [] if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN else [signal.SIGHUP]  # `nohup` ignores it
        with handled(pass_on, signal.SIGINT, signal.SIGTERM, *closed):
            while not _ended(process):
                if listener is not None:
                    listener.tend()
                if asked_at is not None and time.monotonic() > asked_at + GRACE_S:
                    _end_all(process.pid)
        _end_all(process.pid)  # code servers stay up to a minute longer than who started them
    return asked_at is not None


def _end_all(group: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)


def _copy_plain(lines: IO[bytes]) -> None:
    """Dagster colours its log wherever it goes; in a file or a pipe the codes are noise."""
    for line in lines:
        sys.stderr.buffer.write(_COLOURS.sub(b"", line))
        sys.stderr.buffer.flush()


def _ended(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(timeout=0.2)
    except subprocess.TimeoutExpired:
        return False
    return True
