"""Tests of the stores: one contract for all engines, and what is particular to each."""

import pytest

pytest.register_assert_rewrite("vecsync_dagster_tests.stores.store_contract")
