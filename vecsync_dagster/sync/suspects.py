"""Whose fault is it that documents could not be written: their own, or that of what they were written to?

A refusal is a document's own only where the same kind of write was accepted after it: that of another document, or
that of a probe (`probe.py`). Where the probe is refused too, the partition fails with that error. A probe is made at
the first refusal, again whenever twice as many are in doubt, and once at the end of a batch that leaves any in doubt.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from vecsync_dagster.errors import StoreRejected, VecsyncError
from vecsync_dagster.sync.changes import Change
from vecsync_dagster.sync.probe import emptied, known_good, takes_probe
from vecsync_dagster.sync.target import Target

__all__ = ["Failure", "Refusal", "Step", "Suspects"]

Failure = tuple[Change, VecsyncError]

_MOST_BEFORE_A_WRITE = 30
"""Attempts that failed, and none that did not: enough to find one good document among some thousands."""


class Step(StrEnum):
    """What a document goes through, and where it may be refused."""

    VECTORS = "vectors"
    PAYLOAD = "payload"
    LEDGER = "ledger"


class Refusal(NamedTuple):
    """The `number`th of its step."""

    step: Step
    number: int
    failure: Failure

    @property
    def is_told(self) -> bool:
        """Whether the store itself says that it is about what it was sent."""
        return _is_told(self.failure[1])


@dataclass(slots=True)
class _Record:
    """Of one step: how many attempts failed, and whether a document or what is known to be good was accepted; how many
    documents were refused alone; how many of these came before that, or before a point with nothing in it was."""

    missed: int = 0
    accepted: bool = False
    refused: int = 0
    proven: int = 0
    proven_by_nothing: int = 0
    patience: int = 1
    given_up: VecsyncError | None = None

    def is_own(self, refusal: Refusal) -> bool:
        """A point with nothing in it proves only what the store itself says of a document."""
        return refusal.number <= self.proven or (refusal.is_told and refusal.number <= self.proven_by_nothing)

    @property
    def stuck(self) -> bool:
        return self.missed > _MOST_BEFORE_A_WRITE and not self.accepted

    @property
    def hopeless(self) -> VecsyncError | None:
        return None if self.accepted else self.given_up


class Suspects:
    """The refusals of one run of one partition. May be used by several threads at once."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._probing = threading.Lock()
        self._records: defaultdict[Step, _Record] = defaultdict(_Record)
        self._held: list[Refusal] = []
        self._ids: set[str] = set()
        self._good: list[Mapping[str, Any]] | None = None

    def begin(self, step: Step) -> int:
        """Before a write: how many refusals it comes after."""
        with self._lock:
            return self._records[step].refused

    def accepted(self, step: Step, began: int, payload: Mapping[str, Any]) -> None:
        """A write was, that of this payload too."""
        with self._lock:
            record = self._records[step]
            record.accepted, record.proven = True, max(record.proven, began)
            if step is not Step.LEDGER:
                self._good = [payload]

    def missed(self, step: Step, error: Exception) -> None:
        """One more attempt failed, whatever was in it. Of what the store itself says that it is about its content, the
        probes decide: however many are refused so, none is left untried."""
        with self._lock:
            self._records[step].missed += not _is_told(error)

    def stuck(self, step: Step) -> bool:
        """Whether so many attempts failed, and none did not, that looking for a good document costs too much."""
        with self._lock:
            return self._records[step].stuck or self._records[Step.LEDGER].stuck

    def give_up(self, step: Step, error: VecsyncError) -> None:
        """Documents are left, as the step is stuck with this error."""
        with self._lock:
            for record in (self._records[step], self._records[Step.LEDGER]):
                if record.stuck:
                    record.given_up = record.given_up or error

    def given_up(self, step: Step) -> VecsyncError | None:
        """The error with which the step is stuck, and others have been left."""
        with self._lock:
            return self._records[step].hopeless or self._records[Step.LEDGER].hopeless

    def refused(self, step: Step, failure: Failure) -> Refusal:
        """A document was, alone. Raises its error where a probe is refused as well."""
        with self._lock:
            record = self._records[step]
            record.refused += 1
            refusal = Refusal(step, record.refused, failure)
            self._ids.add(failure[0].document.document_id)
            impatient = record.refused - max(record.proven, record.proven_by_nothing) >= record.patience
            record.patience *= 1 + impatient
        if impatient:
            self._probe(refusal)
        return refusal

    def decide(self, refusals: Sequence[Refusal]) -> list[Failure]:
        """At the end of their batch: those that are the documents' own; the others are held. Raises the error of one
        where a probe is refused as well."""
        for refusal in {r.step: r for r in refusals if not self._is_own(r)}.values():
            self._probe(refusal)
        own = [r for r in refusals if self._is_own(r)]
        with self._lock:
            self._held += [r for r in refusals if r not in own]
        return [r.failure for r in own]

    def settle(self) -> tuple[list[Failure], list[Failure], VecsyncError | None]:
        """At the end of the run, of those that were held: the documents' own, the others, and the error of the
        partition where there are others, or documents that were given up."""
        with self._lock:
            held, self._held = self._held, []
            left = [record.hopeless for record in self._records.values() if record.hopeless is not None]
        own = [r.failure for r in held if self._is_own(r)]
        others = [r.failure for r in held if not self._is_own(r)]
        return own, others, next(iter([*(error for _, error in others), *left]), None)

    def _is_own(self, refusal: Refusal) -> bool:
        with self._lock:
            return self._records[refusal.step].is_own(refusal)

    def _probe(self, refusal: Refusal) -> None:
        """Raises the error of the refusal where a write that is known to be good is refused too."""
        step = refusal.step
        if step is Step.LEDGER:
            return  # there is no harmless write to it: another document has to be confirmed
        with self._probing:
            if self._is_own(refusal):
                return  # by what another thread did meanwhile
            began = self.begin(step)
            if self._good is None:
                self._good = known_good(self._target, self._ids)
            good = self._good
            if not good and not refusal.is_told and self._records[step].proven_by_nothing:
                return  # the store takes writes, which says nothing of this one
            payload_only = step is Step.PAYLOAD
            tried = good or [emptied(refusal.failure[0].document.payload)]
            if not any(takes_probe(self._target, one, payload_only=payload_only) for one in tried):
                raise refusal.failure[1]
            with self._lock:
                record = self._records[step]
                record.proven_by_nothing = began
                if good:
                    record.accepted, record.proven = True, max(record.proven, began)


def _is_told(error: Exception) -> bool:
    return isinstance(error, StoreRejected) and error.every_document is False
