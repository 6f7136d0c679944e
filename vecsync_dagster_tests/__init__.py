"""Tests: the folders mirror the rooms of `vecsync_dagster`; `servers` are the real things they talk to."""
