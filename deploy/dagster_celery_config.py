"""What a Celery worker needs to find its broker: dagster-celery imports this module from PYTHONPATH.

The launcher reads the same two variables in dagster-celery.yaml.
"""

from __future__ import annotations

import os

broker_url = os.environ["CELERY_BROKER_URL"]
result_backend = os.environ["CELERY_RESULT_BACKEND"]
# One run at a time is taken from the queue: a run that waits behind a long one would wait although others are free.
worker_prefetch_multiplier = 1
