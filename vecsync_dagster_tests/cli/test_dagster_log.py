"""What `vecsync ui` shows of the output of Dagster's processes."""

from __future__ import annotations

from collections.abc import Iterator

from vecsync_dagster.cli.dagster_log import DagsterLog

AT = "2026-11-29 02:36:11 +0000"
DAEMON = f"{AT} - dagster.daemon.SensorDaemon"
TRACEBACK = """Traceback (most recent call last):
  File "sensor.py", line 649, in _process_tick_generator
dagster._core.errors.DagsterUserCodeProcessError: Error occurred during the execution of evaluation_fn

The above exception was caused by the following exception:
{reason}

Stack Trace:
  File "sql.py", line 107, in fingerprints
"""
AWAY = TRACEBACK.format(reason="vecsync_dagster.errors.SourceUnavailable: the database does not answer")


def shown(text: str) -> str:
    return b"".join(lines(DagsterLog(), text)).decode()


def lines(log: DagsterLog, text: str) -> Iterator[bytes]:
    for line in text.encode().splitlines(keepends=True):
        yield from log.take(line)
    yield from log.end()


def tick(traceback: str = "") -> str:
    failed = f"{DAEMON} - ERROR - Sensor tick caught an error\n{traceback}"
    failed += f"{DAEMON} - ERROR - Sensor daemon caught an error for sensor works_changes\n{traceback}"
    begun = (
        f"\x1b[34m{AT} - dagster.daemon.SensorDaemon - INFO - Checking for new runs for sensor: works_changes\x1b[0m\n"
    )
    return begun + (failed if traceback else "")


def test_events_of_runs_are_left_out() -> None:
    """Of all levels below a warning, and with what belongs to them."""
    warning = f"{AT} - dagster - WARNING - works_job - 1f - disk is full\n"
    assert shown(f"{AT} - dagster - DEBUG - works_job - 1f - STEP_START - Started\n  more of it\n{warning}") == warning
    serving = f"{AT} - dagster-webserver - INFO - Serving dagster-webserver on http://127.0.0.1:3000\n"
    assert shown(serving) == serving


def test_a_source_that_is_away_is_one_line() -> None:
    """Once, while it stays away; again for another reason, and when it was there meanwhile."""
    head = f"{DAEMON} - ERROR - Sensor daemon caught an error for sensor works_changes"
    line = f"{head}: the database does not answer\n"
    assert shown(tick(AWAY) * 3) == line
    other = AWAY.replace("does not answer", "is full")
    assert shown(tick(AWAY) * 2 + tick(other) + tick(AWAY)) == line + f"{head}: the database is full\n" + line
    assert shown(tick(AWAY) + tick() + tick(AWAY)) == line * 2


def test_a_run_that_fails_has_its_reason() -> None:
    """Where it was raised is of no use: it names the partitions."""
    head = f"{AT} - dagster - ERROR - works_job - 1f - 99 - RUN_FAILURE - Execution of run failed."
    reason = "1 of 4 partitions failed: works|acme (QDRANT_LOCKED)"
    trace = f"\n\ndagster._core.definitions.events.Failure: {reason}\n\nStack Trace:\n  File\n"
    assert shown(head + trace) == f"{head}: {reason}\n"


def test_other_errors_keep_their_tracebacks() -> None:
    """What nobody expected is shown as it is, each time; and what a process that dies prints, behind whatever line."""
    for reason in ("ValueError: odd", "vecsync_dagster.errors.InternalError: ValueError"):
        failed = TRACEBACK.format(reason=reason)
        told = shown(tick(failed) * 2)
        assert (told.count(failed), "Checking" in told) == (4, False)
    crash = 'Traceback (most recent call last):\n  File "x.py", line 1\n\nMemoryError\n'
    assert shown(crash) == crash
    assert shown(f"{AT} - dagster - DEBUG - works_job - 1f - STEP_START - Started\n{crash}") == crash
