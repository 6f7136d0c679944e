"""`vecsync ui`: Dagster's webserver and daemon over the same configuration and state."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from vecsync_dagster.cli import output
from vecsync_dagster.cli.beside import Beside
from vecsync_dagster.cli.kept_up import GRACE_S, KeptUp
from vecsync_dagster.cli.options import ConfigOption, config_path
from vecsync_dagster.errors import ConfigError, VecsyncError

if TYPE_CHECKING:
    from vecsync_dagster.config import Config

__all__ = ["ui"]

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
        _serve(settings, file, home, host, port, lock)


@contextmanager
def _locked(home: Path, *, if_alone: Callable[[], None]) -> Iterator[int]:
    """A file that every `vecsync ui` of this instance has locked until it has ended, and so has the Dagster that one
    leaves behind. `if_alone` is called first where there is no other; one that begins meanwhile waits for it."""
    descriptor = os.open(home / "ui.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _call_if_alone(descriptor, if_alone)
        yield descriptor
    finally:
        os.close(descriptor)


def _call_if_alone(lock: int, call: Callable[[], None]) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        call()
    fcntl.flock(lock, fcntl.LOCK_SH)


def _end_orphans(settings: Config) -> None:
    """What an earlier `vecsync ui` was doing when it ended."""
    from vecsync_dagster.assets.recording import end_orphans, is_ours, open_instance

    if not is_ours():
        return
    with open_instance(settings) as instance:
        ended = end_orphans(instance)
    if ended:
        were = "run was" if ended == 1 else "runs were"
        output.note(f"{ended} {were} cut short when Dagster last ended")


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


def _serve(settings: Config, file: Path, home: Path, host: str, port: int, lock: int) -> NoReturn:
    listener = _listener(settings, file, home)
    output.note(f"Dagster's UI: http://{host}:{port} (it may take a minute to start; Ctrl-C ends it)")
    cut_short = partial(_call_if_alone, lock, partial(_end_orphans, settings))
    code = KeptUp(_command(host, port), _environment(file, home), lock, listener, cut_short).run()
    if listener is not None:
        listener.end(GRACE_S)
    with suppress(OSError):  # the terminal may be closed
        sys.stderr.flush()
    os._exit(code)  # taking down all that Dagster has imported takes longer than the rest


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
