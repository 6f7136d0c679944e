"""The texts of keys, as the documents stage makes them of records."""

from __future__ import annotations

from collections.abc import Sequence

from vecsync_dagster.documents.columns import Cleaner
from vecsync_dagster.sources import Page
from vecsync_dagster_tests.sources.backends import entity_config

__all__ = ["texts_of"]


def texts_of(pages: Sequence[Page], key: list[str]) -> list[str]:
    config = entity_config(id=key)
    cleaner = Cleaner("materials", config)
    found = [text for page in pages for text in cleaner.read(page.records).ids(config.key)]
    return [text for text in found if text is not None]
