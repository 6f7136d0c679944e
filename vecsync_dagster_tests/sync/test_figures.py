"""The figures of a run."""

from __future__ import annotations

from dataclasses import asdict, fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vecsync_dagster.sync.changes import Kind
from vecsync_dagster.sync.figures import Figures
from vecsync_dagster_tests.properties import a_property

COUNTS = {f.name: st.integers(0, 10**6) for f in fields(Figures) if f.name not in {"price_usd", "seconds"}}
FIGURES = st.builds(Figures, **COUNTS, price_usd=st.integers(0, 100).map(float), seconds=st.integers(0, 100).map(float))


def test_every_kind_of_change_is_counted() -> None:
    """There is a figure for every kind of change."""
    assert {kind.value for kind in Kind} <= {f.name for f in fields(Figures)}


@a_property
@given(FIGURES, FIGURES)
def test_adding(one: Figures, other: Figures) -> None:
    """Adding figures adds every one of them and leaves the other ones as they were."""
    before, added = asdict(one), asdict(other)
    one.add(other)
    assert asdict(one) == {name: before[name] + added[name] for name in before}
    assert asdict(other) == added


@a_property
@given(FIGURES)
def test_nothing_happened(figures: Figures) -> None:
    """A run that wrote, tried and kept back nothing shows nothing, however much it read."""
    quiet = Figures(
        fetched=figures.fetched, unchanged=figures.unchanged, invalid=figures.invalid, tokens=figures.tokens
    )
    assert not quiet.touched
    assert quiet.writes == 0
    assert figures.touched or not figures.writes


@pytest.mark.parametrize("name", ["upserted", "payload_only", "removed", "new", "retry", "failed", "removals_blocked"])
def test_something_happened(name: str) -> None:
    """One write, attempt, failure or blocked removal is enough to be shown."""
    assert Figures(**{name: 1}).touched


def test_as_plain_numbers() -> None:
    """All figures and the rate, as JSON takes them; prices without the noise of floats."""
    figures = Figures(fetched=1000, new=3, price_usd=0.1 + 0.2, seconds=8.0)
    numbers = figures.as_dict()
    assert numbers.keys() == {*(f.name for f in fields(Figures)), "records_per_second"}
    assert (numbers["fetched"], numbers["price_usd"], numbers["records_per_second"]) == (1000, 0.3, 125.0)
    assert Figures().as_dict()["records_per_second"] == 0.0


def test_the_work_of_earlier_attempts_counts() -> None:
    """What an earlier attempt did and paid for is added to the last one's; which changes there were is not."""
    last = Figures(fetched=3, changed=1, upserted=1)
    last.add_work(Figures(fetched=3, changed=2, upserted=2, removed=4, repaired=5, tokens=6))
    assert (last.fetched, last.changed) == (3, 1)
    assert (last.upserted, last.removed, last.repaired, last.tokens) == (3, 4, 5, 6)


def test_figures_of_any_version() -> None:
    """What the ledger has of an earlier version has fewer numbers, that of a later one more."""
    figures = Figures(fetched=3, spared=1, seconds=2.0)
    assert Figures.of({**figures.as_dict(), "of a later version": 1}) == figures
    assert Figures.of({"fetched": 3}) == Figures(fetched=3)


@pytest.mark.parametrize("name", ["fetched", "removals_blocked", "removals_waiting", "spared"])
def test_emptied(name: str) -> None:
    """Whatever a read has, or leaves although it did not have it, is still there."""
    assert Figures(removed=5).emptied
    assert not Figures(removed=5, **{name: 1}).emptied
