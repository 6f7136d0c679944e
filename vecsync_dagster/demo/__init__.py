"""Sample data of an estimating program, its configuration, and searches that show what it is good for."""

from vecsync_dagster.demo.data import CONFIG, DATABASE, SEARCHES, TENANTS, ExampleSearch, write_demo

__all__ = ["CONFIG", "DATABASE", "SEARCHES", "TENANTS", "ExampleSearch", "write_demo"]
