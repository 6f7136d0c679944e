"""What Dagster's processes print, for a terminal: warnings and errors. What each run did is in the UI."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

__all__ = ["DagsterLog"]

_COLOURS: Final = re.compile(rb"\x1b\[[0-9;]*m")
_HEAD: Final = re.compile(rb"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4} - (\S+) - ([A-Z]+) - )(.*)")
_OURS: Final = re.compile(
    rb"(?:vecsync_dagster\.errors\.(?!InternalError\b)\w+|dagster\._core\.definitions\.events\.Failure): (.*)"
)
_SENSOR: Final = re.compile(rb"\bsensor:? (\w+)$")
_QUIET: Final = (b"DEBUG", b"INFO")
_UP: Final = b"dagster-webserver"


class DagsterLog:
    """Takes lines, and gives those that are to be shown. An error that is ours has its message in the place of its
    traceback; one of a sensor is shown once, until it is another one or the sensor could look again. Whatever is no
    record of the log, such as what a process that dies prints, is shown as it is, and so is the traceback of any other
    error."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._quiet = False
        self._told: dict[bytes, bytes] = {}
        self._failed: set[bytes] = set()

    @property
    def holds(self) -> bool:
        """Whether there is an error of which more lines may come."""
        return bool(self._held)

    def take(self, line: bytes) -> Iterator[bytes]:
        plain = _COLOURS.sub(b"", line).rstrip()
        head = _HEAD.match(plain)
        if head is None:
            if self._held:
                self._held.append(line)
            elif not (self._quiet and plain[:1].isspace()):
                self._quiet = self._quiet and not plain
                yield line
            return
        yield from self.end()
        _, logger, level, message = head.groups()
        self._quiet = level in _QUIET and logger != _UP
        if level == b"ERROR":
            self._held = [line]
        elif not self._quiet:
            yield line
        elif message.startswith(b"Checking for new runs for sensor: ") and (sensor := _SENSOR.search(message)):
            if sensor[1] not in self._failed:
                self._told.pop(sensor[1], None)
            self._failed.discard(sensor[1])

    def end(self) -> Iterator[bytes]:
        """Nothing more comes of the error that it holds."""
        held, self._held = self._held, []
        plain = [_COLOURS.sub(b"", line).rstrip() for line in held]
        reasons = [found[1] for line in plain if (found := _OURS.fullmatch(line))]
        head = _HEAD.match(plain[0]) if reasons else None
        if head is None:
            yield from held
            return
        start, _, _, message = head.groups()
        if message == b"Sensor tick caught an error":  # said again with the sensor's name
            return
        if sensor := _SENSOR.search(message):
            self._failed.add(sensor[1])
            if self._told.get(sensor[1]) == reasons[-1]:
                return
            self._told[sensor[1]] = reasons[-1]
        yield start + message + b": " + reasons[-1] + b"\n"
