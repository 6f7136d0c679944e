"""How property tests run: never against the clock, because other tests share the machine."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

__all__ = ["a_property"]

a_property = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
