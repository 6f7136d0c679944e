-- The ledger has a database of its own beside Dagster's: it is backed up and restored by itself.
CREATE DATABASE vecsync;
