"""vecsync.yaml: typed, frozen models and their loading."""

from vecsync_dagster.config.loading import ENVIRONMENT, find_config, load_config, parse_config, validate_config
from vecsync_dagster.config.models import CollectionConfig, Config, EntityConfig, SyncConfig, Tenancy, resolve

__all__ = [
    "ENVIRONMENT",
    "CollectionConfig",
    "Config",
    "EntityConfig",
    "SyncConfig",
    "Tenancy",
    "find_config",
    "load_config",
    "parse_config",
    "resolve",
    "validate_config",
]
