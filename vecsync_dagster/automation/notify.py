"""Where sensors tell what somebody should know. What is done with it is decided where definitions are built."""

from __future__ import annotations

import logging
from collections.abc import Callable

from vecsync_dagster.sync.rollcall import TenantsLost

__all__ = ["Notify", "log_only"]

Notify = Callable[[TenantsLost], None]
"""Called in every tick in which it is so: telling people once is the callee's business."""


def log_only(news: TenantsLost) -> None:
    logging.getLogger("vecsync.automation").error("%s", news)
